package gate

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// Dial opens a connection to the gate.
func (w *World) Dial() (conn net.Conn, host string) {
	w.T.Helper()
	host = strings.TrimPrefix(w.URL, "http://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn, host
}

// Begins sends a request over a connection of its own.
func (w *World) Begins(method, path, payment, body string, header ...string) (conn net.Conn, host string) {
	conn, host = w.Dial()
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nPAYMENT-SIGNATURE: %s\r\nContent-Length: %d\r\n", method, path, host, payment, len(body))
	for i := 0; i < len(header); i += 2 {
		fmt.Fprintf(conn, "%s: %s\r\n", header[i], header[i+1])
	}
	fmt.Fprintf(conn, "\r\n%s", body)
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	return conn, host
}

// Leaves sends a request, waits for the beginning of its answer, and hangs up.
func (w *World) Leaves(method, path, payment, body string, header ...string) {
	w.T.Helper()
	conn, _ := w.Begins(method, path, payment, body, header...)
	if _, err := conn.Read(make([]byte, 300)); err != nil {
		w.T.Error("no answer began:", err)
	}
	conn.Close()
}

// H2C is a client of HTTP/2 without TLS.
func (w *World) H2C() *http.Client {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &p, DisableCompression: true}
	w.T.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// WithH2C makes Caddy speak HTTP/2 without TLS too.
func WithH2C(caddyfile string) string {
	return strings.Replace(caddyfile, "auto_https off", "auto_https off\nservers {\nprotocols h1 h2c\n}", 1)
}

// BehindProxy makes Caddy believe this machine what it says of the client's address.
func BehindProxy(caddyfile string) string {
	return strings.Replace(caddyfile, "admin off", "admin off\nservers {\n trusted_proxies static 127.0.0.0/8\n}", 1)
}
