package protocols

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// TestOddTargetsAreRefused: net/http takes `x:http://a/paid` for a URL without a
// path, and Caddy sends `http://a/paid` on, which every upstream reads as /paid.
func TestOddTargetsAreRefused(t *testing.T) {
	raw := newRawUpstream(t, sold...)
	w := gate.NewTwins(t, gate.TwinsConfig{Prices: soldLines, Block: strings.ReplaceAll(`
		handle_path /shop/* {
			{gate}
			reverse_proxy {raw}
		}
		handle {
			rewrite /old /new
			{gate}
			reverse_proxy {raw}
		}`, "{raw}", raw.address)})
	gated, open := sender(t, w.Gated, "h1"), sender(t, w.Open, "h1")
	for _, target := range []string{
		"x:http://" + gate.Host + "/paid", "http:http://a/paid", "x:y:http://a/paid", "x:HTTP://a/paid?/free", "x:paid", "x:%2fpaid", "a:b%3a//c/paid", "urn:paid",
	} {
		if res := open(http.MethodGet, target); res.StatusCode != http.StatusOK {
			t.Errorf("%q without the gate: %v", target, res)
		}
		hits := raw.hits.Load()
		res := gated(http.MethodGet, target)
		if res.StatusCode != http.StatusBadRequest || !strings.Contains(res.Text, string(x402.CodeAmbiguousPath)) || raw.hits.Load() != hits {
			t.Errorf("%q: %v, %d hits", target, res, raw.hits.Load()-hits)
		}
	}
}

// TestOtherRequestsAreBounded: each further path and method that a request names
// is looked up in every reading. Too many are refused, instead of looked up for
// seconds.
func TestOtherRequestsAreBounded(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price GET /paid $0.01"})
	c := w.Gated.Client(t, "h1")
	odd := "/q%2f%2f%2fa;b/..//c%5c;d"
	many := func(name, value string, n int) (header []string) {
		for i := range n {
			header = append(header, name, strings.ReplaceAll(value, "N", strconv.Itoa(i)))
		}
		return header
	}
	for name, tc := range map[string]struct {
		uri    string
		header []string
		status int
	}{
		"methods of the query":        {"/free?_method=" + strings.Repeat("A,B,C,D,E,F,G,H,I,J,K,L,M,N,O,P,Q,", 200), nil, 400},
		"methods of a header":         {"/free", []string{"X-HTTP-Method-Override", strings.Repeat("A,B,C,D,E,F,G,H,I,J,K,L,M,N,O,P,Q,", 200)}, 400},
		"methods in many":             {"/free" + "?" + strings.Repeat("_method=A&_method=B&_method=C&", 100), many("X-HTTP-Method", "MN", 50), 400},
		"paths":                       {"/free", many("X-Original-URL", odd+"N", 50), 400},
		"the same method, many times": {"/free?_method=" + strings.Repeat("PUT,put,", 100), nil, 200},
		"the same path, many times":   {"/free", append(many("X-Original-URL", "/a", 50), many("X-Rewrite-URL", "/b", 50)...), 200},
		"as many as an upstream reads": {"/free?_method=PUT", []string{
			"X-HTTP-Method-Override", "PATCH", "X-HTTP-Method", "DELETE", "X-Method-Override", "POST",
			"X-Original-URL", "/a", "X-Rewrite-URL", "/b", "X-Original-URI", "/c", "X-Forwarded-URI", "/d",
		}, 200},
	} {
		if res := c.Send(w.Request(http.MethodGet, tc.uri, tc.header...)); res.StatusCode != tc.status {
			t.Errorf("%s: want %d, got %v", name, tc.status, res)
		}
	}
}
