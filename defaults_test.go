package paywall_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// What is defined once, in the global options, a site need not say; its own words and a
// line's replace it.
func TestSitesTakeWhatIsSaidOnce(t *testing.T) {
	const elsewhere = "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb"
	w := gate.Prepare(t)
	text := w.Caddyfile("facilitator fake\naccept base-sepolia usdc " + elsewhere + "\nprice /paid/* $0.01\nprice /line $0.01 {\n accept base-sepolia usdc " + gate.PayTo + "\n}")
	text = strings.Replace(text, "ledger memory i_accept_loss", "ledger memory i_accept_loss\naccept base-sepolia usdc "+gate.PayTo, 1)
	for _, tc := range []struct{ name, without, payee string }{
		{"nothing said by the site", "accept base-sepolia usdc " + elsewhere, gate.PayTo},
		{"all said by the site", "", elsewhere},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := *w
			w.T = t
			said := text
			if tc.without != "" {
				said = strings.Replace(strings.Replace(said, tc.without, "", 1), "facilitator fake\n", "", 1)
			}
			w.Load(said)
			if got := w.Challenge("GET", "/paid/x").Accepts[0].PayTo; got != tc.payee {
				t.Errorf("paid to %s, want %s", got, tc.payee)
			}
			if got := w.Challenge("GET", "/line").Accepts[0].PayTo; got != gate.PayTo {
				t.Errorf("the line is paid to %s", got)
			}
			if res := w.Pay("GET", "/paid/x"); res.StatusCode != 200 {
				t.Error(res)
			}
		})
	}
}

// A site that takes test money needs no facilitator and no global options: x402.org's settles
// it, which is said once. For real money somebody has to be named.
func TestTestMoneyNeedsNoFacilitator(t *testing.T) {
	const said = "x402.org settles it"
	site := func(lines string) string {
		return "http://127.0.0.1:0 {\npaywall {\n" + lines + "\nprice /x $0.01\nprice /y $0.02\n}\nrespond ok\n}\n"
	}
	test, real := "accept base-sepolia usdc "+gate.PayTo, "accept base usdc "+gate.PayTo
	const own = "facilitator own http://127.0.0.1:1"
	for name, tc := range map[string]struct {
		global, site string
		said         int
		refused      string
	}{
		"test money":              {"", site(test), 1, ""},
		"two sites":               {"", site(test) + strings.Replace(site(test), ":0", ":1", 1), 1, ""},
		"accepted globally":       {"ledger memory i_accept_loss\n" + test, site(""), 1, ""},
		"one defined":             {own, site(test), 0, ""},
		"one defined, real money": {own, site(real), 0, ""},
		"one of two named":        {own + "\nfacilitator two http://127.0.0.1:2", site(test + "\nfacilitator two"), 0, ""},
		"two defined":             {own + "\nfacilitator two http://127.0.0.1:2", site(test), 0, "there are several (own, two); add `facilitator <name>...`"},
		"real money":              {"", site(real), 0, "no facilitator is defined, and base is real money"},
		"real money beside":       {"", site(test + "\n" + real), 0, "no facilitator is defined, and base is real money"},
		"a network nobody knows":  {"", site("accept eip155:987654321 0x5FbDB2315678afecb367f032d93F642f64180aa3 " + gate.PayTo + " {\ndecimals 6\nname A\nversion 1\npeg usd\n}"), 0, "is real money"},
		"nothing accepted":        {own, site(""), 0, "to the site, or to the `paywall` block of the global options"},
		"a bad entry, unused":     {own + "\naccept base-sepolia doge " + gate.PayTo, site(test), 0, "doge"},
		"nobody of that name":     {"", site(test + "\nfacilitator x402org"), 0, `unknown facilitator "x402org"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("XDG_DATA_HOME", t.TempDir())
			log := filepath.Join(t.TempDir(), "log")
			global := ""
			if tc.global != "" {
				global = "paywall {\n" + tc.global + "\n}\n"
			}
			err := gate.Validate("{\nadmin off\nlog {\noutput file " + log + "\n}\n" + global + "}\n" + tc.site)
			if tc.refused != "" {
				if err == nil || !strings.Contains(err.Error(), tc.refused) {
					t.Errorf("want %q, got %v", tc.refused, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			content, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(content), said); n != tc.said || n > 0 && !strings.Contains(string(content), `"url":"https://www.x402.org/facilitator"`) {
				t.Errorf("said %d times, want %d: %s", n, tc.said, content)
			}
		})
	}
}

// A list of accepted tokens in JSON is judged where it stands, whoever uses it.
func TestAcceptedTokensInJSONAreJudgedWhereTheyStand(t *testing.T) {
	err := gate.ValidateJSON([]byte(`{"admin":{"disabled":true},"apps":{"paywall":{"accept":[{"network":"base","asset":"usdc","pay_to":"` + gate.PayTo + `"},{"network":"base","asset":"usdc","pay_to":"0x1"}]}}}`))
	if err == nil || !strings.Contains(err.Error(), "accept, entry 2: ") {
		t.Error(err)
	}
}
