package pricing

import (
	"net/http"
	"testing"
)

// TestFileWithoutItsEndingIsPriced: many servers answer `/report` with `/report.html`.
func TestFileWithoutItsEndingIsPriced(t *testing.T) {
	for _, tc := range []struct {
		name  string
		lines []string
		want  map[string]string
	}{
		{
			"one file",
			[]string{"1 /report.html /a/b.htm /buy.php", "2 /go-1.22.html /.x.html"},
			map[string]string{
				"/report.html": "1", "/report": "1", "/report/": "1", "/REPORT": "1", "//report": "1", "/report;v=1": "1", "/rep%6frt": "1", "/report%20": "1", "/x/../report": "1",
				"/report?x": "1", "/index.php/report": "1", "/report%2f": "1", "/a/b": "1", "/a/b/": "1", "/buy": "1", "/go-1.22": "2", "/go-1.22/": "2", "/.x": "2",
				"/": "free", "/a/": "free", "/reports": "free", "/report/x": "free", "/x/report": "free", "/report.": "1", "/.html": "free", "/report.css": "free", "/go-1": "free",
			},
		},
		{
			"files of a folder",
			[]string{"1 /articles/*.html", "2 /users/*/page-*.php"},
			map[string]string{
				"/articles/1": "1", "/articles/1/": "1", "/articles/index": "1", "/articles/go-1.22": "1", "/articles/a.b.html": "1", "/users/7/page-1": "2",
				"/articles/": "free", "/articles": "free", "/articles/1/2": "free", "/articles/app.js": "free", "/articles/x.pdf": "free", "/users/7/page": "free",
			},
		},
		{
			"files anywhere, which makes no folder dear",
			[]string{"1 *.html"},
			map[string]string{"/a": "1", "/a/b": "1", "/index": "1", "/": "free", "/a/": "free", "/a/b/": "free", "/style.css": "free", "/a.min.js": "free"},
		},
		{
			"and with a line for all that ends with a slash, which does",
			[]string{"1 *.html */", "free /help/*"},
			map[string]string{"/a": "1", "/a/": "1", "/": "1", "/style.css": "free", "/help/": "free"},
		},
		{
			"names that begin with an ending",
			[]string{"1 /quote.* /shop/*.htm* /docs.html/*", "2 /x/*.[gh]*", "3 /y.h*"},
			map[string]string{
				"/quote": "1", "/quote/": "1", "/shop/a": "1", "/docs": "1", "/docs/": "1", "/x/a": "2", "/y": "3",
				"/quotes": "free", "/shop/": "free", "/docs/a": "free", "/x/": "free",
			},
		},
		{
			"other endings are of other things",
			[]string{"1 /paper.pdf *.zip /feed.xml /quote.json"},
			map[string]string{"/paper": "free", "/all": "free", "/feed": "free", "/quote": "free"},
		},
		{
			"a line that names the path goes before",
			[]string{"1 /report.html /shop/article.html *.htm", "free /report /*/about"},
			map[string]string{"/report": "free", "/report/": "free", "/report.html": "1", "/x/about": "free", "/x/other": "1", "/shop/article": "1"},
		},
		{
			"a less specific free line does not open it",
			[]string{"1 /shop/article.html", "free /shop/*"},
			map[string]string{"/shop/article": "1", "/shop/article/": "1", "/shop/other": "free"},
		},
		{
			"what is free with its ending is free without it",
			[]string{"1 *.html", "free /help/*"},
			map[string]string{"/help/a": "free", "/help/a.html": "free", "/b": "1"},
		},
		{
			"a price for everything",
			[]string{"1 /*", "free *.html"},
			map[string]string{"/a": "1", "/a.html": "free"},
		},
		{
			"the methods of the file",
			[]string{"1 POST /buy.php"},
			map[string]string{"/buy": "405 POST"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wantOutcomes(t, tc.lines, tc.want)
		})
	}
	list := mustList(t, Decision{Kind: Free}, "1 /report.html", "2 /*", "3 *.css")
	if got := list.Prices("/report"); len(got) != 2 {
		t.Errorf("prices %v", got)
	}
	list = list.WithDearer(func(a, b int) (int, bool) { return max(a, b), true })
	if d, err := list.Decide(nil, http.MethodGet, "/report"); err != nil || d.Price != 2 {
		t.Errorf("the dearer: %+v, %v", d, err)
	}
}

// TestFilesWithoutEndingsCostOtherPathsNothing: what no line could be for with an ending
// is not looked up with it.
func TestFilesWithoutEndingsCostOtherPathsNothing(t *testing.T) {
	for line, want := range map[string]int{
		"1 /articles/* /report /paper.pdf": 0, "1 *.pdf *download* /users/*/export /v[0-9]": 0, "1 /x.html": 0,
		"1 *.html": 1, "1 *.htm*": 2, "1 *.php /a/*.html": 2, "1 *.*": 3, "1 /x/*": 0, "1 /other.html /page.php": 1,
	} {
		list := mustList(t, Decision{Kind: Free}, line)
		got := 0
		for which := list.index.completions("/page"); which != 0; which &= which - 1 {
			got++
		}
		if got != want {
			t.Errorf("%s: %d, want %d", line, got, want)
		}
	}
}
