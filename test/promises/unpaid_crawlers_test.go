package promises

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

const (
	gptBot    = "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)"
	googlebot = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
	chrome    = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/148.0.0.0 Safari/537.36"

	ofGooglebot = "192.0.2.10" // which a list has
	ofGoogle    = "192.0.2.20" // which has a name that Google confirms
	ofStranger  = "192.0.2.30" // which has a name that Google does not confirm
)

// newCrawled makes a site that asks some crawlers to pay, and for which clients come from
// where a proxy says. Nothing that it asks leaves the machine.
func newCrawled(t *testing.T, options string, before ...string) *gate.World {
	t.Helper()
	dns := loopback.NewDNS(t)
	dns.Name(ofGoogle, "crawl-20.googlebot.com")
	dns.Confirm("crawl-20.googlebot.com", ofGoogle)
	dns.Name(ofStranger, "crawl-30.googlebot.com")
	list := filepath.Join(t.TempDir(), "googlebot.json")
	if err := os.WriteFile(list, []byte(`{"prefixes":[{"ipv4Prefix":"`+ofGooglebot+`/32"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	w := gate.Prepare(t)
	w.Load(strings.Replace(w.Caddyfile(options, before...), "paywall {", `servers {
			trusted_proxies static 127.0.0.1/32 ::1/128
		}
		paywall {
			crawlers {
				ranges   Googlebot `+list+`
				resolver `+dns.Address()+`
				agent    OwnBot monitor "The site's own"
			}`, 1))
	return w
}

// as asks as a client that comes from an address.
func as(w *gate.World, path, userAgent, address string) gate.Answer {
	r := w.Request(http.MethodGet, path)
	r.Header.Set("User-Agent", userAgent)
	r.Header.Set("X-Forwarded-For", address)
	return w.Do(r)
}

// TestMachinesPayAndPeopleDoNot is the headline use.
func TestMachinesPayAndPeopleDoNot(t *testing.T) {
	w := newCrawled(t, "price @machines /articles/* $0.002", "@machines crawler train data")
	for _, tc := range []struct {
		path, userAgent, address string
		want                     int
	}{
		{"/articles/1", gptBot, ofStranger, 402},
		{"/articles/1", "gptbot", ofStranger, 402},
		{"/articles/1", "Diffbot/0.1", ofStranger, 402},
		{"/articles/1", chrome, ofStranger, 200},
		{"/articles/1", googlebot, ofGooglebot, 200},
		{"/articles/1", googlebot, ofStranger, 200}, // it only says so, and is no machine of these kinds
		{"/articles/1", "curl/8.14.1", ofStranger, 200},
		{"/articles/1", "", ofStranger, 200},
		{"/robots.txt", gptBot, ofStranger, 200},
		{"/articles/1", strings.Repeat("x", 10_000) + " GPTBot", ofStranger, 200},
	} {
		if res := as(w, tc.path, tc.userAgent, tc.address); res.Err != nil || res.StatusCode != tc.want {
			t.Errorf("%s as %.30s: %v %v", tc.path, tc.userAgent, res.Err, res.Status)
		}
	}
}

// TestVerifiedSearchEnginesAreFree: everybody pays but those who prove who they are.
func TestVerifiedSearchEnginesAreFree(t *testing.T) {
	w := newCrawled(t, "price /articles/* $0.002\nfree @search /articles/*", "@search crawler Googlebot verified")
	for _, tc := range []struct {
		userAgent, address string
		want               int
	}{
		{googlebot, ofGooglebot, 200},
		{googlebot, ofGoogle, 200},
		{googlebot, ofStranger, 402},
		{googlebot, "192.0.2.99", 402},
		{chrome, ofGooglebot, 402},
		{"Bingbot/2.0", ofGooglebot, 402},
		{gptBot, ofGooglebot, 402},
		{googlebot, ofGooglebot + ", " + ofStranger, 402}, // what a client says of itself stands on the left
	} {
		if res := as(w, "/articles/1", tc.userAgent, tc.address); res.Err != nil || res.StatusCode != tc.want {
			t.Errorf("%.30s from %s: %v %v", tc.userAgent, tc.address, res.Err, res.Status)
		}
	}
}

// TestCachesKeepNothingThatACrawlerMatcherDecided: the same URL costs another client money.
func TestCachesKeepNothingThatACrawlerMatcherDecided(t *testing.T) {
	for name, matcher := range map[string]string{
		"crawler":     "crawler train",
		"not crawler": "not crawler search verified",
		"placeholder": "vars {http.paywall.client_kind} train",
	} {
		t.Run(name, func(t *testing.T) {
			w := newCrawled(t, "price @m /articles/* $0.002", "@m "+matcher)
			for _, userAgent := range []string{gptBot, googlebot} {
				res := as(w, "/articles/1", userAgent, ofGooglebot)
				if res.Err != nil || !strings.Contains(res.Header.Get("Cache-Control"), "private") && !strings.Contains(res.Header.Get("Cache-Control"), "no-store") {
					t.Errorf("%.20s: %v %q", userAgent, res.Err, res.Header.Get("Cache-Control"))
				}
				for _, header := range []string{"User-Agent", "Signature-Agent", "Signature-Input", "Signature"} {
					if vary := strings.Join(res.Header.Values("Vary"), ", "); !strings.Contains(vary, header) {
						t.Errorf("%.20s: %d varies by %q", userAgent, res.StatusCode, vary)
					}
				}
			}
		})
	}
}

// TestWhoAsksIsSaid: in placeholders, to what comes after the paywall.
func TestWhoAsksIsSaid(t *testing.T) {
	w := newCrawled(t, "price /articles/* $0.002", "header >X-Client \"{http.paywall.client}|{http.paywall.client_kind}|{http.paywall.client_verified}\"")
	for _, tc := range []struct{ userAgent, address, want string }{
		{googlebot, ofGooglebot, "Googlebot|search|true"},
		{googlebot, ofStranger, "Googlebot|search|false"},
		{gptBot, ofStranger, "GPTBot|train|false"},
		{"OwnBot/1.0", ofStranger, "OwnBot|monitor|false"},
		{"curl/8", ofStranger, "curl|tool|false"},
		{chrome, ofStranger, "||false"},
	} {
		if res := as(w, "/articles/1", tc.userAgent, tc.address); res.Err != nil || res.Header.Get("X-Client") != tc.want {
			t.Errorf("%.20s: %v %q", tc.userAgent, res.Err, res.Header.Get("X-Client"))
		}
	}
}

// TestCrawlerMatcherNeedsNoPaywall: it works in a site without one, with no ledger.
func TestCrawlerMatcherNeedsNoPaywall(t *testing.T) {
	w := gate.Prepare(t)
	t.Cleanup(func() { _ = caddy.Stop() })
	if err := gate.Load("{\nadmin off\npersist_config off\nauto_https off\n}\n" + w.URL + " {\n@c crawler\n@tools crawler tool\n@own crawler gptbot ccbot\n" +
		"respond @own own 200\nrespond @c crawler 200\nrespond @tools tool 200\nrespond {http.paywall.client}people 200\n}"); err != nil {
		t.Fatal(err)
	}
	loopback.Settle(t)
	for userAgent, want := range map[string]string{gptBot: "own", googlebot: "crawler", "curl/8": "tool", "UptimeRobot/2.0": "UptimeRobotpeople", chrome: "people"} {
		if res := as(w, "/", userAgent, ""); res.Err != nil || res.Text != want {
			t.Errorf("%s: %v %q", userAgent, res.Err, res.Text)
		}
	}
}
