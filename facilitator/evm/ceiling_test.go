package evm

import (
	"bytes"
	"context"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// gwei makes fees of so much a gas.
func gwei(n int64) fees { return market(big.NewInt(n*1e9), new(big.Int), nil) }

// TestGasThatIsTooDearSettlesNothing: above max_fee, or above ten times what is usual.
// Payers are told to come again, and the operator what to do.
func TestGasThatIsTooDearSettlesNothing(t *testing.T) {
	usual := func(c *settler) {
		for i := range priceLeast {
			c.ceiling.saw(gwei(1), c.now().Add(time.Duration(i-priceLeast)*priceEvery))
		}
	}
	for name, tt := range map[string]struct {
		maxFee string
		before func(*settler)
		price  int64 // of the base fee and of the tip, in gwei
		dear   bool
	}{
		"above max_fee":             {"0.0003", nil, 2, true}, // 100,000 gas of 4 gwei
		"below max_fee":             {"0.0005", nil, 2, false},
		"above ten times the usual": {"", usual, 6, true},
		"below ten times the usual": {"", usual, 4, false},
		"nothing is usual yet":      {"", nil, 6, false},
		"max_fee says what is dear": {"0.1", usual, 6, false},
	} {
		t.Run(name, func(t *testing.T) {
			clk := newClock(1e9)
			node := script(t, clk, world{})
			node.price = tt.price * 1e9
			node.override = func(method string, _ []json.RawMessage) (any, *rpcError, bool) {
				if method != "eth_getBlockByNumber" {
					return nil, nil, false
				}
				return map[string]any{
					"number": "0x64", "timestamp": hexutil.Uint64(clk.now().Unix()), "baseFeePerGas": (*hexutil.Big)(big.NewInt(tt.price * 1e9)),
				}, nil, true
			}
			f, logs := start(t, baseSepolia, &Network{RPC: []string{node.URL}, MaxFee: tt.maxFee}, clk)
			c := f.chains[baseSepolia]
			if tt.before != nil {
				tt.before(c)
			}
			s := f.Settle(context.Background(), order{nonce: 1}.sign(t, clk.now().Unix()))
			if !tt.dear {
				if s.Outcome != facilitator.Settled {
					t.Errorf("%+v", s)
				}
				return
			}
			if s.Outcome != facilitator.Unsent || s.RetryAfter != dearWait || node.count("eth_sendRawTransaction") != 0 {
				t.Errorf("%+v", s)
			}
			funds, err := f.funds(context.Background(), c)
			if err != nil || len(funds.Empty) == 0 {
				t.Errorf("it is offered: %+v, %v", funds, err)
			}
			c.tellFunds(facilitator.Funds{}, funds)
			if text := logged(logs); !strings.Contains(text, "max_fee") || strings.Contains(text, "coin") {
				t.Errorf("log: %s", text)
			}
		})
	}
}

// TestTheSmallerTipOfTwoNodesIsPaid: one node alone could have us pay what it likes.
func TestTheSmallerTipOfTwoNodesIsPaid(t *testing.T) {
	f, node, r, _ := at(t, world{})
	node.price = 5e9
	other := big.NewInt(7)
	f.chains[baseSepolia].ceiling.sawOther(other, node.clock.now())
	if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Settled || node.sent[0].GasTipCap().Cmp(other) != 0 {
		t.Errorf("%+v, a tip of %s", s, node.sent[0].GasTipCap())
	}
	if tip := f.chains[baseSepolia].ceiling.smallerTip(big.NewInt(9), node.clock.now().Add(otherTipLife+time.Second)); tip.Int64() != 9 {
		t.Errorf("%s: what the other said long ago counts", tip)
	}
}

// TestFeesDoNotClimb: no block takes a transaction, nor what uses up its number. It is
// sent again and again, and never for more than some times the market's price.
func TestFeesDoNotClimb(t *testing.T) {
	f, node, r, _ := at(t, world{ReceiptThrows: true})
	node.clock.max = 1000
	_ = f.Settle(context.Background(), r)
	c := f.chains[baseSepolia]
	for range 30 { // whoever waits for others goes on with it
		c.accounts[0].sender.nudge(context.Background(), c)
		_ = node.clock.sleep(context.Background(), stuckAfter)
	}
	most := new(big.Int)
	fillers := 0
	for _, tx := range node.sent {
		if tx.GasFeeCap().Cmp(most) > 0 {
			most = tx.GasFeeCap()
		}
		if len(tx.Data()) == 0 {
			fillers++
		}
	}
	limit := new(big.Int).Mul(c.lastFees.Load().feeCap, big.NewInt(maxBump+1))
	if most.Cmp(limit) > 0 || fillers == 0 {
		t.Errorf("%s is offered for a gas, and %s is the most; %d of %d are fillers", most, limit, fillers, len(node.sent))
	}
}

// TestWhoGivesUpLeavesAFullBatch: it waits for transactions before it to be in a block.
func TestWhoGivesUpLeavesAFullBatch(t *testing.T) {
	s := new(batches)
	members := []*member{{}, {}, {}}
	b, _ := s.join(members[0], 2)
	if again, first := s.join(members[1], 2); again != b || first {
		t.Fatal("two do not go together")
	}
	if next, first := s.join(members[2], 2); next == b || !first {
		t.Fatal("a full batch takes a third")
	}
	if !s.withdraw(b, members[1]) {
		t.Error("who gives up has to wait")
	}
	if got := s.end(b); len(got) != 1 || got[0] != members[0] {
		t.Errorf("%d are sent", len(got))
	}
	if s.withdraw(b, members[0]) {
		t.Error("somebody leaves what is being sent")
	}
}

// refusing refuses transactions of several payments with words of its own, and takes
// them all the same.
type refusing struct {
	chain.Client
	then func(*types.Transaction)
}

func (n *refusing) CallContext(ctx context.Context, result any, method string, args ...any) error {
	if method == "eth_sendRawTransaction" {
		tx := new(types.Transaction)
		if err := tx.UnmarshalBinary(args[0].(hexutil.Bytes)); err != nil {
			return err
		}
		n.then(tx)
		if tx.To() == nil {
			return &saidError{"the sequencer is on holiday", nil}
		}
	}
	return n.Client.CallContext(ctx, result, method, args...)
}

// TestARefusedBatchIsNoProof: a node refuses a transaction of several payments with words
// that nobody knows. If one of them would not settle any more, its payer is not told to
// sign anew: what the node has said proves nothing.
func TestARefusedBatchIsNoProof(t *testing.T) {
	c := startChain(t, payersNo(6))
	f, _ := c.start("base-sepolia")
	f.chains[baseSepolia].pairing.Store(token, c.now().Add(time.Hour))
	paused, sent := false, map[int]bool{}
	node := &refusing{keepOpen{c.client}, func(tx *types.Transaction) {
		for i := range 6 {
			if bytes.Contains(tx.Data(), crypto.PubkeyToAddress(keyNo(i).PublicKey).Bytes()) {
				sent[i] = true
			}
		}
		if tx.To() == nil && !paused {
			paused = true
			c.owner("pause()")
		}
	}}
	rewire(f, 0, node)
	var requests []facilitator.Request
	for i := range 6 {
		requests = append(requests, c.sign(order{from: keyNo(i), before: 1e6}))
	}
	out := c.atOnce(f, requests, nil)
	// Who was in no transaction yet is refused by a simulation, rightly.
	if !paused || len(sent) < 2 || out[facilitator.Unknown]+out[facilitator.Settled] != len(sent) || out[facilitator.Refused] != 6-len(sent) {
		t.Errorf("paused: %v, %d sent; %v", paused, len(sent), out)
	}
}
