package evm

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// TestPermit2FrontRun: a stranger sends a payment before us. The payer has paid.
func TestPermit2FrontRun(t *testing.T) {
	payer := common.HexToAddress(payerAddress)
	start := func(t *testing.T) (*testChain, *Facilitator, facilitator.Request) {
		c := startChain(t, withPermit2(t), allows(token, payer))
		f, _ := c.start("base-sepolia")
		r, _ := c.permit(permitOrder{})
		return c, f, r
	}
	t.Run("between verify and settle", func(t *testing.T) {
		c, f, r := start(t)
		verify(t, f, r)
		theirs := c.transactCall(ownerKey, r)
		c.seal()
		for range 2 {
			if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled || s.Transaction != theirs.Hex() {
				t.Errorf("%+v", s)
			}
		}
		if c.transactions() != 0 || c.balance(payee) != 10000 {
			t.Errorf("%d transactions, %d moved", c.transactions(), c.balance(payee))
		}
	})
	t.Run("in the same block, without verify", func(t *testing.T) {
		c, f, r := start(t)
		var theirs common.Hash
		p := must(read(r))
		to, data := p.encoded()
		c.asleep = func() { // our transaction is in the pool now
			c.asleep = nil
			theirs = c.transact(ownerKey, to, data, 50e9)
		}
		for range 2 {
			if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled || s.Transaction != theirs.Hex() {
				t.Errorf("%+v", s)
			}
		}
		if c.transactions() != 1 || c.balance(payee) != 10000 {
			t.Errorf("%d transactions, %d moved", c.transactions(), c.balance(payee))
		}
	})
	t.Run("hidden in another call", func(t *testing.T) {
		// Nothing tells it from one transfer for two payments, so it stays in doubt.
		c, f, r := start(t)
		verify(t, f, r)
		to, data := must(read(r)).encoded()
		c.transact(ownerKey, multicall3, chain.Pack("tryAggregate", true, []call3{{to, data}}), 1e9)
		c.seal()
		if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Unknown || s.Reason != string(chain.CodePermit2Nonce) {
			t.Errorf("%+v", s)
		}
	})
	t.Run("given up", func(t *testing.T) {
		c, f, r := start(t)
		verify(t, f, r)
		c.giveUp(r)
		if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Refused || s.Reason != string(chain.CodePermit2Nonce) || s.Transaction != "" {
			t.Errorf("%+v", s)
		}
	})
	t.Run("used by somebody, and given up after that", func(t *testing.T) {
		c, f, r := start(t)
		verify(t, f, r)
		theirs := c.transactCall(ownerKey, r)
		c.seal()
		c.giveUp(r)
		if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled || s.Transaction != theirs.Hex() {
			t.Errorf("%+v", s)
		}
	})
	t.Run("one transfer proves one payment", func(t *testing.T) {
		c, f, r := start(t)
		other, _ := c.permit(permitOrder{nonce: 1})
		verify(t, f, r)
		verify(t, f, other)
		c.giveUp(other) // uses up the nonce
		theirs := c.transactCall(ownerKey, r)
		c.seal()
		if s := f.Settle(during(t, 5*time.Minute), other); s.Outcome != facilitator.Unknown {
			t.Errorf("what was not paid: %+v", s)
		}
		if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled || s.Transaction != theirs.Hex() {
			t.Errorf("what was: %+v", s)
		}
	})
}

// TestPermit2WitnessOnChain asks a facilitator and a Look about what really
// happened to a Permit2 payment.
func TestPermit2WitnessOnChain(t *testing.T) {
	payer := common.HexToAddress(payerAddress)
	const none = 300 * time.Second // what a payment lives
	moved, expired := facilitator.Proof{Evidence: facilitator.Moved}, voided(x402.CodePermit2Deadline)
	for name, tt := range map[string]struct {
		order permitOrder
		do    func(*testChain, facilitator.Request) common.Hash
		late  time.Duration // our claim is so much later
		want  facilitator.Proof
	}{
		"a stranger settles it": {do: func(c *testChain, r facilitator.Request) common.Hash { return c.transactCall(ownerKey, r) }, want: moved},
		"with something behind it, and another s": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				p := must(read(r))
				p.signature = highS(p.signature)
				to, data := p.encoded()
				return c.transact(ownerKey, to, append(data, "x402"...), 1e9)
			},
			want: moved,
		},
		"with a permit": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				p := must(read(r))
				p.way.(*permit2).allowance = &permit2612{value: p.Value}
				to, data := p.encoded()
				return c.transact(ownerKey, to, data, 1e9)
			},
			want: moved,
		},
		"between payments of the same amount": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				for i := range byte(3) {
					other, _ := c.permit(permitOrder{nonce: 10 + i})
					c.transactCall(ownerKey, other)
					c.seal()
				}
				return c.transactCall(ownerKey, r)
			},
			want: moved,
		},
		"it was settled before our claim": {
			do:   func(c *testChain, r facilitator.Request) common.Hash { return c.transactCall(ownerKey, r) },
			late: 30 * time.Second,
		},
		"it ends":        {want: expired},
		"it is given up": {do: func(c *testChain, r facilitator.Request) common.Hash { return c.giveUp(r) }, want: voided(chain.CodePermit2Nonce)},
		"it is given up, and the payer pays for something else": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				c.giveUp(r)
				other, _ := c.permit(permitOrder{nonce: 7, amount: "1"})
				return c.transactCall(ownerKey, other)
			},
		},
		"it is given up after its use": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				hash := c.transactCall(ownerKey, r)
				c.seal()
				c.giveUp(r)
				return hash
			},
			want: moved,
		},
		"hidden in another call": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				to, data := must(read(r)).encoded()
				return c.transact(ownerKey, multicall3, chain.Pack("tryAggregate", true, []call3{{to, data}}), 1e9)
			},
		},
		"the nonce signed twice, for another amount": {
			do: func(c *testChain, _ facilitator.Request) common.Hash {
				other, _ := c.permit(permitOrder{amount: "9999"})
				return c.transactCall(ownerKey, other)
			},
		},
		"the nonce signed twice, for another token": {
			do: func(c *testChain, _ facilitator.Request) common.Hash {
				other, _ := c.permit(permitOrder{asset: tether.Hex()})
				return c.transactCall(ownerKey, other)
			},
		},
		"it is reverted": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				c.owner("pause()")
				return c.transactCall(ownerKey, r)
			},
			want: expired,
		},
		"upto, of another process": {
			order: permitOrder{upto: true, charge: "77"},
			do: func(c *testChain, r facilitator.Request) common.Hash {
				p := must(read(r))
				if _, err := p.Charge(r.Requirement); err != nil {
					c.t.Fatal(err)
				}
				to, data := p.encoded()
				return c.transact(must(crypto.HexToECDSA(signerKey)), to, data, 1e9)
			},
			want: moved,
		},
		"upto, another amount": {
			order: permitOrder{upto: true, charge: "78"},
			do: func(c *testChain, r facilitator.Request) common.Hash {
				r.Requirement.Amount = "77"
				p := must(read(r))
				_ = must(p.Charge(r.Requirement))
				to, data := p.encoded()
				return c.transact(must(crypto.HexToECDSA(signerKey)), to, data, 1e9)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startChain(t, withPermit2(t), allows(token, payer), allows(tether, payer))
			f, _ := c.start("base-sepolia")
			l := c.look()
			_, r := c.permit(tt.order)
			claimed := c.now().Add(tt.late)
			var transaction common.Hash
			if tt.do != nil {
				transaction = tt.do(c, r)
				c.seal()
				c.seal()
			}
			c.pass(none+time.Minute, 1)
			c.finalize()
			want := tt.want
			if want.Evidence == facilitator.Moved {
				want.Transaction, want.Block = transaction.Hex(), c.blockOf(transaction)
			}
			for who, w := range map[string]facilitator.Witness{"facilitator": f, "look": l} {
				got, err := w.Witness(context.Background(), r, claimed)
				if err != nil || got != want {
					t.Errorf("%s: %+v, %v; want %+v", who, got, err, want)
				}
			}
		})
	}
}

// hidesUses is a node by which no payment was used, only given up.
type hidesUses struct {
	chain.Client
	p *payment
}

func (n hidesUses) BatchCallContext(ctx context.Context, b []rpc.BatchElem) error {
	err := n.Client.BatchCallContext(ctx, b)
	for i := range b {
		if events, ok := b[i].Result.(*[]chain.Event); ok {
			*events = slices.DeleteFunc(*events, func(e chain.Event) bool { return n.p.IsUse(&e) })
		}
	}
	return err
}

// TestTwoNodesSayThatANonceWasGivenUp: a nonce can be given up after its use, too, which one
// of two nodes may hide.
func TestTwoNodesSayThatANonceWasGivenUp(t *testing.T) {
	for name, tt := range map[string]struct {
		used, hidden bool
		want         facilitator.Outcome
	}{
		"given up":                   {want: facilitator.Refused},
		"after its use":              {used: true, want: facilitator.Settled},
		"after a use that is hidden": {used: true, hidden: true, want: facilitator.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t, withPermit2(t), allows(token, common.HexToAddress(payerAddress)))
			f, _ := c.start("base-sepolia", func(n *Network) { n.RPC = []string{"https://node-1.example", "https://node-2.example"} })
			r, _ := c.permit(permitOrder{})
			verify(t, f, r)
			if tt.used {
				c.transactCall(ownerKey, r)
				c.seal()
			}
			c.giveUp(r)
			if tt.hidden {
				rewire(f, 0, hidesUses{keepOpen{c.client}, must(read(r))})
			}
			if s := f.Settle(during(t, 10*time.Second), r); s.Outcome != tt.want {
				t.Errorf("%+v, want %v", s, tt.want)
			}
		})
	}
}
