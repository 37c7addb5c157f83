package crawlers

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
)

const published = `{"creationTime":"2026-11-29T00:00:00","prefixes":[{"ipv4Prefix":"192.0.2.0/28"},{"ipv6Prefix":"2001:db8:1::/48"}]}`

var (
	inside  = netip.MustParseAddr("192.0.2.7")
	inside6 = netip.MustParseAddr("2001:db8:1::7")
	outside = netip.MustParseAddr("192.0.2.77")
)

func noLog() *atomic.Pointer[zap.Logger] {
	p := new(atomic.Pointer[zap.Logger])
	p.Store(zap.NewNop())
	return p
}

func TestParsePrefixes(t *testing.T) {
	for content, want := range map[string]bool{
		published: true,
		"# our monitor\n192.0.2.0/28\n\n2001:db8:1::/48 # six\n192.0.2.7\n": true,
		"192.0.2.7": true,
		"":          false, "{}": false, `{"prefixes":[]}`: false, `{"prefixes":null}`: false, "[]": false, "null": false,
		"<!doctype html><html>not found</html>":        false,
		`{"error":"moved"}`:                            false,
		`{"prefixes":[{"ipv4Prefix":"0.0.0.0/0"}]}`:    false,
		`{"prefixes":[{"ipv6Prefix":"::/0"}]}`:         false,
		`{"prefixes":[{"ipv4Prefix":"192.0.2.0/33"}]}`: false,
		`{"prefixes":[{"ipv4Prefix":"bots.example"}]}`: false,
		published[:60]:     false,
		"::ffff:192.0.2.7": false,
		"fe80::1%eth0":     false,
	} {
		p, err := parsePrefixes([]byte(content))
		if (err == nil) != want || want && !p.contains(inside) || p.contains(outside) {
			t.Errorf("%q: %v", content, err)
		}
	}
	if p, _ := parsePrefixes([]byte(published)); !p.contains(inside6) || p.contains(netip.Addr{}) || p.contains(netip.MustParseAddr("2001:db8:2::7")) {
		t.Error("of the sixth version")
	}
	if _, err := parsePrefixes([]byte(strings.Repeat("192.0.2.7\n", maxPrefixes+1))); err == nil {
		t.Error("more than there is room for")
	}
}

// clientTo makes a client for which all domains are at a server of the test.
func clientTo(t testing.TB, serve http.HandlerFunc) *http.Client {
	t.Helper()
	server := httptest.NewTLSServer(serve)
	t.Cleanup(server.Close)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Second}
}

// TestListKeepsTheLastGoodOne: what vanishes, becomes a web page, drips or is too large
// takes nothing away, now or after a restart.
func TestListKeepsTheLastGoodOne(t *testing.T) {
	for name, serve := range map[string]http.HandlerFunc{
		"vanishes": http.NotFound,
		"is a page": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "<!doctype html><title>Moved</title>")
		},
		"is empty": func(w http.ResponseWriter, r *http.Request) {},
		"is large": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"prefixes":[{"ipv4Prefix":"192.0.2.77/32"}],"x":"`+strings.Repeat("a", maxList)+`"}`)
		},
		"is for all": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"prefixes":[{"ipv4Prefix":"0.0.0.0/0"}]}`)
		},
		"hangs": func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"drips": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, " ")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		},
		"leads to a host without TLS": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var bad atomic.Bool
			client := clientTo(t, func(w http.ResponseWriter, r *http.Request) {
				if bad.Load() {
					serve(w, r)
					return
				}
				_, _ = io.WriteString(w, published)
			})
			source := "https://bots.example/x.json"
			l := &list{source: source, kept: keptAs(t.TempDir(), source), client: client, logger: noLog()}
			if err := l.fetch(t.Context()); err != nil || !l.prefixes.Load().contains(inside) {
				t.Fatal(err)
			}
			bad.Store(true)
			if err := l.fetch(t.Context()); err == nil {
				t.Error("it is taken for a list")
			}
			restarted := &list{source: source, kept: l.kept, client: client, logger: noLog()}
			if err := restarted.open(); err != nil {
				t.Fatal(err)
			}
			for _, l := range []*list{l, restarted} {
				if p := l.prefixes.Load(); !p.contains(inside) || p.contains(outside) {
					t.Error("the last good one is gone")
				}
			}
		})
	}
}

// TestOwnFile: at the start a file of the operator has to be there and be good.
func TestOwnFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "ranges.txt")
	l := &list{source: name, logger: noLog()}
	for content, want := range map[string]bool{"192.0.2.0/28\n": true, "nonsense": false, "": false} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := l.open(); (err == nil) != want {
			t.Errorf("%q: %v", content, err)
		}
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := l.open(); err == nil {
		t.Error("a file that is not there")
	}
}

func FuzzPrefixes(f *testing.F) {
	for _, seed := range []string{published, "192.0.2.0/28 # x\n", "<html>", `{"prefixes":[{"ipv4Prefix":1}]}`, "::/0"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		p, err := parsePrefixes(content)
		if err == nil && len(p.set) == 0 {
			t.Error("a list of nothing")
		}
		p.contains(inside)
		p.contains(inside6)
	})
}

func TestIsUnder(t *testing.T) {
	for _, tc := range []struct {
		name, domain string
		want         bool
	}{
		{"crawl-1.googlebot.com", "googlebot.com", true},
		{"googlebot.com", "googlebot.com", true},
		{"notgooglebot.com", "googlebot.com", false},
		{"googlebot.com.evil.example", "googlebot.com", false},
		{"com", "googlebot.com", false},
	} {
		if got := isUnder(tc.name, tc.domain); got != tc.want {
			t.Errorf("%s under %s: %v", tc.name, tc.domain, got)
		}
	}
}

// A list that is for a good part of the internet is an error in it, however it is cut.
func TestListsOfTooMuchAreNotTaken(t *testing.T) {
	var wide, wide6, many strings.Builder
	for i := range 40 {
		fmt.Fprintf(&wide, "%d.0.0.0/8\n", i+1)
		fmt.Fprintf(&wide6, "2a%02x:%x::/19\n", i/4, 0x2000*(i%4))
	}
	for i := range 4000 {
		fmt.Fprintf(&many, "192.%d.%d.0/24\n", i/256, i%256)
	}
	for name, c := range map[string]struct {
		text string
		good bool
	}{
		"half of all, in eighths": {wide.String(), false}, "less, of the sixth version": {wide6.String(), true},
		"twice the same": {strings.Repeat("17.0.0.0/8\n", 40), true}, "many": {many.String(), true},
	} {
		if _, err := parsePrefixes([]byte(c.text)); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}
