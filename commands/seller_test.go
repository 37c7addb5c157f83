package commands

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	payTo = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
	usdc  = "0x036CbD53842c5426634e7929541eC2318f3dCF7e" // on Base Sepolia
	payer = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
	// testPrivate is account 0 of the development mnemonic.
	testPrivate = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
)

// seller plays the gate: /free is free, everything else has the price, and the
// answers to payments are scripted.
type seller struct {
	*httptest.Server
	price   x402.Requirement
	answers []http.HandlerFunc

	mu       sync.Mutex
	payments []string
	last     *http.Request
	body     string
}

func newSeller(t *testing.T, answers ...http.HandlerFunc) *seller {
	t.Helper()
	s := &seller{answers: answers, price: requirement()}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func requirement() x402.Requirement {
	return x402.Requirement{
		Scheme: "exact", Network: "eip155:84532", Amount: "10000", Asset: usdc, PayTo: payTo,
		MaxTimeoutSeconds: 300, Extra: []byte(`{"name":"USDC","version":"2"}`),
	}
}

func (s *seller) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.last, s.body = r, string(b)
	paid := r.Header.Get(x402.HeaderPaymentSignature) + r.Header.Get(x402.HeaderXPayment)
	answer := func(w http.ResponseWriter, _ *http.Request) { s.challenge(w, "Payment required") }
	if paid != "" {
		answer = delivers
		if n := len(s.answers); n > 0 {
			answer = s.answers[min(len(s.payments), n-1)]
		}
		s.payments = append(s.payments, paid)
	}
	s.mu.Unlock()
	switch r.URL.Path {
	case "/free":
		_, _ = io.WriteString(w, "free goods")
	case "/missing":
		http.NotFound(w, r)
	case "/own402":
		w.WriteHeader(http.StatusPaymentRequired)
	default:
		answer(w, r)
	}
}

// paid returns the payments that came, as their headers have them.
func (s *seller) paid() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.payments...)
}

// seen returns the last request and its body.
func (s *seller) seen() (*http.Request, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, s.body
}

func (s *seller) challenge(w http.ResponseWriter, code x402.Code) {
	template, err := x402.NewTemplate([]x402.Requirement{s.price}, "One \x1b[31marticle", "", nil)
	if err != nil {
		panic(err)
	}
	w.Header().Set(x402.HeaderPaymentRequired, template.Header("http://a.example/", code))
	w.WriteHeader(http.StatusPaymentRequired)
	_, _ = w.Write(template.AppendBody(nil, "http://a.example/", code))
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

func answers(status int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
	}
}

// truncates sends less than it promised.
func truncates(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set(x402.HeaderPaymentResponse, receipt(true, ""))
	w.Header().Set("Content-Length", "100")
	_, _ = io.WriteString(w, "half of")
}
