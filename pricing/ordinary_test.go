package pricing

import (
	"bufio"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// ordinaryPrices are the names of the prices in testdata/ordinary-urls.txt.
var ordinaryPrices = []string{
	"article", "archive", "wiki", "gitlab", "npm", "matrix", "odata", "download", "upload", "pdf",
	"search", "chat", "render", "mcp", "tile", "product", "paper", "dav", "reference", "cafe", "git", "wayback",
}

// ordinaryList is a price list as the operator of a large site might write it.
func ordinaryList(t testing.TB) *List {
	var lines []Line
	add := func(line string) {
		words := strings.Fields(line)
		l := Line{Kind: Free, Where: line}
		for i, name := range ordinaryPrices {
			if name == words[0] {
				l.Kind, l.Price = Priced, i
			}
		}
		for _, w := range words[1:] {
			if w[0] == '/' || w[0] == '*' {
				l.Patterns = append(l.Patterns, w)
			} else {
				l.Methods = append(l.Methods, w)
			}
		}
		lines = append(lines, l)
	}
	for _, line := range []string{
		"article /articles/*",
		"archive /articles/archive/*",
		"free /articles/*/preview",
		"wiki GET /wiki/*",
		"free /wiki/Main_Page /wiki/Special:*",
		"gitlab /api/v4/projects/*",
		"npm /npm/*",
		"free /npm/-/ping",
		"matrix /_matrix/client/v3/rooms/*",
		"odata /odata/*",
		"download GET /files/*",
		"upload PUT /files/*",
		"pdf *.pdf",
		"free *.css *.js *.png *.svg *.ico *.woff2",
		"free /.well-known/* /robots.txt /sitemap*.xml",
		"search /search /search/*",
		"chat POST /v1/chat/*",
		"free GET /v1/models",
		"render POST /api/render",
		"free /api/health",
		"mcp /mcp",
		"tile /tiles/*",
		"product /shop/api/*",
		"free /shop/*",
		"paper /~*/papers/*",
		"dav /dav/*",
		"reference /docs/v*/reference/*",
		"free /docs/*",
		"cafe /café/*",
		"git /git/*",
		"free /git/*/info/refs",
		"wayback /web/*",
	} {
		add(line)
	}
	list, err := NewList(lines, Decision{Kind: Free})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestOrdinaryURLs: what real applications ask for keeps its meaning, however
// odd it looks to somebody who expects attacks.
func TestOrdinaryURLs(t *testing.T) {
	file, err := os.Open("testdata/ordinary-urls.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	list := ordinaryList(t)
	r := httptest.NewRequest("GET", "/", nil)
	section, count := "", 0
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		if name, ok := strings.CutPrefix(line, "= "); ok {
			section = name
			continue
		}
		method, url := "GET", line
		if line[0] != '/' {
			method, url, _ = strings.Cut(line, " ")
		}
		url, _, _ = strings.Cut(url, "#") // no client sends the fragment
		count++
		d, err := list.Decide(r, method, url)
		if err != nil {
			t.Fatal(err)
		}
		got := d.Kind.String()
		switch d.Kind {
		case Priced:
			got = ordinaryPrices[d.Price]
		case MethodNotAllowed:
			got = "405"
		}
		if got != section {
			readings, _ := Readings(url)
			t.Errorf("%s: %s, want %s; readings %q", line, got, section, readings)
		}
	}
	if count < 500 {
		t.Errorf("%d URLs, want at least 500", count)
	}
}
