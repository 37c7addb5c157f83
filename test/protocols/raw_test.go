package protocols

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/test/model"
)

// rawUpstream reads requests byte by byte, as every model upstream would, and
// says which of them serve something that is sold.
type rawUpstream struct {
	address string
	sold    []string // method and path
	hits    atomic.Int64
}

func newRawUpstream(t testing.TB, sold ...string) *rawUpstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &rawUpstream{address: l.Addr().String(), sold: sold}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() }) // Caddy keeps it for later
			go u.serve(conn)
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
	return u
}

func (u *rawUpstream) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		r := model.Request{Header: http.Header{}}
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		// Whatever stands between the method and the version is the target.
		line = strings.TrimSpace(line)
		r.Method, line, _ = strings.Cut(line, " ")
		r.Target = line[:max(0, strings.LastIndexByte(line, ' '))]
		for {
			if line, err = in.ReadString('\n'); err != nil {
				return
			}
			name, value, ok := strings.Cut(strings.TrimSpace(line), ":")
			if !ok {
				break
			}
			r.Header[name] = append(r.Header[name], strings.TrimSpace(value))
		}
		u.hits.Add(1)
		// A front controller is told the client's target by its server.
		if front := r.Header["X-Front"]; len(front) > 0 {
			r.Target = front[0]
		}
		body := ""
		for _, m := range model.Upstreams {
			method, path := m.Serves(r)
			if method == http.MethodHead {
				method = http.MethodGet
			}
			if slices.Contains(u.sold, method+" "+path) || slices.Contains(u.sold, path) {
				body += fmt.Sprintf("%s serves %s %s for %s %s\n", m.Name, method, path, r.Method, r.Target)
			}
		}
		head := r.Method == http.MethodHead
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nX-Sold: %t\r\nContent-Length: %d\r\n\r\n", body != "", len(body))
		if !head {
			_, _ = conn.Write([]byte(body))
		}
	}
}

// rawClient sends request lines as they are, over one connection after another.
type rawClient struct {
	t       testing.TB
	address string
	conn    net.Conn
	in      *bufio.Reader
}

func (c *rawClient) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// send sends the head of a request and returns the answer, with its body read.
func (c *rawClient) send(method, target string, header ...string) gate.Answer {
	c.t.Helper()
	var last error
	for range 2 { // a connection may have been closed meanwhile
		if c.conn == nil {
			conn, err := net.Dial("tcp", c.address)
			if err != nil {
				c.t.Fatal(err)
			}
			c.conn, c.in = conn, bufio.NewReader(conn)
		}
		fmt.Fprintf(c.conn, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, target, gate.Host)
		for i := 0; i < len(header); i += 2 {
			fmt.Fprintf(c.conn, "%s: %s\r\n", header[i], header[i+1])
		}
		fmt.Fprint(c.conn, "\r\n")
		var res *http.Response
		if res, last = http.ReadResponse(c.in, &http.Request{Method: method}); last == nil {
			body := new(strings.Builder)
			_, last = bufio.NewReader(res.Body).WriteTo(body)
			if last == nil {
				if res.Close {
					c.close()
				}
				return gate.Answer{Response: res, Text: body.String()}
			}
		}
		c.close()
	}
	c.t.Fatalf("%s %q: %v", method, target, last)
	return gate.Answer{}
}
