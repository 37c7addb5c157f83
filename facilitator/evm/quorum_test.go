package evm

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// TestSettlementNeedsItsQuorum: with a quorum, a settlement counts when enough nodes
// have its receipt, and more than have the block without it.
func TestSettlementNeedsItsQuorum(t *testing.T) {
	mines, down := world{}, world{Name: "down"}
	reverts, nothing := world{Receipt: "reverted"}, world{ReceiptThrows: true}
	for name, tt := range map[string]struct {
		nodes  []world
		quorum int
		want   facilitator.Outcome
		log    string
		above  string
	}{
		"one node is believed":               {[]world{mines, nothing}, 0, facilitator.Settled, "", ""},
		"both have it":                       {[]world{mines, mines}, 2, facilitator.Settled, "", ""},
		"the other has it not":               {[]world{mines, nothing}, 2, facilitator.Unknown, "disagree about a transaction", ""},
		"the other has it reverted":          {[]world{mines, reverts}, 2, facilitator.Unknown, "disagree about a transaction", ""},
		"the first has it reverted":          {[]world{reverts, mines}, 2, facilitator.Unknown, "disagree about a transaction", ""},
		"the other is down":                  {[]world{mines, down}, 2, facilitator.Unknown, "", ""},
		"two of three":                       {[]world{mines, down, mines}, 2, facilitator.Settled, "", ""},
		"two of three, and one objects":      {[]world{mines, nothing, mines}, 2, facilitator.Settled, "", ""},
		"one of three":                       {[]world{mines, nothing, nothing}, 2, facilitator.Unknown, "disagree about a transaction", ""},
		"two of four, and as many object":    {[]world{mines, mines, nothing, nothing}, 2, facilitator.Unknown, "disagree about a transaction", ""},
		"of a small payment one is believed": {[]world{mines, nothing}, 2, facilitator.Settled, "", "$0.01"},
		"of a larger payment it is not":      {[]world{mines, nothing}, 2, facilitator.Unknown, "disagree about a transaction", "$0.009999"},
	} {
		t.Run(name, func(t *testing.T) {
			r, unix := good(t)
			c := newClock(unix)
			n := &Network{Quorum: tt.quorum, QuorumAbove: tt.above}
			var got atomic.Int64 // nodes that have the transaction, up of them
			up := int64(0)
			for _, w := range tt.nodes {
				node := script(t, c, w)
				node.override = func(method string, _ []json.RawMessage) (any, *rpcError, bool) {
					switch method {
					case "eth_sendRawTransaction":
						got.Add(1)
					case "eth_blockNumber":
						return hexutil.Uint64(102), nil, true
					case "eth_getTransactionReceipt":
						return nil, nil, got.Load() < up // no block has it yet
					}
					return nil, nil, false
				}
				if w.Name == down.Name {
					node.Close()
				} else {
					up++
				}
				n.RPC = append(n.RPC, node.URL)
			}
			f, logs := start(t, baseSepolia, n, c)
			f.chains[baseSepolia].sleep = c.after(func() bool { return got.Load() >= up })
			s := f.Settle(t.Context(), r)
			if s.Outcome != tt.want {
				t.Errorf("%+v, want %v", s, tt.want)
			}
			if text := logged(logs); !strings.Contains(text, tt.log) || tt.log == "" && strings.Contains(text, "disagree") {
				t.Errorf("log: %s", text)
			}
		})
	}
}

// denying is a node that has no receipt of anything.
type denying struct{ chain.Client }

func (d denying) BatchCallContext(ctx context.Context, b []rpc.BatchElem) error {
	err := d.Client.BatchCallContext(ctx, b)
	for i := range b {
		if r, ok := b[i].Result.(**chain.Receipt); ok {
			*r = nil
		}
	}
	return err
}

// TestForeignUseNeedsItsQuorum: that somebody else has settled a payment, or that its
// payer has cancelled it, takes as many nodes as our own settlements do.
func TestForeignUseNeedsItsQuorum(t *testing.T) {
	for name, tt := range map[string]struct {
		denies, cancels bool
		want            facilitator.Outcome
	}{
		"settled":               {want: facilitator.Settled},
		"settled, one denies":   {denies: true, want: facilitator.Unknown},
		"cancelled":             {cancels: true, want: facilitator.Refused},
		"cancelled, one denies": {cancels: true, denies: true, want: facilitator.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t)
			f, _ := c.start("base-sepolia", func(n *Network) {
				n.RPC, n.Quorum = []string{"https://node-1.example", "https://node-2.example"}, 2
			})
			if tt.denies {
				rewire(f, 1, denying{keepOpen{c.client}})
			}
			r := c.sign(order{})
			verify(t, f, r)
			var theirs common.Hash
			if tt.cancels {
				c.cancel(r)
			} else {
				theirs = c.transact(ownerKey, token, calldata(t, r), 1e9)
				c.seal()
			}
			s := f.Settle(during(t, 5*time.Minute), r)
			if s.Outcome != tt.want || s.Outcome == facilitator.Settled && s.Transaction != theirs.Hex() {
				t.Errorf("%+v, want %v", s, tt.want)
			}
		})
	}
}

// TestOneNodeBlamesNoAsset: one of two nodes has receipts without logs. The payments that
// it was asked about are in doubt, and the asset is taken from everybody else.
func TestOneNodeBlamesNoAsset(t *testing.T) {
	for name, both := range map[string]bool{"one node": false, "both nodes": true} {
		t.Run(name, func(t *testing.T) {
			clock := newClock(1e9)
			bad, other := script(t, clock, world{Logs: "none"}), script(t, clock, world{})
			if both {
				other.world.Logs = "none"
			}
			f, logs := start(t, baseSepolia, &Network{RPC: []string{bad.URL, other.URL}}, clock)
			f.chains[baseSepolia].sleep = clock.after(func() bool { return bad.count("eth_sendRawTransaction") == other.count("eth_sendRawTransaction") })
			for i := range byte(maxReverts) {
				r := order{from: keyNo(int(i)), nonce: i}.sign(t, clock.now().Unix())
				if s := f.Settle(t.Context(), r); s.Outcome != facilitator.Unknown {
					t.Errorf("%+v", s)
				}
			}
			v, err := f.Verify(t.Context(), order{from: keyNo(77), nonce: 9}.sign(t, clock.now().Unix()))
			if err != nil || v.Valid == both {
				t.Errorf("%+v, %v", v, err)
			}
			if text := logged(logs); !both && !strings.Contains(text, "no other node says the same") {
				t.Errorf("log: %s", text)
			}
		})
	}
}

// cancelLiar is a node by which all transactions of ours were reverted, and by which the payer
// gave up what was signed.
type cancelLiar struct {
	chain.Client
	cancel chain.Event
}

func (n cancelLiar) BatchCallContext(ctx context.Context, b []rpc.BatchElem) error {
	err := n.Client.BatchCallContext(ctx, b)
	for i := range b {
		switch r := b[i].Result.(type) {
		case **chain.Receipt:
			one, zero := hexutil.Uint64(1), hexutil.Uint64(0)
			if asked := b[i].Args[0].(common.Hash); asked == n.cancel.Transaction {
				*r = &chain.Receipt{Transaction: asked, Block: &one, Status: &one, Logs: []chain.Event{n.cancel}}
			} else if *r != nil {
				(*r).Status, (*r).Logs = &zero, nil
			}
		case *[]chain.Event:
			*r, b[i].Error = []chain.Event{n.cancel}, nil
		}
	}
	return err
}

func (n cancelLiar) CallContext(ctx context.Context, result any, method string, args ...any) error {
	if events, ok := result.(*[]chain.Event); ok {
		*events = []chain.Event{n.cancel}
		return nil
	}
	return n.Client.CallContext(ctx, result, method, args...)
}

// TestOneNodeOfTwoSaysNoPaymentCancelled: ours has moved the money, and a node says that it
// was reverted and that the payer had cancelled the authorization. The payer is not told so,
// unless there is no other node.
func TestOneNodeOfTwoSaysNoPaymentCancelled(t *testing.T) {
	for name, tt := range map[string]struct {
		nodes, quorum int
		above         string
		want          facilitator.Outcome
	}{
		"one node":           {1, 0, "", facilitator.Refused},
		"no quorum":          {2, 0, "", facilitator.Unknown},
		"quorum 2":           {2, 2, "", facilitator.Unknown},
		"quorum 2 above $1":  {2, 2, "$1", facilitator.Unknown},
		"one liar and three": {4, 0, "", facilitator.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startChain(t)
			f, _ := c.start("base-sepolia", func(n *Network) {
				n.Quorum, n.QuorumAbove, n.RPC = tt.quorum, tt.above, nil
				for i := range tt.nodes {
					n.RPC = append(n.RPC, fmt.Sprintf("https://node-%d.example", i))
				}
			})
			r := c.sign(order{})
			p := must(read(r))
			rewire(f, 0, cancelLiar{keepOpen{c.client}, chain.Event{
				Address: token, Topics: []common.Hash{canceledTopic, chain.AddressTopic(p.From), common.Hash(p.Nonce)}, Transaction: common.Hash{1},
			}})
			// A payer is told nothing for as long as nothing is known. The caller gives up after
			// more looks than it takes to believe one node.
			ctx, giveUp := context.WithCancel(during(t, 5*time.Minute))
			defer giveUp()
			var looks atomic.Int32
			c.asleep = func() {
				if looks.Add(1) == 2*(lostAfter+maxDoubts) {
					giveUp()
				}
			}
			if s := f.Settle(ctx, r); s.Outcome != tt.want {
				t.Errorf("%+v, want %v", s, tt.want)
			}
			if moved := c.balance(payee); moved != 10_000 {
				t.Errorf("%d moved", moved)
			}
		})
	}
}
