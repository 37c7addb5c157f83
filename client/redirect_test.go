package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// TestRedirectedToThePrice: what is paid for is where the redirects have led, and
// if that is another origin, somebody has to agree.
func TestRedirectedToThePrice(t *testing.T) {
	s := newSeller(t)
	from := httptest.NewServer(http.RedirectHandler(s.URL+"/there", http.StatusFound))
	defer from.Close()
	c, _ := newClient(t)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, from.URL, nil)
	result, err := c.Do(req)
	if doubt, ok := errors.AsType[*DoubtError](err); !ok || len(doubt.Offer.Doubts) != 1 || doubt.Offer.Doubts[0].Kind != OtherOrigin || result.Payment != nil {
		t.Fatalf("another origin is paid without a word: %+v, %v", result, err)
	}
	c.Confirm = func(_ context.Context, p *Payment) error {
		if !p.Challenge.Elsewhere() || p.Challenge.Asked.String() != from.URL {
			t.Errorf("%+v", p.Challenge)
		}
		return nil
	}
	result, err = c.Do(req)
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

// TestElsewhere: the same host over https is the seller that was asked; another
// host, port or user of a longer name is not.
func TestElsewhere(t *testing.T) {
	for _, tt := range []struct {
		asked, priced string
		want          bool
	}{
		{"http://a.example/x", "http://a.example/y", false},
		{"https://a.example", "https://A.example:443/", false},
		{"http://a.example", "https://a.example/", false},
		{"https://a.example", "https://www.a.example", true},
		{"https://a.example", "https://a.example:8443", true},
		{"http://a.example", "https://a.example.b.example", true},
		{"https://a.example", "https://a.example@b.example", true},
	} {
		asked, _ := url.Parse(tt.asked)
		priced, _ := url.Parse(tt.priced)
		if got := (&Challenge{Asked: asked, URL: priced}).Elsewhere(); got != tt.want {
			t.Errorf("%s to %s: %v", tt.asked, tt.priced, got)
		}
	}
}

// stranger is another origin, which notes what it is sent.
type stranger struct {
	*httptest.Server
	mu   sync.Mutex
	came []*http.Request
	body string
}

func newStranger(t *testing.T, answer http.HandlerFunc) *stranger {
	t.Helper()
	s := &stranger{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.came, s.body = append(s.came, r), s.body+string(b)
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// private are headers that are meant for one origin, whatever they are called.
var private = []string{"Authorization", "Content-Type", "Cookie", "If-Match", "Private-Token", "Proxy-Authorization", "Referer", "X-Api-Key", "X-Forwarded-For"}

func givePrivate(req *http.Request) {
	req.URL.User = url.UserPassword("user", "hunter2")
	req.Header.Set("Accept", "text/plain")
	for _, name := range private {
		req.Header.Set(name, "secret")
	}
}

// TestNothingLeavesItsOrigin: headers, credentials and bodies stay where they were
// meant for, however the seller redirects, before and after the payment.
func TestNothingLeavesItsOrigin(t *testing.T) {
	for _, when := range []string{"unpaid", "paid"} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			for _, status := range []int{301, 302, 303, 307, 308} {
				t.Run(when+" "+method+" "+http.StatusText(status), func(t *testing.T) {
					other := newStranger(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "other") })
					s := newSeller(t)
					to := strings.Replace(other.URL, "http://", "http://chosen:by-seller@", 1) + "/there"
					away := func(w http.ResponseWriter, _ *http.Request) {
						w.Header().Set(x402.HeaderPaymentResponse, receipt(true, ""))
						w.Header().Set("Location", to)
						w.WriteHeader(status)
					}
					s.answers = []http.HandlerFunc{away}
					if when == "unpaid" {
						s.challenge = func(w http.ResponseWriter) { away(w, nil) }
					}
					var body io.Reader
					if method == http.MethodPost {
						body = strings.NewReader("a secret question")
					}
					req := s.request(t, method, "/", body)
					req.Host = "shop.example"
					givePrivate(req)
					c, _ := newClient(t)
					var told []string
					c.OnRedirect = func(to *url.URL, withheld []string) { told = append(told, to.Host, strings.Join(withheld, " ")) }
					result, err := c.Do(req)
					text(t, result)
					acts := method != http.MethodGet && status >= 307
					if acts {
						if len(other.came) != 0 || when == "unpaid" && !errors.Is(err, errElsewhere) || when == "paid" && (err != nil || !result.Paid() || result.Outcome != Failed) {
							t.Errorf("%d requests, %+v, %v", len(other.came), result, err)
						}
						return
					}
					if err != nil || len(other.came) != 1 || other.body != "" {
						t.Fatalf("%d requests, body %q, %v", len(other.came), other.body, err)
					}
					came := other.came[0]
					for _, name := range append(paymentHeaders, private...) {
						if v, there := came.Header[name]; there {
							t.Errorf("%s: %q", name, v)
						}
					}
					if came.Host != strings.TrimPrefix(other.URL, "http://") || came.Header.Get("Accept") != "text/plain" {
						t.Errorf("host %s, %v", came.Host, came.Header)
					}
					if want := []string{came.Host, strings.Join(private, " ")}; !reflect.DeepEqual(told, want) {
						t.Errorf("told %q, want %q", told, want)
					}
				})
			}
		}
	}
}

// TestWhatLeftDoesNotComeBack: the other origin cannot send what was given for the
// first one back there, to a path of its choice.
func TestWhatLeftDoesNotComeBack(t *testing.T) {
	s := newSeller(t)
	var last http.Header
	first := httptest.NewServer(nil)
	defer first.Close()
	other := newStranger(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, first.URL+"/delete", http.StatusFound)
	})
	first.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if last = r.Header; r.URL.Path == "/" {
			http.Redirect(w, r, other.URL, http.StatusFound)
		}
	})
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, first.URL, nil)
	givePrivate(req)
	c, _ := newClient(t)
	result, err := c.Do(req)
	if text(t, result); err != nil || len(other.came) != 1 {
		t.Fatalf("%+v, %v", result, err)
	}
	for _, name := range private {
		if v, there := last[name]; there {
			t.Errorf("%s: %q", name, v)
		}
	}
	if s.count() != 0 {
		t.Error("paid")
	}
}

// TestStaysAtItsOrigin: within an origin a request keeps what it has, and gets no
// credentials from the seller.
func TestStaysAtItsOrigin(t *testing.T) {
	for _, with := range []string{"", "chosen:by-seller@"} {
		var there *http.Request
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if there = r; r.URL.Path == "/" {
				w.Header().Set("Location", "http://"+with+r.Host+"/there")
				w.WriteHeader(http.StatusTemporaryRedirect)
			}
		}))
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, strings.NewReader("x"))
		req.Header.Set("X-Api-Key", "secret")
		c, _ := newClient(t)
		result, err := c.Do(req)
		text(t, result)
		server.Close()
		if err != nil || there.URL.Path != "/there" || there.ContentLength != 1 || there.Header.Get("X-Api-Key") != "secret" || there.Header.Get("Authorization") != "" {
			t.Errorf("%q: %+v, %v", with, there, err)
		}
	}
}

// TestReceiptStands: where a receipt has sent us, nobody takes it back.
func TestReceiptStands(t *testing.T) {
	other := newStranger(t, refuses(http.StatusPaymentRequired, "settlement_failed", x402.HeaderPaymentResponse, receipt(false, "settlement_failed")))
	s := newSeller(t)
	s.answers = []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(x402.HeaderPaymentResponse, receipt(true, ""))
		http.Redirect(w, r, other.URL, http.StatusFound)
	}}
	c, _ := newClient(t)
	result, err := c.Do(s.get(t, "/"))
	if text(t, result); err != nil || !result.Paid() || result.Outcome != Failed {
		t.Errorf("%+v, %v", result, err)
	}
}

// TestErrorsHideTheUser: a token before the host shows in no error.
func TestErrorsHideTheUser(t *testing.T) {
	s := newSeller(t)
	s.Close()
	req := s.get(t, "/")
	req.URL.User = url.User("sk_live_token")
	c, _ := newClient(t)
	if _, err := c.Do(req); err == nil || strings.Contains(err.Error(), "sk_live") {
		t.Error(err)
	}
	c.RPC = "http://node.example/%zz-key"
	if err := (node{url: c.RPC}).call(t.Context(), nil, "eth_chainId"); err == nil || strings.Contains(err.Error(), "key") {
		t.Error(err)
	}
}
