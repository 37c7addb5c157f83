package protocols

import (
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// ordinaryLines are the price list of pricing's corpus of ordinary URLs.
const ordinaryLines = `
	price /articles/* $0.01
	price /articles/archive/* $0.02
	free /articles/*/preview
	price GET /wiki/* $0.03
	free /wiki/Main_Page /wiki/Special:*
	price /api/v4/projects/* $0.04
	price /npm/* $0.05
	free /npm/-/ping
	price /_matrix/client/v3/rooms/* $0.06
	price /odata/* $0.07
	price GET /files/* $0.08
	price PUT /files/* $0.09
	price *.pdf $0.10
	free *.css *.js *.png *.svg *.ico *.woff2
	free /.well-known/* /robots.txt /sitemap*.xml
	price /search /search/* $0.11
	price POST /v1/chat/* $0.12
	free GET /v1/models
	price POST /api/render $0.13
	free /api/health
	price /mcp $0.14
	price /tiles/* $0.15
	price /shop/api/* $0.16
	free /shop/*
	price /~*/papers/* $0.17
	price /dav/* $0.18
	price /docs/v*/reference/* $0.19
	free /docs/*
	price /café/* $0.20
	price /git/* $0.21
	free /git/*/info/refs
	price /web/* $0.22`

// TestOrdinaryURLs: the URLs of real applications get the answer that they get
// without the gate: at once where they are free, when they are paid for else.
func TestOrdinaryURLs(t *testing.T) {
	corpus, err := os.ReadFile("../../pricing/testdata/ordinary-urls.txt")
	if err != nil {
		t.Fatal(err)
	}
	w := gate.NewTwins(t, gate.TwinsConfig{Prices: ordinaryLines})
	// Each URL has a status and a body of its own.
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		h := crc32.ChecksumIEEE([]byte(r.RequestURI))
		rw.Header().Set("X-Sum", fmt.Sprint(h))
		rw.WriteHeader([]int{200, 201, 203, 206, 301, 403, 404, 410, 418, 500, 503}[h%11])
		_, _ = io.WriteString(rw, r.Method+" "+r.RequestURI)
	})
	counts, section := map[string]int{}, ""
	open, gated := w.Open.Client(t, "h1"), w.Gated.Client(t, "h1")
	for line := range strings.Lines(string(corpus)) {
		line = strings.TrimRight(line, "\n")
		if name, ok := strings.CutPrefix(line, "= "); ok {
			section = name
		}
		if line == "" || line[0] == '#' || line[0] == '=' {
			continue
		}
		method, target := http.MethodGet, line
		if line[0] != '/' {
			method, target, _ = strings.Cut(line, " ")
		}
		target, _, _ = strings.Cut(target, "#")
		if _, err := url.ParseRequestURI(target); err != nil {
			counts["not even Caddy takes it"]++
			continue
		}
		request := func() *http.Request {
			return &http.Request{Method: method, Header: http.Header{}, Host: gate.Host, URL: &url.URL{Scheme: "http", Host: gate.Host, Opaque: target}}
		}
		want, got := open.Send(request()), gated.Send(request())
		switch section {
		case "free":
			counts[section]++
		case "405":
			counts[section]++
			if got.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%s: want 405, got %v", line, got)
			}
			continue
		default:
			counts["priced"]++
			if got.StatusCode != http.StatusPaymentRequired {
				t.Errorf("%s: unpaid: %v", line, got)
				continue
			}
			r := request()
			r.Header.Set("PAYMENT-SIGNATURE", gate.Sign(t, mustChallenge(t, got).Accepts[0]).V2(t))
			// Half of the answers cost nothing, and of those one network has so many a second.
			for got = gated.Send(r); got.StatusCode == http.StatusTooManyRequests; got = gated.Send(r) {
				time.Sleep(time.Second)
			}
		}
		if got.StatusCode != want.StatusCode || got.Text != want.Text || got.Header.Get("X-Sum") != want.Header.Get("X-Sum") {
			t.Errorf("%s: without the gate %v\nwith it %v", line, want, got)
		}
	}
	t.Log(counts)
	if counts["free"]+counts["priced"] < 500 {
		t.Errorf("%v, want 500", counts)
	}
}
