package protocols

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/traffic"
)

// observed are the sums that a stopped gateway has kept, by line.
func observed(t *testing.T, file string) map[string]string {
	t.Helper()
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	book, err := traffic.OpenSQLite(file)
	if err != nil {
		t.Fatal(err)
	}
	defer book.Close() //nolint:errcheck // it was only read
	sums := map[string]traffic.Sums{}
	for row, err := range book.Rows(t.Context(), traffic.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		all := sums[row.Line+" "+row.Unit]
		all.Add(row.Sums)
		sums[row.Line+" "+row.Unit] = all
	}
	texts := map[string]string{}
	for line, s := range sums {
		texts[line] = fmt.Sprintf("asked %d, observed %d, challenged %d, paid %d, delivered %d, worth %s, earned %s",
			s.Asked, s.Observed, s.Challenged, s.Paid, s.Delivered, s.Worth, s.Earned)
	}
	return texts
}

func wantSums(t *testing.T, got, want map[string]string) {
	t.Helper()
	for line, sums := range want {
		if got[line] != sums {
			t.Errorf("%s: %s, want %s", line, got[line], sums)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%v", got)
	}
}

// A site with `observe` and prices needs nothing else: no global block, nobody to be paid,
// no facilitator. Everything passes as without us, and is counted.
func TestObserveNeedsNothingElseAndTouchesNothing(t *testing.T) {
	w := gate.Prepare(t)
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Cache-Control", "public, max-age=60")
		fmt.Fprint(rw, r.Method, " ", r.URL, " ", r.Header.Get("Paywall-Payer"), r.Header.Get("Payment-Signature"))
	})
	config := fmt.Sprintf(`{
		admin off
		persist_config off
		auto_https off
	}
	%s {
		paywall {
			observe
			price /articles/* $0.01
			price POST /api upto $0.50
			price /fr/* 0.02 eurc
			otherwise refuse
		}
		reverse_proxy %s
	}`, w.URL, w.Upstream.Address())
	if err := gate.Load(config); err != nil {
		t.Fatal(err)
	}
	loopback.Settle(t)
	t.Cleanup(func() { _ = caddy.Stop() })
	for _, target := range []string{"/articles/1", "/articles/2", "/%61rticles/3", "/fr/x", "/other"} {
		res := w.Do(w.Request(http.MethodGet, target, "Paywall-Payer", "me", "PAYMENT-SIGNATURE", "mine"))
		if res.StatusCode != 200 || res.Text != "GET "+target+" memine" || res.Header.Get("Cache-Control") != "public, max-age=60" || len(res.Header["Vary"]) > 0 {
			t.Errorf("%s: %v %v", target, res.Response, res.Text)
		}
	}
	if res := w.Do(w.Request(http.MethodPost, "/api")); res.StatusCode != 200 {
		t.Error(res.Response)
	}
	preflight := w.Do(w.Request(http.MethodOptions, "/articles/1", "Origin", "https://x.example", "Access-Control-Request-Method", "GET"))
	if !strings.HasPrefix(preflight.Text, "OPTIONS /articles/1") {
		t.Error("the preflight:", preflight.Text)
	}
	wantSums(t, observed(t, filepath.Join(caddy.AppDataDir(), "paywall", "traffic.db")), map[string]string{
		"/articles/* USD": "asked 3, observed 3, challenged 0, paid 0, delivered 0, worth 0.03, earned 0",
		"POST /api USD":   "asked 1, observed 1, challenged 0, paid 0, delivered 0, worth 0.5, earned 0",
		"/fr/* EURC":      "asked 1, observed 1, challenged 0, paid 0, delivered 0, worth 0.02, earned 0",
	})
}

// One line after the other goes live, and is counted as before. What is only observed frees
// nothing and refuses nothing.
func TestObservedLinesStandBesideLiveOnes(t *testing.T) {
	w := gate.Prepare(t)
	file := filepath.Join(t.TempDir(), "shop.db")
	w.Load(strings.Replace(w.Caddyfile(`price /live/* $0.01
		price /later/* $5 {
			observe
		}
		price POST /form/* $5 {
			observe
		}
		price @bots /live/x $0.5 {
			observe
		}
		price @bots /some/* $0.01
		price /some/* $0.02 {
			observe
		}`, "@bots header User-Agent Bot"), "ledger memory i_accept_loss", "ledger sqlite "+file, 1))
	w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) { rw.Header().Set("Cache-Control", "public") })
	if res := w.Get("/later/x"); res.StatusCode != 200 || res.Header.Get("Cache-Control") != "public" || res.Header.Get("Vary") != "" {
		t.Error(res.Response)
	}
	w.Expect(w.Get("/form/x"), 200, "")
	w.Expect(w.Do(w.Request(http.MethodOptions, "/form/x", "Origin", "https://x.example", "Access-Control-Request-Method", "POST")), 200, "")
	w.Expect(w.Do(w.Request(http.MethodPost, "/form/x")), 200, "")
	w.Expect(w.Get("/live/x", "User-Agent", "Bot"), 402, "")
	w.Expect(w.Get("/live/x"), 402, "")
	w.Expect(w.Pay(http.MethodGet, "/live/x"), 200, "")
	// What a matcher lets pass no cache may hand to others, also where it is observed.
	if res := w.Get("/some/x"); res.StatusCode != 200 || !strings.Contains(res.Header.Get("Cache-Control"), "private") || res.Header.Get("Vary") != "User-Agent" {
		t.Error(res.Response)
	}
	w.Upstream.On(gate.Says(404, "no such page"))
	w.Expect(w.Pay(http.MethodGet, "/live/y"), 404, "")
	wantSums(t, observed(t, strings.Replace(file, ".db", "-traffic.db", 1)), map[string]string{
		"/live/* USD":      "asked 6, observed 0, challenged 4, paid 1, delivered 1, worth 0.04, earned 0.01",
		"/later/* USD":     "asked 1, observed 1, challenged 0, paid 0, delivered 0, worth 5, earned 0",
		"POST /form/* USD": "asked 1, observed 1, challenged 0, paid 0, delivered 0, worth 5, earned 0",
		"/some/* USD":      "asked 1, observed 1, challenged 0, paid 0, delivered 0, worth 0.02, earned 0",
	})
}

// A path with two readings, one observed and one live, is charged or refused.
func TestObservedReadingOpensNoLiveLine(t *testing.T) {
	w := gate.New(t, "price /live/* $0.01\nprice /later/* $5 {\n observe\n}")
	for _, target := range []string{"/later/..%2flive/x", "/later/%2e%2e/live/x", "/live/..%2flater/x"} {
		if res := w.Get(target); res.StatusCode != 402 && res.StatusCode != 400 {
			t.Errorf("%s: %v", target, res.Response)
		}
	}
	if w.Upstream.Hits.Load() != 0 {
		t.Error("the upstream was asked")
	}
}

// A block in which all lines are observed needs no more than one that says so itself.
func TestBlockOfObservedLinesNeedsNothingElse(t *testing.T) {
	if err := gate.Validate("http://localhost:1 {\npaywall {\nprice /a $1 {\nobserve\n}\n}\n}"); err != nil {
		t.Error(err)
	}
	if err := gate.Validate("http://localhost:1 {\npaywall {\nprice /a $1 {\nobserve\n}\nprice /b $1\n}\n}"); err == nil || !strings.Contains(err.Error(), "nothing is accepted") {
		t.Error(err)
	}
}
