//go:build servers

package servers

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"time"
)

// patience is how long a client waits for the next byte.
const patience = 5 * time.Second

// request is what goes over the wire, in parts that can be left out one by one.
type request struct {
	method, target, version string
	host                    string
	headers                 []string // whole lines
	body                    string
	// odd says that the framing of the body may make the server wait for more.
	odd bool
}

// plain is the request of an honest client.
func plain(g good) request {
	target := g.path
	if g.query != "" {
		target += "?" + g.query
	}
	r := request{method: g.method, target: target, version: "HTTP/1.1", host: "site.test"}
	if g.method == "POST" {
		r.headers = []string{"Content-Length: 0"}
	}
	return r
}

// bytes are the request as it is sent. X-Probe names it to the site.
func (r request) bytes(probe string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s %s\r\nHost: %s\r\nX-Probe: %s\r\n", r.method, r.target, r.version, r.host, probe)
	connection := false
	for _, line := range r.headers {
		fmt.Fprintf(&b, "%s\r\n", line)
		connection = connection || strings.HasPrefix(line, "Connection:")
	}
	if !connection {
		b.WriteString("Connection: close\r\n")
	}
	b.WriteString("\r\n" + r.body)
	return b.Bytes()
}

// wait is how long the answer of a request may keep us waiting.
func (r request) wait() time.Duration {
	if r.odd {
		return patience / 10
	}
	return patience
}

func (r request) String() string {
	return fmt.Sprintf("%q", strings.TrimSuffix(string(r.bytes("1")), "X-Probe: 1\r\n"))
}

// send sends bytes over a connection of their own, and returns all that comes
// back until the other side closes or says nothing more.
func send(address string, request []byte, patience time.Duration) []byte {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil
	}
	_ = conn.(*net.TCPConn).SetLinger(0) // tens of thousands would wait for their end
	defer conn.Close()
	go func() { _, _ = conn.Write(request) }() // the answer may come first
	var answer bytes.Buffer
	part := make([]byte, 8<<10)
	for answer.Len() < 1<<20 {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		n, err := conn.Read(part)
		answer.Write(part[:n])
		if err != nil {
			break
		}
	}
	return answer.Bytes()
}

// head is the part of an answer that a report shows.
func head(answer []byte) string {
	head, _, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
	return string(head)
}
