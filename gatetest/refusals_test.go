package gatetest

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// TestRefusalsSurvive: no error route, interceptor or encoder makes anything
// else of a 402, and its challenge arrives whole.
func TestRefusalsSurvive(t *testing.T) {
	w := newWorld(t, config{around: `
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
	for _, protocol := range protocols {
		for _, accept := range []string{"", "gzip", "zstd"} {
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
				c := w.gate.client(t, protocol)
				r := w.request(method, "/x")
				if accept != "" {
					r.Header.Set("Accept-Encoding", accept)
				}
				junk := r.Clone(r.Context())
				junk.Header.Set("X-PAYMENT", "junk")
				for _, r := range []*http.Request{r, junk} {
					res := c.send(r)
					if res.StatusCode != http.StatusPaymentRequired || res.Header.Get("X-Ours") != "yes" {
						t.Fatalf("%s %s: %v", protocol, method, res)
					}
					if _, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired)); err != nil {
						t.Errorf("%s %s: %v", protocol, method, err)
					}
					body := io.Reader(strings.NewReader(res.body))
					if res.Header.Get("Content-Encoding") == "gzip" && method != http.MethodHead {
						var err error
						if body, err = gzip.NewReader(body); err != nil {
							t.Fatal(err)
						}
					}
					text, err := io.ReadAll(body)
					if whole := strings.HasPrefix(string(text), `{"x402Version":1`) && strings.HasSuffix(string(text), "}"); err != nil ||
						method != http.MethodHead && !whole && res.Header.Get("Content-Encoding") != "zstd" || method == http.MethodHead && res.body != "" {
						t.Errorf("%s %s: %v %v", protocol, method, err, res)
					}
				}
			}
		}
	}
	if w.up.hits.Load() != 0 {
		t.Errorf("%d hits", w.up.hits.Load())
	}
}

// TestRefusedGoodsLeaveNothing: when a held answer is not paid for, its status,
// header, length, trailers and coding are gone, in every version of HTTP.
func TestRefusedGoodsLeaveNothing(t *testing.T) {
	w := newWorld(t, config{around: "encode gzip"})
	w.fac.refuse.Store(true)
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
		w.up.on(func(rw http.ResponseWriter, r *http.Request) {
			for _, name := range []string{"Set-Cookie", "ETag", "X-Secret", "Link", "Content-Language", "Accept-Ranges"} {
				rw.Header().Set(name, "secret")
			}
			rw.Header().Set("Trailer", "X-Secret-Sum")
			start(rw, r)
			rw.Header().Set("X-Secret-Sum", "secret")
		})
		for _, protocol := range protocols {
			t.Run(name+" "+protocol, func(t *testing.T) {
				c := w.gate.client(t, protocol)
				for _, method := range []string{http.MethodGet, http.MethodHead} {
					r := c.paying(w.request(method, "/x", "Accept-Encoding", "gzip"))
					res := c.send(r)
					if dump := strings.ToLower(fmt.Sprint(res.Header, res.Trailer, res.body)); res.StatusCode != http.StatusPaymentRequired || strings.Contains(dump, "secret") {
						t.Errorf("%s: %v", method, res)
					}
					if _, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired)); err != nil {
						t.Error(err)
					}
					// The connection is whole: the next answer is an answer.
					if res := c.send(w.request(http.MethodGet, "/x")); res.StatusCode != http.StatusPaymentRequired {
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
	w := newWorld(t, config{})
	for _, protocol := range []string{"h1", "h1s"} {
		c := w.gate.client(t, protocol)
		var sent atomic.Int64
		upload := func(header ...string) *http.Request {
			sent.Store(0)
			r := w.request(http.MethodPost, "/x", append(header, "Expect", "100-continue")...)
			r.Body, r.ContentLength = io.NopCloser(counted{&pattern{size: 64 << 20}, &sent}), 64<<20
			return r
		}
		for _, header := range [][]string{nil, {"PAYMENT-SIGNATURE", "junk"}} {
			if res := c.send(upload(header...)); res.StatusCode != http.StatusPaymentRequired || sent.Load() != 0 {
				t.Errorf("%s: %d bytes sent before %v", protocol, sent.Load(), res)
			}
		}
		w.fac.refuse.Store(true)
		if res := c.send(upload("PAYMENT-SIGNATURE", c.paying(upload()).Header.Get("PAYMENT-SIGNATURE"))); res.StatusCode != http.StatusPaymentRequired || sent.Load() != 0 {
			t.Errorf("%s, not settled: %d bytes sent before %v", protocol, sent.Load(), res)
		}
		w.fac.refuse.Store(false)
		if w.up.hits.Load() != 0 {
			t.Fatalf("%d hits", w.up.hits.Load())
		}
	}
	// Without Expect the answer comes while the body is still being sent, and
	// does not wait for its end.
	c := &rawClient{t: t, address: w.gate.plain}
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
	w := newWorld(t, config{prices: "price /x* $0.01\nprice POST /first $0.01", block: `
		@plain protocol http
		redir @plain https://` + host + `{uri} 308
		{gate}
		reverse_proxy {up}`})
	// The redirect is in front of the gate for every plain request.
	plain := w.gate.client(t, "h1").send(w.request(http.MethodGet, "/x?y"))
	if plain.StatusCode == http.StatusPaymentRequired && !strings.HasPrefix(mustChallenge(t, plain).Resource.URL, "http://") {
		t.Error(plain)
	}
	c := w.gate.client(t, "h2")
	w.up.on(says(302, "", "Location", "https://bucket.example/x?sig=1"))
	for _, r := range []*http.Request{w.request(http.MethodGet, "/x"), w.request(http.MethodPost, "/first")} {
		settled := w.fac.settled.Load()
		res := c.send(c.paying(r))
		if res.StatusCode != 302 || res.Header.Get("Location") != "https://bucket.example/x?sig=1" || res.Header.Get(x402.HeaderPaymentResponse) == "" || w.fac.settled.Load() != settled+1 {
			t.Errorf("%v", res)
		}
	}
	if challenge := mustChallenge(t, c.send(w.request(http.MethodGet, "/x?y"))); challenge.Resource.URL != "https://"+host+"/x?y" {
		t.Errorf("%+v", challenge.Resource)
	}
}

func mustChallenge(t *testing.T, res answer) x402.Challenge {
	t.Helper()
	c, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired))
	if err != nil {
		t.Fatalf("%v: %v", err, res)
	}
	return c
}
