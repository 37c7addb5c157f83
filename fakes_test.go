package paywall_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-paywall/caddy-paywall"
)

// fakeFacilitator says yes to everything, until told otherwise. It remembers
// the nonces that it settled, as a chain would.
type fakeFacilitator struct {
	*httptest.Server
	supported, verified, settled atomic.Int64
	kinds                        atomic.Value // string
	verify, settle               atomic.Pointer[http.HandlerFunc]
	all                          atomic.Pointer[http.HandlerFunc] // answers instead, and nothing is counted

	mu     sync.Mutex
	bodies [][]byte
	moved  map[string]string // nonce to transaction
}

func newFakeFacilitator(t testing.TB) *fakeFacilitator {
	f := &fakeFacilitator{moved: map[string]string{}}
	f.kinds.Store(`{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:84532"}],"extensions":[],"signers":{}}`)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /supported", func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(f.kinds.Load().(string)))
		f.supported.Add(1)
	})
	mux.HandleFunc("POST /verify", func(w http.ResponseWriter, r *http.Request) {
		f.verified.Add(1)
		f.keep(r)
		if h := f.verify.Load(); h != nil {
			(*h)(w, r)
			return
		}
		w.Write([]byte(`{"isValid":true}`))
	})
	mux.HandleFunc("POST /settle", func(w http.ResponseWriter, r *http.Request) {
		f.settled.Add(1)
		body := f.keep(r)
		if h := f.settle.Load(); h != nil {
			(*h)(w, r)
			return
		}
		f.move(w, body)
	})
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := f.all.Load(); h != nil {
			(*h)(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

// keep reads what it was asked and remembers it.
func (f *fakeFacilitator) keep(r *http.Request) []byte {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	f.mu.Lock()
	f.bodies = append(f.bodies, body)
	f.mu.Unlock()
	return body
}

// move settles: once per nonce, the same transaction ever after.
func (f *fakeFacilitator) move(w http.ResponseWriter, body []byte) {
	var request struct {
		PaymentPayload struct {
			Payload struct {
				Authorization struct{ From, Nonce string }
			}
		}
		PaymentRequirements struct{ Network string }
	}
	_ = json.Unmarshal(body, &request)
	a := request.PaymentPayload.Payload.Authorization
	f.mu.Lock()
	tx, ok := f.moved[a.Nonce]
	if !ok {
		var hash [32]byte
		_, _ = rand.Read(hash[:])
		tx = "0x" + hex.EncodeToString(hash[:])
		f.moved[a.Nonce] = tx
	}
	f.mu.Unlock()
	_ = json.NewEncoder(w).Encode(map[string]any{
		"success": true, "transaction": tx, "network": request.PaymentRequirements.Network, "payer": a.From,
	})
}

// transfers is how often money has moved.
func (f *fakeFacilitator) transfers() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.moved)
}

// asked is what it was asked, the bodies of /verify and /settle.
func (f *fakeFacilitator) asked() [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.bodies)
}

// moves records a transfer that a test's own answer stands for.
func (f *fakeFacilitator) moves(nonce, transaction string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moved[nonce] = transaction
}

// onVerify lets h answer /verify; nil: as at first.
func (f *fakeFacilitator) onVerify(h http.HandlerFunc) { put(&f.verify, h) }

// onSettle lets h answer /settle; nil: as at first.
func (f *fakeFacilitator) onSettle(h http.HandlerFunc) { put(&f.settle, h) }

// onAll lets h answer everything, and nothing is counted; nil: as at first.
func (f *fakeFacilitator) onAll(h http.HandlerFunc) { put(&f.all, h) }

// put stores a handler, or that there is none.
func put(at *atomic.Pointer[http.HandlerFunc], h http.HandlerFunc) {
	if h == nil {
		at.Store(nil)
		return
	}
	at.Store(&h)
}

// says answers with a status and a body.
func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// fakeUpstream is the site behind the gate.
type fakeUpstream struct {
	*httptest.Server
	hits    atomic.Int64
	handler atomic.Pointer[http.HandlerFunc]

	mu   sync.Mutex
	last *http.Request
	body string
}

func newFakeUpstream(t testing.TB) *fakeUpstream {
	u := &fakeUpstream{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.hits.Add(1)
		if r.Header.Get("Expect") == "" {
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
		_, _ = w.Write([]byte(sample))
	}))
	t.Cleanup(u.Close)
	return u
}

// on lets h answer; nil: as at first.
func (u *fakeUpstream) on(h http.HandlerFunc) { put(&u.handler, h) }

// seen is the last request, and its body.
func (u *fakeUpstream) seen() (*http.Request, string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.last, u.body
}
