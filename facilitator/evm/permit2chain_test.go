package evm

import (
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

func TestSettlePermit2OnChain(t *testing.T) {
	payer := common.HexToAddress(payerAddress)
	c := startChain(t, withPermit2(t), allows(token, payer), allows(tether, payer))
	f, logs := c.start("base-sepolia")
	n := byte(0)
	for name, tt := range map[string]struct {
		order permitOrder
		moves int64
	}{
		"exact":                        {permitOrder{}, 10000},
		"exact, v of 0 or 1":           {permitOrder{change: func(s []byte) []byte { s[64] -= 27; return s }}, 10000},
		"exact, any token":             {permitOrder{asset: tether.Hex()}, 10000},
		"exact, begins in the past":    {permitOrder{after: -600}, 10000},
		"upto, all of it":              {permitOrder{upto: true, amount: "500000"}, 500000},
		"upto, less":                   {permitOrder{upto: true, amount: "500000", charge: "123456"}, 123456},
		"upto, the least":              {permitOrder{upto: true, amount: "500000", charge: "1", asset: tether.Hex()}, 1},
		"upto, all that the payer has": {permitOrder{upto: true, amount: "900000000", charge: "7"}, 7},
	} {
		n++
		tt.order.nonce = n
		t.Run(name, func(t *testing.T) {
			r, toSettle := c.permit(tt.order)
			if v, err := f.Verify(during(t, 5*time.Minute), r); err != nil || !v.Valid || v.Payer != payerAddress {
				t.Fatalf("verify: %+v, %v", v, err)
			}
			asset := common.HexToAddress(r.Requirement.Asset)
			before, sent := c.of(asset, payee), c.transactions()
			var first facilitator.Settlement
			for i := range 3 { // the second and third are repeats
				s := f.Settle(during(t, 5*time.Minute), toSettle)
				if s.Outcome != facilitator.Settled || s.Payer != payerAddress || s.Network != baseSepolia {
					t.Fatalf("settle: %+v", s)
				}
				if want := toSettle.Requirement.Amount; tt.order.upto && s.Amount != want || !tt.order.upto && s.Amount != "" {
					t.Errorf("amount %q", s.Amount)
				}
				if i > 0 && s.Transaction != first.Transaction {
					t.Errorf("repeat: transaction %s, was %s", s.Transaction, first.Transaction)
				}
				first = s
			}
			if got := c.of(asset, payee) - before; got != tt.moves {
				t.Errorf("%d moved, want %d", got, tt.moves)
			}
			if got := c.transactions() - sent; got != 1 {
				t.Errorf("%d transactions", got)
			}
			if tt.order.upto {
				return // nobody else may settle it
			}
			// Another process has no memory of it: the chain has, and it proves
			// nothing.
			stranger, _ := c.start("base-sepolia", withKey(t, "7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6"))
			forget(stranger)
			if v, err := stranger.Verify(during(t, 5*time.Minute), r); err != nil || v.Reason != string(chain.CodePermit2Nonce) {
				t.Errorf("verify elsewhere: %+v, %v", v, err)
			}
			if s := stranger.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Unknown {
				t.Errorf("settle elsewhere: %+v", s)
			}
		})
	}
	if text := logged(logs); text != "" {
		t.Errorf("log: %s", text)
	}
}

// TestUptoOnChain: what is charged is decided once.
func TestUptoOnChain(t *testing.T) {
	c := startChain(t, withPermit2(t), allows(token, common.HexToAddress(payerAddress)))
	f, _ := c.start("base-sepolia")
	settle := func(charge string, o permitOrder) facilitator.Settlement {
		o.upto, o.charge = true, charge
		_, r := c.permit(o)
		return f.Settle(during(t, 5*time.Minute), r)
	}
	for charge, reason := range map[string]x402.Code{
		"10001": chain.CodeUptoExceeds, "115792089237316195423570985008687907853269984665640564039457584007913129639935": chain.CodeUptoExceeds,
		"": x402.CodePermit2Amount, "-1": x402.CodePermit2Amount, "+1": x402.CodePermit2Amount, "01": x402.CodePermit2Amount,
		"1.0": x402.CodePermit2Amount, "0x1": x402.CodePermit2Amount, "1e3": x402.CodePermit2Amount, " 1": x402.CodePermit2Amount,
		"115792089237316195423570985008687907853269984665640564039457584007913129639936": x402.CodePermit2Amount,
	} {
		_, r := c.permit(permitOrder{upto: true})
		r.Requirement.Amount = charge
		if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Refused || s.Reason != string(reason) {
			t.Errorf("charge %q: %+v, want %s", charge, s, reason)
		}
	}
	// Nothing is charged, as often as one likes, and then the money is still there to
	// be charged.
	for range 2 {
		if s := settle("0", permitOrder{}); s.Outcome != facilitator.Settled || s.Transaction != "" || s.Amount != "0" || s.Payer != payerAddress {
			t.Errorf("nothing: %+v", s)
		}
	}
	if c.transactions() != 0 {
		t.Error("a transaction for nothing")
	}
	if s := settle("0", permitOrder{change: func(s []byte) []byte { s[5]++; return s }}); s.Outcome != facilitator.Refused || s.Reason != string(x402.CodePermit2Signature) {
		t.Errorf("nothing of a forged payment: %+v", s)
	}
	_, r := c.permit(permitOrder{upto: true})
	charge := func(amount string) facilitator.Settlement {
		r := r
		r.Requirement.Amount = amount
		return f.Settle(during(t, 5*time.Minute), r)
	}
	first := charge("600")
	if first.Outcome != facilitator.Settled {
		t.Fatalf("%+v", first)
	}
	if s := charge("601"); s.Outcome != facilitator.Unknown || s.Reason != string(x402.CodeSettlementPending) {
		t.Errorf("another amount: %+v", s)
	}
	if s := charge("600"); s.Outcome != facilitator.Settled || s.Transaction != first.Transaction {
		t.Errorf("the same again: %+v", s)
	}
	if c.balance(payee) != 600 || c.transactions() != 1 {
		t.Errorf("%d moved in %d transactions", c.balance(payee), c.transactions())
	}
	other := permitOrder{nonce: 1, upto: true, facilitator: payerAddress}
	r, _ = c.permit(other)
	if v, err := f.Verify(during(t, 5*time.Minute), r); err != nil || v.Reason != string(x402.CodeUptoFacilitator) {
		t.Errorf("another facilitator: %+v, %v", v, err)
	}
	if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Refused || s.Reason != string(x402.CodeUptoFacilitator) {
		t.Errorf("another facilitator: %+v", s)
	}
}

// TestPermit2BadWorlds: what can be wrong with a Permit2 payment on the chain.
func TestPermit2BadWorlds(t *testing.T) {
	payer := common.HexToAddress(payerAddress)
	without := func(a common.Address) func(types.GenesisAlloc) {
		return func(alloc types.GenesisAlloc) { delete(alloc, a) }
	}
	for name, tt := range map[string]struct {
		genesis func(types.GenesisAlloc)
		world   func(*testChain, facilitator.Request)
		order   permitOrder
		reason  x402.Code
		unknown bool // when settled; else refused for the same reason
	}{
		"no allowance":   {order: permitOrder{asset: tether.Hex()}, reason: codePermit2Allowance},
		"no money":       {order: permitOrder{amount: "1000000001"}, reason: codePermit2Balance},
		"upto, no money": {order: permitOrder{upto: true, amount: "1000000001"}, reason: codePermit2Balance},
		"no proxy":       {genesis: without(chain.ExactProxy), reason: codePermit2Proxy},
		"no upto proxy":  {genesis: without(chain.UptoProxy), order: permitOrder{upto: true}, reason: codePermit2Proxy},
		"no Permit2":     {genesis: without(eip712.Permit2), reason: codePermit2Simulation},
		"no token":       {order: permitOrder{asset: "0x1000000000000000000000000000000000000002"}, reason: codeAsset},
		"paused":         {world: func(c *testChain, _ facilitator.Request) { c.owner("pause()") }, reason: codePermit2Simulation},
		"payer blocked":  {world: func(c *testChain, _ facilitator.Request) { c.owner("blacklist(address)", payer[:]) }, reason: codePermit2Simulation},
		"payee blocked":  {world: func(c *testChain, _ facilitator.Request) { c.owner("blacklist(address)", common.FromHex(payee)) }, reason: codePermit2Simulation},
		"nonce used": {
			world:  func(c *testChain, r facilitator.Request) { c.transactCall(ownerKey, r); c.seal() },
			reason: chain.CodePermit2Nonce, unknown: true,
		},
		"nonce given up": {
			world:  func(c *testChain, r facilitator.Request) { c.giveUp(r) },
			reason: chain.CodePermit2Nonce, unknown: true,
		},
		"spender":          {order: permitOrder{spender: payee}, reason: x402.CodePermit2Spender},
		"the other proxy":  {order: permitOrder{spender: x402.UptoPermit2Proxy}, reason: x402.CodePermit2Spender},
		"ends too soon":    {order: permitOrder{before: 5}, reason: x402.CodePermit2Deadline},
		"not yet":          {order: permitOrder{after: 60}, reason: x402.CodePermit2NotYetValid},
		"high s":           {order: permitOrder{change: highS}, reason: x402.CodePermit2Signature},
		"payee is our own": {order: permitOrder{to: signerAddress}, reason: "503"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			genesis := []func(types.GenesisAlloc){withPermit2(t), allows(token, payer)}
			if tt.genesis != nil {
				genesis = append(genesis, tt.genesis)
			}
			c := startChain(t, genesis...)
			f, _ := c.start("base-sepolia")
			r, toSettle := c.permit(tt.order)
			if tt.world != nil {
				tt.world(c, r)
			}
			v, err := f.Verify(during(t, 5*time.Minute), r)
			if tt.reason == "503" {
				if s := f.Settle(during(t, 5*time.Minute), toSettle); err == nil || s.Outcome != facilitator.Unsent {
					t.Errorf("%+v, %+v", v, s)
				}
				return
			}
			if err != nil || v.Valid || v.Reason != string(tt.reason) {
				t.Errorf("verify: %+v, %v; want %s", v, err, tt.reason)
			}
			before := c.of(token, payee)
			s := f.Settle(during(t, 5*time.Minute), toSettle)
			want := facilitator.Refused
			if tt.unknown {
				want = facilitator.Unknown
			}
			if s.Outcome != want || s.Reason != string(tt.reason) {
				t.Errorf("settle: %+v", s)
			}
			if c.of(token, payee) != before || c.transactions() != 0 {
				t.Error("something was sent")
			}
		})
	}
}
