package pricing

import (
	"net/http"
	"testing"
)

// TestPageInAnotherFormatIsPriced: servers have one page under its name and under the
// name with any ending.
func TestPageInAnotherFormatIsPriced(t *testing.T) {
	for _, tc := range []struct {
		name  string
		lines []string
		want  map[string]string
	}{
		{
			"one path",
			[]string{"1 /quote", "2 /a/b"},
			map[string]string{
				"/quote": "1", "/quote.json": "1", "/quote.anything": "1", "/quote.": "1", "/QUOTE.JSON": "1", "/quote.json/": "1", "//quote.json": "1", "/quote.json?x": "1",
				"/quote%2ejson": "1", "/quote%252ejson": "1", "/quote.%6ason": "1", "/quote.a%2Fb": "1", "/quote.json;v=1": "1", "/quote;format=json": "1", "/quote.json%20": "1",
				"/quote.tar.gz": "1", "/quote..json": "1", "/index.php/quote.json": "1", "/x/../quote.json": "1", "/a/b.csv": "2",
				"/quote/.json": "free", "/quotejson": "free", "/quote-2.json": "free", "/quote.json/x": "free", "/x/quote.json": "free", "/.quote": "free", "/.json": "free",
			},
		},
		{
			"a name that ends so in a glob",
			[]string{"1 /reports/*/full /files/*-full", "2 *quote /v[0-9]", "free /reports/summary/full"},
			map[string]string{
				"/reports/a/full.json": "1", "/reports/a/full.tar.gz": "1", "/reports/a.b/full.x": "1", "/files/a-full.json": "1", "/files/a.b-full.json": "1",
				"/x/my.quote.json": "2", "/v1.json": "2", "/reports/a/full": "1",
				"/reports/summary/full.json": "free", "/reports/a/full/x.json": "free", "/reports/a/fuller.json": "free",
			},
		},
		{
			"the page of a folder",
			[]string{"1 /articles/*", "2 /users/*/files/*"},
			map[string]string{"/articles.json": "1", "/articles": "1", "/articles/a.json": "1", "/users/1/files.json": "2", "/users/1/files.json/x": "free", "/articles-2.json": "free"},
		},
		{
			"a line that names the ending goes before",
			[]string{"1 /article /*/full /docs/*", "2 /article.pdf", "free /article.css /news.* /*/full.css /docs.css", "1 /news"},
			map[string]string{"/article.css": "free", "/article.pdf": "2", "/article.js": "1", "/news.css": "free", "/news": "1", "/x/full.css": "free", "/x/full.js": "1", "/docs.css": "free", "/docs.html": "1"},
		},
		{
			"a less specific free line does not open it",
			[]string{"1 /shop/article /reports/*/full", "free /shop/* *.css /reports/*"},
			map[string]string{"/shop/article.css": "1", "/shop/article.html": "1", "/shop/other.css": "free", "/reports/a/full.css": "1", "/reports/a/b.css": "free"},
		},
		{
			"a more specific one does",
			[]string{"1 *-x", "free *.woff2"},
			map[string]string{"/a-x.woff2": "free", "/a-x.js": "1"},
		},
		{
			"what is free in one format is in others what a line for them says",
			[]string{"free /quote", "1 /*"},
			map[string]string{"/quote": "free", "/quote.json": "1"},
		},
		{
			"a line for everything says of endings what it says of the rest",
			[]string{"1 /*", "free *.css *.js"},
			map[string]string{"/style.css": "free", "/a/b.min.js": "free", "/page.html": "1"},
		},
		{
			"a folder whose files are free",
			[]string{"1 /articles/*", "free /articles/*.css /assets/*"},
			map[string]string{"/articles/a.css": "free", "/articles/a.html": "1", "/assets/a.css": "free"},
		},
		{
			"a name with an ending of its own takes no other",
			[]string{"1 /feed.xml *.zip /x/*.pdf /v1.2 /docs.v1/*", "2 /*/quote"},
			map[string]string{
				"/feed.xml": "1", "/feed.xml.gz": "free", "/a.zip.sha256": "free", "/x/a.pdf.sig": "free", "/v1.2.json": "free", "/docs.v1.json": "free", "/x/quote.json": "2",
				"/feed": "free", "/docs.v1/a.json": "1",
			},
		},
		{
			"one price is one price",
			[]string{"1 /quote", "1 /*"},
			map[string]string{"/quote.json": "1"},
		},
		{
			"of two prices neither where none is known to be dearer",
			[]string{"1 /quote", "2 /*"},
			map[string]string{"/quote.json": "ambiguous", "/quote": "1", "/x.json": "2"},
		},
		{
			"the methods of the page",
			[]string{"1 GET /quote", "free PUT *.json", "2 POST /other"},
			map[string]string{"/quote.json": "1", "/other.json": "405 POST,PUT"},
		},
		{
			"the index file of a folder",
			[]string{"1 /", "2 /index"},
			map[string]string{"/index.json": "ambiguous", "/index": "2"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wantOutcomes(t, tc.lines, tc.want)
		})
	}
	for _, tc := range []struct{ method, want string }{{"PUT", "free"}, {"POST", "405 GET,HEAD,PUT"}} {
		list := mustList(t, Decision{Kind: Free}, "1 GET /quote", "free PUT *.json")
		if d, err := list.Decide(nil, tc.method, "/quote.json"); err != nil || outcome(d) != tc.want {
			t.Errorf("%s: %s, %v, want %s", tc.method, outcome(d), err, tc.want)
		}
	}
}

// TestFormatsOfMatchedLines: a line that names an ending, and perhaps does not count,
// leaves the price of the page standing, and of two prices the dearer one is taken.
func TestFormatsOfMatchedLines(t *testing.T) {
	yes := func(*http.Request) (bool, error) { return true, nil }
	no := func(*http.Request) (bool, error) { return false, nil }
	price := func(path string, number int) Line { return Line{Kind: Priced, Price: number, Patterns: []string{path}} }
	for name, tc := range map[string]struct {
		lines []Line
		want  Decision
	}{
		"free, sure":        {[]Line{price("/x", 1), {Kind: Free, Patterns: []string{"/x.css"}, Matcher: yes, Surely: yes}}, Decision{Kind: Free}},
		"free, perhaps":     {[]Line{price("/x", 1), {Kind: Free, Patterns: []string{"/x.css"}, Matcher: yes, Surely: no}}, Decision{Kind: Priced, Price: 1}},
		"free, no":          {[]Line{price("/x", 1), {Kind: Free, Patterns: []string{"/x.css"}, Matcher: no}}, Decision{Kind: Priced, Price: 1}},
		"the dearer":        {[]Line{price("/x", 1), price("/*", 2)}, Decision{Kind: Priced, Price: 2}},
		"the dearer again":  {[]Line{price("/x", 2), price("/*", 1)}, Decision{Kind: Priced, Price: 2}},
		"a matcher says no": {[]Line{{Kind: Priced, Price: 1, Patterns: []string{"/x"}, Matcher: no}}, Decision{Kind: Free}},
	} {
		list, err := NewList(tc.lines, Decision{Kind: Free})
		if err != nil {
			t.Fatal(err)
		}
		list = list.WithDearer(func(a, b int) (int, bool) { return max(a, b), true })
		if d, err := list.Decide(nil, http.MethodGet, "/x.css"); err != nil || d.Kind != tc.want.Kind || d.Price != tc.want.Price {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
	list := mustList(t, Decision{Kind: Free}, "1 /x", "2 /x.css", "free /y")
	if got := list.Prices("/x.css"); len(got) != 2 {
		t.Errorf("prices %v", got)
	}
}

// TestFormatBehindALineThatPerhapsCounts: a line for the page in every format that perhaps
// does not count hides no price that is for the page alone.
func TestFormatBehindALineThatPerhapsCounts(t *testing.T) {
	yes := func(*http.Request) (bool, error) { return true, nil }
	no := func(*http.Request) (bool, error) { return false, nil }
	for _, free := range []string{"/reports/*", "*-full*", "/reports/a-*"} {
		for name, tc := range map[string]struct {
			surely func(*http.Request) (bool, error)
			want   Kind
		}{"perhaps": {no, Priced}, "surely": {yes, Free}} {
			list, err := NewList([]Line{
				{Kind: Priced, Price: 1, Patterns: []string{"*-full"}},
				{Kind: Free, Patterns: []string{free}, Matcher: yes, Surely: tc.surely},
			}, Decision{Kind: Free})
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{"/reports/a-full", "/reports/a-full.json", "/reports/a-full.tar.gz"} {
				if d, err := list.Decide(nil, http.MethodGet, path); err != nil || d.Kind != tc.want {
					t.Errorf("free %s, %s: %s is %s, %v", free, name, path, d.Kind, err)
				}
			}
		}
	}
	// Two lines that are equally specific, both counting, of which one is for the page alone.
	list, err := NewList([]Line{
		{Kind: Free, Patterns: []string{"*a-fu*"}, Matcher: yes, MatcherName: "@a"},
		{Kind: Priced, Price: 1, Patterns: []string{"*-full"}, Matcher: yes, MatcherName: "@b"},
	}, Decision{Kind: Free})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/a-full", "/a-full.json"} {
		if d, err := list.Decide(nil, http.MethodGet, path); err != nil || d.Kind != Priced {
			t.Errorf("%s is %s, %v", path, d.Kind, err)
		}
	}
}
