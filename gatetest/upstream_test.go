package gatetest

import (
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// upstream is the site behind Caddy, in HTTP/1.1 and h2c. It counts what
// reaches it and remembers the last request.
type upstream struct {
	address string
	hits    atomic.Int64
	handler atomic.Pointer[http.HandlerFunc]

	mu   sync.Mutex
	last *http.Request
}

const goods = "the goods\n"

func newUpstream(t testing.TB) *upstream {
	t.Helper()
	u := new(upstream)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.address = l.Addr().String()
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: u, Protocols: &protocols, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return u
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.hits.Add(1)
	seen := r.Clone(r.Context())
	u.mu.Lock()
	u.last = seen
	u.mu.Unlock()
	if h := u.handler.Load(); h != nil {
		(*h)(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, goods)
}

func (u *upstream) on(h http.HandlerFunc) { u.handler.Store(&h) }

// seen is the last request, without its body.
func (u *upstream) seen() *http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.last
}
