package evm

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// TestNumberBeforeOurs: a transaction of ours waits for one with a lower number,
// which no block takes, and which this process knows nothing of. Its number is used
// up, and ours follows.
func TestNumberBeforeOurs(t *testing.T) {
	for name, tt := range map[string]struct {
		before func(*testChain, *Facilitator)
		mined  uint64
	}{
		// An earlier process has sent it, and now it offers too little.
		"too cheap": {func(c *testChain, _ *Facilitator) {
			to := common.HexToAddress(payee)
			tx := types.MustSignNewTx(must(crypto.HexToECDSA(signerKey)), types.LatestSignerForChainID(big.NewInt(84532)), &types.DynamicFeeTx{
				ChainID: big.NewInt(84532), GasTipCap: common.Big1, GasFeeCap: common.Big1, Gas: 21_000, To: &to,
			})
			if err := c.backend.Client().SendTransaction(t.Context(), tx); err != nil {
				t.Fatal(err)
			}
			for _, waiting := c.numbers(first); waiting == 0; _, waiting = c.numbers(first) {
				time.Sleep(time.Millisecond)
			}
		}, 2},
		// The node has counted it, and forgotten it.
		"gone": {func(c *testChain, f *Facilitator) {
			s := &f.chains[baseSepolia].accounts[0].sender
			s.next, s.lastSent = 3, c.now()
		}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t)
			f, logs := c.start("base-sepolia")
			tt.before(c, f)
			r := c.sign(order{before: 100_000})
			s := insist(during(t, 10*time.Second), f, r)
			for range 3 {
				if s.Outcome != facilitator.Unknown {
					break
				}
				s = f.Settle(during(t, 10*time.Second), r)
			}
			if mined, waiting := c.numbers(first); s.Outcome != facilitator.Settled || c.balance(payee) != 10000 || mined != tt.mined || waiting != 0 {
				t.Errorf("%+v, %d mined, %d wait", s, mined, waiting)
			}
			if !strings.Contains(logged(logs), "number before ours") {
				t.Errorf("log: %s", logged(logs))
			}
		})
	}
}

// misnumbering is a node that lies about the numbers of our account, so often.
type misnumbering struct {
	chain.Client
	mu   sync.Mutex
	left int
	says uint64
	only string // of "latest" and "pending"; "" is both
}

func (n *misnumbering) BatchCallContext(ctx context.Context, b []rpc.BatchElem) error {
	err := n.Client.BatchCallContext(ctx, b)
	n.mu.Lock()
	defer n.mu.Unlock()
	lies := false
	for i := range b {
		if b[i].Method == "eth_getTransactionCount" && n.left > 0 && (n.only == "" || b[i].Args[1] == n.only) {
			_ = json.Unmarshal(fmt.Appendf(nil, `"0x%x"`, n.says), b[i].Result)
			lies = true
		}
	}
	if lies {
		n.left--
	}
	return err
}

// TestAWrongNumberLeavesNoGap: a node says wrong numbers, both of them the same and
// believable, and is right ever after. Payments do not wait until all numbers before
// theirs are used up.
func TestAWrongNumberLeavesNoGap(t *testing.T) {
	for name, tt := range map[string]struct {
		says  uint64
		times int
		most  uint64 // transactions
		tells string
	}{
		"once, far ahead":         {50_000, 1, 4, "is not believed"},
		"once, a little ahead":    {250, 1, 4, "is not believed"},
		"later, hardly ahead":     {20, -1, 4, ""},
		"whoever asks, far ahead": {50_000, 2, 4, "they are given up"},
		"whoever asks, less far":  {250, 2, 4, "they are given up"},
	} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t)
			f, logs := c.start("base-sepolia", func(n *Network) { n.Batch = 1 })
			node := &misnumbering{Client: keepOpen{c.client}, left: tt.times, says: tt.says}
			rewire(f, 0, node)
			for i := range byte(3) {
				if i == 1 && tt.times < 0 {
					node.mu.Lock()
					node.left = -tt.times
					node.mu.Unlock()
				}
				r := c.sign(order{nonce: i, before: 1e7})
				s := f.Settle(during(t, 5*time.Second), r)
				if s.Outcome == facilitator.Unknown { // as the reconciler does
					s = f.Settle(during(t, 5*time.Second), r)
				}
				if s.Outcome != facilitator.Settled {
					t.Fatalf("%+v; log: %s", s, logged(logs))
				}
			}
			if mined, _ := c.numbers(first); mined > tt.most {
				t.Errorf("%d transactions for 3 payments", mined)
			}
			if text := logged(logs); !strings.Contains(text, tt.tells) || strings.Contains(text, "number before ours") {
				t.Errorf("log: %s", text)
			}
		})
	}
}

// TestAWrongNumberSendsNothingTwice: a node says that our numbers are in blocks, and no
// block comes. It still has the transaction, so that is not lost.
func TestAWrongNumberSendsNothingTwice(t *testing.T) {
	for name, says := range map[string]uint64{"a little ahead": 1, "far ahead": 1000} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t)
			f, _ := c.start("base-sepolia", func(n *Network) { n.Batch = 1 })
			node := &misnumbering{Client: keepOpen{c.client}, left: 1 << 30, says: says, only: "latest"}
			rewire(f, 0, node)
			c.idle = true
			r := c.sign(order{before: 1e6})
			for range 3 {
				if s := f.Settle(during(t, 500*time.Millisecond), r); s.Outcome != facilitator.Unknown {
					t.Fatalf("%+v", s)
				}
			}
			if _, waiting := c.numbers(first); waiting != 1 {
				t.Errorf("%d transactions for one payment", waiting)
			}
			node.mu.Lock()
			node.left = 0
			node.mu.Unlock()
			c.seal()
			c.idle = false
			if s := f.Settle(during(t, 10*time.Second), r); s.Outcome != facilitator.Settled {
				t.Errorf("%+v", s)
			}
			if lost, held, _ := sums(f, ofAccounts); lost.Sign() != 0 || held.Sign() != 0 {
				t.Errorf("%s lost, %s set aside", lost, held)
			}
		})
	}
}

// holding is a node that takes nothing in the place of a transaction, and goes on showing it.
type holding struct {
	chain.Client
	mu   sync.Mutex
	kept map[common.Hash]*types.Transaction
}

func (n *holding) CallContext(ctx context.Context, result any, method string, args ...any) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if method == "eth_sendRawTransaction" {
		tx := new(types.Transaction)
		if err := tx.UnmarshalBinary(args[0].(hexutil.Bytes)); err != nil {
			return err
		}
		for _, old := range n.kept {
			if old.Nonce() == tx.Nonce() && old.Hash() != tx.Hash() {
				return saysError("replacement transaction underpriced")
			}
		}
		n.kept[tx.Hash()] = tx
	}
	if out, ok := result.(**types.Transaction); ok && n.kept[args[0].(common.Hash)] != nil {
		*out = n.kept[args[0].(common.Hash)]
		return nil
	}
	return n.Client.CallContext(ctx, result, method, args...)
}

// TestWhatWasGivenUpIsNotTakenUpAgain: a payment behind a gap was given up. Who asks again
// tells what the ledger has of it, and the node still shows that. It is sent anew all the
// same, and the gap is not there again.
func TestWhatWasGivenUpIsNotTakenUpAgain(t *testing.T) {
	c := startChain(t)
	f, logs := c.start("base-sepolia", func(n *Network) { n.Batch = 1 })
	wrong := &misnumbering{Client: keepOpen{c.client}, left: 2, says: 250}
	rewire(f, 0, &holding{Client: wrong, kept: make(map[common.Hash]*types.Transaction)})
	r := c.sign(order{before: 1e7})
	var told announced
	r.Announce = told.tell
	if s := f.Settle(during(t, 10*time.Second), r); s.Outcome != facilitator.Unknown {
		t.Fatalf("%+v", s)
	}
	r.Transaction = told.list[0]
	if s := f.Settle(during(t, 10*time.Second), r); s.Outcome != facilitator.Settled {
		t.Errorf("%+v", s)
	}
	if n := strings.Count(logged(logs), "they are given up"); n != 1 {
		t.Errorf("given up %d times", n)
	}
}
