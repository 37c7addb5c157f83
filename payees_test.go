package paywall_test

import (
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

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
