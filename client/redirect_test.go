package client

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// TestRedirectedToThePrice: what is paid for is where the redirects have led.
func TestRedirectedToThePrice(t *testing.T) {
	s := newSeller(t)
	from := httptest.NewServer(http.RedirectHandler(s.URL+"/there", http.StatusFound))
	defer from.Close()
	c, _ := newClient(t)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, from.URL, nil)
	result, err := c.Do(req)
	if text(t, result); err != nil || result.Outcome != Delivered {
		t.Fatalf("%+v, %v", result, err)
	}
	if sent := s.paid(); len(sent) != 1 || sent[0].path != "/there" || result.Challenge.URL.Path != "/there" {
		t.Errorf("%+v", sent)
	}
}

// TestDowngrade: no redirect leads from https to http, paid or not.
func TestDowngrade(t *testing.T) {
	plain := newSeller(t)
	for _, when := range []string{"unpaid", "paid", "paid, with receipt"} {
		t.Run(when, func(t *testing.T) {
			s := startSeller(httptest.NewTLSServer)
			defer s.Close()
			away := func(w http.ResponseWriter, r *http.Request) {
				if when == "paid, with receipt" {
					w.Header().Set(x402.HeaderPaymentResponse, receipt(true, ""))
				}
				http.Redirect(w, r, plain.URL, http.StatusFound)
			}
			s.answers = []http.HandlerFunc{away}
			if when == "unpaid" {
				s.challenge = func(w http.ResponseWriter) {
					w.Header().Set("Location", plain.URL)
					w.WriteHeader(http.StatusFound)
				}
			}
			c, _ := newClient(t)
			c.Transport = s.Client().Transport
			result, err := c.Do(s.get(t, "/"))
			switch {
			case when == "unpaid" && !errors.Is(err, errDowngrade):
				t.Error(err)
			case when != "unpaid" && (err != nil || result.Outcome != Failed || result.Paid() != (when != "paid")):
				t.Errorf("%+v, %v", result, err)
			}
			text(t, result)
			if plain.count() != 0 {
				t.Errorf("%d requests over http", plain.count())
			}
		})
	}
}

// TestPaidRedirects: a payment stays at the origin that asked for it.
func TestPaidRedirects(t *testing.T) {
	const elsewhere, here = true, false
	tests := map[string]struct {
		away    bool
		receipt bool
		status  int
		outcome Outcome
		body    string
		sent    int // payments that reached the origin
	}{
		"same origin":                 {here, false, 307, Delivered, "the goods", 2},
		"same origin, with receipt":   {here, true, 302, Failed, "", 1}, // there is another price
		"other host, without receipt": {elsewhere, false, 302, Failed, "", 1},
		"other host, with receipt":    {elsewhere, true, 302, Delivered, "signed download", 1},
		"other host, 307":             {elsewhere, true, 307, Delivered, "signed download", 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var leaked atomic.Int32
			other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for _, name := range paymentHeaders {
					leaked.Add(int32(len(r.Header.Values(name))))
				}
				if r.URL.Path == "/" { // one more hop: the header must not come back
					http.Redirect(w, r, "/file", http.StatusFound)
					return
				}
				_, _ = io.WriteString(w, "signed download")
			}))
			defer other.Close()
			s := newSeller(t)
			s.answers = []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
				if tt.receipt {
					w.Header().Set(x402.HeaderPaymentResponse, receipt(true, ""))
				}
				to := "/next"
				if tt.away {
					to = other.URL
				}
				w.Header().Set("Location", to)
				w.WriteHeader(tt.status)
			}, delivers}
			c, _ := newClient(t)
			result, err := c.Do(s.get(t, "/"))
			if err != nil {
				t.Fatal(err)
			}
			body := text(t, result)
			if result.Outcome != tt.outcome || tt.body != "" && body != tt.body {
				t.Errorf("%s: %q", result.Outcome, body)
			}
			if tt.receipt && !result.Paid() {
				t.Error("the receipt is lost")
			}
			if sent := s.paid(); len(sent) != tt.sent || leaked.Load() != 0 {
				t.Errorf("sent %+v, leaked %d", sent, leaked.Load())
			}
		})
	}
}

func TestRedirectLoop(t *testing.T) {
	var hits atomic.Int32
	loop := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		http.Redirect(w, r, "/", http.StatusFound)
	}))
	defer loop.Close()
	c, _ := newClient(t)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, loop.URL, nil)
	if _, err := c.Do(req); !errors.Is(err, errTooManyRedirects) || hits.Load() != maxRedirects {
		t.Errorf("%v after %d", err, hits.Load())
	}
}

// TestRedirectedIntoNothing: who answers a payment with a redirect has seen it,
// also where the redirect leads nowhere.
func TestRedirectedIntoNothing(t *testing.T) {
	s := newSeller(t)
	s.answers = []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/there", http.StatusTemporaryRedirect)
	}}
	c, _ := newClient(t)
	c.Wait = -1
	c.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/there" {
			return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
		}
		return http.DefaultTransport.RoundTrip(r)
	})
	result, err := c.Do(s.get(t, "/"))
	if err == nil || result.Outcome != Pending || result.Payment == nil {
		t.Errorf("%+v, %v", result, err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
