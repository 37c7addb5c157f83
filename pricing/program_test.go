package pricing

import (
	"net/http"
	"testing"
)

// TestWhatFollowsAProgramIsPriced: servers run a program for every path that
// begins with its own, whatever its name ends with.
func TestWhatFollowsAProgramIsPriced(t *testing.T) {
	for _, tc := range []struct {
		name  string
		lines []string
		want  map[string]string
	}{
		{
			"any ending",
			[]string{"1 /buy.phtml /shop/pay.weird /cgi-bin/buy /x/fcgi-bin/y", "2 /v1.2"},
			map[string]string{
				"/buy.phtml": "1", "/buy.phtml/": "1", "/buy.phtml/x": "1", "/buy.phtml/x/y": "1", "/BUY.phtml//x": "1", "/buy.phtml%2Fx": "1",
				"/buy.phtml;a/x": "1", `/buy.phtml\x`: "1", "/a/../buy.phtml/x": "1", "/buy%2ephtml/x": "1", "/buy.phtml/a/../../c": "1",
				"/shop/pay.weird/x": "1", "/cgi-bin/buy/x/y": "1", "/x/fcgi-bin/y/z": "1", "/v1.2/x": "2",
				"/buy.phtmlx/y": "free", "/a/buy.phtml/x": "free", "/cgi-bin": "free", "/cgi-bin/other/x": "free",
			},
		},
		{
			"the index file of a folder is the folder",
			[]string{"1 / /shop", "2 /more", "free /more/* /docs"},
			map[string]string{
				"/": "1", "/index.php": "1", "/index.html": "1", "/INDEX.html.gz": "1", "/index": "1", "/default.aspx": "1", "//index.php": "1", "/%69ndex.php": "1",
				"/index.php/x": "1", "/index.php/x/y": "1", "/index.phtml/x": "1", "/x/../index.htm": "1", "/index.php;a": "1",
				"/shop": "1", "/shop/": "1", "/shop/index.jsp": "1", "/shop/index.php/x": "1", "/shop/default.htm": "1",
				"/indexed": "free", "/index-2": "free", "/x/index.php": "free", "/default": "free", "/shop/default.": "free", "/docs/index.html": "free",
				"/more/index.html": "free", // a line for what is in it
			},
		},
		{
			"the index file of a folder that a glob is for",
			[]string{"1 /users/*/full *-pro", "2 /shop/*/x", "free *.html /users/9/* /open/* /users/*/full/index.txt"},
			map[string]string{
				"/users/7/full/index.html": "1", "/users/7/full/index": "1", "/users/7/full/index.php/x": "1", "/users/7/full/index/x/y": "1", "/USERS/7/full//Default.aspx": "1", "/a/b-pro/index.php": "1",
				"/shop/a/x/index.php": "2", "/shop/a/b/x/index.php": "free", "/users/7/full/index.txt": "free", "/users/9/full/index.htm": "free", "/users/7/index.html": "free", "/users/7/full/x": "free", "/open/b-pro/index.txt": "free",
			},
		},
		{
			"what follows an index file, whatever its ending",
			[]string{"1 / /shop", "2 /users/*/full", "free /shop/index.html/about /docs/index.html/*"},
			map[string]string{
				"/shop/index.html/": "1", "/shop/index.html/x": "1", "/shop/index.htm/x/y.css": "1", "/SHOP/INDEX.html/x": "1", "/shop/default.htm/x": "1", "/index.html/": "1", "/index.html/x": "1", "/shop/index/": "1",
				"/users/7/full/index.html/": "2", "/users/7/full/index.html/x": "2", "/users/7/full/index.txt/x": "2",
				"/shop/index.html/about": "free", "/docs/index.html/x": "free", "/x/index.html/": "free", "/x/index.html/y": "free", "/shop/indexes/x": "free", "/shop/x/index.html/y": "free", "/shop/default/x": "free",
			},
		},
		{
			"the index file of a folder whose name has an ending",
			[]string{"1 /whois/*.com", "2 *.org", "free /whois/free.com/index.html"},
			map[string]string{
				"/whois/example.com": "1", "/whois/example.com/": "1", "/whois/example.com/index.html": "1", "/whois/example.com/index.php/x": "1", "/whois/example.com/index": "1", "/a/b.org/index.html": "2",
				"/whois/free.com/index.html": "free", "/whois/index.html": "free", "/whois/example.net/index.html": "free",
			},
		},
		{
			"what follows a file",
			[]string{"1 /articles/*.html *.pdf", "free /articles/1.html/about /articles/free.html *.css", "2 /articles/2.html/*"},
			map[string]string{
				"/articles/1.html/": "1", "/articles/1.html/x": "1", "/articles/1.html/x/y.css": "1", "/x/y.pdf/z": "1", "/x/y.pdf/": "1", "/articles/3.html/x.php/y": "1",
				"/articles/1.html/about": "free", "/articles/free.html/x": "free", "/articles/2.html/x": "2", "/articles/x": "1", "/style.css/x": "free", "/articles/go-1.22/x": "free", "/node.js/x": "free", "/example.com/x.css": "free",
			},
		},
		{
			"what is free behind a name with a dot",
			[]string{"1 *.html", "free /docs/*", "2 *.js"},
			map[string]string{"/docs/a.html/x": "free", "/a.css/b.html": "1", "/a.js/b.css": "2"},
		},
		{
			"a line for the index file wins",
			[]string{"1 / /shop", "free /index.html /shop/*", "2 /index.php"},
			map[string]string{"/index.html": "free", "/index.php": "2", "/index.htm": "1", "/shop/index.html": "free", "/shop": "1"},
		},
		{
			"of two prices neither where none is known to be dearer",
			[]string{"1 /", "2 /*"},
			map[string]string{"/index.html": "ambiguous", "/": "1", "/x": "2"},
		},
		{
			"one price for all",
			[]string{"1 /", "1 /*"},
			map[string]string{"/index.html": "1"},
		},
		{
			"the methods of the folder",
			[]string{"1 POST /", "free GET /"},
			map[string]string{"/index.html": "free"},
		},
		{
			"not what has no dot, or only the first",
			[]string{"1 /buy /.well-known /a.b/c"},
			map[string]string{"/buy/x": "free", "/.well-known/x": "free", "/a.b/c/d": "free", "/a.b": "free"},
		},
		{
			"a line for what follows wins",
			[]string{"1 /buy.phtml", "free /buy.phtml/help /buy.phtml/docs/* /buy.phtml/*/about", "2 /buy.phtml/more"},
			map[string]string{"/buy.phtml/help": "free", "/buy.phtml/docs/a": "free", "/buy.phtml/a/about": "free", "/buy.phtml/x": "1", "/buy.phtml/help/x": "1", "/buy.phtml/more": "2"},
		},
		{
			"also behind a name that every server knows",
			[]string{"1 /buy.php /a.cgi/b.php", "free /buy.php/help /buy.php/docs/*", "2 /buy.php/more"},
			map[string]string{
				"/buy.php": "1", "/buy.php/x": "1", "/buy.php/help": "free", "/buy.php/docs/a": "free", "/buy.php/more": "2", "/buy.php/help/x": "1",
				"/buy.php/x.php/y": "1", "/a.cgi/b.php/c.php/d": "1", "/buy.php%3F/help": "1", "/buy.php;/help": "1",
			},
		},
		{
			"a program in another format",
			[]string{"1 /quote /shop"},
			map[string]string{"/quote.php/x": "1", "/quote.phtml/x": "1", "/shop.php/x/y.php/z": "1"},
		},
		{
			"what follows an index file that a server completes",
			[]string{"1 / /shop", "2 /more", "free /more/* /shop/index/about"},
			map[string]string{
				"/index/x": "1", "/shop/index/x": "1", "/shop/index/x/y": "1", "/SHOP//index/x": "1", "/shop/index/about": "free",
				"/more/index/x": "free", "/x/index/y": "free", "/indexes/x": "free", "/shop/my-index/x": "free",
			},
		},
		{
			"a line for all that follows",
			[]string{"1 /buy.phtml /buy.php", "free /buy.phtml/* /buy.php/*"},
			map[string]string{"/buy.phtml": "1", "/buy.phtml/x": "free", "/buy.php": "1", "/buy.php/x": "free"},
		},
		{
			"a less specific free line does not open it",
			[]string{"1 /shop/buy.phtml", "free /shop/* *.css"},
			map[string]string{"/shop/buy.phtml/x": "1", "/shop/buy.phtml/x.css": "1", "/shop/other/x": "free"},
		},
		{
			"another price may be that of the program or not",
			[]string{"1 /buy.phtml", "2 /*"},
			map[string]string{"/buy.phtml/x": "ambiguous", "/x": "2"},
		},
		{
			"one price is one price",
			[]string{"1 /buy.phtml", "1 /*"},
			map[string]string{"/buy.phtml/x": "1"},
		},
		{
			"what is free opens nothing behind it",
			[]string{"free /index.phtml /readme.txt", "1 /articles/*"},
			map[string]string{"/index.phtml": "free", "/index.phtml/articles/1": "1", "/index.phtml/other": "free", "/readme.txt/articles/1": "free"},
		},
		{
			"programs by their ending",
			[]string{"1 *.phtml", "2 /x/*.svc"},
			map[string]string{"/a.phtml/b": "1", "/a.phtml/b.php/c": "1", "/a.phtml/b/c": "1", "/x/y.svc/z": "2", "/a.pdf/b": "free"},
		},
		{
			"front controllers",
			[]string{"1 /articles/*"},
			map[string]string{
				"/index.phtml/articles/1": "1", "/index.php5/articles/1": "1", "/app.phar/articles/1": "1", "/x.dll/articles/1": "1",
				"/v1.2/articles/1": "free", "/jquery.js/articles/1": "free", "/example.com/articles/1": "free",
			},
		},
		{
			"the methods of the program",
			[]string{"1 GET /buy.phtml"},
			map[string]string{"/buy.phtml/x": "1"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wantOutcomes(t, tc.lines, tc.want)
		})
	}
	list := mustList(t, Decision{Kind: Free}, "1 GET /buy.phtml")
	if d, err := list.Decide(nil, "POST", "/buy.phtml/x"); err != nil || outcome(d) != "405 GET,HEAD" {
		t.Errorf("POST: %s, %v", outcome(d), err)
	}
	list = mustList(t, Decision{Kind: Refused}, "1 /buy.phtml")
	if d, err := list.Decide(nil, "GET", "/buy.phtml/x"); err != nil || d.Kind == Free {
		t.Errorf("refused: %s, %v", outcome(d), err)
	}
}

// TestProgramsOfMatchedLines: a line for an index file, or for what follows a program, that
// perhaps does not count leaves the price of the folder or the program standing.
func TestProgramsOfMatchedLines(t *testing.T) {
	yes := func(*http.Request) (bool, error) { return true, nil }
	no := func(*http.Request) (bool, error) { return false, nil }
	line := func(kind Kind, number int, path string, surely func(*http.Request) (bool, error)) Line {
		return Line{Kind: kind, Price: number, Patterns: []string{path}, Matcher: yes, Surely: surely}
	}
	for _, of := range []struct{ path, page string }{
		{"/", "/index.php"},
		{"/shop", "/shop/index.html"},
		{"/buy.phtml", "/buy.phtml/help"},
		{"/buy.php", "/buy.php/help"},
	} {
		price := Line{Kind: Priced, Price: 1, Patterns: []string{of.path}}
		for name, tc := range map[string]struct {
			line Line
			want Decision
		}{
			"free, sure":       {line(Free, 0, of.page, yes), Decision{Kind: Free}},
			"free, perhaps":    {line(Free, 0, of.page, no), Decision{Kind: Priced, Price: 1}},
			"dearer, sure":     {line(Priced, 2, of.page, yes), Decision{Kind: Priced, Price: 2}},
			"dearer, perhaps":  {line(Priced, 2, of.page, no), Decision{Kind: Priced, Price: 2}},
			"cheaper, sure":    {line(Priced, 0, of.page, yes), Decision{Kind: Priced, Price: 0}},
			"cheaper, perhaps": {line(Priced, 0, of.page, no), Decision{Kind: Priced, Price: 1}},
		} {
			list, err := NewList([]Line{price, tc.line}, Decision{Kind: Free})
			if err != nil {
				t.Fatal(err)
			}
			list = list.WithDearer(func(a, b int) (int, bool) { return max(a, b), true })
			if d, err := list.Decide(nil, http.MethodGet, of.page); err != nil || d.Kind != tc.want.Kind || d.Price != tc.want.Price {
				t.Errorf("%s, %s: %+v, %v", of.page, name, d, err)
			}
		}
	}
}
