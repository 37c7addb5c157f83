package evm

import (
	"context"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rpc"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// finalize makes so many blocks that the ones there are become final.
func (c *testChain) finalize() { c.finalizeAfter(time.Second) }

// finalizeAfter makes a block so much later, and as many after it as make it final: every
// 32nd block is, and what is before it.
func (c *testChain) finalizeAfter(d time.Duration) {
	c.t.Helper()
	c.pass(d, 1)
	ctx, client := context.Background(), c.backend.Client()
	number := must(client.BlockNumber(ctx))
	for n := number; n%32 != 0; n++ {
		c.seal()
	}
	if final := must(client.HeaderByNumber(ctx, big.NewInt(int64(rpc.FinalizedBlockNumber)))).Number; final.Uint64() < number {
		c.t.Errorf("block %d is to be final, and %s is the last that is", number, final)
	}
}

// look makes a Look at the chain, as at a real one.
func (c *testChain) look() *chain.Look {
	c.t.Helper()
	return lookWith(c.t, []string{"https://node.example"}, chain.Options{
		Logger: zap.NewNop(), Now: c.now,
		Dial: func(context.Context, *url.URL) (chain.Client, error) { return keepOpen{c.client}, nil },
	})
}

// TestWitnessOnChain asks a facilitator and a Look about what really happened.
func TestWitnessOnChain(t *testing.T) {
	const none = 300 * time.Second // what a payment lives
	tests := map[string]struct {
		do   func(*testChain, facilitator.Request) common.Hash
		late time.Duration // our claim is so much later
		want facilitator.Proof
	}{
		"a stranger settles it": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				return c.transact(ownerKey, token, calldata(c.t, r), 1e9)
			},
			want: facilitator.Proof{Evidence: facilitator.Moved},
		},
		"a contract settles two": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				other := c.sign(order{nonce: 9, value: "7"})
				data := must(chain.Contracts.Pack("tryAggregate", true, []call3{{token, calldata(c.t, other)}, {token, calldata(c.t, r)}}))
				return c.transact(ownerKey, multicall3, data, 1e9)
			},
			want: facilitator.Proof{Evidence: facilitator.Moved},
		},
		"it was settled before our claim": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				return c.transact(ownerKey, token, calldata(c.t, r), 1e9)
			},
			late: 30 * time.Second,
		},
		"it ends": {want: voided("invalid_exact_evm_payload_authorization_valid_before")},
		"it is cancelled": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				c.cancel(r)
				return common.Hash{}
			},
			want: voided(chain.CodeNonceUsed),
		},
		"it is reverted": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				c.owner("pause()")
				return c.transact(ownerKey, token, calldata(c.t, r), 1e9)
			},
			want: voided("invalid_exact_evm_payload_authorization_valid_before"),
		},
		"the payer pays himself": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				return c.transact(ownerKey, token, calldata(c.t, c.sign(order{to: payerAddress})), 1e9)
			},
			want: voided(chain.CodeNonceUsed),
		},
		"one transfer for two": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				nothing, paid := c.sign(order{to: payerAddress, value: "0"}), c.sign(order{nonce: 9})
				data := must(chain.Contracts.Pack("tryAggregate", true, []call3{{token, calldata(c.t, nothing)}, {token, calldata(c.t, paid)}}))
				return c.transact(ownerKey, multicall3, data, 1e9)
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startChain(t)
			c.pass(time.Hour, 10)
			f, _ := c.start("base-sepolia", func(n *Network) { n.Confirmations = 2 })
			l := c.look()
			r := c.sign(order{})
			since := c.now().Add(tt.late)
			var hash common.Hash
			if tt.do != nil {
				hash = tt.do(c, r)
			}
			c.seal()
			ask := func() [2]facilitator.Proof {
				t.Helper()
				mine, err := f.Witness(during(t, 5*time.Minute), r, since)
				theirs, err2 := l.Witness(during(t, 5*time.Minute), r, since)
				if err != nil || err2 != nil {
					t.Fatal(err, err2)
				}
				return [2]facilitator.Proof{mine, theirs}
			}
			if got := ask(); got != [2]facilitator.Proof{} {
				t.Errorf("unconfirmed: %+v", got)
			}
			want := tt.want
			if want.Evidence == facilitator.Moved {
				want.Transaction, want.Block = hash.Hex(), c.blockOf(hash)
				c.seal()
				if got := ask(); got != [2]facilitator.Proof{want, {}} {
					t.Errorf("confirmed twice: %+v", got)
				}
			}
			c.finalize()
			if ended := strings.HasSuffix(want.Reason, "valid_before"); ended {
				if got := ask(); got != [2]facilitator.Proof{} {
					t.Errorf("valid: %+v", got)
				}
				c.pass(none, 1)
				if got := ask(); got != [2]facilitator.Proof{} {
					t.Errorf("not final: %+v", got)
				}
			}
			c.finalizeAfter(none)
			if got := ask(); got != [2]facilitator.Proof{want, want} {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

// TestWitnessOfAFork: a settlement is in a block that a reorganisation takes
// back. It counts again when it is in another one.
func TestWitnessOfAFork(t *testing.T) {
	c := startChain(t)
	c.pass(time.Hour, 10)
	l := c.look()
	r := c.sign(order{})
	since := c.now()
	parent := must(c.backend.Client().HeaderByNumber(context.Background(), nil)).Hash()
	theirs := c.transact(ownerKey, token, calldata(t, r), 1e9)
	for range 3 {
		c.seal()
	}
	moved := facilitator.Proof{Evidence: facilitator.Moved, Transaction: theirs.Hex(), Block: c.blockOf(theirs)}
	if got, err := l.Witness(during(t, 5*time.Minute), r, since); err != nil || got != moved {
		t.Fatalf("%+v, %v", got, err)
	}
	if has, err := l.HasBlock(during(t, 5*time.Minute), baseSepolia, moved.Block); !has || err != nil {
		t.Fatal(has, err)
	}
	c.fork(parent)
	if has, err := l.HasBlock(during(t, 5*time.Minute), baseSepolia, moved.Block); has || err == nil {
		t.Error("taken back, and no other is in its place: ", has, err)
	}
	if got, err := l.Witness(during(t, 5*time.Minute), r, since); err != nil || got != (facilitator.Proof{}) {
		t.Errorf("taken back: %+v, %v", got, err)
	}
	for range 6 { // it is in the pool again
		c.seal()
	}
	if has, err := l.HasBlock(during(t, 5*time.Minute), baseSepolia, moved.Block); has || err != nil {
		t.Error("taken back, and another is in its place: ", has, err)
	}
	moved.Block = c.blockOf(theirs)
	if got, err := l.Witness(during(t, 5*time.Minute), r, since); err != nil || got != moved {
		t.Errorf("in another block: %+v, %v", got, err)
	}
}

// TestSettleAfterAFork: a reorganisation makes the chain forget a settlement. The
// repeat sends it anew, with the number that is free again, and the account goes on.
func TestSettleAfterAFork(t *testing.T) {
	c := startChain(t)
	f, _ := c.start("base-sepolia")
	r := c.sign(order{})
	parent := must(c.backend.Client().HeaderByNumber(context.Background(), nil)).Hash()
	first := f.Settle(during(t, 5*time.Minute), r)
	if want := c.blockOf(common.HexToHash(first.Transaction)); first.Outcome != facilitator.Settled || first.Block != want {
		t.Fatalf("%+v, want it in %+v", first, want)
	}
	c.fork(parent)
	c.backend.Rollback() // and nobody has kept it
	c.seal()
	c.seal()
	if c.transactions() != 0 || c.balance(payee) != 0 {
		t.Fatal("the chain has it")
	}
	if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Unknown {
		t.Fatalf("given up: %+v", s)
	}
	again := f.Settle(during(t, 5*time.Minute), r)
	if again.Outcome != facilitator.Settled || again.Block == first.Block || again.Block != c.blockOf(common.HexToHash(again.Transaction)) {
		t.Errorf("%+v", again)
	}
	if s := f.Settle(during(t, 5*time.Minute), c.sign(order{nonce: 1})); s.Outcome != facilitator.Settled {
		t.Errorf("another one: %+v", s)
	}
	if c.transactions() != 2 || c.balance(payee) != 20_000 {
		t.Errorf("%d transactions, %d paid", c.transactions(), c.balance(payee))
	}
}

// TestNew: a facilitator without a config, on the URL of a node.
func TestNew(t *testing.T) {
	r := order{}.sign(t, time.Now().Unix())
	node := script(t, newClock(time.Now().Unix()), world{})
	key := must(crypto.HexToECDSA(signerKey))
	f, err := New(baseSepolia, []string{node.URL}, key, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled {
		t.Errorf("%+v", s)
	}
	if err := f.Cleanup(); err != nil {
		t.Error(err)
	}
	for name, rpc := range map[string][]string{"base-sepolia": nil, "solana": {node.URL}, "base": {"http://node.example/" + secret}} {
		if _, err := New(name, rpc, key, zap.NewNop()); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
