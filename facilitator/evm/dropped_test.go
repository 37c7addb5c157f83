package evm

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"slices"
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

// revertProtected is a node that says that it has taken a transaction, and drops it if it
// would be reverted then.
type revertProtected struct {
	chain.Client
	c    *testChain
	then func() // happens before the next transaction is looked at
}

func (n *revertProtected) CallContext(ctx context.Context, result any, method string, args ...any) error {
	if method == "eth_sendRawTransaction" {
		if then := n.then; then != nil {
			n.then = nil
			then()
		}
		tx := sentTo(args)
		var out hexutil.Bytes
		call := map[string]any{"from": sentBy(tx), "to": tx.To(), "data": hexutil.Bytes(tx.Data()), "gas": hexutil.Uint64(tx.Gas())}
		if refused := n.c.client.Call(&out, "eth_call", call, "latest"); refused != nil {
			return nil //nolint:nilerr // it drops it without a word
		}
	}
	return n.Client.CallContext(ctx, result, method, args...)
}

// sentTo is the transaction in the arguments of eth_sendRawTransaction.
func sentTo(args []any) *types.Transaction {
	tx := new(types.Transaction)
	if err := tx.UnmarshalBinary(args[0].(hexutil.Bytes)); err != nil {
		panic(err)
	}
	return tx
}

// dropsThe is a node that drops the transactions with one payment: its money is away whenever
// this node looks, and back whenever we do.
type dropsThe struct {
	chain.Client
	data    []byte
	dropped []*types.Transaction
}

func (n *dropsThe) CallContext(ctx context.Context, result any, method string, args ...any) error {
	if method == "eth_sendRawTransaction" {
		if tx := sentTo(args); bytes.Equal(tx.Data(), n.data) {
			n.dropped = append(n.dropped, tx)
			return nil
		}
	}
	return n.Client.CallContext(ctx, result, method, args...)
}

// established settles payments, so that a key has sent some before.
func (c *testChain) established(f *Facilitator) {
	c.t.Helper()
	for i := range byte(2) {
		if s := f.Settle(during(c.t, time.Minute), c.sign(order{nonce: 200 + i, before: 1e7})); s.Outcome != facilitator.Settled {
			c.t.Fatalf("%+v", s)
		}
	}
}

// leaves settles a payment whose caller goes as soon as it is sent.
func (c *testChain) leaves(f *Facilitator, r facilitator.Request) facilitator.Settlement {
	c.t.Helper()
	ctx, cancel := context.WithCancel(during(c.t, time.Minute))
	defer cancel()
	c.asleep = cancel
	defer func() { c.asleep = nil }()
	return f.Settle(ctx, r)
}

// behind settles the payment of a customer, and returns how long that takes.
func (c *testChain) behind(f *Facilitator, nonce byte) time.Duration {
	c.t.Helper()
	begun := c.now()
	if s := f.Settle(during(c.t, time.Minute), c.sign(order{nonce: nonce, before: 1e7})); s.Outcome != facilitator.Settled {
		c.t.Errorf("a customer: %+v", s)
	}
	return c.now().Sub(begun)
}

// reverts is how many of a payer's are counted as reverted.
func reverts(f *Facilitator, payer *ecdsa.PrivateKey) int {
	return f.chains[baseSepolia].shared.standings.of(chain.AddressTopic(addressOf(payer))).reverted
}

// TestADroppedPaymentHoldsUpOthersForSeconds: the money leaves between our look and that of a
// node with protection against reverts. What the node dropped is used up as soon as it is
// noticed, is laid at the door of the payer for what it cost, and counts as reverted, though
// nobody asks for it again.
func TestADroppedPaymentHoldsUpOthersForSeconds(t *testing.T) {
	c := startChain(t, payersNo(2))
	f, _ := c.start("base-sepolia")
	c.established(f)
	c.fund(addressOf(keyNo(0)).Hex(), 1e17)
	node := &revertProtected{Client: keepOpen{c.client}, c: c}
	rewire(f, 0, node)
	node.then = func() {
		data := crypto.Keccak256([]byte("transfer(address,uint256)"))[:4]
		balance := uint64(c.balance(addressOf(keyNo(0)).Hex())) // #nosec G115 -- a balance
		c.transact(keyNo(0), token, appendUint(appendAddress(data, common.HexToAddress(secondAddress)), balance), 9e9)
		c.seal()
	}
	if s := c.leaves(f, c.sign(order{from: keyNo(0), before: 1e7})); s.Outcome != facilitator.Unknown {
		t.Fatalf("%+v", s)
	}
	if took := c.behind(f, 1); took > 4*remindAfter { // less than stuckAfter
		t.Errorf("it took %s", took)
	}
	c.lookTwice(f)
	if lost, held, _ := sums(f, ofAccounts); lost.Int64() != leastGas || held.Sign() != 0 {
		t.Errorf("%s lost, %s set aside", lost, held)
	}
	if n := reverts(f, keyNo(0)); n != 1 {
		t.Errorf("%d are held against the payer", n)
	}
}

// TestAllThatWasDroppedIsUsedUpTogether: 32 transactions are dropped, and the money is gone.
func TestAllThatWasDroppedIsUsedUpTogether(t *testing.T) {
	const n = 16
	c := startChain(t, payersNo(n))
	f, _ := c.start("base-sepolia", func(n *Network) { n.Batch = 1 })
	c.established(f)
	node := &forgetful{Client: keepOpen{c.client}}
	node.forgets.Store(true)
	rewire(f, 0, node)
	c.idle = true
	var requests []facilitator.Request
	var keys []*ecdsa.PrivateKey
	for i := range n {
		keys = append(keys, keyNo(i))
		for k := range byte(maxUnproven) {
			requests = append(requests, c.sign(order{from: keyNo(i), nonce: k, before: 1e7}))
		}
	}
	stop := c.settleAside(f, requests...)
	if sent := untilSteady(f); sent != n*maxUnproven {
		t.Fatalf("%d were sent", sent)
	}
	stop()
	c.delegateTo(refuser, keys...)
	c.seal()
	node.forgets.Store(false)
	c.idle = false
	if took := c.behind(f, 1); took > stuckAfter {
		t.Errorf("it took %s", took)
	}
}

// TestWhoHasPaymentsDroppedIsRefused: the money is there whenever we look, and away whenever
// the node does. The same transaction is sent once more, for the same fee, and then its number
// is used up. The payer can do that three times.
func TestWhoHasPaymentsDroppedIsRefused(t *testing.T) {
	c := startChain(t, payersNo(1))
	f, _ := c.start("base-sepolia")
	c.established(f)
	node := &dropsThe{Client: keepOpen{c.client}}
	rewire(f, 0, node)
	for round := range byte(maxReverts) {
		r := c.sign(order{from: keyNo(0), nonce: round, before: 1e7})
		node.data, node.dropped = calldata(t, r), nil
		if s := c.leaves(f, r); s.Outcome != facilitator.Unknown {
			t.Fatalf("%d: %+v", round, s)
		}
		if took := c.behind(f, round); took > 2*stuckAfter { // and less than what five times take
			t.Errorf("%d: it took %s", round, took)
		}
		if len(node.dropped) != 2 || node.dropped[0].Hash() != node.dropped[1].Hash() {
			t.Errorf("%d: %d were dropped", round, len(node.dropped))
		}
		if s := f.Settle(during(t, time.Minute), r); s.Outcome != facilitator.Unknown || reverts(f, keyNo(0)) != int(round)+1 {
			t.Errorf("%d: %+v; %d are held against the payer", round, s, reverts(f, keyNo(0)))
		}
	}
	refusedBoth(t, f, c.sign(order{from: keyNo(0), nonce: 100, before: 1e7}), codeReverts)
}

// TestWhatAStrangerSentIsHeldAgainstNoPayer: somebody else is faster with the payment, so that
// ours would be reverted, and the node drops it. The payer has paid.
func TestWhatAStrangerSentIsHeldAgainstNoPayer(t *testing.T) {
	for name, asks := range map[string]bool{"who asks again": true, "who is gone": false} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t, payersNo(1))
			f, _ := c.start("base-sepolia")
			c.established(f)
			node := &revertProtected{Client: keepOpen{c.client}, c: c}
			rewire(f, 0, node)
			r := c.sign(order{from: keyNo(0), before: 1e7})
			node.then = func() { c.transact(ownerKey, token, calldata(t, r), 1e9); c.seal() }
			c.leaves(f, r)
			c.behind(f, 1)
			if asks {
				if s := f.Settle(during(t, time.Minute), r); s.Outcome != facilitator.Settled {
					t.Errorf("%+v", s)
				}
			}
			c.lookTwice(f)
			if n := reverts(f, keyNo(0)); n != 0 {
				t.Errorf("%d are held against the payer", n)
			}
		})
	}
}

// hiding is a node that shows no transactions, or fails to.
type hiding struct {
	chain.Client
	err error
}

func (n hiding) BatchCallContext(ctx context.Context, b []rpc.BatchElem) error {
	err := n.Client.BatchCallContext(ctx, b)
	for i := range b {
		if tx, ok := b[i].Result.(**chain.Transaction); ok {
			*tx, b[i].Error = nil, n.err
		}
	}
	return err
}

// TestOneNodeThatShowsATransactionIsEnough, whatever the others do; and that none answers says
// nothing.
func TestOneNodeThatShowsATransactionIsEnough(t *testing.T) {
	c := startChain(t)
	f, _ := c.start("base-sepolia", func(n *Network) { n.RPC = []string{"https://node-1.example", "https://node-2.example"} })
	ch := f.chains[baseSepolia]
	c.idle = true
	stop := c.settleAside(f, c.sign(order{before: 1e6}))
	untilSteady(f)
	stop()
	s := &ch.accounts[0].sender
	shows := keepOpen{c.client}
	hides, fails := hiding{shows, nil}, hiding{shows, errors.New("down")}
	for name, tt := range map[string]struct {
		first, second chain.Client
		gone          int
	}{
		"both show it":            {shows, shows, 0},
		"the second shows it":     {hides, shows, 0},
		"none shows it":           {hides, hides, 1},
		"one fails":               {fails, hides, 1},
		"one fails, one shows it": {fails, shows, 0},
		"both fail":               {fails, fails, 0},
	} {
		rewire(f, 0, tt.first)
		rewire(f, 1, tt.second)
		if gone := ch.notShown(t.Context(), slices.Clone(s.flights)); len(gone) != tt.gone {
			t.Errorf("%s: %d are gone", name, len(gone))
		}
	}
}
