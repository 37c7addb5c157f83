package promises

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// TestPriceByQueryCountsHoweverItIsRead: a price by query counts however the server behind reads the
// query, and a query sets nothing free that some server could read otherwise.
func TestPriceByQueryCountsHoweverItIsRead(t *testing.T) {
	w := gate.New(t, strings.Join([]string{
		"price @post / $0.01",
		"price @feed / $0.05",
		"price @not /not $0.02",
		"price /preview $0.03",
		"free  @preview /preview",
		"price /dear $0.50",
		"price @cheap /dear $0.01",
		"price @both /both $0.04",
		"price @none /none $0.06",
		"price @bot /bot $0.07",
	}, "\n"),
		"@post query p=*", "@feed query feed=rss2 feed=atom", "@not not query token=secret", "@preview query preview=1",
		"@cheap query student=yes", "@both query a=* b=*", "@none query", "@bot {\nheader User-Agent *bot*\nquery q=*\n}")
	const free = ""
	for _, tc := range []struct{ uri, costs string }{
		{"/", free},
		{"/?x=1", free},
		{"/?page=1&pp=2", free},
		{"/?p=1", "10000"},
		{"/?p=", "10000"},
		{"/?p", "10000"},
		{"/?p[]=1", "10000"},
		{"/?p[0]=1", "10000"},
		{"/?p%5B%5D=1", "10000"},
		{"/?p%00=", "10000"},
		{"/?p%00x=1", "10000"},
		{"/?+p=1", "10000"},
		{"/?P=1", "10000"},
		{"/?%70=1", "10000"},
		{"/?%2570=1", "10000"},
		{"/?x=1;p=1", "10000"},
		{"/?p=1&x=%zz", "10000"}, // Caddy's own matcher gives up
		{"/?p=1;", "10000"},
		{"/?" + strings.Repeat("x=1&", 1500) + "p=1", "50000"}, // could be either
		{"/%3Fp=1", "10000"},
		{"/%253Fp=1", "10000"},
		{"/&p=1", free}, // the price is for `/` alone
		{"/?feed=rss2", "50000"},
		{"/?feed[]=ATOM", "50000"},
		{"/?p=1&feed=rss2", "50000"}, // the dearer
		{"/?feed=rss2&p=1", "50000"},
		{"/?p[]=1&feed=x&feed=rss2", "50000"},

		{"/not", "20000"},
		{"/not?token=other", "20000"},
		{"/not?token=secret", free},
		{"/not?token=secret&token=x", "20000"},
		{"/not?token[]=secret", "20000"},
		{"/not?TOKEN=secret", "20000"},

		{"/preview", "30000"},
		{"/preview?preview=1", free},
		{"/preview?x=2&preview=1&y=%20", free},
		{"/preview?preview=1&preview=0", "30000"},
		{"/preview?preview=0&preview=1", "30000"},
		{"/preview?preview[]=1", "30000"},
		{"/preview?PREVIEW=1", "30000"},
		{"/preview?preview=1&Preview=0", "30000"},
		{"/preview?preview=1;x", "30000"},
		{"/preview?preview=01", "30000"},
		{"/preview?preview=1&" + strings.Repeat("x=1&", 1500), "30000"},
		{"/preview%3fpreview=1", "30000"},
		{"/preview?/x?preview=1", "30000"},

		{"/dear", "500000"},
		{"/dear?student=yes", "10000"},
		{"/dear?student[]=yes", "500000"},
		{"/dear?student=yes&student=no", "500000"},

		{"/both?a=1", free},
		{"/both?a=1&b=2", "40000"},
		{"/both?a[x]=1&B=2", "40000"},
		{"/none", "60000"},
		{"/none?", "60000"},
		{"/none?x=1", free},
		{"/bot?q=1", free},
	} {
		res := w.Do(w.Request(http.MethodGet, tc.uri))
		switch {
		case tc.costs == free && res.StatusCode != http.StatusOK:
			t.Errorf("%.60s: %d, want it free", tc.uri, res.StatusCode)
		case tc.costs != free && res.StatusCode != http.StatusPaymentRequired:
			t.Errorf("%.60s: %d, want a price", tc.uri, res.StatusCode)
		case tc.costs != free:
			if got := w.Challenge(http.MethodGet, tc.uri).Accepts[0].Amount; got != tc.costs {
				t.Errorf("%.60s costs %s, want %s", tc.uri, got, tc.costs)
			}
		}
	}
	// A target on the wire has no fragment, but Node takes it for one.
	for query, status := range map[string]int{"p#=1": 402, "x#&p=1": 402, "x#": 200} {
		r := w.Request(http.MethodGet, "/")
		r.URL.RawQuery = query
		if res := w.Do(r); res.StatusCode != status {
			t.Errorf("/?%s: %d, want %d", query, res.StatusCode, status)
		}
	}
	// What else names a query.
	for _, tc := range []struct {
		uri, name, value string
		status           int
	}{
		{"/", "X-Original-URL", "/?p=1", 402},
		{"/?/x?p=1", "X-Original-URL", "/?x=1", 402},
		{"/", "x-rewrite-url", "/?P[]=1", 402},
		{"/", "X-Original-URI", "/?x=1", 200},
		{"/preview?preview=1", "X-Original-URI", "/preview?preview=1", 200},
		{"/preview?preview=1", "X-Original-URI", "/preview", 402},
		{"/bot?q[]=1", "User-Agent", "a bot", 402},
	} {
		r := w.Request(http.MethodGet, tc.uri)
		r.Header[tc.name] = []string{tc.value}
		if res := w.Do(r); res.StatusCode != tc.status {
			t.Errorf("%s with %s: %s: %d, want %d", tc.uri, tc.name, tc.value, res.StatusCode, tc.status)
		}
	}
}

// TestAmpersandInAPathBeginsAPair: servers put a path into the query of one program, decoded,
// and what follows an ampersand in it is another pair then.
func TestAmpersandInAPathBeginsAPair(t *testing.T) {
	w := gate.New(t, "price @url /* $0.01\nprice @both /* $0.02\nprice /preview* $0.03\nfree @preview /preview*\nprice PUT /put $0.04\nfree GET /put*",
		"@url query url=*", "@both query a=* b=*", "@preview query preview=1")
	for uri, status := range map[string]int{
		"/free":                          200,
		"/free&x=1":                      200,
		"/free%26x=1":                    200,
		"/free?x=1":                      200,
		"/free&url=articles/7":           402,
		"/free%26url=articles/7":         402,
		"/free%26%75rl=articles/":        402,
		"/free%2526url=articles":         402,
		"/free%25%32%36url=x":            402,
		"/free%26x=1%26url=x":            402,
		"/a%26b=1/url=1":                 200,
		"/free%26a=1?b=2":                402,
		"/free%26b=1?x=2":                200,
		"/preview?preview=1":             200,
		"/preview&preview=0?preview=1":   402,
		"/preview%26preview=1":           402,
		"/preview%26preview=0?preview=1": 402,
		"/put%26x=PUT":                   200,
	} {
		r := w.Request(http.MethodGet, "/")
		r.URL.Opaque = "//" + r.URL.Host + uri
		if res := w.Do(r); res.StatusCode != status {
			t.Errorf("%s: %d, want %d", uri, res.StatusCode, status)
		}
	}
	if res := w.Get("/put&_method=PUT"); res.StatusCode == 200 {
		t.Errorf("the method in such a pair: %d", res.StatusCode)
	}
}

// TestQueryInAnotherCharsetCouldBeAnything: Django reads the query in the charset that the
// request's Content-Type names.
func TestQueryInAnotherCharsetCouldBeAnything(t *testing.T) {
	w := gate.New(t, "price @p /post $0.01\nprice /article $0.02\nfree @preview /article", "@p query p=1", "@preview query preview=1")
	for _, tc := range []struct {
		uri, charset string
		status       int
	}{
		{"/post?x=1", "text/plain", 200},
		{"/post?x=1", "text/plain; charset=utf-8", 200},
		{"/post?x=1", `text/plain;Charset="UTF-8"`, 200},
		{"/post?x=1", "text/plain; charset=iso_8859-1", 200},
		{"/post", "text/plain; charset=utf-7", 200},
		{"/about?+AHA-=1", "text/plain; charset=utf-7", 200},
		{"/post?+AHA-=1", "text/plain; charset=utf-7", 402},
		{"/post?+AHA-=1", `text/plain; CHARSET = "utf-7"`, 402},
		{"/post?+AHA-=1", "text/plain; charset*=utf-8''utf-7", 402},
		{"/post?+AHA-=1", "text/plain; charset=utf-8; charset=utf-7", 402},
		{"/article?preview=1", "text/plain; charset=utf-8", 200},
		{"/article?preview=1", "text/plain; charset=utf-16", 402},
		{"/article?preview=1", "text/plain; charset=cp037", 402},
	} {
		if res := w.Get(tc.uri, "Content-Type", tc.charset); res.StatusCode != tc.status {
			t.Errorf("%s in %s: %d, want %d", tc.uri, tc.charset, res.StatusCode, tc.status)
		}
	}
}

// TestQueryCountsAsReceivedAndAsRewritten: the query counts as it was received, and as it
// was rewritten before the gate.
func TestQueryCountsAsReceivedAndAsRewritten(t *testing.T) {
	w := gate.New(t, "price @post / $0.01\nprice /x $0.02\nfree @preview /x",
		"@post query p=*", "@preview query preview=1", "rewrite /to /?p=1", "@strip header Strip *", "uri @strip query -p", "@add header Add *", "uri @add query preview 1")
	for request, status := range map[string]int{"/to": 402, "/?p=1": 402, "/?p=1 Strip": 402, "/?q=1 Strip": 200, "/x": 402, "/x?preview=1": 200, "/x Add": 402, "/x?preview=1 Add": 200} {
		uri, header, _ := strings.Cut(request, " ")
		r := w.Request(http.MethodGet, uri)
		if header != "" {
			r.Header.Set(header, "1")
		}
		if res := w.Do(r); res.StatusCode != status {
			t.Errorf("%s: %d, want %d", request, res.StatusCode, status)
		}
	}
}

// TestDearerOfTwoMatchersIsAsked: of two prices that one request has by two matchers the dearer
// is asked, and none where nobody can say which that is.
func TestDearerOfTwoMatchersIsAsked(t *testing.T) {
	for name, tc := range map[string]struct {
		a, b string
		want string // the amount; empty: 400
	}{
		"two amounts":       {"$0.01", "$0.02", "20000"},
		"one amount":        {"$0.01 One", "$0.01 Two", "10000"},
		"longer amount":     {"$0.9", "$1.1", "1100000"},
		"another payee":     {"$0.01", "$0.02 {\naccept base-sepolia usdc 0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359\n}", ""},
		"more tokens":       {"$0.01", "$0.02 {\naccept base-sepolia usdc " + gate.PayTo + "\naccept polygon-amoy usdc " + gate.PayTo + "\n}", ""},
		"fewer tokens":      {"$0.01 {\naccept base-sepolia usdc " + gate.PayTo + "\naccept polygon-amoy usdc " + gate.PayTo + "\n}", "$0.02", "20000"},
		"charged otherwise": {"$0.01", "$0.02 {\ncharge 201\n}", ""},
		"settled otherwise": {"$0.01", "$0.02 {\nsettle first\n}", ""},
	} {
		for _, order := range []string{"price @a /x " + tc.a + "\nprice @b /x " + tc.b, "price @b /x " + tc.b + "\nprice @a /x " + tc.a} {
			w := gate.New(t, "accept base-sepolia usdc "+gate.PayTo+"\n"+order, "@a query a=*", "@b header B *")
			r := w.Request(http.MethodGet, "/x?a=1")
			r.Header.Set("B", "1")
			res := w.Do(r)
			if tc.want == "" {
				if res.StatusCode != http.StatusBadRequest {
					t.Errorf("%s: %d", name, res.StatusCode)
				}
			} else if res.StatusCode != http.StatusPaymentRequired || !strings.Contains(res.Text, `"maxAmountRequired":"`+tc.want+`"`) {
				t.Errorf("%s: %d %s", name, res.StatusCode, res.Text)
			}
		}
	}
}

// TestQueryMatchersAreBounded: what all matchers together would look at too long
// is taken for anything, and is never free where it could cost.
func TestQueryMatchersAreBounded(t *testing.T) {
	var matchers, lines strings.Builder
	for i := range 50 {
		fmt.Fprintf(&matchers, "@p%d query p=%d\n", i, i)
		fmt.Fprintf(&lines, "price @p%d /* $0.%04d\n", i, i+1)
	}
	w := gate.New(t, lines.String(), matchers.String())
	odd := strings.Repeat("%71=&", 240)
	for query, want := range map[string]int{
		odd:          400, // could be any of 50 prices, and free
		odd + "p=49": 400,
		odd + "p=7":  400,
		"utm_source=news&" + strings.Repeat("filter[x]=1&", 20):         200,
		"utm_source=news&" + strings.Repeat("filter[x]=1&", 20) + "p=7": 402,
		strings.Repeat("page=1&", 200):                                  200,
		strings.Repeat("page=1&", 200) + "p=49":                         402,
	} {
		if res := w.Get("/a?" + query); res.StatusCode != want && (want != 400 || res.StatusCode != 402) {
			t.Errorf("%.60s… %d bytes: %d, want %d", query, len(query), res.StatusCode, want)
		}
	}
}

// The index file of the front page is the front page, with its query; and what
// programs serve at any path has its price with `/*`, as the docs write it.
func TestIndexFileIsItsPageWithItsQuery(t *testing.T) {
	for line, want := range map[string]map[string]int{
		"price @post / $0.01":  {"/?p=1": 402, "/index.php?p=1": 402, "/index.php/x?p=1": 402, "/INDEX.php?p[]=1": 402, "/index.php": 200, "/?q=1": 200},
		"price @post /* $0.01": {"/?p=1": 402, "/index.php?p=1": 402, "/index.php/x?p=1": 402, "/any/thing?p=1": 402, "/any/thing": 200, "/": 200},
	} {
		w := gate.New(t, line, "@post query p=*")
		for path, status := range want {
			if res := w.Get(path); res.StatusCode != status {
				t.Errorf("%s: %s: %d, want %d", line, path, res.StatusCode, status)
			}
		}
	}
}
