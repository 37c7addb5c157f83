package pricing_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/pricing"
)

// Every line that names the path says why it decides, or does not.
func TestEveryLineSaysWhyItLoses(t *testing.T) {
	is := func(name string) func(*http.Request) (bool, error) {
		return func(r *http.Request) (bool, error) { return r.Header.Get(name) != "", nil }
	}
	lines := []pricing.Line{
		{Kind: pricing.Priced, Patterns: []string{"/*"}, Price: 0},
		{Kind: pricing.Priced, Patterns: []string{"/x", "/a/*"}, Price: 1},
		{Kind: pricing.Priced, Patterns: []string{"/a/*"}, Matcher: is("A"), MatcherName: "@a", Price: 2},
		{Kind: pricing.Priced, Patterns: []string{"/a/*"}, Matcher: is("B"), MatcherName: "@b", Price: 3},
		{Kind: pricing.Priced, Patterns: []string{"/a/*"}, Methods: []string{"POST"}, Price: 4},
		{Kind: pricing.Free, Patterns: []string{"/a/free"}},
		{Kind: pricing.Free, Patterns: []string{"/q/*"}, Matcher: is("Q"), Surely: is("Sure"), MatcherName: "@q"},
	}
	list, err := pricing.NewList(lines, pricing.Decision{Kind: pricing.Free})
	if err != nil {
		t.Fatal(err)
	}
	list = list.WithDearer(func(a, b int) (int, bool) { return max(a, b), true })
	const (
		decides, path, matcher, method = "it is the most specific line for this request", "its path is less specific", "its matcher does not match", "it is for other methods"
		matches, named                 = "a line with a matcher that matches goes before it", "a line that names the method goes before it"
	)
	for name, tc := range map[string]struct {
		method, path string
		headers      []string
		why          map[int]string
	}{
		"no matcher":         {"GET", "/a/1", nil, map[int]string{0: path, 1: decides, 2: matcher, 3: matcher, 4: method}},
		"one of its paths":   {"GET", "/x", nil, map[int]string{0: path, 1: decides}},
		"a matcher":          {"GET", "/a/1", []string{"A"}, map[int]string{0: path, 1: matches, 2: decides, 3: matcher, 4: method}},
		"two matchers":       {"GET", "/a/1", []string{"A", "B"}, map[int]string{0: path, 1: matches, 2: "of two that count the dearer one holds", 3: decides, 4: method}},
		"a method":           {"POST", "/a/1", nil, map[int]string{0: path, 1: named, 2: matcher, 3: matcher, 4: decides}},
		"free":               {"GET", "/a/free", nil, map[int]string{0: path, 1: path, 2: matcher, 3: matcher, 4: method, 5: decides}},
		"free by a query":    {"GET", "/q/1", []string{"Q", "Sure"}, map[int]string{0: path, 6: decides}},
		"a query not surely": {"GET", "/q/1", []string{"Q"}, map[int]string{0: decides, 6: "its matcher does not match in every reading of the request"}},
		"nothing":            {"GET", "/else", nil, map[int]string{0: decides}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &http.Request{Header: http.Header{}}
			for _, h := range tc.headers {
				r.Header.Set(h, "1")
			}
			decide := func(l *pricing.List) (pricing.Decision, error) { return l.Decide(r, tc.method, tc.path) }
			want, err := decide(list)
			if err != nil {
				t.Fatal(err)
			}
			got, standings, err := list.Explain(decide)
			if err != nil || got.Kind != want.Kind || got.Line != want.Line || got.Price != want.Price {
				t.Fatalf("%+v, not %+v: %v", got, want, err)
			}
			for _, s := range standings {
				if s.Why != tc.why[s.Line] || s.Decides != (s.Why == decides) {
					t.Errorf("line %d: %+v, want %q", s.Line, s, tc.why[s.Line])
				}
			}
			if len(standings) != len(tc.why) {
				t.Errorf("%d lines, want %d", len(standings), len(tc.why))
			}
		})
	}
	if closed := list.ClosedTo("GET"); len(closed) != 0 {
		t.Errorf("/* is open to GET, and yet closed by %v", closed)
	}
}

// A line for other methods closes its path only where nothing else answers.
func TestALineForOtherMethodsClosesItsPath(t *testing.T) {
	list, err := pricing.NewList([]pricing.Line{
		{Kind: pricing.Priced, Patterns: []string{"/a", "/b/*"}, Methods: []string{"POST"}},
		{Kind: pricing.Priced, Patterns: []string{"/c"}, Methods: []string{"POST"}, Price: 1},
		{Kind: pricing.Free, Patterns: []string{"/c"}, Methods: []string{"GET"}},
		{Kind: pricing.Priced, Patterns: []string{"/d"}, Methods: []string{"GET", "POST"}, Price: 2},
		{Kind: pricing.Priced, Patterns: []string{"*.pdf"}, Methods: []string{"PUT"}, Price: 3},
	}, pricing.Decision{Kind: pricing.Refused})
	if err != nil {
		t.Fatal(err)
	}
	if closed := list.ClosedTo("GET"); !slices.Equal(closed, []int{0, 4}) {
		t.Errorf("closed by %v", closed)
	}
}
