package request

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"pgregory.net/rapid"
)

// What a request names beside its request line is bounded while it is read: no
// more of it is kept, sorted or looked at than an upstream may obey.
func TestOverridesAreBounded(t *testing.T) {
	many := func(format string, n int) []string {
		values := make([]string, n)
		for i := range values {
			values[i] = fmt.Sprintf(format, i)
		}
		return values
	}
	for name, tc := range map[string]struct {
		header  http.Header
		query   string
		many    bool
		methods []string
	}{
		"one":                      {http.Header{"X-Http-Method-Override": {"put"}}, "a=b", false, []string{"PUT"}},
		"eight":                    {http.Header{"X-Http-Method": many("M%d", 8)}, "", false, many("M%d", 8)},
		"nine methods":             {http.Header{"X-Http-Method": many("M%d", 9)}, "", true, nil},
		"nine in one value":        {http.Header{"X-Http-Method": {strings.Join(many("M%d", 9), ",")}}, "", true, nil},
		"nine in three places":     {http.Header{"X-Http-Method": many("A%d", 3), "X-Method-Override": many("B%d", 3)}, "_method=C,D,E", true, nil},
		"nine paths":               {http.Header{"X-Original-Url": many("/%d", 9)}, "", true, nil},
		"thousands of paths":       {http.Header{"X-Original-Url": many("/%d", 5000)}, "", true, nil},
		"one path, often":          {http.Header{"X-Original-Url": slices.Repeat([]string{"/a"}, 400)}, "", false, nil},
		"one path, too often":      {http.Header{"X-Original-Url": slices.Repeat([]string{"/a"}, 600)}, "", true, nil},
		"hundreds in the query":    {nil, "_method=" + strings.Join(many("M%d", 900), ","), true, nil},
		"commas":                   {nil, "_method=" + strings.Repeat(",", 5000), true, nil},
		"one method, often":        {nil, strings.Repeat("_method=put&", 300), false, []string{"PUT"}},
		"a long query":             {nil, strings.Repeat("a=b&", 15000), false, nil},
		"one method at its end":    {nil, strings.Repeat("%5f=&a=&", 1000) + "_method=put", false, []string{"PUT"}},
		"a query that is too long": {nil, strings.Repeat("a=b&", maxQuery/4+1), true, nil},
		"a path that is too long":  {http.Header{"X-Original-Url": {"/" + strings.Repeat("a", maxTarget)}}, "", true, nil},
		"a path in the query":      {nil, "/a/b&c=d?e&_method=put", false, []string{"PUT"}},
		"a long path in the query": {nil, "/" + strings.Repeat("a/", maxTarget), false, nil},
		"eight prefixes":           {http.Header{"X-Script-Name": many("/%d", 8)}, "", false, nil},
		"nine prefixes":            {http.Header{"X-Script-Name": many("/%d", 5), "X-Forwarded-Prefix": many("/a%d", 4)}, "", true, nil},
		"one prefix, often":        {http.Header{"X-Script-Name": slices.Repeat([]string{"/a"}, 400)}, "", false, nil},
		"one prefix, too often":    {http.Header{"Script_name": slices.Repeat([]string{"/a"}, 600)}, "", true, nil},
	} {
		r := &http.Request{Method: http.MethodGet, Header: tc.header, URL: mustURL("/x")}
		r.URL.RawQuery = tc.query
		o := ReadOverrides(r)
		if o.many != tc.many {
			t.Errorf("%s: too many: %v", name, o.many)
		}
		if !tc.many && !slices.Equal(o.methods, tc.methods) {
			t.Errorf("%s: %q", name, o.methods)
		}
		if len(o.paths) > maxOverrides || len(o.methods) > maxOverrides || o.looked > maxOverrideWords+1 {
			t.Errorf("%s: %d paths and %d methods kept, %d looked at", name, len(o.paths), len(o.methods), o.looked)
		}
	}
}

// A route in the query is also read without the names that lead nowhere and up, as
// upstreams leave them out, however many they are.
func TestRouteInTheQueryHasNoDots(t *testing.T) {
	for name, query := range map[string]string{
		"left out":            "/articles/../1",
		"many":                "/" + strings.Repeat("../", 400) + "articles/" + strings.Repeat("../", 400) + "1",
		"many that stay":      "/" + strings.Repeat("./", 700) + "articles/" + strings.Repeat("./", 700) + "1",
		"many there and back": "/" + strings.Repeat("x/../", 300) + "articles/" + strings.Repeat("x/../", 300) + "1",
		"many, escaped":       "/" + strings.Repeat("%2e%2E/", 300) + "articles/" + strings.Repeat("%2e%2e%2f", 300) + "1",
		"with a pair":         "/" + strings.Repeat("../", 400) + "articles/" + strings.Repeat("../", 400) + "1&a=b",
	} {
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/", RawQuery: query}}
		if o := ReadOverrides(r); o.many || !slices.Contains(o.paths, "/articles/1") {
			t.Errorf("%s: %v %.200q", name, o.many, o.paths)
		}
	}
	r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/", RawQuery: "/" + strings.Repeat("../", maxTarget)}}
	if o := ReadOverrides(r); !o.many {
		t.Error("more than anybody needs is looked at")
	}
}

// What is in a query that begins with a slash is looked at as a path, with the beginning and
// the end that a price may be for. A picture in base64 begins so too.
func TestLongPathInTheQueryIsShortened(t *testing.T) {
	pad := strings.Repeat("ab/", maxRoute)
	for name, tc := range map[string]struct{ query, want string }{
		"as long as may be":       {"/" + strings.Repeat("a", maxRoute), "/" + strings.Repeat("a", maxRoute)},
		"a pair behind it":        {"/articles/1&x=" + pad, "/articles/1"},
		"a query behind it":       {"/articles/1?x=" + pad, "/articles/1"},
		"slashes":                 {"/articles" + strings.Repeat("/", 2*maxRoute) + "1", "/articles/1"},
		"slashes before it":       {strings.Repeat("/", 2*maxRoute) + "articles/1", "/articles/1"},
		"more in the middle":      {"/articles/" + pad + "x.pdf", "/articles/" + pad[:maxRoute/2-len("articles/")] + (pad + "x.pdf")[len(pad)+len("x.pdf")-maxRoute/2:]},
		"a slash that is escaped": {"%2farticles/1&" + pad, "/articles/1"},
	} {
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/index.php", RawQuery: tc.query}}
		o := ReadOverrides(r)
		if o.many || !slices.Contains(o.paths, tc.want) || !slices.Contains(o.paths, "/index.php"+tc.want) {
			t.Errorf("%s: %v, %.100q", name, o.many, o.paths)
		}
		if length := len(strings.Join(o.paths, "")); length > 4*(maxRoute+len("/index.php/")) {
			t.Errorf("%s: %d bytes of paths", name, length)
		}
	}
}

// A path that is refused for its length is not looked through before, however many
// prefixes a request names.
func TestLongPathIsNotLookedThrough(t *testing.T) {
	long := &http.Request{Header: http.Header{"X-Script-Name": {"/a"}}, URL: &url.URL{Path: "/a/" + strings.Repeat("b", maxTarget)}}
	short := &http.Request{Header: long.Header, URL: mustURL("/x")}
	short = short.WithContext(context.WithValue(t.Context(), caddyhttp.OriginalRequestCtxKey, *long))
	for name, r := range map[string]*http.Request{"received": long, "rewritten": short} {
		if o := ReadOverrides(r); !o.many || o.looked > 0 || len(o.paths) > 0 {
			t.Errorf("%s: too many: %v, %d looked at, %d paths kept", name, o.many, o.looked, len(o.paths))
		}
	}
}

// A semicolon ends a pair of the query to some upstreams, and is part of it to others.
func TestMethodBehindASemicolonIsRead(t *testing.T) {
	for query, want := range map[string]string{
		"_method%00;=PUT":           "PUT", // PHP
		"_method%00x;y=put":         "PUT",
		"a=b&_method%00;=PUT&c=d":   "PUT",
		"%5fmethod%00;;=PUT":        "PUT",
		"._method[;]=PUT":           "",
		"_method[;]=PUT":            "PUT",
		"_method[a;b]=PUT":          "PUT",
		"a;_method=PUT":             "PUT",
		"_method=PUT;a=b":           "PUT",
		"a=b;_method=PUT;c":         "PUT",
		"_method=PUT;_method=PATCH": "PATCH,PUT",
		"_method;=PUT":              "", // a name of its own
		"_method;a=PUT":             "",
		"a;_method%00":              "",
		"_method%00;":               "",
		"q=_method%00;=PUT":         "",
	} {
		r := &http.Request{URL: &url.URL{Path: "/x", RawQuery: query}}
		if o := ReadOverrides(r); strings.Join(o.methods, ",") != want {
			t.Errorf("%s: %q, want %q", query, o.methods, want)
		}
	}
}

// methodIn finds what decoding the name finds.
func TestMethodIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pair := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"_method", "_", "m", "ethod", ".METHOD", "%5f", "%5F", "%6d", "+", "%20", " ", "=", "a", "%", "%zz", "%4"}), 0, 6).Draw(t, "pair"), "")
		name, want, _ := strings.Cut(pair, "=")
		if u, err := url.QueryUnescape(name); err == nil {
			name = u
		}
		name = strings.TrimLeft(name, " ")
		found := strings.EqualFold(name, "_method") || strings.EqualFold(name, ".method")
		value, ok := methodIn(pair)
		if ok != found || ok && value != want {
			t.Fatalf("%q: %q, %v, want %q, %v", pair, value, ok, want, found)
		}
	})
}

func mustURL(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}
