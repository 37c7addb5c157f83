package protocols

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

const (
	bot    = "ExampleBot/1.0"
	person = "Mozilla/5.0 (X11; Linux x86_64)"
)

// TestCachesKeepClientsApart: a cache in front of the gate does not give a
// crawler the copy that was free for a person, whatever the upstream allows caches.
// Pages that everybody may have stay in the cache.
func TestCachesKeepClientsApart(t *testing.T) {
	const prices = "price @bots /* $0.01\nfree /assets/*"
	const matchers = "@bots header User-Agent *Bot*"
	for name, header := range map[string][]string{
		"silent":    nil,
		"public":    {"Cache-Control", "public, max-age=3600"},
		"s-maxage":  {"Cache-Control", "s-maxage=3600"},
		"expires":   {"Expires", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)},
		"CDN":       {"CDN-Cache-Control", "max-age=3600"},
		"surrogate": {"Surrogate-Control", "max-age=3600"},
		"nginx":     {"X-Accel-Expires", "3600"},
		"varies":    {"Vary", "Accept", "Cache-Control", "public, max-age=60"},
	} {
		for _, allowed := range []bool{false, true} {
			block := prices
			if allowed {
				block += "\nshared_caches allow"
			}
			w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price /sold $0.01\n" + block, Around: matchers})
			w.Upstream.On(says(http.StatusOK, gate.Goods, header...))
			for _, targeted := range []bool{false, true} {
				t.Run(fmt.Sprint(name, allowed, targeted), func(t *testing.T) {
					cdn := &gate.Client{T: t, Protocol: "h1", RoundTripper: &cache{RoundTripper: w.Gated.Transport(t, "h1"), targeted: targeted, stored: map[string][]entry{}}}
					if res := cdn.Send(w.Request(http.MethodGet, "/page", "User-Agent", person)); res.StatusCode != http.StatusOK || res.Text != gate.Goods {
						t.Fatalf("a person: %v", res)
					}
					served := cdn.Send(w.Request(http.MethodGet, "/page", "User-Agent", bot))
					if !allowed && served.StatusCode != http.StatusPaymentRequired {
						t.Errorf("the crawler after a person: %v", served)
					}
					if name == "public" && allowed && served.Text != gate.Goods {
						t.Errorf("the operator allows caches, and nothing comes of it: %v", served)
					}
					// Nor does the crawler's challenge close the page to people.
					if res := cdn.Send(w.Request(http.MethodGet, "/page", "User-Agent", person)); res.StatusCode != http.StatusOK {
						t.Errorf("a person after the crawler: %v", res)
					}
					// No matcher is asked for these.
					cdn.Send(w.Request(http.MethodGet, "/assets/a.css", "User-Agent", person))
					hits := w.Upstream.Hits.Load()
					cdn.Send(w.Request(http.MethodGet, "/assets/a.css", "User-Agent", person))
					if name == "public" && w.Upstream.Hits.Load() != hits {
						t.Error("what is free for everybody is not cached")
					}
				})
			}
		}
	}
}

// TestAnswersThatDependOnAMatcher: such an answer says that it is private and by
// what it varies; every other passes as it is. The rest of such an answer passes
// as it is too.
func TestAnswersThatDependOnAMatcher(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{
		Prices: strings.Join([]string{
			"price /sold $0.01", "price @bots /page* $0.01", "free @members /article", "price /article $0.01",
			"price POST @bots /form $0.01", "free /form", "price @net /net $0.01", "price @words /words $0.01", "free /free",
		}, "\n"),
		Around: "@bots header User-Agent *Bot*\n@members {\nheader Cookie *member*\nnot header_regexp X-No .\n}\n@net remote_ip 10.0.0.0/8\n" +
			"@words expression `header({'X-Word': 'paid'}) || {header.X-Other} == 'paid' || {cookie.c} == 'paid'`",
	})
	const varies = "Cookie, User-Agent, X-No, X-Other, X-Word"
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Cache-Control", "public, max-age=60, s-maxage=600")
		rw.Header().Set("CDN-Cache-Control", "max-age=3600")
		rw.Header().Set("Vary", "Accept")
		rw.Header().Set("ETag", `"a"`)
		switch r.URL.Path {
		case "/page-none":
			return
		case "/page-304":
			rw.WriteHeader(http.StatusNotModified)
			return
		case "/page-early":
			rw.Header().Set("Link", "</a.css>; rel=preload")
			rw.WriteHeader(http.StatusEarlyHints)
		case "/page-stream":
			_, _ = io.WriteString(rw, "first ")
			_ = http.NewResponseController(rw).Flush()
		}
		_, _ = io.WriteString(rw, gate.Goods)
	})
	for _, protocol := range []string{"h1", "h2", "h3"} {
		c := w.Gated.Client(t, protocol)
		for _, tc := range []struct {
			method, path string
			depends      bool
			header       []string
		}{
			{"GET", "/page", true, nil},
			{"HEAD", "/page", true, nil},
			{"POST", "/page", true, nil},
			{"OPTIONS", "/page", true, nil},
			{"GET", "/page-none", true, nil},
			{"GET", "/page-304", true, nil},
			{"GET", "/page-early", true, nil},
			{"GET", "/page-stream", true, nil},
			{"GET", "/x/..%2fpage", true, nil}, // in one reading
			{"GET", "/article", true, []string{"Cookie", "member"}},
			{"GET", "/net", true, nil},
			{"GET", "/words", true, nil},
			{"POST", "/form", true, nil},
			{"GET", "/form", false, nil},
			{"GET", "/free", false, nil},
			{"GET", "/other", false, nil},
		} {
			res := c.Send(w.Request(tc.method, tc.path, append([]string{"User-Agent", person}, tc.header...)...))
			control, cdn, vary := res.Header.Get("Cache-Control"), res.Header.Get("CDN-Cache-Control"), list(res.Header, "Vary")
			want, wantCDN, wantVary := "public, max-age=60, s-maxage=600", "max-age=3600", "Accept"
			if tc.depends {
				want, wantCDN, wantVary = "private, max-age=60", "", "Accept, "+varies
			}
			wanted := list(http.Header{"Vary": {wantVary}}, "Vary")
			if res.StatusCode >= 400 || control != want || cdn != wantCDN || !slices.Equal(vary, wanted) || res.Header.Get("ETag") != `"a"` {
				t.Errorf("%s %s %s: %v", protocol, tc.method, tc.path, res)
			}
		}
		// A sold one is private, as all are, and varies too.
		r := w.Request(http.MethodGet, "/page", "User-Agent", bot)
		res := c.Send(c.Paying(r))
		if res.StatusCode != http.StatusOK || !slices.Contains(list(res.Header, "Vary"), "user-agent") || !strings.HasPrefix(res.Header.Get("Cache-Control"), "private") {
			t.Errorf("%s: paid: %v", protocol, res)
		}
	}
}

// TestFilesThatDependOnAMatcher: what Caddy itself serves is marked too, and its
// error pages, and comes whole, compressed and in ranges.
func TestFilesThatDependOnAMatcher(t *testing.T) {
	root := t.TempDir()
	content := strings.Repeat(gate.Goods+"\n", 4000)
	if err := os.WriteFile(filepath.Join(root, "page.txt"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	w := gate.NewTwins(t, gate.TwinsConfig{
		Prices: "price /sold $0.01\nprice @bots /* $0.01",
		Block:  "@bots header User-Agent *Bot*\nencode gzip\n{gate}\nroot " + root + "\nfile_server\nhandle_errors {\nrespond missing 404\n}",
	})
	for _, protocol := range []string{"h1", "h1s", "h2", "h3"} {
		c := w.Gated.Client(t, protocol)
		for _, tc := range []struct {
			path   string
			header []string
			status int
			length int
		}{
			{"/page.txt", nil, 200, len(content)},
			{"/page.txt", []string{"Range", "bytes=0-99"}, 206, 100},
			{"/page.txt", []string{"Accept-Encoding", "gzip"}, 200, 0},
			{"/none.txt", nil, 404, len("missing")},
		} {
			res := c.Send(w.Request(http.MethodGet, tc.path, append([]string{"User-Agent", person}, tc.header...)...))
			if res.StatusCode != tc.status || tc.length > 0 && len(res.Text) != tc.length || res.Header.Get("Cache-Control") != "private" || !slices.Contains(list(res.Header, "Vary"), "user-agent") {
				t.Errorf("%s %s %q: %d, %d bytes, %v", protocol, tc.path, tc.header, res.StatusCode, len(res.Text), res.Header)
			}
		}
	}
}
