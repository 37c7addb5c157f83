package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	payTo = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
	usdc  = "0x036CbD53842c5426634e7929541eC2318f3dCF7e" // on Base Sepolia
	payer = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
	// testPrivate is account 0 of the development mnemonic.
	testPrivate = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
)

func testKey(t *testing.T) *Key {
	t.Helper()
	k, err := ParseKey(testPrivate)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sentPayment is a payment as it reached the seller.
type sentPayment struct{ header, value, path, body string }

// seller plays the gate: it challenges what comes without payment, and answers
// payments by script.
type seller struct {
	*httptest.Server
	// challenge answers what has not paid; answers what has, one function after
	// the other, and the last one for good.
	challenge func(http.ResponseWriter)
	answers   []http.HandlerFunc

	mu       sync.Mutex
	payments []sentPayment
	requests int
}

func newSeller(t *testing.T) *seller {
	t.Helper()
	s := startSeller(httptest.NewServer)
	t.Cleanup(s.Close)
	return s
}

func startSeller(start func(http.Handler) *httptest.Server) *seller {
	s := &seller{}
	s.challenge = s.offer(requirement())
	s.answers = []http.HandlerFunc{delivers}
	s.Server = start(http.HandlerFunc(s.serve))
	return s
}

func (s *seller) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.requests++
	var answer http.HandlerFunc
	for _, name := range paymentHeaders {
		if v := r.Header.Get(name); v != "" {
			answer = s.answers[min(len(s.payments), len(s.answers)-1)]
			s.payments = append(s.payments, sentPayment{name, v, r.URL.Path, string(body)})
		}
	}
	s.mu.Unlock()
	if answer == nil {
		s.challenge(w)
		return
	}
	answer(w, r)
}

func (s *seller) paid() []sentPayment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]sentPayment(nil), s.payments...)
}

func (s *seller) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

func (s *seller) get(t *testing.T, path string) *http.Request {
	t.Helper()
	return s.request(t, http.MethodGet, path, nil)
}

func (s *seller) request(t *testing.T, method, path string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// offer is a challenge of version 2.
func (s *seller) offer(accepts ...x402.Requirement) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { challengeWith(w, x402.CodePaymentRequired, accepts...) }
}

func challengeWith(w http.ResponseWriter, code x402.Code, accepts ...x402.Requirement) {
	template, err := x402.NewTemplate(accepts, "One article", "text/html", nil)
	if err != nil {
		panic(err)
	}
	w.Header().Set(x402.HeaderPaymentRequired, template.Header("http://seller.example/", code))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusPaymentRequired)
	_, _ = w.Write(template.AppendBody(nil, "http://seller.example/", code))
}

// requirement is $0.01 in test money.
func requirement() x402.Requirement {
	return x402.Requirement{
		Scheme: "exact", Network: "eip155:84532", Amount: "10000", Asset: usdc, PayTo: payTo,
		MaxTimeoutSeconds: 300, Extra: []byte(`{"name":"USDC","version":"2"}`),
	}
}

func receipt(success bool, reason string) string {
	r := x402.Receipt{Success: success, Network: "eip155:84532", Payer: payer, ErrorReason: reason}
	if success {
		r.Transaction = "0x" + strings.Repeat("ab", 32)
	}
	return r.Encode()
}

func delivers(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set(x402.HeaderPaymentResponse, receipt(true, ""))
	_, _ = io.WriteString(w, "the goods")
}

// refuses answers as the gate does: a status and a code.
func refuses(status int, code x402.Code, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		if status == http.StatusPaymentRequired {
			challengeWith(w, code, requirement())
			return
		}
		body, _ := json.Marshal(map[string]string{"error": string(code)})
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}
}

// breaks drops the connection instead of answering.
func breaks(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }

// clock is a clock that only pauses move.
type clock struct {
	mu     sync.Mutex
	now    time.Time
	pauses []time.Duration
}

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pause(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.pauses = append(c.pauses, d)
	return ctx.Err()
}

// newClient is a client with a key, ten cents to spend and a clock of its own.
func newClient(t *testing.T) (*Client, *clock) {
	t.Helper()
	k := &clock{now: time.Unix(1767225600, 0)}
	return &Client{Key: testKey(t), Limits: limits(t, "0.10"), Now: k.time, pause: k.pause}, k
}

func limits(t *testing.T, texts ...string) []Limit {
	t.Helper()
	var all []Limit
	for _, s := range texts {
		l, err := ParseLimit(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

func text(t *testing.T, r *Result) string {
	t.Helper()
	if r == nil || r.Response == nil {
		return ""
	}
	defer r.Response.Body.Close()
	b, err := io.ReadAll(r.Response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
