package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/model"
)

// event is the first event of a stream.
const event = "data: first\n\n"

// upstream is the site behind the sellers. It reads requests byte by byte, as
// the model upstreams would, and has an answer to all of them.
type upstream struct {
	net.Listener
	mu sync.Mutex
	// starts is how often a path was asked for, with a method that is not
	// OPTIONS.
	starts map[string]int
	// broken are paths that answer 500.
	broken map[string]bool
	// seen is told when the payer has the first event of a stream, and early is
	// whether that was before the stream ended.
	seen  chan struct{}
	early bool
}

// models are the upstreams that spellings are tried on.
var models = func() (some []*model.Upstream) {
	for _, m := range model.Upstreams {
		switch m.Name {
		case "plain", "normalises after decoding", "decodes twice", "ignores case", "strips parameters":
			some = append(some, m)
		}
	}
	return some
}()

func startUpstream() (*upstream, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u := &upstream{Listener: l, starts: map[string]int{}, broken: map[string]bool{}, seen: make(chan struct{})}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go u.serve(conn)
		}
	}()
	return u, nil
}

func (u *upstream) port() string {
	_, port, _ := net.SplitHostPort(u.Addr().String())
	return port
}

func (u *upstream) started(path string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.starts[path]
}

func (u *upstream) breaks(path string, broken bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.broken[path] = broken
}

func (u *upstream) inTime() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.early
}

// serve answers one request, which has no body.
func (u *upstream) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	if err != nil {
		return
	}
	// Whatever stands between the method and the version is the target.
	r := model.Request{Header: http.Header{}}
	r.Method, line, _ = strings.Cut(strings.TrimSpace(line), " ")
	r.Target = line[:max(0, strings.LastIndexByte(line, ' '))]
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		if strings.TrimSpace(line) == "" {
			break
		}
	}
	if r.Method == http.MethodOptions {
		_, _ = fmt.Fprint(conn, "HTTP/1.1 204 No Content\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Headers: *\r\nConnection: close\r\n\r\n")
		return
	}
	u.mu.Lock()
	u.starts[r.Target]++
	broken := u.broken[r.Target]
	u.mu.Unlock()
	status, header, body := "200 OK", "", "goods"
	switch {
	case broken:
		status, body = "500 Internal Server Error", "broken"
	case strings.HasSuffix(r.Target, "/stream"):
		u.stream(conn)
		return
	default:
		var serve []string
		for _, m := range models {
			if _, path := m.Serves(r); path == report || path == prefixed {
				serve = append(serve, m.Name)
			}
		}
		header = "X-Serve: " + strings.Join(serve, ",") + "\r\n"
	}
	if r.Method == http.MethodHead {
		body = ""
	}
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 %s\r\n%sContent-Length: 5\r\nAccess-Control-Allow-Origin: *\r\nConnection: close\r\n\r\n%.5s", status, header, body)
}

// stream sends an event, and ends when the payer has it or after some seconds.
func (u *upstream) stream(conn net.Conn) {
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n%x\r\n%s\r\n", len(event), event)
	select {
	case <-u.seen:
		u.mu.Lock()
		u.early = true
		u.mu.Unlock()
	case <-time.After(8 * time.Second):
	}
	const last = "data: last\n\n"
	_, _ = fmt.Fprintf(conn, "%x\r\n%s\r\n0\r\n\r\n", len(last), last)
}
