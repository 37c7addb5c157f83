package paywall_test

import (
	"encoding/base64"
	"io"
	"net/http"
	"path"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// TestOtherNamesOfAPageArePriced: what servers and frameworks have under other names than
// that of the line costs what the line says. Each upstream answers as the real one does.
func TestOtherNamesOfAPageArePriced(t *testing.T) {
	for name, tc := range map[string]struct {
		lines string
		page  func(r *http.Request) string // what is served
		goods []string
		want  map[string]int
	}{
		"Next.js, pages router": {
			"price /quote $0.01\nprice / $0.02\nfree /_next/*",
			func(r *http.Request) string {
				if data, ok := strings.CutPrefix(r.URL.Path, "/_next/data/BUILD"); ok {
					if data = strings.TrimSuffix(data, ".json"); data == "/index" {
						return "/"
					}
					return data
				}
				return r.URL.Path
			},
			[]string{"/", "/quote"},
			map[string]int{
				"/": 402, "/quote": 402, "/_next/data/BUILD/quote.json": 402, "/_next/data/BUILD/index.json": 402, "/_next/data/BUILD//quote.json": 402, "/_next/data/BUILD/qu%6fte.json": 402,
				"/_next/data/BUILD/about.json": 200, "/_next/static/chunks/main.js": 200,
			},
		},
		"Next.js, pictures": {
			"price /paid/* /_next/image $0.01\nfree @logo /_next/image",
			func(r *http.Request) string {
				if r.URL.Path == "/_next/image" {
					return r.URL.Query().Get("url")
				}
				return r.URL.Path
			},
			[]string{"/paid/pic.png", "//paid/pic.png", "/x/../paid/pic.png"},
			map[string]int{
				"/paid/pic.png": 402, "/_next/image?url=/paid/pic.png&w=64&q=75": 402, "/_next/image?url=%2Fpaid%2Fpic.png&w=64&q=75": 402, "/_next/image?url=/x/../paid/pic.png&w=64": 402,
				"/_next/image?url=/paid/pic.png&url=/logo.png": 402, "/_next/image?url=/logo.png&url=/paid/pic.png": 402, "/_next/image?url=/logo.png&w=64&q=75": 200,
			},
		},
		"SvelteKit": {
			"price /quote $0.01\nprice / $0.02",
			func(r *http.Request) string {
				if page, ok := strings.CutSuffix(r.URL.Path, "/__data.json"); ok {
					return "/" + strings.Trim(page, "/")
				}
				return r.URL.Path
			},
			[]string{"/", "/quote"},
			map[string]int{"/quote": 402, "/quote/__data.json": 402, "/__data.json": 402, "/quote//__data.json": 402, "/quote/__data%2ejson": 402, "/about/__data.json": 200},
		},
		"React Router": {
			"price /quote $0.01\nprice / $0.02",
			func(r *http.Request) string {
				if page, ok := strings.CutSuffix(r.URL.Path, ".data"); ok {
					return "/" + strings.Trim(strings.TrimSuffix(page, "_root"), "/")
				}
				return r.URL.Path
			},
			[]string{"/", "/quote"},
			map[string]int{"/quote": 402, "/quote.data": 402, "/_root.data": 402, "/.data": 402, "/quote/.data": 402, "/about.data": 200},
		},
		"files without their ending": {
			"price /report.html /articles/*.html $0.01",
			func(r *http.Request) string { // serve
				if name := strings.TrimSuffix(r.URL.Path, "/"); !strings.HasSuffix(name, ".html") && name != "/articles" {
					return name + ".html"
				}
				return r.URL.Path
			},
			[]string{"/report.html", "/articles/1.html", "/articles/go-1.22.html"},
			map[string]int{
				"/report.html": 402, "/report": 402, "/report/": 402, "/repo%72t": 402, "/articles/1": 402, "/articles/1/": 402, "/articles/go-1.22": 402, "/articles/go-1.22/": 402,
				"/": 200, "/articles/": 200, "/articles": 200, "/about": 200, "/articles/style.css": 200,
			},
		},
		"formats behind a free line that some servers see": {
			"price *-full $0.01\nfree @sample /reports/*",
			func(r *http.Request) string { // Rails
				values := r.URL.Query()["sample"]
				if len(values) > 0 && values[len(values)-1] == "1" {
					return "a sample"
				}
				return strings.TrimSuffix(r.URL.Path, path.Ext(r.URL.Path))
			},
			[]string{"/reports/a-full"},
			map[string]int{
				"/reports/a-full": 402, "/reports/a-full.json": 402, "/reports/a-full.json?sample=1": 200,
				"/reports/a-full?sample=1&sample=0": 402, "/reports/a-full.json?sample=1&sample=0": 402,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.New(t, tc.lines, "@sample query sample=1\n@logo query url=/logo.png")
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				page := tc.page(r)
				for _, goods := range tc.goods {
					if page == goods {
						_, _ = io.WriteString(rw, "GOODS")
						return
					}
				}
				_, _ = io.WriteString(rw, "ok")
			})
			for path, want := range tc.want {
				if status, body := answerTo(t, w, path); status != want || strings.Contains(body, "GOODS") && want == http.StatusOK {
					t.Errorf("%s: %d %.20s, want %d", path, status, body, want)
				}
			}
		})
	}
}

// TestLongQueryThatBeginsWithASlashPasses: a picture in base64 may begin so. A path in a
// query is priced, whatever is put behind it.
func TestLongQueryThatBeginsWithASlashPasses(t *testing.T) {
	w := gate.New(t, "price /quote $0.01\nprice /articles/* $0.01")
	picture := "/9j/4AAQSkZJRgABAQ" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("\xff\xfe\xfb/a+?>", 1500)))
	pad := strings.Repeat("ab/", 2500)
	for query, want := range map[string]int{
		picture: 200, picture[:6000]: 200, strings.Repeat("/", 8000): 200,
		"/quote&x=" + pad: 402, "/quote?x=" + pad: 402, "/articles/1/" + pad: 402, strings.Repeat("/", 8000) + "quote": 402, "/articles" + strings.Repeat("/", 8000) + "1": 402,
	} {
		if status, _ := answerTo(t, w, "/p?"+query); status != want {
			t.Errorf("%.40s of %d bytes: %d, want %d", query, len(query), status, want)
		}
	}
}

func answerTo(t *testing.T, w *gate.World, path string) (status int, body string) {
	t.Helper()
	res, err := w.HTTP.Do(w.Request(http.MethodGet, path))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}
