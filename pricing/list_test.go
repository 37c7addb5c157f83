package pricing

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// header is a matcher for requests that carry a header.
func header(name string) func(*http.Request) (bool, error) {
	return func(r *http.Request) (bool, error) { return r.Header.Get(name) != "", nil }
}

// line writes a line as a Caddyfile does: `free GET @bot /x` or `3 /x`, with the
// number of the price. The matcher looks for a header of its name.
func line(s string) Line {
	l := Line{Kind: Free, Where: s}
	for i, w := range strings.Fields(s) {
		switch {
		case i == 0 && w != "free":
			l.Kind, l.Price = Priced, int(w[0]-'0')
		case i == 0:
		case w[0] == '@':
			l.Matcher, l.MatcherName = header(w[1:]), w
		case w[0] == '/' || w[0] == '*':
			l.Patterns = append(l.Patterns, w)
		default:
			l.Methods = append(l.Methods, w)
		}
	}
	return l
}

func lines(s ...string) []Line {
	out := make([]Line, len(s))
	for i := range s {
		out[i] = line(s[i])
	}
	return out
}

func mustList(t testing.TB, otherwise Decision, s ...string) *List {
	t.Helper()
	l, err := NewList(lines(s...), otherwise)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// outcome is a decision in a word: a price, free, refused, ambiguous, or 405
// and the methods.
func outcome(d Decision) string {
	switch d.Kind {
	case Priced:
		return string(rune('0' + d.Price))
	case MethodNotAllowed:
		return "405 " + strings.Join(d.Allow, ",")
	default:
		return d.Kind.String()
	}
}

func TestRanking(t *testing.T) {
	for _, tc := range []struct {
		name  string
		lines []string
		// request (`POST /x +header`) and its outcome
		want map[string]string
	}{
		{
			"exact before prefix",
			[]string{"1 /x/*", "2 /x"},
			map[string]string{"/x": "2", "/x/": "2", "/x/y": "1"},
		},
		{
			"longer prefix before shorter",
			[]string{"1 /a/*", "2 /a/b/*", "3 /a/b/c/*", "4 /a/bc*"},
			map[string]string{"/a": "1", "/a/x": "1", "/a/b": "2", "/a/b/x": "2", "/a/b/c": "3", "/a/b/c/d": "3", "/a/bc": "4", "/a/bcd/e": "4"},
		},
		{
			"prefix of characters and of segments",
			[]string{"1 /blog*", "2 /blog/*"},
			map[string]string{"/blog": "2", "/blog/x": "2", "/blogs": "1"},
		},
		{
			"prefix before suffix",
			[]string{"1 *.pdf", "2 /docs/*"},
			map[string]string{"/docs/a.pdf": "2", "/a.pdf": "1"},
		},
		{
			"longer suffix before shorter",
			[]string{"1 *.gz", "2 *.tar.gz"},
			map[string]string{"/a.gz": "1", "/a.tar.gz": "2"},
		},
		{
			"suffix and glob by their fixed characters",
			[]string{"1 *.css", "2 *theme*", "3 /*/a"},
			map[string]string{"/x.css": "1", "/theme.css": "2", "/theme/a": "2", "/x/a": "3"},
		},
		{
			"a glob within a prefix before the prefix",
			[]string{"1 /users/*", "2 /users/*/export", "3 /users/alice/*"},
			map[string]string{"/users/bob": "1", "/users/bob/export": "2", "/users/alice/export": "3"},
		},
		{
			"a glob that fixes no more than the prefix",
			[]string{"1 /users/*", "2 /users/[^~]"},
			map[string]string{"/users/bob": "1", "/users/b": "2", "/users": "1"},
		},
		{
			"the catch-all last, after suffixes too",
			[]string{"1 /*", "free *.css", "2 /x/*"},
			map[string]string{"/": "1", "/a": "1", "/a.css": "free", "/x/a.css": "2"},
		},
		{
			"* is /*",
			[]string{"1 *", "free /x"},
			map[string]string{"/": "1", "/y": "1", "/x": "free"},
		},
		{
			"matcher before none",
			[]string{"1 /x", "2 @bot /x"},
			map[string]string{"/x": "1", "/x +bot": "2"},
		},
		{
			"matcher before methods",
			[]string{"1 GET /x", "2 @bot /x", "3 GET @bot /x", "4 /x"},
			map[string]string{"/x": "1", "/x +bot": "3", "POST /x +bot": "2", "POST /x": "4"},
		},
		{
			"matcher alone before methods alone",
			[]string{"1 GET /x", "2 @bot /x"},
			map[string]string{"/x": "1", "/x +bot": "2", "POST /x": "405 GET,HEAD"},
		},
		{
			"methods before none",
			[]string{"1 /x", "2 POST /x"},
			map[string]string{"/x": "1", "POST /x": "2", "PUT /x": "1"},
		},
		{
			"the path before matcher and methods",
			[]string{"1 /x/y", "2 POST @bot /x/*"},
			map[string]string{"POST /x/y +bot": "1", "POST /x/z +bot": "2", "POST /x/z": "free"},
		},
		{
			"a matcher that does not match is as if the line were not there",
			[]string{"1 @bot /x", "2 /*"},
			map[string]string{"/x": "2", "/x +bot": "1"},
		},
		{
			"a method that the best path does not name falls to the next",
			[]string{"1 GET /a/b", "2 /a/*"},
			map[string]string{"/a/b": "1", "HEAD /a/b": "1", "POST /a/b": "2"},
		},
		{
			"if only other methods are left, 405",
			[]string{"1 GET /a/b", "2 POST PUT /a/*", "3 @bot PATCH /a/*"},
			map[string]string{
				"DELETE /a/b":      "405 GET,HEAD,POST,PUT",
				"DELETE /a/c":      "405 POST,PUT",
				"DELETE /a/c +bot": "405 PATCH,POST,PUT",
				"DELETE /c":        "free",
				"get /a/b":         "405 GET,HEAD,POST,PUT",
				"FOO /a/b":         "405 GET,HEAD,POST,PUT",
				"PATCH /a/b +bot":  "3",
			},
		},
		{
			"a free line for another method does not open the path",
			[]string{"free GET /x"},
			map[string]string{"/x": "free", "HEAD /x": "free", "POST /x": "405 GET,HEAD"},
		},
		{
			"HEAD alone",
			[]string{"1 HEAD /x", "2 /*"},
			map[string]string{"HEAD /x": "1", "/x": "2"},
		},
		{
			"two matchers that both match",
			[]string{"1 @a /x", "2 @b /x", "free @c /x", "1 @d /x"},
			map[string]string{"/x +a": "1", "/x +b": "2", "/x +a +b": "ambiguous", "/x +c": "free", "/x +a +c": "1", "/x +a +d": "1", "/x": "free"},
		},
		{
			"equal prices are fine",
			[]string{"1 /x", "1 /x", "1 GET /x", "1 *.pdf", "1 *.p[a-z]f", "free /y", "free /Y/"},
			map[string]string{"/x": "1", "/a.pdf": "1", "/y": "free"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, order := range [][]string{tc.lines, reversed(tc.lines)} {
				list := mustList(t, Decision{Kind: Free}, order...)
				for request, want := range tc.want {
					method, path := "GET", ""
					r := httptest.NewRequest("GET", "/", nil)
					for w := range strings.FieldsSeq(request) {
						switch w[0] {
						case '/':
							path = w
						case '+':
							r.Header.Set(w[1:], "yes")
						default:
							method = w
						}
					}
					d, err := list.Decide(r, method, path)
					if got := outcome(d); err != nil || got != want {
						t.Errorf("%s: %s, %v, want %s", request, got, err, want)
					}
				}
			}
		})
	}
}

// wantOutcomes compares what GETs of some paths cost with what they should, in words of
// outcome, whatever the order of the lines. What no line names is free.
func wantOutcomes(t *testing.T, lines []string, want map[string]string) {
	t.Helper()
	for _, order := range [][]string{lines, reversed(lines)} {
		list := mustList(t, Decision{Kind: Free}, order...)
		for path, want := range want {
			d, err := list.Decide(requestWith(), http.MethodGet, path)
			if got := outcome(d); err != nil || got != want {
				t.Errorf("%s: %s, %v, want %s", path, got, err, want)
			}
		}
	}
}

func reversed(s []string) []string {
	s = slices.Clone(s)
	slices.Reverse(s)
	return s
}

func TestConflicts(t *testing.T) {
	for _, tc := range [][2]string{
		{"1 /x", "2 /x"},
		{"1 /x", "free /x"},
		{"1 /x", "2 /X/"},
		{"1 /É", "2 /E\u0301"},
		{"1 /x/*", "2 /x/*"},
		{"1 /blog*", "2 /Blog*"},
		{"1 /*", "2 *"},
		{"free /*", "2 /*"},
		{"1 *.pdf", "2 *.PDF"},
		{"1 *.css", "2 *data*"},
		{"1 /a/*/b", "2 /a/*b/[^~]"},
		{"1 /a/*/b", "2 /a/*/b/"},
		{"1 /a/*/", "2 /A/*/"},
		{"1 GET /x", "2 HEAD /x"},
		{"1 GET POST /x", "2 PUT POST /x"},
		{"1 @bot /x", "2 @bot /x"},
		{"free @bot GET /x/*", "2 @bot HEAD /x/*"},
		{"1 /y /x", "2 /z /x"},
	} {
		a, b := line(tc[0]), line(tc[1])
		_, err := NewList([]Line{a, b}, Decision{Kind: Free})
		if err == nil {
			t.Errorf("%s and %s: no error", tc[0], tc[1])
			continue
		}
		for _, want := range []string{"`" + tc[0] + "` and `" + tc[1] + "`", "differ in price; give them"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
	}
	for _, tc := range [][2]string{
		{"1 GET /x", "2 POST /x"},
		{"1 /x", "2 /x/*"},
		{"1 /x", "2 @bot /x"},
		{"1 /x", "2 GET /x"},
		{"1 @a /x", "2 @b /x"}, // whether both match is known only at the request
		{"1 *.pdf", "2 *.doc"},
		{"1 *.css", "2 *api*"},
		{"1 /a/*", "2 /b/*"},
		{"1 /a/*/", "2 /a/*"},
		{"1 */", "2 *.html"},
		{"1 /a/*/b", "2 /a/*/c"},
		{"1 /x", "1 /x"},
		{"free /x", "free /x"},
	} {
		if _, err := NewList(lines(tc[:]...), Decision{Kind: Free}); err != nil {
			t.Error(err)
		}
	}
	// Matchers without a name that is the same in every line are not compared.
	a, b := line("1 @m /x"), line("2 @m /x")
	a.MatcherName, b.MatcherName = "match", "match"
	if _, err := NewList([]Line{a, b}, Decision{Kind: Free}); err != nil {
		t.Error(err)
	}
	// Of several conflicts always the first is named.
	for range 20 {
		_, err := NewList(lines("1 /a", "1 /b", "1 /c", "2 /c", "2 /b", "2 /a"), Decision{Kind: Free})
		if err == nil || !strings.HasPrefix(err.Error(), "`1 /a` and `2 /a`") {
			t.Fatal(err)
		}
	}
}

func TestLineErrors(t *testing.T) {
	ok := func() Line { return line("1 /x") }
	for _, tc := range []struct {
		says   string
		change func(*Line)
	}{
		{"priced or free, not undecided", func(l *Line) { l.Kind = Undecided }},
		{"priced or free, not refused", func(l *Line) { l.Kind = Refused }},
		{"priced or free, not kind(17)", func(l *Line) { l.Kind = 17 }},
		{"names no path", func(l *Line) { l.Patterns = nil }},
		{`method "get" is not all capitals`, func(l *Line) { l.Methods = []string{"get"} }},
		{`method "" is not`, func(l *Line) { l.Methods = []string{""} }},
		{"`1 /x`: path \"x\" must begin with / or *", func(l *Line) { l.Patterns = []string{"x"} }},
		{"the line for /a//b: path", func(l *Line) { l.Patterns, l.Where = []string{"/a//b"}, "" }},
	} {
		l := ok()
		tc.change(&l)
		if _, err := NewList([]Line{l}, Decision{Kind: Free}); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%v, want it to say %q", err, tc.says)
		}
	}
	for _, kind := range []Kind{Undecided, MethodNotAllowed, Ambiguous, 17} {
		if _, err := NewList(nil, Decision{Kind: kind}); err == nil {
			t.Errorf("otherwise %s: no error", kind)
		}
	}
}

func TestOtherwisePricesOrRefusesTheRest(t *testing.T) {
	for _, tc := range []struct {
		otherwise Decision
		want      map[string]string
	}{
		{Decision{Kind: Free}, map[string]string{"/x": "1", "/y": "free", "/": "free"}},
		{Decision{Kind: Refused}, map[string]string{"/x": "1", "/y": "refused", "/": "refused", "*": "refused", "": "refused"}},
		{Decision{Kind: Priced, Price: 7}, map[string]string{"/x": "1", "/y": "7", "/": "7", "*": "7", "": "7"}},
	} {
		list := mustList(t, tc.otherwise, "1 /x", "free /free/*")
		for path, want := range tc.want {
			d, err := list.Decide(nil, "GET", path)
			if got := outcome(d); err != nil || got != want {
				t.Errorf("otherwise %s, %q: %s, %v, want %s", tc.otherwise.Kind, path, got, err, want)
			}
			if want != "1" && d.Line != -1 {
				t.Errorf("otherwise %s, %q: decided by line %d", tc.otherwise.Kind, path, d.Line)
			}
		}
		// What is named free does not carry over to what dots lead to.
		for _, path := range []string{"/free/../y", "/free/..%2fy", "/free/%2e%2e/y", `/free/..\y`, "/free/..;/y", "/free/..%252fy"} {
			d, err := list.Decide(nil, "GET", path)
			if err != nil || d.Kind != tc.otherwise.Kind {
				t.Errorf("otherwise %s, %q: %s, %v", tc.otherwise.Kind, path, d.Kind, err)
			}
		}
	}
	// A list that prices everything prices the request that names nothing.
	list := mustList(t, Decision{Kind: Free}, "1 /*")
	for _, path := range []string{"", "*", "?", "/", "x", "http://example.com/x", "example.com:443", "%", "\x00"} {
		d, err := list.Decide(nil, "OPTIONS", path)
		if got := outcome(d); err != nil || got != "1" {
			t.Errorf("%q: %s, %v", path, got, err)
		}
	}
}

func TestMatchers(t *testing.T) {
	calls := 0
	l := line("1 /a/*")
	l.Matcher = func(*http.Request) (bool, error) { calls++; return true, nil }
	list, err := NewList([]Line{l, line("2 /b")}, Decision{Kind: Free})
	if err != nil {
		t.Fatal(err)
	}
	d, err := list.Decide(nil, "GET", "/a/x;v=1/%2e/y%2fz//w", "/a/other")
	if err != nil || outcome(d) != "1" {
		t.Fatal(d, err)
	}
	if calls != 1 {
		t.Errorf("the matcher was asked %d times for one request", calls)
	}
	calls = 0
	if _, err := list.Decide(nil, "GET", "/b"); err != nil || calls != 0 {
		t.Error("a matcher of another path was asked")
	}

	broken := errors.New("broken")
	l.Matcher = func(*http.Request) (bool, error) { return true, broken }
	for _, others := range []string{"free /*", "free /a/x"} {
		l.Methods = nil
		list, err = NewList([]Line{l, line(others)}, Decision{Kind: Free})
		if err != nil {
			t.Fatal(err)
		}
		d, err := list.Decide(nil, "GET", "/a/y")
		if !errors.Is(err, broken) || d.Kind != Undecided || !strings.Contains(err.Error(), "`1 /a/*`") {
			t.Errorf("%+v, %v", d, err)
		}
	}
	l.Methods = []string{"POST"}
	list, err = NewList([]Line{l}, Decision{Kind: Free})
	if err != nil {
		t.Fatal(err)
	}
	if d, err := list.Decide(nil, "GET", "/a/y"); !errors.Is(err, broken) || d.Kind != Undecided {
		t.Errorf("%+v, %v", d, err)
	}
	l.Matcher = func(*http.Request) (bool, error) { return false, nil }
	list, err = NewList([]Line{l}, Decision{Kind: Free})
	if err != nil {
		t.Fatal(err)
	}
	if d, err := list.Decide(nil, "GET", "/a/y"); err != nil || d.Kind != Free {
		t.Errorf("a line whose matcher does not match made %+v, %v", d, err)
	}
}

func TestTwoPaths(t *testing.T) {
	list := mustList(t, Decision{Kind: Free}, "1 /a", "2 /b", "3 GET /c")
	for _, tc := range []struct {
		method string
		paths  []string
		want   string
	}{
		{"GET", []string{"/a", "/a"}, "1"},
		{"GET", []string{"/a", "/x"}, "1"},
		{"GET", []string{"/x", "/a"}, "1"},
		{"GET", []string{"/x", "/y"}, "free"},
		{"GET", []string{"/a", "/b"}, "ambiguous"},
		{"POST", []string{"/c", "/x"}, "405 GET,HEAD"},
		{"POST", []string{"/c", "/a"}, "1"},
		{"GET", []string{"/a?x=/b", "/a"}, "1"},
	} {
		d, err := list.Decide(nil, tc.method, tc.paths...)
		if got := outcome(d); err != nil || got != tc.want {
			t.Errorf("%s %q: %s, %v, want %s", tc.method, tc.paths, got, err, tc.want)
		}
	}
	if d, err := list.Decide(nil, "GET"); err == nil || d.Kind != Undecided {
		t.Errorf("no path: %+v, %v", d, err)
	}
}

func TestKindString(t *testing.T) {
	for kind, want := range map[Kind]string{0: "undecided", Free: "free", Priced: "priced", Ambiguous: "ambiguous", 6: "kind(6)", -1: "kind(-1)"} {
		if kind.String() != want {
			t.Errorf("%d: %s", kind, kind)
		}
	}
}

func TestPrices(t *testing.T) {
	for path, want := range map[string][]int{"/posts/a": {1}, "/posts/a/index.html": {1}, "/posts/a/index.html/x": {1}, "/posts/a.json": {1}, "/posts/a/__data.json": {1}, "/posts": nil, "/b/b.html/x": {2}, "/b/b.txt": {2}} {
		got := mustList(t, Decision{Kind: Free}, "1 /posts/*/", "2 /b/*.html").Prices(path)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	list := mustList(t, Decision{Kind: Priced, Price: 9}, "1 GET /a", "2 POST /a", "3 @m /a", "4 /a/*", "5 /b", "free PUT /a", "6 *.c")
	for path, want := range map[string][]int{"/a": {1, 2, 3, 4, 9}, "/a/x.c": {4, 6, 9}, "/x": {9}, "/x/../b;y": {5, 9}} {
		got := list.Prices(path, path)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}
