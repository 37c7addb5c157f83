package pricing

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestLinesThatCouldMatch: a line whose matcher matches in some readings of a
// request counts beside the next that would count without it, and the dearer of
// the two is taken. One that matches in every reading decides alone.
func TestLinesThatCouldMatch(t *testing.T) {
	const cheap, middle, dear, other = 1, 2, 3, 9
	says := func(yes bool) func(*http.Request) (bool, error) {
		return func(*http.Request) (bool, error) { return yes, nil }
	}
	line := func(kind Kind, price int, path string, matches bool, methods ...string) Line {
		return Line{Kind: kind, Price: price, Patterns: []string{path}, Methods: methods, Matcher: says(matches), MatcherName: "match"}
	}
	doubtful := func(l Line, sure bool) Line {
		l.Surely = says(sure)
		return l
	}
	plain := func(kind Kind, price int, path string, methods ...string) Line {
		return Line{Kind: kind, Price: price, Patterns: []string{path}, Methods: methods}
	}
	dearer := func(a, b int) (int, bool) { return max(a, b), a != other && b != other }
	for name, tc := range map[string]struct {
		lines []Line
		kind  Kind
		price int
	}{
		"free, sure":                   {[]Line{doubtful(line(Free, 0, "/x", true), true), plain(Priced, dear, "/x")}, Free, 0},
		"free, perhaps":                {[]Line{doubtful(line(Free, 0, "/x", true), false), plain(Priced, dear, "/x")}, Priced, dear},
		"free, no":                     {[]Line{doubtful(line(Free, 0, "/x", false), false), plain(Priced, dear, "/x")}, Priced, dear},
		"free, perhaps, below":         {[]Line{doubtful(line(Free, 0, "/x", true), false), plain(Priced, dear, "/*")}, Priced, dear},
		"free, perhaps, alone":         {[]Line{doubtful(line(Free, 0, "/x", true), false)}, Free, 0},
		"priced, perhaps, alone":       {[]Line{doubtful(line(Priced, cheap, "/x", true), false)}, Priced, cheap},
		"priced, perhaps, else free":   {[]Line{doubtful(line(Priced, cheap, "/x", true), false), plain(Free, 0, "/x")}, Priced, cheap},
		"cheap, sure":                  {[]Line{doubtful(line(Priced, cheap, "/x", true), true), plain(Priced, dear, "/x")}, Priced, cheap},
		"cheap, perhaps":               {[]Line{doubtful(line(Priced, cheap, "/x", true), false), plain(Priced, dear, "/x")}, Priced, dear},
		"dear, perhaps":                {[]Line{doubtful(line(Priced, dear, "/x", true), false), plain(Priced, cheap, "/x")}, Priced, dear},
		"perhaps, and not comparable":  {[]Line{doubtful(line(Priced, other, "/x", true), false), plain(Priced, cheap, "/x")}, Ambiguous, 0},
		"perhaps, and another method":  {[]Line{doubtful(line(Free, 0, "/x", true), false), plain(Priced, cheap, "/x", "POST")}, MethodNotAllowed, 0},
		"perhaps twice":                {[]Line{doubtful(line(Priced, cheap, "/x", true), false), doubtful(line(Priced, middle, "/*", true), false), plain(Priced, dear, "*")}, Priced, dear},
		"perhaps, then sure":           {[]Line{doubtful(line(Priced, cheap, "/x", true), false), plain(Priced, middle, "/x"), plain(Priced, dear, "/*")}, Priced, middle},
		"two match":                    {[]Line{line(Priced, cheap, "/x", true), line(Priced, dear, "/x", true)}, Priced, dear},
		"two match, the other way":     {[]Line{line(Priced, dear, "/x", true), line(Priced, cheap, "/x", true)}, Priced, dear},
		"three match":                  {[]Line{line(Priced, middle, "/x", true), line(Priced, dear, "/x", true), line(Priced, cheap, "/x", true)}, Priced, dear},
		"two match and do not compare": {[]Line{line(Priced, cheap, "/x", true), line(Priced, other, "/x", true)}, Ambiguous, 0},
		"one free":                     {[]Line{line(Priced, cheap, "/x", true), line(Free, 0, "/x", true)}, Priced, cheap},
	} {
		list, err := NewList(tc.lines, Decision{Kind: Free})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		d, err := list.WithDearer(dearer).Decide(httptest.NewRequest(http.MethodGet, "/x", nil), http.MethodGet, "/x")
		if err != nil || d.Kind != tc.kind || d.Price != tc.price {
			t.Errorf("%s: %v, %v; want %v %d", name, d, err, tc.kind, tc.price)
		}
	}
	// Two readings of a path are two goods: whoever pays for one gets only that.
	list, err := NewList([]Line{plain(Priced, cheap, "/a"), plain(Priced, dear, "/b")}, Decision{Kind: Free})
	if err != nil {
		t.Fatal(err)
	}
	if d, err := list.WithDearer(dearer).Decide(httptest.NewRequest(http.MethodGet, "/x", nil), http.MethodGet, "/a/..%2fb", "/a"); err != nil || d.Kind != Ambiguous {
		t.Errorf("two paths: %v, %v", d, err)
	}
}

// TestDecisionsDepend: a decision says whether a matcher was asked for it, and
// only then.
func TestDecisionsDepend(t *testing.T) {
	never := func(*http.Request) (bool, error) { return false, nil }
	list, err := NewList([]Line{
		{Kind: Priced, Patterns: []string{"/x"}, Methods: []string{"POST"}, Matcher: never},
		{Kind: Priced, Patterns: []string{"/y/*"}, Matcher: never},
		{Kind: Free, Patterns: []string{"/y/free"}},
	}, Decision{Kind: Free})
	if err != nil {
		t.Fatal(err)
	}
	for request, want := range map[string]Decision{
		"GET /x":         {Kind: Free, Depends: true}, // else 405
		"POST /x":        {Kind: Free, Depends: true},
		"GET /y/z":       {Kind: Free, Depends: true},
		"GET /y/free":    {Kind: Free},
		"GET /z":         {Kind: Free},
		"GET /z/..%2fy/": {Kind: Free, Depends: true},
	} {
		method, path, _ := strings.Cut(request, " ")
		d, err := list.Decide(httptest.NewRequest(method, "/", nil), method, path)
		if err != nil || d.Depends != want.Depends {
			t.Errorf("%s: %v, %v", request, d, err)
		}
		if Join(Decision{Kind: Free}, d).Depends != want.Depends || Join(d, Decision{Kind: Free}).Depends != want.Depends {
			t.Errorf("%s: lost when joined", request)
		}
	}
}

// TestURLTellsNoClientsApart: what a matcher says that looks at the URL only depends
// on no client.
func TestURLTellsNoClientsApart(t *testing.T) {
	says := func(*http.Request) (bool, error) { return false, nil }
	line := func(byURL bool) Line {
		return Line{Kind: Priced, Patterns: []string{"/*"}, Matcher: says, MatcherName: map[bool]string{true: "@query", false: "@header"}[byURL], ByURL: byURL}
	}
	for _, tc := range []struct {
		lines []Line
		want  bool
	}{
		{[]Line{line(true)}, false},
		{[]Line{line(false)}, true},
		{[]Line{line(true), line(false)}, true},
	} {
		list, err := NewList(tc.lines, Decision{Kind: Free})
		if err != nil {
			t.Fatal(err)
		}
		if d, err := list.Decide(nil, http.MethodGet, "/a"); err != nil || d.Depends != tc.want {
			t.Errorf("%d lines: %+v, %v", len(tc.lines), d, err)
		}
	}
}
