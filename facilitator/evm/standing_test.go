package evm

import (
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// TestOnlyWhoHasPaidIsRemembered: a payment that moved money is remembered of its
// payer, also if somebody else sent it; one that did not is not.
func TestOnlyWhoHasPaidIsRemembered(t *testing.T) {
	payer := common.HexToAddress(payerAddress)
	for name, tt := range map[string]struct {
		before func(c *testChain, r facilitator.Request)
		order  order
		want   bool
	}{
		"settled":   {want: true},
		"refused":   {order: order{value: "1000000001"}},
		"cancelled": {before: func(c *testChain, r facilitator.Request) { c.cancel(r) }},
		"sent by a stranger": {before: func(c *testChain, r facilitator.Request) {
			c.transact(ownerKey, token, calldata(c.t, r), 1e9)
			c.seal()
		}, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t)
			f, _ := c.start("base-sepolia")
			r := c.sign(tt.order)
			if tt.before != nil {
				verify(t, f, r) // so that it was seen unused
				tt.before(c, r)
			}
			s := f.Settle(during(t, 5*time.Minute), r)
			if got := f.chains[baseSepolia].hasPaid(payer); got != tt.want || got != (s.Outcome == facilitator.Settled) {
				t.Errorf("remembered: %v; %+v", got, s)
			}
		})
	}
	t.Run("nothing was charged", func(t *testing.T) {
		c := startChain(t, withPermit2(t), allows(token, payer))
		f, _ := c.start("base-sepolia")
		_, r := c.permit(permitOrder{upto: true, charge: "0"})
		if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled || f.chains[baseSepolia].hasPaid(payer) {
			t.Errorf("%+v, remembered", s)
		}
	})
}
