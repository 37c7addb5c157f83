package pricing

import "testing"

// TestGlobForFoldersPricesTheirPages: what has a page for `/posts/7/` has it under the other
// names of that page too, and what lies beside the folders is none of them.
func TestGlobForFoldersPricesTheirPages(t *testing.T) {
	for _, tc := range []struct {
		name  string
		lines []string
		want  map[string]string
	}{
		{
			"folders of one folder",
			[]string{"1 /posts/*/"},
			map[string]string{
				"/posts/7/": "1", "/posts/7": "1", "/POSTS/7": "1", "/posts//7": "1", "/posts/7;a": "1", "/posts/go-1.22": "1", "/posts/7%2f": "1", "/posts/example.com/": "1",
				"/posts/7/index.html": "1", "/posts/7/index": "1", "/posts/7/index.txt": "1", "/posts/7/default.aspx": "1", "/posts/7/index.php/x": "1", "/posts/7/index.html/": "1", "/posts/7/index.html/x": "1",
				"/posts/7.json": "1", "/posts/7.xml": "1", "/posts/7.html": "1", "/posts/7.tar.gz": "1", "/posts/7.txt": "1", "/posts/7.data": "1", "/posts/7.php/x": "1",
				"/posts/7/__data.json": "1", "/posts/7/_payload.js": "1", "/posts/7/.data": "1", "/_next/data/B/posts/7.json": "1", "/page-data/posts/7/page-data.json": "1", "/posts/7/__next._full.txt": "1",
				"/posts/example.com/index.html": "1", "/posts/example.com/__data.json": "1",

				"/posts": "free", "/posts/": "free", "/posts/index.html": "free", "/posts/index": "free", "/posts/index.xml": "free", "/posts/__data.json": "free", "/posts/_payload.json": "free", "/posts/__next._full.txt": "free", "/posts.json": "free", "/_next/data/B/posts.json": "free",
				"/posts/style.css": "free", "/posts/site.min.js": "free", "/posts/7.png": "free", "/posts/font.woff2": "free", "/posts/7/pic.png": "free", "/posts/7/index.css": "free", "/posts/7/index.js": "free", "/posts/7/x": "free", "/posts/7/x/": "free",
				"/": "free", "/about": "free", "/robots.txt": "free", "/7": "free",
			},
		},
		{
			"a slash behind what is no wildcard means nothing",
			[]string{"1 /users/*/full/", "2 *-pro/ /v[0-9]/"},
			map[string]string{
				"/users/7/full": "1", "/users/7/full/": "1", "/users/7/full.json": "1", "/users/7/full/index.html": "1", "/users/7/full/__data.json": "1", "/users/a.b/full": "1",
				"/a/b-pro": "2", "/a/b-pro/index.html": "2", "/v1": "2", "/v1/": "2", "/v1.json": "2",
				"/users/7": "free", "/users/7/full/x": "free", "/users/full": "free", "/users/7/full/x.css": "free", "/v10": "free",
			},
		},
		{
			"part of a name",
			[]string{"1 /posts/go-*/ /u/*/*/"},
			map[string]string{
				"/posts/go-1": "1", "/posts/go-/": "1", "/posts/go-1/index.html": "1", "/posts/go-1.json": "1", "/u/a/b": "1", "/u/a/b.json": "1", "/u/a/b/index.html": "1",
				"/posts/x": "free", "/posts/go": "free", "/posts/go-1.css": "free", "/posts/go-1/x": "free", "/u/a": "free", "/u/a/index.html": "free", "/u/a/b.css": "free",
			},
		},
		{
			"folders anywhere, beside the files of pages",
			[]string{"1 *.html */", "free /help/*"},
			map[string]string{
				"/": "1", "/a": "1", "/a/": "1", "/a/b/": "1", "/a/index.php": "1", "/a/index": "1", "/index.txt": "1", "/a/__data.json": "1", "/a.data": "1",
				"/style.css": "free", "/a/site.min.js": "free", "/robots.txt": "free", "/llms.txt": "free", "/.well-known/security.txt": "free", "/sitemap.xml": "free", "/feed.json": "free", "/a.pdf": "free",
				"/assets/index.css": "free", "/assets/index-x1.js": "free", "/help": "free", "/help/": "free", "/help/a/": "free", "/help/index.html": "free",
			},
		},
		{
			"and alone",
			[]string{"1 */"},
			map[string]string{"/": "1", "/a": "1", "/a/index.php": "1", "/a/b/__data.json": "1", "/index.html": "1", "/a.html": "free", "/a.json": "free", "/robots.txt": "free", "/style.css": "free"},
		},
		{
			"folders of the first level",
			[]string{"1 /*/", "free /about"},
			map[string]string{"/a": "1", "/a/": "1", "/a/index.html": "1", "/about": "free", "/about/": "free", "/": "free", "/index.html": "free", "/a/b": "free", "/robots.txt": "free", "/style.css": "free"},
		},
		{
			"a line that names the path says otherwise",
			[]string{"1 /posts/*/", "free /posts/about /posts/7/index.txt /posts/feed.xml /posts/*.csv /posts/*/index.md"},
			map[string]string{
				"/posts/about": "free", "/posts/about/": "free", "/posts/about/index.html": "free", "/posts/7/index.txt": "free", "/posts/feed.xml": "free", "/posts/a.csv": "free", "/posts/7/index.md": "free",
				"/posts/7": "1", "/posts/a.xml": "1", "/posts/7/index.html": "1",
			},
		},
		{
			"one for the folder around does not",
			[]string{"1 /posts/*/", "free /posts/* *.json"},
			map[string]string{"/posts/7": "1", "/posts/7/index.html": "1", "/posts/7/__data.json": "1", "/posts/7.json": "1", "/posts/7/x": "free", "/posts/": "free", "/posts/style.css": "free"},
		},
		{
			"the methods of the page",
			[]string{"1 POST /posts/*/"},
			map[string]string{"/posts/7": "405 POST", "/posts/7.json": "405 POST", "/posts/style.css": "free"},
		},
		{
			"what is free is free under its other names",
			[]string{"1 /*", "free /posts/*/"},
			map[string]string{"/posts/7": "free", "/posts/7/": "free", "/posts/7/x": "1", "/posts/": "1", "/posts/a.css": "1"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wantOutcomes(t, tc.lines, tc.want)
		})
	}
}
