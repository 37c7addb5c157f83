package protocols

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// cache is a shared cache as RFC 9111 allows it at its greediest: it stores
// whatever nothing forbids it to store, and serves it as long as anything allows.
type cache struct {
	http.RoundTripper
	// targeted obeys headers for shared caches before Cache-Control (RFC 9213), and
	// ignores Vary, as many CDNs do.
	targeted bool

	mu     sync.Mutex
	stored map[string][]entry
}

type entry struct {
	asked http.Header
	res   *http.Response
	body  string
}

var heuristic = []int{200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501}

// stores says whether a shared cache may keep an answer.
func (c *cache) stores(res *http.Response) bool {
	control := res.Header.Values("Cache-Control")
	if c.targeted {
		for _, name := range []string{"Cdn-Cache-Control", "Surrogate-Control", "X-Own-Cache-Control"} {
			if res.Header.Get(name) != "" {
				control = res.Header.Values(name)
			}
		}
		if res.Header.Get("X-Accel-Expires") != "" {
			return true
		}
	}
	explicit := res.Header.Get("Expires") != ""
	for directive := range strings.SplitSeq(strings.ToLower(strings.Join(control, ",")), ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch name {
		case "no-store", "private":
			return false
		case "public", "max-age", "s-maxage":
			explicit = true
		}
	}
	return explicit || slices.Contains(heuristic, res.StatusCode)
}

func (c *cache) RoundTrip(r *http.Request) (*http.Response, error) {
	key := r.Host + r.URL.RequestURI()
	c.mu.Lock()
	for _, e := range c.stored[key] {
		fits := true
		for name := range strings.SplitSeq(strings.Join(e.res.Header["Vary"], ","), ",") {
			name = strings.TrimSpace(name)
			fits = fits && (name == "" || c.targeted || slices.Equal(r.Header.Values(name), e.asked.Values(name)))
		}
		if fits && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			c.mu.Unlock()
			res := *e.res
			res.Header = e.res.Header.Clone()
			res.Header.Set("Age", "1")
			res.Body = io.NopCloser(strings.NewReader(e.body))
			return &res, nil
		}
	}
	c.mu.Unlock()
	asked := r.Header.Clone()
	res, err := c.RoundTripper.RoundTrip(r)
	if err != nil || r.Method != http.MethodGet || !c.stores(res) {
		return res, err
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stored[key] = append(c.stored[key], entry{asked, res, string(body)})
	again := *res
	again.Body = io.NopCloser(strings.NewReader(string(body)))
	return &again, nil
}

// TestSharedCaches: a cache in front of the gate neither hands paid answers out,
// nor keeps a challenge that would close a page to its buyers.
func TestSharedCaches(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price /held* $0.01\nprice /first* $0.01 {\n settle first\n}"})
	for name, header := range map[string][]string{
		"silent":         nil,
		"public":         {"Cache-Control", "public, max-age=3600"},
		"s-maxage":       {"Cache-Control", "s-maxage=3600, proxy-revalidate"},
		"two lines":      {"Cache-Control", "max-age=60", "Cache-Control", "Public"},
		"quoted":         {"Cache-Control", `private="set-cookie, x-own", public, max-age=60`},
		"expires":        {"Expires", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)},
		"CDN":            {"CDN-Cache-Control", "max-age=3600"},
		"another's CDN":  {"X-Own-Cache-Control", "max-age=3600", "Cache-Control", "no-store"},
		"surrogate":      {"Surrogate-Control", "max-age=3600"},
		"nginx":          {"X-Accel-Expires", "3600"},
		"already varies": {"Vary", "Accept", "Cache-Control", "public"},
	} {
		for _, targeted := range []bool{false, true} {
			for _, status := range []int{200, 203, 206, 404, 301, 302} {
				t.Run(fmt.Sprint(name, targeted, status), func(t *testing.T) {
					answers := append([]string{"Location", "https://elsewhere.example/"}, header...)
					w.Upstream.On(says(status, gate.Goods, answers...))
					open := &gate.Client{T: t, Protocol: "h1", RoundTripper: &cache{RoundTripper: w.Open.Transport(t, "h1"), targeted: targeted, stored: map[string][]entry{}}}
					hits := w.Upstream.Hits.Load()
					open.Send(w.Request(http.MethodGet, "/held"))
					open.Send(w.Request(http.MethodGet, "/held"))
					cached := w.Upstream.Hits.Load() == hits+1 // there is something to spoil
					if name == "public" && !cached {
						t.Fatal("the cache stores nothing")
					}
					gated := &gate.Client{T: t, Protocol: "h1", RoundTripper: &cache{RoundTripper: w.Gated.Transport(t, "h1"), targeted: targeted, stored: map[string][]entry{}}}
					for _, path := range []string{"/held", "/first"} {
						r := w.Request(http.MethodGet, path)
						paid := gated.Paying(r) // looks unpaid first, through the cache
						res := gated.Send(paid)
						if res.StatusCode != status || res.Text != gate.Goods {
							t.Fatalf("paid: %v", res)
						}
						if got := res.Header["Cache-Control"]; name == "quoted" && (len(got) != 1 || got[0] != "private, max-age=60") {
							t.Errorf("Cache-Control %q", got)
						}
						for range 2 {
							if res := gated.Send(r); res.StatusCode != http.StatusPaymentRequired || strings.Contains(res.Text, gate.Goods) {
								t.Errorf("unpaid, after somebody paid: %v", res)
							}
						}
						if res := gated.Send(gated.Paying(r)); res.StatusCode != status || res.Header.Get("Age") != "" {
							t.Errorf("the second buyer: %v", res)
						}
					}
				})
			}
		}
	}
}

// TestNothingOfOursIsCached: every answer of the gate's own says no-store, and
// has no validator that could make it another one's.
func TestNothingOfOursIsCached(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{
		Prices: "price GET /paid $0.01\nprice /dear $1\nprice POST /first $0.01\nfree /free\notherwise refuse",
		Around: "header ?Cache-Control public\nheader ETag x\nheader Last-Modified x",
	})
	w.Upstream.On(says(402, "no credits", "Cache-Control", "public", "ETag", `"x"`))
	c := w.Gated.Client(t, "h1")
	w.Facilitator.OnSettle(gate.RefusedSettle)
	pay := func(method, path string) *http.Request { return c.Paying(w.Request(method, path)) }
	for _, tc := range []struct {
		r      *http.Request
		status int
	}{
		{w.Request("GET", "/paid"), 402},
		{w.Request("HEAD", "/paid"), 402},
		{w.Request("GET", "/paid", "Accept", "text/html", "User-Agent", "Mozilla"), 402},
		{w.Request("GET", "/paid", "PAYMENT-SIGNATURE", "junk"), 402},
		{w.Request("GET", "/else"), 403},
		{w.Request("POST", "/paid"), 405},
		{w.Request("GET", "/paid/..%2fdear"), 403},
		{w.Request("GET", "/dear", "Early-Data", "1", "PAYMENT-SIGNATURE", pay("GET", "/dear").Header.Get("PAYMENT-SIGNATURE")), 425},
		{pay("POST", "/first"), 402},
	} {
		res := c.Send(tc.r)
		if res.StatusCode != tc.status || res.Header.Get("Cache-Control") != "no-store" || len(res.Header["Cache-Control"]) != 1 {
			t.Errorf("%s %s: want %d and no-store, got %v", tc.r.Method, tc.r.URL, tc.status, res)
		}
		for _, name := range []string{"ETag", "Last-Modified", "Expires"} {
			if res.Header.Get(name) != "" {
				t.Errorf("%s %s: %s of the page is on the refusal", tc.r.Method, tc.r.URL, name)
			}
		}
	}
	w.Facilitator.OnSettle(nil)
	// The money has moved, and the upstream wants its own.
	res := c.Send(pay("POST", "/first"))
	if res.StatusCode != 502 || res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("ETag") == `"x"` {
		t.Errorf("%v", res)
	}
	if receipt, err := x402.DecodeReceipt(res.Header.Get(x402.HeaderPaymentResponse)); err != nil || !receipt.Success {
		t.Errorf("%v", err)
	}
}
