package pricing

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestLinesThatNeverCount(t *testing.T) {
	for _, tc := range []struct {
		lines      []string
		dead, over string
	}{
		{[]string{"free @key *", "1 /*/*"}, "free @key *", "1 /*/*"},
		{[]string{"1 /*/*", "free @key *"}, "free @key *", "1 /*/*"},
		{[]string{"free @key GET *", "1 GET POST */*"}, "free @key GET *", "1 GET POST */*"},
		{[]string{"2 /blog*", "1 /blog*/*"}, "2 /blog*", "1 /blog*/*"},
		{[]string{"2 @m /*", "1 @m /*/*"}, "2 @m /*", "1 @m /*/*"},
		{[]string{"free *a /blog*", "1 /blog*/*", "1 *[a]"}, "1 *[a]", "free *a /blog*"},
	} {
		_, err := NewList(lines(tc.lines...), Decision{Kind: Free})
		if err == nil || !strings.Contains(err.Error(), "`"+tc.dead+"` can never count, because `"+tc.over+"` always") {
			t.Errorf("%q: %v", tc.lines, err)
		}
	}
	for _, tc := range [][]string{
		{"free @key *", "1 /*"},                // the matcher goes first
		{"free @key * /x", "1 /*/*"},           // counts for /x
		{"free *.pdf", "1 /docs/*"},            // counts elsewhere
		{"free @m /a/sample*", "1 /a/*"},       // is longer
		{"free @key POST *", "1 GET /*/*"},     // counts for POST
		{"free @key *", "1 GET /*/*"},          // counts for POST
		{"free @key *", "1 @m /*/*"},           // counts where @m does not match
		{"1 /x", "1 /x", "free /y", "free /Y"}, // says the same twice
		{"1 /x/*", "2 /x/*/y", "3 /x/[a-z]*"},
		{"1 *.css", "2 *theme.css"},
	} {
		if _, err := NewList(lines(tc...), Decision{Kind: Free}); err != nil {
			t.Errorf("%q: %v", tc, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	for _, tc := range []struct {
		lines []string
		names []string // the two lines, if there is a warning
	}{
		{[]string{"free @key *", "1 /articles/*"}, []string{"`free @key *`", "`1 /articles/*`", "@key"}},
		{[]string{"1 /articles/*", "free @key *"}, []string{"`free @key *`", "`1 /articles/*`"}},
		{[]string{"free @key *.pdf", "1 /docs/*"}, []string{"`free @key *.pdf`", "`1 /docs/*`"}},
		{[]string{"free @key /docs/*", "1 /docs/paid/*"}, []string{"`free @key /docs/*`", "`1 /docs/paid/*`"}},
		{[]string{"free @key * /articles/*", "1 /articles/*"}, nil},
		{[]string{"free @key *", "free @key /articles/*", "1 /articles/*"}, nil},
		{[]string{"free @key *", "1 /*"}, nil},
		{[]string{"free *", "1 /articles/*"}, nil},            // what is free for all is plain
		{[]string{"1 @bots *", "2 /articles/*"}, nil},         // so are prices
		{[]string{"free @key /a/*", "1 /b/*"}, nil},           // they do not meet
		{[]string{"free @key GET *", "1 POST /b/*"}, nil},     // nor do these
		{[]string{"free @key *", "1 @bots /articles/*"}, nil}, // another matcher is no mistake
		{[]string{"free @m /a/sample*", "1 /a/*"}, nil},
	} {
		list, err := NewList(lines(tc.lines...), Decision{Kind: Free})
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(list.Warnings(), "\n")
		if (tc.names == nil) != (got == "") {
			t.Errorf("%q: %q", tc.lines, got)
		}
		for _, name := range tc.names {
			if !strings.Contains(got, name) {
				t.Errorf("%q: %q does not name %s", tc.lines, got, name)
			}
		}
	}
	many := []string{"free @key *"}
	for range 50 {
		many = append(many, "1 /"+strings.Repeat("x", len(many)))
	}
	if got := mustList(t, Decision{Kind: Free}, many...).Warnings(); len(got) != 1 {
		t.Errorf("%d warnings about one line", len(got))
	}
}

// TestContainsIsRight: a pattern that contains another one matches all that the
// other matches.
func TestContainsIsRight(t *testing.T) {
	var paths []string
	var grow func(string)
	grow = func(s string) {
		paths = append(paths, s)
		if len(s) < 7 {
			for _, c := range []string{"a", "b", "/"} {
				grow(s + c)
			}
		}
	}
	grow("/")
	yes := 0
	rapid.Check(t, func(t *rapid.T) {
		a, errA := parsePattern(drawGlob(t, "a"))
		b, errB := parsePattern(drawGlob(t, "b"))
		if errA != nil || errB != nil || !a.contains(&b) {
			return
		}
		yes++
		for _, path := range paths {
			if b.matches(path) && !a.matches(path) {
				t.Fatalf("%q", path)
			}
		}
	})
	if yes == 0 {
		t.Error("nothing contains anything: this tests nothing")
	}
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"/*/*", "/*", true},
		{"*/*", "*", true},
		{"*a*", "*ab*", true},
		{"*ab*", "*a*", false},
		{"/blog*/*", "/blog*", true},
		{"/blog/*", "/blog*", false},
		{"/x/[a-z]*", "/x/[b-c]*", true},
		{"/x/[^a]*", "/x/[b-c]*", true},
		{"/x/[b-c]*", "/x/[^a]*", false},
		{"*.pdf", "/docs/*.pdf", true},
		{"/docs/*", "*.pdf", false},
		{"/*", "*.pdf", true},
		{"*.pdf", "*", false},
		{"/a/*", "/a", true},
		{"/a", "/a/*", false},
	} {
		a, _ := parsePattern(tc.a)
		b, _ := parsePattern(tc.b)
		if got := a.contains(&b); got != tc.want {
			t.Errorf("%s contains %s: %v", tc.a, tc.b, got)
		}
	}
}

// keyed is a list with all paths and n more in one free line, and a price for each
// of the n, which the line opens.
func keyed(n int) []Line {
	free := Line{Kind: Free, MatcherName: "@key", Patterns: []string{"*"}, Matcher: func(*http.Request) (bool, error) { return false, nil }}
	list := make([]Line, 0, n+1)
	for i := range n {
		path := fmt.Sprintf("/articles/%d/*", i)
		free.Patterns = append(free.Patterns, path)
		list = append(list, Line{Kind: Priced, Price: i, Patterns: []string{path}})
	}
	return append(list, free)
}

// TestAllComparisonsCount: what bounds the checks at load counts every pair, and
// a list that is longer than they go loads too.
func TestAllComparisonsCount(t *testing.T) {
	entriesOf := func(l *List) (entries []entry) {
		for i := range l.lines {
			for _, s := range l.lines[i].Patterns {
				p, err := parsePattern(s)
				if err != nil {
					t.Fatal(err)
				}
				entries = append(entries, newEntry(p, &l.lines[i], i))
			}
		}
		return entries
	}
	for _, n := range []int{10, 100, 20_000} {
		list, err := NewList(keyed(n), Decision{Kind: Free})
		if err != nil || len(list.Warnings()) > 0 {
			t.Fatal(err, list.Warnings())
		}
		var compared comparisons
		list.warn(entriesOf(list), &compared)
		// Each path of the line is compared with all entries. The first of them
		// touches each price, for which the entries are looked through for one that
		// opens it: behind the n prices and the first path, the next one of the line.
		want := (n+1)*(2*n+1) + n*(n+1) + n*(n+1)/2
		if want = min(want, maxCompared+1); int(compared) != want {
			t.Errorf("%d lines: %d comparisons, want %d", n, compared, want)
		}
	}
}
