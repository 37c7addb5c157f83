//go:build servers

package servers

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// marker begins what every priced answer holds, and no free one.
const marker = "GOODS-"

// prices is what each site's operator writes down. Its server may not have all of
// that.
const prices = `
	price /articles/* $0.01
	price /shop/* $0.01
	price /posts/*/ $0.01
	price /report.pdf* $0.03
	price /buy.php /buy.phtml $0.02
	price /cgi-bin/buy /cgi-bin/buy.cgi $0.02
	price @post / /index.php $0.01
	price POST /api/send $0.05
	price POST /api/order $0.05
	free GET /api/order`

// postMatcher is the matcher of the prices.
const postMatcher = `@post query p=*`

// good is a request that every site with it answers with goods, as an honest
// client sends it.
type good struct{ method, path, query string }

var (
	common = []good{
		{"GET", "/articles/1", ""},
		{"GET", "/shop/", ""},
		{"GET", "/shop/index.html", ""},
		{"GET", "/posts/7/", ""},
		{"GET", "/posts/7/index.html", ""},
		{"GET", "/report.pdf", ""},
		{"GET", "/report.pdf.gz", ""},
		{"GET", "/", "p=1"},
		{"GET", "/index.php", "p=1"},
		{"POST", "/api/send", ""},
		{"POST", "/api/order", ""},
	}
	scripts = append([]good{
		{"GET", "/buy.php", ""},
		{"GET", "/buy.phtml", ""},
		{"GET", "/index.php/articles/1", ""},
	}, common...)
	cgi = append([]good{
		{"GET", "/cgi-bin/buy", ""},
		{"GET", "/cgi-bin/buy.cgi", ""},
	}, scripts...)
)

// free is what every site gives away.
var free = []string{"/", "/free", "/api/order"}

// server is a site on a real server.
type server struct {
	name  string
	goods []good
	// behind are the directives that make Caddy answer with it.
	behind string
	// actions is the file that the site writes its actions to.
	actions string
}

func newServer(name, dir, behind string, goods []good) *server {
	return &server{name: name, goods: goods, behind: behind, actions: filepath.Join(dir, "actions.log")}
}

// startServers starts all.
func startServers(t *testing.T) []*server {
	t.Helper()
	return []*server{
		startNginx(t), startCaddyPHP(t), startApache(t), startPHP(t), startExpress(t), startGunicorn(t),
	}
}

// site makes a directory with a copy of testdata/<kind> under a name, the paid
// report and its sidecar in it, and an empty log of actions beside it.
func site(t *testing.T, kind, name string) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "paywall-servers-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	files := filepath.Join(dir, name)
	if err := os.CopyFS(files, os.DirFS(filepath.Join("testdata", kind))); err != nil {
		t.Fatal(err)
	}
	// Some of the servers run as another user.
	_ = os.Chmod(dir, 0o777)
	report := []byte(strings.Repeat(marker+"report ", 100))
	write(t, filepath.Join(files, "report.pdf"), report)
	write(t, filepath.Join(files, "report.pdf.gz"), stored(t, report))
	write(t, filepath.Join(dir, "actions.log"), nil)
	_ = os.Chmod(filepath.Join(dir, "actions.log"), 0o666)
	return dir
}

// stored is a gzip file whose content can be read as it is.
func stored(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = z.Write(content)
	_ = z.Close()
	return b.Bytes()
}

func write(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
}
