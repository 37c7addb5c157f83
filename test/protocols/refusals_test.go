package protocols

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// TestRefusalsSurvive: no error route, interceptor or encoder makes anything
// else of a 402, and its challenge arrives whole.
func TestRefusalsSurvive(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{Around: `
		encode zstd gzip
		templates
		header X-Ours yes
		handle_errors {
			respond "sorry" 200
		}
		intercept {
			@any status 2xx 4xx 5xx
			handle_response @any {
				respond "intercepted" 200
			}
		}`})
	for _, protocol := range gate.Protocols {
		for _, accept := range []string{"", "gzip", "zstd"} {
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
				c := w.Gated.Client(t, protocol)
				r := w.Request(method, "/x")
				if accept != "" {
					r.Header.Set("Accept-Encoding", accept)
				}
				junk := r.Clone(r.Context())
				junk.Header.Set("X-PAYMENT", "junk")
				for _, r := range []*http.Request{r, junk} {
					res := c.Send(r)
					if res.StatusCode != http.StatusPaymentRequired || res.Header.Get("X-Ours") != "yes" {
						t.Fatalf("%s %s: %v", protocol, method, res)
					}
					if _, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired)); err != nil {
						t.Errorf("%s %s: %v", protocol, method, err)
					}
					body := io.Reader(strings.NewReader(res.Text))
					if res.Header.Get("Content-Encoding") == "gzip" && method != http.MethodHead {
						var err error
						if body, err = gzip.NewReader(body); err != nil {
							t.Fatal(err)
						}
					}
					text, err := io.ReadAll(body)
					if whole := strings.HasPrefix(string(text), `{"x402Version":1`) && strings.HasSuffix(string(text), "}"); err != nil ||
						method != http.MethodHead && !whole && res.Header.Get("Content-Encoding") != "zstd" || method == http.MethodHead && res.Text != "" {
						t.Errorf("%s %s: %v %v", protocol, method, err, res)
					}
				}
			}
		}
	}
	if w.Upstream.Hits.Load() != 0 {
		t.Errorf("%d hits", w.Upstream.Hits.Load())
	}
}

// TestRefusedGoodsLeaveNothing: when a held answer is not paid for, its status,
// header, length, trailers and coding are gone, in every version of HTTP.
func TestRefusedGoodsLeaveNothing(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{Around: "encode gzip"})
	w.Facilitator.OnSettle(gate.RefusedSettle)
	for name, start := range map[string]http.HandlerFunc{
		"length":  says(200, text(5000), "Content-Length", "5000", "Content-Type", "text/secret"),
		"chunked": func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, text(100_000)) },
		"flushed": func(rw http.ResponseWriter, _ *http.Request) { _ = http.NewResponseController(rw).Flush() },
		"hints": func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(103)
			_, _ = io.WriteString(rw, "secret")
		},
		"cut": func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(rw, "secret")
			_ = http.NewResponseController(rw).Flush()
			panic(http.ErrAbortHandler)
		},
		"redirect": says(302, "", "Location", "https://secret.example/?secret"),
	} {
		w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
			for _, name := range []string{"Set-Cookie", "ETag", "X-Secret", "Link", "Content-Language", "Accept-Ranges"} {
				rw.Header().Set(name, "secret")
			}
			rw.Header().Set("Trailer", "X-Secret-Sum")
			start(rw, r)
			rw.Header().Set("X-Secret-Sum", "secret")
		})
		for _, protocol := range gate.Protocols {
			t.Run(name+" "+protocol, func(t *testing.T) {
				c := w.Gated.Client(t, protocol)
				for _, method := range []string{http.MethodGet, http.MethodHead} {
					r := c.Paying(w.Request(method, "/x", "Accept-Encoding", "gzip"))
					res := c.Send(r)
					if dump := strings.ToLower(fmt.Sprint(res.Header, res.Trailer, res.Text)); res.StatusCode != http.StatusPaymentRequired || strings.Contains(dump, "secret") {
						t.Errorf("%s: %v", method, res)
					}
					if _, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired)); err != nil {
						t.Error(err)
					}
					// The connection is whole: the next answer is an answer.
					if res := c.Send(w.Request(http.MethodGet, "/x")); res.StatusCode != http.StatusPaymentRequired {
						t.Error(res)
					}
				}
			})
		}
	}
}

// counted counts what is read of a body.
type counted struct {
	io.Reader
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// TestBillBeforeUpload: who has not paid is told so before he sends his body.
func TestBillBeforeUpload(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{})
	for _, protocol := range []string{"h1", "h1s"} {
		c := w.Gated.Client(t, protocol)
		var sent atomic.Int64
		upload := func(header ...string) *http.Request {
			sent.Store(0)
			r := w.Request(http.MethodPost, "/x", append(header, "Expect", "100-continue")...)
			r.Body, r.ContentLength = io.NopCloser(counted{&pattern{size: 64 << 20}, &sent}), 64<<20
			return r
		}
		for _, header := range [][]string{nil, {"PAYMENT-SIGNATURE", "junk"}} {
			if res := c.Send(upload(header...)); res.StatusCode != http.StatusPaymentRequired || sent.Load() != 0 {
				t.Errorf("%s: %d bytes sent before %v", protocol, sent.Load(), res)
			}
		}
		w.Facilitator.OnSettle(gate.RefusedSettle)
		if res := c.Send(upload("PAYMENT-SIGNATURE", c.Paying(upload()).Header.Get("PAYMENT-SIGNATURE"))); res.StatusCode != http.StatusPaymentRequired || sent.Load() != 0 {
			t.Errorf("%s, not settled: %d bytes sent before %v", protocol, sent.Load(), res)
		}
		w.Facilitator.OnSettle(nil)
		if w.Upstream.Hits.Load() != 0 {
			t.Fatalf("%d hits", w.Upstream.Hits.Load())
		}
	}
	// Without Expect the answer comes while the body is still being sent, and
	// does not wait for its end.
	c := &rawClient{t: t, address: w.Gated.Plain}
	defer c.close()
	if res := c.send(http.MethodPost, "/x", "Content-Length", "1000000000"); res.StatusCode != http.StatusPaymentRequired || !res.Close {
		t.Errorf("%v, close %t", res, res.Close)
	}
	// Nor for the end of one that nobody knows.
	if res := c.send(http.MethodPost, "/x", "Transfer-Encoding", "chunked"); res.StatusCode != http.StatusPaymentRequired || !res.Close {
		t.Errorf("%v, close %t", res, res.Close)
	}
}

// TestRedirects: whoever is sent to another URL is sent there before he signs,
// and an upstream's redirect away is goods, with a receipt.
func TestRedirects(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price /x* $0.01\nprice POST /first $0.01", Block: `
		@plain protocol http
		redir @plain https://` + gate.Host + `{uri} 308
		{gate}
		reverse_proxy {up}`})
	// The redirect is in front of the gate for every plain request.
	plain := w.Gated.Client(t, "h1").Send(w.Request(http.MethodGet, "/x?y"))
	if plain.StatusCode == http.StatusPaymentRequired && !strings.HasPrefix(mustChallenge(t, plain).Resource.URL, "http://") {
		t.Error(plain)
	}
	c := w.Gated.Client(t, "h2")
	w.Upstream.On(says(302, "", "Location", "https://bucket.example/x?sig=1"))
	for _, r := range []*http.Request{w.Request(http.MethodGet, "/x"), w.Request(http.MethodPost, "/first")} {
		settled := w.Facilitator.Settled.Load()
		res := c.Send(c.Paying(r))
		if res.StatusCode != 302 || res.Header.Get("Location") != "https://bucket.example/x?sig=1" || res.Header.Get(x402.HeaderPaymentResponse) == "" || w.Facilitator.Settled.Load() != settled+1 {
			t.Errorf("%v", res)
		}
	}
	if challenge := mustChallenge(t, c.Send(w.Request(http.MethodGet, "/x?y"))); challenge.Resource.URL != "https://"+gate.Host+"/x?y" {
		t.Errorf("%+v", challenge.Resource)
	}
}

func mustChallenge(t *testing.T, res gate.Answer) x402.Challenge {
	t.Helper()
	c, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired))
	if err != nil {
		t.Fatalf("%v: %v", err, res)
	}
	return c
}
