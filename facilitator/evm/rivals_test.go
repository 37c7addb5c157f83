package evm

import (
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// TestGatewayWithAnotherLedgerIsToldOf: two gateways that share nothing take one
// payment for one payee. The chain moves the money once, and each of them sees that it
// has moved; the second says in its log what that may mean.
func TestGatewayWithAnotherLedgerIsToldOf(t *testing.T) {
	for name, tt := range map[string]struct {
		settle func(c *testChain, other *Facilitator, r facilitator.Request)
		told   bool
	}{
		"another gateway": {func(c *testChain, other *Facilitator, r facilitator.Request) {
			if s := other.Settle(during(c.t, time.Minute), r); s.Outcome != facilitator.Settled {
				c.t.Fatalf("%+v", s)
			}
		}, true},
		"the payer": {func(c *testChain, _ *Facilitator, r facilitator.Request) {
			c.transact(payerECDSA, token, calldata(c.t, r), 1e9)
			c.seal()
		}, true},
		"the same key": {func(c *testChain, _ *Facilitator, r facilitator.Request) {
			c.transact(must(crypto.HexToECDSA(secondKey)), token, calldata(c.t, r), 1e9)
			c.seal()
		}, false},
		"nobody else": {func(*testChain, *Facilitator, facilitator.Request) {}, false},
	} {
		t.Run(name, func(t *testing.T) {
			genesis, _ := both(t)
			c := startChain(t, genesis)
			other, _ := c.start("base-sepolia")
			f, logs := c.start("base-sepolia", func(n *Network) { n.Signers = []string{keyFile(t, secondKey)} })
			ch := f.chains[baseSepolia]
			ch.shared = newShared() // as in another process
			ch.accounts = []*account{ch.shared.account(ch.accounts[0].key)}
			for i := range byte(3) {
				r := c.sign(order{nonce: i})
				verify(t, f, r)
				tt.settle(c, other, r)
				if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled {
					t.Fatalf("%+v", s)
				}
			}
			said := logs.FilterMessageSnippet("have them share a ledger").Len()
			if told := said > 0; told != tt.told || said > 1 || c.balance(payee) != 30000 {
				t.Errorf("told %d times; %d moved; log %s", said, c.balance(payee), logged(logs))
			}
		})
	}
}
