package pricing

import (
	"testing"
)

// TestDataOfAPageIsPriced: frameworks have each page once more for their own code in the
// browser.
func TestDataOfAPageIsPriced(t *testing.T) {
	for _, tc := range []struct {
		name  string
		lines []string
		want  map[string]string
	}{
		{
			"Next.js",
			[]string{"1 /quote /articles/*", "2 /", "3 /shop/a/b /de/quote"},
			map[string]string{
				"/_next/data/B1-x_/quote.json": "1", "/_next/data/B/articles/1.json": "1", "/_next/data/B/articles.json": "1", "/_next/data/B/index.json": "2", "/_next/data/B/index/quote.json": "1",
				"/_next/data/B/de/quote.json": "3", "/shop/_next/data/B/a/b.json": "3", "/_NEXT/Data/B/QUOTE.JSON": "1", "//_next//data/B//quote.json": "1", "/_next/data/B/quote%2Ejson": "1",
				"/_next/data/B/quote.json?a=b": "1", "/_next%2Fdata/B/quote.json": "1", "/_next/data/B/x/../quote.json": "1", "/_next/data/B/quote.json/": "1", "/_next/data/B/quote.json;x": "1",
				"/_next/data/B/other.json": "free", "/_next/data/quote.json": "free", "/_next/data/B/quote.js": "free", "/_next/static/B/quote.json": "free",
			},
		},
		{
			"SvelteKit, React Router, Nuxt and Qwik",
			[]string{"1 /quote /articles/*", "2 /", "3 /page.html"},
			map[string]string{
				"/quote/__data.json": "1", "/__data.json": "2", "/quote//__data.json": "1", "/articles/1/__data.json": "1", "/page.html__data.json": "3", "/QUOTE/__Data.json": "1", "/quote/__data.json/": "1",
				"/quote.data": "1", "/_root.data": "2", "/.data": "2", "/quote/.data": "1", "/quote/_.data": "1", "/_.data": "2", "/quote/_root.data": "1",
				"/quote.rsc": "1", "/quote/_.rsc": "1", "/_.rsc": "2", "/_root.rsc": "2", "/articles/1/_.rsc": "1", "/other/_.rsc": "free", "/page.html.rsc": "3", "/x.rsc": "free",
				"/quote/_payload.json": "1", "/quote/_payload.js": "1", "/_payload.json": "2", "/quote/q-data.json": "1", "/q-data.json": "2",
				"/quote/__data.json?x-sveltekit-invalidated=01": "1", "/quote%2f__data.json": "1", "/quote/__data%2ejson": "1",
				"/other/__data.json": "free", "/quote/data.json": "free", "/quote/x/__data.json": "free", "/quote/data": "free", "/app.js": "free",
			},
		},
		{
			"names with dots, and Next.js when it is exported",
			[]string{"1 /node.js /docs/1.2 /quote /feed.xml /a/b", "2 /", "free /node.js.map"},
			map[string]string{
				"/node.js.data": "1", "/docs/1.2.data": "1", "/feed.xml.data": "1", "/NODE.js.Data": "1", "/node.js.map": "free", "/docs/1.3.data": "free",
				"/quote/__next._full.txt": "1", "/quote/__next.quote.__PAGE__.txt": "1", "/__next._index.txt": "2", "/a/b/__next._tree.txt": "1", "/robots.txt": "free", "/c/__next._full.txt": "free",
			},
		},
		{
			"a page that is a file",
			[]string{"1 /articles/*.html", "2 /report.htm /blog/x.php", "free /articles/4/__data.json"},
			map[string]string{
				"/articles/1/__data.json": "1", "/articles/1/_payload.json": "1", "/articles/4/__data.json": "free", "/_next/data/B/articles/1.json": "1", "/report/.data": "2", "/page-data/blog/x/page-data.json": "2",
				"/other/__data.json": "free", "/articles.x/__data.json": "free",
			},
		},
		{
			"what lies beside the file of a page: React Router and Next.js, when they are exported",
			[]string{"1 /articles/*.html", "2 /report.htm /index.html", "free /articles/4.txt /articles/4.data /articles/free.html"},
			map[string]string{
				"/articles/1.txt": "1", "/articles/1.data": "1", "/ARTICLES/1.TXT": "1", "/articles/1.txt/": "1", "/articles/1%2etxt": "1", "/articles/go-1.22.txt": "1", "/articles/index.txt": "1",
				"/report.txt": "2", "/report.data": "2", "/index.txt": "2",
				"/articles/4.txt": "free", "/articles/4.data": "free", "/articles/free.txt": "free", "/articles/1.css": "free", "/articles/1.json": "free", "/articles.txt": "free", "/articles/a/1.txt": "free", "/robots.txt": "free", "/llms.txt": "free", "/x.data": "free", "/report.x.txt": "free",
			},
		},
		{
			"but no other text beside files anywhere",
			[]string{"1 *.html", "2 /docs/*.html", "free /docs/*.txt /docs/*/notes.txt"},
			map[string]string{"/quote.data": "1", "/a/b.data": "1", "/robots.txt": "free", "/llms.txt": "free", "/.well-known/security.txt": "free", "/a/b.txt": "free", "/docs/1.txt": "free", "/docs/1.data": "2"},
		},
		{
			"nor beside what is no file, or is for everything",
			[]string{"1 /*", "2 /articles/*.html", "free *.txt *.data"},
			map[string]string{"/robots.txt": "free", "/x.data": "free", "/articles/1.txt": "2", "/articles/1.data": "2"},
		},
		{
			"other endings are of no page",
			[]string{"1 /articles/*.pdf /a.zip *.xml"},
			map[string]string{"/articles/1.txt": "free", "/articles/1.data": "free", "/a.txt": "free", "/sitemap.data": "free"},
		},
		{
			"Gatsby",
			[]string{"1 /quote /a/b", "2 /", "3 /blog"},
			map[string]string{
				"/page-data/quote/page-data.json": "1", "/page-data/a/b/page-data.json": "1", "/page-data/index/page-data.json": "2", "/blog/page-data/index/page-data.json": "3",
				"/page-data/other/page-data.json": "free", "/page-data/app-data.json": "free", "/page-data/sq/d/1.json": "free",
			},
		},
		{
			"a line that names the data goes before",
			[]string{"1 /quote /shop/* /users/*/full", "free /_next/data/*/quote.json /quote/__data.json /users/*/full/__data.json", "2 /page-data/quote/* /shop/a/__data.json"},
			map[string]string{
				"/_next/data/B/quote.json": "free", "/quote/__data.json": "free", "/users/7/full/__data.json": "free", "/page-data/quote/page-data.json": "2", "/shop/a/__data.json": "2",
				"/quote/.data": "1", "/shop/b/__data.json": "1",
			},
		},
		{
			"one for all data does not",
			[]string{"1 /quote /a/*", "free /_next/* /_next/data/* *.json /quote/* /page-data/* *__data.json"},
			map[string]string{
				"/_next/data/B/quote.json": "1", "/_next/data/B/a/b.json": "1", "/quote/__data.json": "1", "/page-data/quote/page-data.json": "1",
				"/_next/data/B/other.json": "free", "/quote/x": "free", "/b/__data.json": "free", "/_next/static/x.js": "free",
			},
		},
		{
			"what is free is free as data",
			[]string{"1 /*", "free /help /about/* /_next/*"},
			map[string]string{"/about/__data.json": "free", "/about/x/__data.json": "free", "/_next/data/B/help.json": "free", "/_next/data/B/x.json": "1", "/_next/static/a.js": "free"},
		},
		{
			"nor beside a price for everything",
			[]string{"1 /*", "free /_next/* *.json *.data /free", "2 GET /_next/data/*/two.json"},
			map[string]string{
				"/_next/data/B/a/b.json": "1", "/_next/data/B/index.json": "1", "/a/__data.json": "1", "/_root.data": "1", "/_next/data/B/two.json": "2",
				"/_next/data/B/free.json": "free", "/free/__data.json": "free", "/_next/x.js": "free", "/a.json": "free",
			},
		},
		{
			"the methods of the page",
			[]string{"1 POST /quote"},
			map[string]string{"/quote/__data.json": "405 POST"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wantOutcomes(t, tc.lines, tc.want)
		})
	}
	for path, want := range map[string]Kind{"/robots.txt": Free, "/articles/x.data": Free, "/x.txt": Refused} {
		list := mustList(t, Decision{Kind: Refused}, "free /robots.txt /articles/x.data", "1 *.htm")
		if d, err := list.Decide(nil, "GET", path); err != nil || d.Kind != want {
			t.Errorf("%s is %s, %v", path, d.Kind, err)
		}
	}
	list := mustList(t, Decision{Kind: Refused}, "free /_next/* *.json /a")
	for path, want := range map[string]Kind{"/_next/data/B/a.json": Free, "/_next/data/B/b.json": Refused, "/b/__data.json": Refused, "/_next/b.js": Free} {
		if d, err := list.Decide(nil, "GET", path); err != nil || d.Kind != want {
			t.Errorf("%s is %s, %v", path, d.Kind, err)
		}
	}
	list = mustList(t, Decision{Kind: Free}, "1 /quote", "2 /quote/*")
	if got := list.Prices("/quote/__data.json"); len(got) != 2 {
		t.Errorf("prices %v", got)
	}
}
