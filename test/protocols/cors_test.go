package protocols

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// list are the members of a comma-separated header, in lower case and sorted.
func list(header http.Header, name string) []string {
	var members []string
	for member := range strings.SplitSeq(strings.Join(header[name], ","), ",") {
		if member = strings.ToLower(strings.TrimSpace(member)); member != "" {
			members = append(members, member)
		}
	}
	slices.Sort(members)
	return members
}

// TestCORS: browsers of other origins may read challenge and receipt and send a
// payment, whoever speaks of CORS: nobody, the upstream, or Caddy. Nothing is
// said twice, which browsers refuse.
func TestCORS(t *testing.T) {
	const origin = "https://app.example"
	// What the official clients send with a payment (their fetch, preflighted).
	asks := []string{"access-control-expose-headers", "content-type", "payment-signature", "x-own"}
	says := map[string]struct {
		upstream, around string // ACAO
		want             string
		asked            bool // by a preflight
	}{
		"nobody":              {"", "", "*", false},
		"nobody, asked":       {"", "", "*", true},
		"upstream, all":       {"*", "", "*", false},
		"upstream, all asked": {"*", "", "*", true},
		"upstream, one":       {origin, "", origin, false},
		"upstream, one asked": {origin, "", origin, true},
		"Caddy":               {"", "header Access-Control-Allow-Origin " + origin + "\nheader Access-Control-Allow-Credentials true", origin, false},
		"Caddy, asked":        {"", "header Access-Control-Allow-Origin " + origin + "\nheader Access-Control-Allow-Credentials true", origin, true},
		"Caddy, deferred":     {"", "header >Access-Control-Allow-Origin " + origin, origin, false},
		"Caddy over theirs":   {"*", "header >Access-Control-Allow-Origin " + origin, origin, true},
	}
	for name, tc := range says {
		prices := "price GET /held $0.01\nprice POST /first $0.01"
		if tc.asked {
			prices += "\ncors upstream"
		}
		w := gate.NewTwins(t, gate.TwinsConfig{Prices: prices, Around: tc.around})
		w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
			if tc.upstream != "" {
				rw.Header().Set("Access-Control-Allow-Origin", tc.upstream)
				rw.Header().Set("Access-Control-Expose-Headers", "X-Own, payment-response")
				rw.Header().Set("Access-Control-Allow-Headers", "X-Own, content-type")
				rw.Header().Set("Access-Control-Allow-Methods", "GET, POST")
				rw.Header().Set("Vary", "Origin")
			}
			rw.Header().Set("Set-Cookie", "secret=1")
			rw.Header().Set("X-Secret", "1")
			if r.Method == http.MethodOptions && tc.upstream == "" {
				rw.WriteHeader(http.StatusMethodNotAllowed)
			}
			_, _ = io.WriteString(rw, gate.Goods)
		})
		for _, protocol := range []string{"h1", "h2", "h3"} {
			t.Run(name+" "+protocol, func(t *testing.T) {
				c := w.Gated.Client(t, protocol)
				one := func(res gate.Answer) {
					t.Helper()
					want := tc.want
					if tc.around == "" && (res.StatusCode == http.StatusPaymentRequired || res.Request.Method == http.MethodOptions && !tc.asked) {
						want = "*" // ours, without credentials: the upstream was not asked
					}
					if got := res.Header["Access-Control-Allow-Origin"]; len(got) != 1 || got[0] != want {
						t.Errorf("%d: Access-Control-Allow-Origin %q, want %q", res.StatusCode, got, want)
					}
					for name := range res.Header {
						if members := list(res.Header, name); strings.HasPrefix(name, "Access-Control-") && len(slices.Compact(slices.Clone(members))) != len(members) {
							t.Errorf("%s: %q", name, res.Header[name])
						}
					}
				}
				for path, method := range map[string]string{"/held": http.MethodGet, "/first": http.MethodPost} {
					// The preflight pays nothing, and carries nothing.
					settled, hits := w.Facilitator.Calls(), w.Upstream.Hits.Load()
					res := c.Send(w.Request(http.MethodOptions, path, "Origin", origin,
						"Access-Control-Request-Method", method, "Access-Control-Request-Headers", strings.Join(asks, ",")))
					one(res)
					if res.StatusCode/100 != 2 || res.Text != "" || res.Header.Get("Set-Cookie")+res.Header.Get("X-Secret") != "" || w.Facilitator.Calls() != settled {
						t.Errorf("preflight: %v", res)
					}
					if asked := w.Upstream.Hits.Load() != hits; asked != tc.asked {
						t.Errorf("preflight: the upstream was asked: %v", asked)
					}
					for _, name := range append(asks, "x-payment", "sign-in-with-x", "authorization") {
						if !slices.Contains(list(res.Header, "Access-Control-Allow-Headers"), name) {
							t.Errorf("preflight: %s is not allowed: %q", name, res.Header["Access-Control-Allow-Headers"])
						}
					}
					if !slices.Contains(list(res.Header, "Access-Control-Allow-Methods"), strings.ToLower(method)) {
						t.Errorf("preflight: %s is not allowed: %v", method, res)
					}
					// Challenge, refusal and goods can be read.
					r := w.Request(method, path, "Origin", origin)
					for _, res := range []gate.Answer{c.Send(r), c.Send(w.Request(method, path, "Origin", origin, "PAYMENT-SIGNATURE", "junk")), c.Send(c.Paying(r))} {
						one(res)
						exposed := list(res.Header, "Access-Control-Expose-Headers")
						for _, name := range []string{"payment-required", "payment-response", "x-payment-response"} {
							if !slices.Contains(exposed, name) {
								t.Errorf("%d: %s is not exposed: %q", res.StatusCode, name, exposed)
							}
						}
						if res.StatusCode == http.StatusOK && tc.upstream != "" && !slices.Contains(exposed, "x-own") {
							t.Errorf("what the upstream exposes is lost: %q", exposed)
						}
					}
				}
				// What is no preflight is no way around the price.
				for _, header := range [][]string{nil, {"Origin", origin}, {"Access-Control-Request-Method", "GET"}} {
					if res := c.Send(w.Request(http.MethodOptions, "/held", header...)); res.StatusCode != http.StatusMethodNotAllowed || strings.Contains(res.Text, gate.Goods) {
						t.Errorf("%q: %v", header, res)
					}
				}
				// A preflight of a free path, or for a free method, is the upstream's.
				hits := w.Upstream.Hits.Load()
				for _, r := range []*http.Request{
					w.Request(http.MethodOptions, "/free", "Origin", origin, "Access-Control-Request-Method", "GET"),
				} {
					if res := c.Send(r); res.Text == "" || w.Upstream.Hits.Load() != hits+1 {
						t.Errorf("free: %v", res)
					}
				}
			})
		}
	}
}

// With `cors off` CORS is the upstream's: a preflight is a request like any
// other, and nothing is added.
func TestCORSOff(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price /paid $0.01\ncors off"})
	w.Upstream.On(says(200, gate.Goods, "Access-Control-Allow-Origin", "https://app.example"))
	c := w.Gated.Client(t, "h1")
	res := c.Send(w.Request(http.MethodOptions, "/paid", "Origin", "https://app.example", "Access-Control-Request-Method", "GET"))
	if res.StatusCode != http.StatusPaymentRequired || w.Upstream.Hits.Load() != 0 {
		t.Errorf("preflight: %v", res)
	}
	r := w.Request(http.MethodGet, "/paid", "Origin", "https://app.example")
	for _, res := range []gate.Answer{res, c.Send(r), c.Send(c.Paying(r))} {
		want := ""
		if res.StatusCode == http.StatusOK {
			want = "https://app.example"
		}
		if res.Header.Get("Access-Control-Allow-Origin") != want || res.Header.Get("Access-Control-Expose-Headers") != "" {
			t.Errorf("%v", res)
		}
	}
}

// TestPreflightIsOurs: an upstream that does not look at the method acts on a
// preflight too, and nobody has paid. So it does not see one, whatever the
// browser asks for.
func TestPreflightIsOurs(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price /api/* $0.01\nprice POST /form $0.01\nfree GET /form\nprice /api/two $0.02"})
	w.Upstream.On(says(200, gate.Goods, "Access-Control-Allow-Origin", "*"))
	for _, protocol := range []string{"h1", "h2", "h3"} {
		c := w.Gated.Client(t, protocol)
		for _, tc := range []struct {
			path, method string
			status       int
			header       []string
		}{
			{"/api/send?to=me", "POST", 204, nil},
			{"/api/send?to=me", "GET", 204, nil},
			{"/api/send", "post", 204, nil},
			{"/api/send", "QUERY", 204, nil},
			{"/api/send", "x", 204, nil},
			{"/api/send", "POST", 204, []string{"Access-Control-Request-Private-Network", "true"}},
			{"/API/%73end", "POST", 204, nil},
			{"/form", "POST", 204, nil},
			{"/form", "GET", 204, nil},    // free, and OPTIONS is not
			{"/form", "DELETE", 405, nil}, // which no line names
			{"/api/x/..%2ftwo", "GET", 400, nil},
		} {
			hits := w.Upstream.Hits.Load()
			res := c.Send(w.Request(http.MethodOptions, tc.path, append([]string{"Origin", "https://app.example", "Access-Control-Request-Method", tc.method}, tc.header...)...))
			if w.Upstream.Hits.Load() != hits || res.StatusCode != tc.status || strings.Contains(res.Text, gate.Goods) {
				t.Errorf("%s %s for %s: %v, %d hits", protocol, tc.path, tc.method, res, w.Upstream.Hits.Load()-hits)
			}
			if res.StatusCode == 204 && (!slices.Contains(list(res.Header, "Access-Control-Allow-Methods"), strings.ToLower(tc.method)) ||
				res.Header.Get("Access-Control-Max-Age") == "" || !slices.Contains(list(res.Header, "Vary"), "access-control-request-headers") ||
				res.Header.Get("Access-Control-Allow-Private-Network") != "") {
				t.Errorf("%s %s for %s: %v", protocol, tc.path, tc.method, res.Header)
			}
		}
		// What is no preflight costs what the list says.
		for _, method := range []string{http.MethodOptions, http.MethodHead} {
			hits := w.Upstream.Hits.Load()
			if res := c.Send(w.Request(method, "/api/send", "Origin", "https://app.example")); res.StatusCode != 402 || w.Upstream.Hits.Load() != hits {
				t.Errorf("%s %s: %v", protocol, method, res)
			}
		}
	}
}

// TestPreflightActsNot: a preflight that names a method with effects, or wants a
// tunnel, would make upstreams that obey it act unpaid. It is answered without
// asking them, whatever the config says.
func TestPreflightActsNot(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price POST /act $0.01\nprice GET /page $0.01\ncors upstream"})
	for _, protocol := range []string{"h1", "h2", "h3"} {
		c := w.Gated.Client(t, protocol)
		for _, tc := range []struct {
			method, uri string
			header      []string
		}{
			{"POST", "/act", []string{"X-HTTP-Method-Override", "POST"}},
			{"POST", "/act?_method=POST", nil},
			{"GET", "/page", []string{"X-Method-Override", "PUT"}},
			{"POST", "/act", []string{"Upgrade", "websocket", "Connection", "Upgrade"}},
		} {
			if protocol != "h1" && len(tc.header) > 0 && tc.header[0] == "Upgrade" {
				continue
			}
			hits := w.Upstream.Hits.Load()
			res := c.Send(w.Request(http.MethodOptions, tc.uri, append([]string{"Origin", "https://app.example", "Access-Control-Request-Method", tc.method}, tc.header...)...))
			if w.Upstream.Hits.Load() != hits || res.StatusCode != http.StatusNoContent || res.Header.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%s %s %q: %v, %d hits", protocol, tc.uri, tc.header, res, w.Upstream.Hits.Load()-hits)
			}
		}
		// Front servers name the path in every request.
		hits := w.Upstream.Hits.Load()
		c.Send(w.Request(http.MethodOptions, "/page?_method=GET", "Origin", "https://app.example", "Access-Control-Request-Method", "GET", "X-Original-URI", "/page"))
		if w.Upstream.Hits.Load() != hits+1 {
			t.Errorf("%s: the upstream was not asked", protocol)
		}
	}
}
