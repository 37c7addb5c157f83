package protocols

import (
	"net"
	"net/http"
	"net/http/fcgi"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// TestTransparentFiles: what file_server, templates and respond say stays what
// they say, in every coding, range and condition.
func TestTransparentFiles(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"big.txt": text(300_000), "empty.txt": "", "page.html": "<p>{{.Req.Method}} {{.Req.URL.Path}} {{.Req.Header.Get \"X-Own\"}} {{2 | add 3}}", "dir/index.html": "index"} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
	}
	for _, around := range []string{"", "encode zstd gzip"} {
		t.Run("encode "+around, func(t *testing.T) {
			w := gate.NewTwins(t, gate.TwinsConfig{Around: around + "\nroot " + dir + "\ntemplates /page.html", Behind: "respond /said `said` 203\nfile_server browse"})
			etag := w.Open.Client(t, "h1").Send(w.Request(http.MethodGet, "/big.txt")).Header.Get("ETag")
			if etag == "" {
				t.Fatal("no ETag")
			}
			get := http.MethodGet
			for _, x := range []exchange{
				{name: "GET", method: get, uri: "/big.txt", charged: true},
				{name: "HEAD", method: http.MethodHead, uri: "/big.txt", charged: true},
				{name: "empty", method: get, uri: "/empty.txt", charged: true},
				{name: "gzip", method: get, uri: "/big.txt", header: []string{"Accept-Encoding", "gzip"}, charged: true},
				{name: "zstd", method: get, uri: "/big.txt", header: []string{"Accept-Encoding", "zstd, gzip"}, charged: true},
				{name: "gzip HEAD", method: http.MethodHead, uri: "/big.txt", header: []string{"Accept-Encoding", "gzip"}, charged: true},
				{name: "range", method: get, uri: "/big.txt", header: []string{"Range", "bytes=5-99"}, charged: true},
				{name: "last bytes", method: get, uri: "/big.txt", header: []string{"Range", "bytes=-10"}, charged: true},
				{name: "gzip range", method: get, uri: "/big.txt", header: []string{"Range", "bytes=5-99", "Accept-Encoding", "gzip"}, charged: true},
				{name: "If-Range", method: get, uri: "/big.txt", header: []string{"Range", "bytes=5-99", "If-Range", etag}, charged: true},
				{name: "If-Range of another", method: get, uri: "/big.txt", header: []string{"Range", "bytes=5-99", "If-Range", `"no"`}, charged: true},
				{name: "416", method: get, uri: "/big.txt", header: []string{"Range", "bytes=999999-"}},
				{name: "304", method: get, uri: "/big.txt", header: []string{"If-None-Match", etag}},
				{name: "304 by date", method: get, uri: "/big.txt", header: []string{"If-Modified-Since", "Thu, 01 Jan 2026 00:00:00 GMT"}},
				{name: "gzip 304", method: get, uri: "/big.txt", header: []string{"If-None-Match", strings.TrimSuffix(etag, `"`) + `-gzip"`, "Accept-Encoding", "gzip"}, charged: around == ""},
				{name: "412", method: get, uri: "/big.txt", header: []string{"If-Match", `"no"`}},
				{name: "redirect to the folder", method: get, uri: "/dir"},
				{name: "index", method: get, uri: "/dir/", charged: true},
				{name: "listing", method: get, uri: "/", header: []string{"Accept", "application/json"}, charged: true},
				{name: "template", method: get, uri: "/page.html?a", header: []string{"X-Own", "own"}, charged: true},
				{name: "respond", method: get, uri: "/said", charged: true},
				{name: "respond to POST", method: http.MethodPost, uri: "/said", body: "x", charged: true},
			} {
				x.local = true
				if around != "" {
					x.only = "h1 h2 h3"
				}
				compare(t, w, x)
			}
		})
	}
}

// TestTransparentFastCGI is the same for fastcgi.
func TestTransparentFastCGI(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := gate.NewTwins(t, gate.TwinsConfig{Behind: "reverse_proxy " + l.Addr().String() + " {\n transport fastcgi {\n root /srv\n split .php\n }\n}"})
	go func() { _ = fcgi.Serve(l, w.Upstream) }()
	able := []string{"plain", "HEAD", "PUT", "many headers", "cached", "299", "206", "redirect away", "long", "chunked", "compressed already", "form", "multipart", "304", "404", "500", "error after payment"}
	for _, x := range exchanges() {
		if slices.Contains(able, x.name) {
			x.only = "h1 h2 h3"
			compare(t, w, x)
		}
	}
}
