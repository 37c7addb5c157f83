package promises

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// What the Caddyfile refuses is refused in JSON too, which no parser of ours
// has seen.
func TestJSONIsCheckedLikeTheCaddyfile(t *testing.T) {
	for name, tc := range map[string]struct{ before, lines, old, new, want string }{
		"path placeholder": {"@m vars {http.request.host} x", "price @m /paid/* $0.01", "{http.request.host}", "{http.request.uri.path}", "one spelling of a path"},
		"method":           {"@m header A b", "price @m /paid/* $0.01", `"header":{"A":["b"]}`, `"method":["POST"]`, "put the methods into the line"},
		"charge 402":       {"", "price /paid/* $0.01 {\ncharge 403\n}", "403", "402", "402"},
		"charge 304":       {"", "price /paid/* $0.01 {\ncharge 403\n}", "403", "304", "304"},
	} {
		t.Run(name, func(t *testing.T) {
			adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(siteWith(tc.before, tc.lines)), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := gate.ValidateJSON(adapted); err != nil {
				t.Fatalf("before the change: %v", err)
			}
			changed := strings.Replace(string(adapted), tc.old, tc.new, 1)
			if changed == string(adapted) {
				t.Fatalf("%q is not in %s", tc.old, adapted)
			}
			if err := gate.ValidateJSON([]byte(changed)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("it loads, or says something else: %v", err)
			}
		})
	}
}

// A path after the amount is no description: it would stay free.
func TestWordsThatAreNoDescription(t *testing.T) {
	for _, word := range []string{"/y/*", `"/y"`, "*.pdf", "@m", "$0.02"} {
		if err := gate.Validate(siteWith("@m header a b", "price /x/* $0.01 "+word)); err == nil || !strings.Contains(err.Error(), "too late") {
			t.Errorf("%s: %v", word, err)
		}
	}
	if err := gate.Validate(siteWith("", `price /x/* $0.01 "A/B: 5 $ * @home"`)); err != nil {
		t.Error(err)
	}
}

// TestPublicPayeesDoNotLoad: a config that pays real money to an account of
// examples or of development does not load, however it names the account. On test
// networks it does.
func TestPublicPayeesDoNotLoad(t *testing.T) {
	t.Setenv("PAYWALL_TEST_PAYEE", "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266")
	for accept, says := range map[string]string{
		"base usdc " + gate.ExamplePayee:                                  "is the payee of examples",
		"eip155:8453 usdc " + gate.ExamplePayee:                           "is the payee of examples",
		"base usdc 0x70997970C51812dc3A010C7d01b50e0d17dc79C8":            "whose key everybody has",
		"base usdc {env.PAYWALL_TEST_PAYEE}":                              "whose key everybody has",
		"solana usdc CmGgLQL36Y9ubtTsy2zmE46TAxwCBm66onZmPPhUWNqv":        "is the payee of examples",
		"base usdc 0x000000000022D473030F116dDEE9F6B43aC78BA3":            "money is lost",
		"base-sepolia usdc " + gate.ExamplePayee:                          "",
		"base-sepolia usdc {env.PAYWALL_TEST_PAYEE}":                      "",
		"solana-devnet usdc CmGgLQL36Y9ubtTsy2zmE46TAxwCBm66onZmPPhUWNqv": "",
	} {
		err := gate.Validate("{\npaywall {\nledger memory i_accept_loss\nfacilitator own http://127.0.0.1:1\n}\n}\nhttp://localhost:1 {\npaywall {\naccept " + accept + "\nfacilitator own\nprice /x $0.01\n}\nrespond ok\n}")
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("accept %s: %v, want it to say %q", accept, err, says)
		}
	}
}

// What loads and what does not, of upto and of how tokens move.
func TestUptoLoadsWhereItCanBeCharged(t *testing.T) {
	const global = "ledger memory i_accept_loss\n facilitator fake http://127.0.0.1:1"
	const base = "accept base-sepolia usdc " + gate.PayTo
	const solana = "accept solana-devnet usdc CmGgLQL36Y9ubtTsy2zmE46TAxwCBm66onZmPPhUWNqv\n"
	for name, tc := range map[string]struct{ site, want string }{
		"upto":                        {base + "\nprice /x upto $0.50", ""},
		"above all of a token's peg":  {base + "\nprice /x upto 0.5 usdc", ""},
		"next to solana":              {base + "\n" + solana + "price /x upto $0.50\nprice /y $0.01", ""},
		"tokens with and without":     {base + "\n" + acceptPermit2 + "price /x upto $0.50\nprice /y $0.01", ""},
		"on_success in spite of site": {base + "\nsettle first\nprice /x upto $0.50 {\nsettle on_success\n}", ""},
		"settle first":                {base + "\nprice /x upto $0.50 {\nsettle first\n}", "cannot be settled first"},
		"settle first for the site":   {base + "\nsettle first\nprice /x upto $0.50", "settle on_success"},
		"zero":                        {base + "\nprice /x upto $0", "zero"},
		"too fine":                    {base + "\nprice /x upto $0.0000001", "0.0000001"},
		"only solana":                 {solana + "price /x upto $0.50", "Permit2"},
		"only EIP-3009":               {base + " {\ntransfer eip3009\n}\nprice /x upto $0.50", "Permit2"},
		"another currency":            {base + "\nprice /x upto 0.5 eurc", "eurc"},
		"two payees":                  {base + "\n" + strings.Replace(acceptPermit2, gate.PayTo, gate.FacilitatorB, 1) + "price /x upto $0.50\nprice /y $0.01", ""},
		"two payees, other order":     {strings.Replace(acceptPermit2, gate.PayTo, gate.FacilitatorB, 1) + base + "\nprice /x upto $0.50\nprice /y $0.01", ""},
		"two amounts":                 {base + " {\namount 0.3\n}\n" + acceptPermit2 + "price /x upto $0.50", ""},
		"two payees, both Permit2":    {acceptPermit2 + strings.Replace(acceptPermit2, gate.PayTo, gate.FacilitatorB, 1) + "price /x upto $0.50", "listed twice"},
		"two payees, neither says":    {base + "\n" + strings.Replace(base, gate.PayTo, gate.FacilitatorB, 1) + "\nprice /x upto $0.50", "listed twice"},
		"against a fixed price":       {base + "\nprice /x upto $0.50\nprice /x $0.50", "`price /x upto $0.50`"},
		"otherwise":                   {base + "\nprice /x $1\notherwise upto $0.50", "otherwise"},
	} {
		t.Run(name, func(t *testing.T) {
			err := gate.Validate("{\nadmin off\npaywall {\n" + global + "\n}\n}\nhttp://127.0.0.1:0 {\npaywall {\nfacilitator fake\n" + tc.site + "\n}\nrespond ok\n}")
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v\ndoes not say %q", err, tc.want)
			}
		})
	}
}
