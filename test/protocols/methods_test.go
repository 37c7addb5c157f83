package protocols

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// methods are those of the IANA registry, and some that are in no registry.
var methods = strings.Fields(`ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE
	MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PRI PROPFIND PROPPATCH PUT QUERY REBIND REPORT
	SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL FOO get Get gET head post PoSt GET1 X-GET`)

// TestNoMethodIsServedUnpaid: neither odd methods nor odd forms of the request
// line get what is sold for nothing, and what names another method or path
// beside the request line is priced like it.
func TestNoMethodIsServedUnpaid(t *testing.T) {
	// Sold are a page for GET, an action for POST, and a folder for all methods;
	// whatever else anybody may do with the first two is free.
	raw := newRawUpstream(t, "GET /page", "POST /act", "/all/x")
	w := gate.NewTwins(t, gate.TwinsConfig{
		Prices: `
			price GET /page $0.01
			price POST /act $0.02
			price /all/* $0.01
			free /*`,
		Block:   "{gate}\nreverse_proxy " + raw.address + " {\n request_buffers 4k\n}", // see TestNoSpellingIsServedUnpaid
		Servers: "expected_underscore_headers X_Original_URL X_HTTP_Method_Override",
	})
	paths := []string{"/page", "/act", "/all/x", "/free"}
	var overrides [][]string
	for _, path := range []string{"/page", "/act", "/all/x", "https://other.example/all/x?y", "/all/%78", "all/x", "//all//x"} {
		for _, name := range []string{"X-Original-URL", "x-rewrite-url", "X-Original-URI", "X-Forwarded-URI", "X_ORIGINAL_URL"} {
			overrides = append(overrides, []string{name, path})
		}
	}
	for _, method := range []string{"GET", "POST", "post", " GET", "GET, POST"} {
		for _, name := range []string{"X-HTTP-Method-Override", "x-method-override", "X-HTTP-METHOD", "X_HTTP_Method_Override"} {
			overrides = append(overrides, []string{name, method})
		}
	}
	queries := []string{"?_method=GET", "?_method=POST", "?a=b&_METHOD=post", "?%5fmethod=%50OST", "?a;_method=GET", "?/page", "?%2Fact&x=1", "?/all/%78?a=b", "?/all/x&a"}

	for _, protocol := range []string{"h1", "h2c", "h3"} {
		t.Run(protocol, func(t *testing.T) {
			gated, open := sender(t, w.Gated, protocol), sender(t, w.Open, protocol)
			tried, sent, served := 0, 0, 0
			try := func(method, target string, header ...string) {
				t.Helper()
				if tried++; protocol != "h1" && tried%4 != 0 {
					return // a sample: the list does not know the protocol
				}
				sent++
				if res := gated(method, target, header...); res.Header.Get("X-Sold") == "true" {
					t.Errorf("%s %s %q is served unpaid: %s", method, target, header, res.Text)
				}
				if res := open(method, target, header...); res.Header.Get("X-Sold") == "true" {
					served++
				}
			}
			// HTTP/2 and 3 have no target for CONNECT, and their clients no body
			// that ends with its header; these are tried elsewhere.
			usable := slices.DeleteFunc(slices.Clone(methods), func(m string) bool { return m == "CONNECT" && protocol != "h1" })
			for _, method := range usable {
				for _, path := range paths {
					try(method, path)
					if protocol == "h1" {
						try(method, "http://"+gate.Host+path)
					}
				}
				if protocol == "h1" {
					try(method, "*")
				}
			}
			for _, method := range []string{"GET", "POST", "PUT", "HEAD"} {
				for _, path := range paths {
					for _, header := range overrides {
						try(method, path, header...)
					}
					for _, query := range queries {
						try(method, path+query)
					}
				}
			}
			if served < sent/4 {
				t.Errorf("only %d of %d requests are served without the gate: this tests nothing", served, sent)
			}
			t.Logf("%d requests, %d served without the gate", sent, served)
		})
	}
}

// What names no other path or method than the request line costs what that
// says, and passes.
func TestHarmlessOverrides(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price GET /page $0.01\n price POST /act $0.02\n price /dear $1"})
	c := w.Gated.Client(t, "h1")
	for _, tc := range []struct {
		method, uri string
		header      []string
		status      int
	}{
		{"POST", "/free", []string{"X-HTTP-Method-Override", "PATCH"}, 200},
		{"POST", "/free?_method=delete", nil, 200},
		{"GET", "/free", []string{"X-Original-URL", "/free"}, 200},
		{"GET", "/free", []string{"X-Forwarded-URI", "https://site.test/other?x=/page"}, 200},
		{"GET", "/page", []string{"X-Original-URL", "/page"}, 402},
		{"GET", "/page", []string{"X-HTTP-Method-Override", "POST"}, 402},
		{"POST", "/page", []string{"X-HTTP-Method-Override", "GET"}, 402},
		{"POST", "/page", nil, 405},
		{"GET", "/free", []string{"X-Original-URL", "/dear"}, 402},
		{"GET", "/page", []string{"X-Original-URL", "/dear"}, 400}, // two prices
	} {
		res := c.Send(w.Request(tc.method, tc.uri, tc.header...))
		if res.StatusCode != tc.status {
			t.Errorf("%s %s %q: want %d, got %v", tc.method, tc.uri, tc.header, tc.status, res)
		}
		if res.StatusCode == 200 {
			for i := 0; i < len(tc.header); i += 2 {
				if w.Upstream.Last().Header.Get(tc.header[i]) != tc.header[i+1] {
					t.Errorf("%s %s: the upstream does not see %s", tc.method, tc.uri, tc.header[i])
				}
			}
		}
	}
	// `get` is what other methods cost, or GET.
	w.Load(w.Caddyfile(gate.TwinsConfig{Prices: "price GET /page $1\n price /page $0.01\n price GET POST /act $0.01\n price /act $0.01"}))
	raw := sender(t, w.Gated, "h1")
	w.UntilThat("the gate sells", func() bool { return raw(http.MethodGet, "/act").StatusCode == http.StatusPaymentRequired })
	for _, tc := range []struct {
		method, path string
		status       int
	}{{"get", "/page", 400}, {"PUT", "/page", 402}, {"GET", "/page", 402}, {"get", "/act", 402}} {
		if res := raw(tc.method, tc.path); res.StatusCode != tc.status {
			t.Errorf("%s %s: want %d, got %v", tc.method, tc.path, tc.status, res)
		}
	}
}

// What overrides also say.
func TestOverridesThatAct(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price GET /page $0.01\n price POST /act $0.02\n price /dear $1"})
	c := w.Gated.Client(t, "h1")
	// An override that acts is settled before the upstream acts.
	r := w.Request(http.MethodGet, "/page", "X-HTTP-Method-Override", "POST")
	if extra := string(c.Offer(r).Extra); !strings.Contains(extra, `"paymentFlow":"upfront"`) {
		t.Errorf("offer %s", extra)
	}
	if extra := string(c.Offer(w.Request(http.MethodGet, "/page")).Extra); strings.Contains(extra, "paymentFlow") {
		t.Errorf("offer %s", extra)
	}
}
