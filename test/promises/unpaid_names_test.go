package promises

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

// TestLongPathsAreDecided: what long paths and queries of real applications cost is
// known: nothing where nothing is sold, and what it says where something is.
func TestLongPathsAreDecided(t *testing.T) {
	w := gate.New(t, "price /table/* /2.3/* /bucket/* $0.01")
	coordinates := strings.Repeat("13.388860,52.517037;", 99) + "13.388860,52.517037"
	ids := strings.Repeat("11227809;", 99) + "11227809"
	for path, want := range map[string]int{
		"/route/v1/driving/" + coordinates + "?overview=false":                                       http.StatusOK,
		"/table/v1/driving/" + coordinates:                                                           http.StatusPaymentRequired,
		"/2.2/questions/" + ids + "/answers":                                                         http.StatusOK,
		"/2.3/questions/" + ids + "/answers":                                                         http.StatusPaymentRequired,
		"/remote.php/dav/files/wang/" + strings.Repeat("%E9%A1%B9", 255):                             http.StatusOK,
		"/remote.php/dav/files/kim/" + strings.Repeat("%E1%84%92%E1%85%A1%E1%86%AB", 120):            http.StatusOK,
		"/bucket/" + strings.Repeat("%E9%A1%B9", 340):                                                http.StatusPaymentRequired,
		"/img/" + strings.Repeat("eNpVjstqw//Na+4Q7", 470):                                           http.StatusOK,
		"/svg/" + strings.Repeat("%3D%7Bx%7D", 500):                                                  http.StatusOK,
		"/graphql?query=" + strings.Repeat("a", 15<<10):                                              http.StatusOK,
		"/bucket/x?query=" + strings.Repeat("a", 15<<10):                                             http.StatusPaymentRequired,
		"/route/" + strings.Repeat("%E1%84%92%E1%85%A1%E1%86%AB;%252f//", 200) + "/../%255c%2e%2e/x": http.StatusBadRequest,
	} {
		if res := w.Get(path); res.StatusCode != want {
			t.Errorf("%.60s (%d bytes): %d %s, want %d", path, len(path), res.StatusCode, res.Text, want)
		}
	}
}

// An upstream that is told at which path it stands leaves it out. What is left is priced
// too.
func TestPathWithoutANamedPrefixIsPriced(t *testing.T) {
	w := gate.New(t, "price /articles/* $0.01")
	for _, name := range []string{"X-Script-Name", "X-Forwarded-Prefix", "X-Forwarded-Script-Name", "X-Traversal-Path", "Daphne-Root-Path"} {
		for _, prefix := range []string{"/x", "/x/"} {
			r := w.Request(http.MethodGet, "/x/articles/1")
			r.Header[name] = []string{prefix}
			if res := w.Do(r); res.StatusCode != 402 {
				t.Errorf("%s: %s: %d", name, prefix, res.StatusCode)
			}
		}
	}
	w.Expect(w.Get("/x/about", "X-Forwarded-Prefix", "/x"), 200, "")
	// Daphne takes it in escapes, and Django leaves it out of the path without any.
	for prefix, path := range map[string]string{"%2fx": "/x/articles/1", "/a%20b": "/a%20b/articles/1", "/x%79": "/x%79/articles/1", "%2Fany/where": "/any/where/articles/1"} {
		if res := w.Get(path, "Daphne-Root-Path", prefix); res.StatusCode != 402 {
			t.Errorf("%s of %s: %d", prefix, path, res.StatusCode)
		}
	}
	w.Expect(w.Get("/x/about", "Daphne-Root-Path", "%2fx"), 200, "")
}

// An application may make a URL of what proxies say of the host and the port, and read its
// path in it: what is no host and no port is refused.
func TestWhatIsNoPartOfAURLIsRefused(t *testing.T) {
	w := gate.New(t, "price /articles/* $0.01")
	w.Load(gate.BehindProxy(w.Caddyfile("price /articles/* $0.01")))
	for header, status := range map[string]int{
		"X-Forwarded-Port: 443":                                 200,
		"X-Forwarded-Port: 443, 80":                             200,
		"X-Forwarded-Port: 80/articles/7?":                      400,
		"X-Forwarded-Host: shop.test:8080":                      200,
		"X-Forwarded-Host: a_b.test, [::1]:80":                  200,
		"X-Forwarded-Host: x/articles/7?":                       400,
		`X-Forwarded-Host: x:80\articles\7?`:                    400,
		"X-Forwarded-Host: x@y":                                 400,
		"X-Forwarded-Proto: https":                              200,
		"X-Forwarded-Proto: https://x/articles/7?":              400,
		"Forwarded: for=192.0.2.1;host=shop.test;proto=https":   200,
		`Forwarded: for="[2001:db8::1]:80";host="shop.test:80"`: 200,
		`Forwarded: for=192.0.2.1, for=x;HOST="x/articles/7?"`:  400,
		"Forwarded: proto=http://x/articles/7?":                 400,
		"X-Forwarded-For: 192.0.2.1, unknown/x":                 200,
	} {
		name, value, _ := strings.Cut(header, ": ")
		r := w.Request(http.MethodGet, "/about")
		r.Header[name] = []string{value}
		if res := w.Do(r); res.StatusCode != status {
			t.Errorf("%s: %d, want %d", header, res.StatusCode, status)
		}
	}
}

// gunicorn cuts SCRIPT_NAME off with all that stands before it, where Caddy is told to let it
// through.
func TestPathBehindAScriptNameIsPriced(t *testing.T) {
	w := gate.New(t, "price /articles/* $0.01")
	w.Load(strings.Replace(w.Caddyfile("price /articles/* $0.01"), "admin off", "admin off\nservers {\nexpected_underscore_headers SCRIPT_NAME\n}", 1))
	for prefix, path := range map[string]string{"/x": "/x/articles/1", "/x/": "/z/x/articles/1", "x": "/zx/articles/1", "a/": "/ab/ca/articles/1", "/": "/articles/1"} {
		r := w.Request(http.MethodGet, path)
		r.Header["SCRIPT_NAME"] = []string{prefix}
		if res := w.Do(r); res.StatusCode != 402 {
			t.Errorf("%s of %s: %d", prefix, path, res.StatusCode)
		}
	}
	r := w.Request(http.MethodGet, "/x/about")
	r.Header["SCRIPT_NAME"] = []string{"/x"}
	w.Expect(w.Do(r), 200, "")
}

// A line that is free by the escaped URI gives nothing away.
func TestEscapedURIGivesNothingAway(t *testing.T) {
	w := gate.Prepare(t)
	if gate.Load(w.Caddyfile("price /paid/* $0.01\nfree @m /paid/*", "@m expression `{http.request.uri_escaped}.startsWith('%2Fpublic')`")) != nil {
		return
	}
	conn, host := w.Dial()
	_, _ = conn.Write([]byte("GET /public/../paid/x HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"))
	head := make([]byte, len("HTTP/1.1 200"))
	if _, _ = conn.Read(head); string(head) == "HTTP/1.1 200" {
		t.Error("served for nothing")
	}
}
