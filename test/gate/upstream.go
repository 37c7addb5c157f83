package gate

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Upstream is the site behind the gate, in HTTP/1.1 and h2c. It gives its Goods,
// until told otherwise, counts what reaches it, and remembers the last request.
type Upstream struct {
	*httptest.Server
	Hits    atomic.Int64
	handler atomic.Pointer[http.HandlerFunc]
	reads   bool

	mu   sync.Mutex
	last *http.Request
	body string
}

// newUpstream starts one that reads bodies before it answers, or leaves that to
// its handlers.
func newUpstream(t testing.TB, reads bool) *Upstream {
	u := &Upstream{reads: reads}
	u.Server = httptest.NewUnstartedServer(u)
	u.Config.Protocols = new(http.Protocols)
	u.Config.Protocols.SetHTTP1(true)
	u.Config.Protocols.SetUnencryptedHTTP2(true)
	u.Start()
	if reads {
		t.Cleanup(u.Close) // when its handlers have ended
	} else {
		t.Cleanup(func() { _ = u.Config.Close() })
	}
	return u
}

// ServeHTTP implements http.Handler.
func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.Hits.Add(1)
	if !u.reads {
		seen := r.Clone(r.Context())
		u.mu.Lock()
		u.last = seen
		u.mu.Unlock()
	} else if r.Header.Get("Expect") == "" {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		u.mu.Lock()
		u.last, u.body = r, string(body)
		u.mu.Unlock()
	}
	if h := u.handler.Load(); h != nil {
		(*h)(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("X-Upstream", "yes")
	_, _ = io.WriteString(w, Goods)
}

// Address is where it listens, as host:port.
func (u *Upstream) Address() string { return u.Listener.Addr().String() }

// On lets h answer; nil: as at first.
func (u *Upstream) On(h http.HandlerFunc) { put(&u.handler, h) }

// Seen is the last request, and its body.
func (u *Upstream) Seen() (*http.Request, string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.last, u.body
}

// Last is the last request.
func (u *Upstream) Last() *http.Request {
	r, _ := u.Seen()
	return r
}

// Charges makes the upstream charge, and answer.
func (u *Upstream) Charges(overrides ...string) {
	u.On(func(rw http.ResponseWriter, _ *http.Request) {
		for _, o := range overrides {
			rw.Header().Add("Settlement-Overrides", o)
		}
		rw.Header().Set("X-Upstream", "yes")
		_, _ = io.WriteString(rw, Goods)
	})
}

// Slowly answers in many parts, and says what it answers.
func (u *Upstream) Slowly(rw http.ResponseWriter, _ *http.Request) {
	_, body := u.Seen()
	for i := range 20 {
		_, _ = fmt.Fprintf(rw, "done %.20s %d %s\n", body, i, strings.Repeat("x", 3000))
		_ = http.NewResponseController(rw).Flush()
		time.Sleep(5 * time.Millisecond)
	}
}

// BreaksOff answers with a part of what it promises.
func BreaksOff(rw http.ResponseWriter, _ *http.Request) {
	rw.Header().Set("Content-Length", "1000")
	_, _ = io.WriteString(rw, "part")
	_ = http.NewResponseController(rw).Flush()
	panic(http.ErrAbortHandler)
}

// Serve answers at an address, as a server that has come back does.
func Serve(t testing.TB, address string, h http.Handler) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
}

// inProcess is a handler in the same process, which can do what reverse_proxy
// never does.
type inProcess struct{}

func (inProcess) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.in_process", New: func() caddy.Module { return new(inProcess) }}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (inProcess) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	return (*inProcessHandler.Load())(w, r)
}

var inProcessHandler atomic.Pointer[caddyhttp.HandlerFunc]

// OnInProcess lets h answer where a Caddyfile says in_process.
func OnInProcess(h caddyhttp.HandlerFunc) { inProcessHandler.Store(&h) }
