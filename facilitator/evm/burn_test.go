package evm

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// having gives an account exactly n atomic units.
func having(account common.Address, n int64) func(types.GenesisAlloc) {
	return func(a types.GenesisAlloc) { a[token].Storage[balanceSlot(account)] = common.BigToHash(big.NewInt(n)) }
}

// burnt is what an account of ours has sent: transactions, those of them that were
// reverted, and the gas of these.
func (c *testChain) burnt(signer common.Address) (txs, failed int, gas uint64) {
	ctx, cl := context.Background(), c.backend.Client()
	for n := range must(cl.BlockNumber(ctx)) {
		b := must(cl.BlockByNumber(ctx, new(big.Int).SetUint64(n+1)))
		for _, tx := range b.Transactions() {
			if must(types.Sender(types.LatestSignerForChainID(tx.ChainId()), tx)) != signer {
				continue
			}
			txs++
			if r := must(cl.TransactionReceipt(ctx, tx.Hash())); r.Status == 0 {
				failed++
				gas += r.GasUsed
			}
		}
	}
	return txs, failed, gas
}

// atOnce settles payments at once on a chain that makes a block now and then.
// beforeBlock is called before each.
func (c *testChain) atOnce(f *Facilitator, requests []facilitator.Request, beforeBlock func()) map[facilitator.Outcome]int {
	c.t.Helper()
	c.idle = true
	defer func() { c.idle = false }()
	ctx := during(c.t, time.Minute)
	var mu sync.Mutex
	outcomes := make(map[facilitator.Outcome]int)
	var wg sync.WaitGroup
	for _, r := range requests {
		wg.Go(func() {
			s := f.Settle(ctx, r)
			mu.Lock()
			defer mu.Unlock()
			outcomes[s.Outcome]++
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for {
		select {
		case <-done:
			return outcomes
		case <-time.After(400 * time.Millisecond):
			if beforeBlock != nil {
				beforeBlock()
			}
			c.seal()
		}
	}
}

// many signs payments of one payer.
func (c *testChain) many(n byte, change func(*order)) (list []facilitator.Request) {
	for i := range n {
		o := order{nonce: i, before: 1e6}
		if change != nil {
			change(&o)
		}
		list = append(list, c.sign(o))
	}
	return list
}

// TestMoneyForOnePaymentBuysOne: 32 signatures of a payer who has the money for one
// of them. Nothing that is sent fails.
func TestMoneyForOnePaymentBuysOne(t *testing.T) {
	c := startChain(t, having(common.HexToAddress(payerAddress), 10000))
	f, _ := c.start("base-sepolia")
	requests := c.many(32, nil)
	for _, r := range requests {
		verify(t, f, r)
	}
	out := c.atOnce(f, requests, nil)
	_, failed, _ := c.burnt(first)
	if out[facilitator.Settled] != 1 || out[facilitator.Refused] != 31 || failed != 0 || c.balance(payee) != 10000 {
		t.Errorf("%v, %d reverted", out, failed)
	}
}

// TestOneMoveOfABalanceMakesTwoFail: a payer takes the money away when the
// payments are on their way. The balance was enough for all of them.
func TestOneMoveOfABalanceMakesTwoFail(t *testing.T) {
	for name, batch := range map[string]int{"each in a transaction": 1, "many in a transaction": 20} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t)
			f, _ := c.start("base-sepolia", func(n *Network) { n.Batch = batch })
			f.chains[baseSepolia].pairing.Store(token, c.now().Add(time.Hour))
			moved := false
			out := c.atOnce(f, c.many(32, nil), func() {
				if _, waiting := c.numbers(first); moved || waiting == 0 {
					return
				}
				moved = true
				data := crypto.Keccak256([]byte("transfer(address,uint256)"))[:4]
				data = appendUint(appendAddress(data, common.HexToAddress(secondAddress)), uint64(c.balance(payerAddress)))
				c.transact(payerECDSA, token, data, 9e9)
			})
			_, failed, _ := c.burnt(first)
			if !moved || out[facilitator.Settled] != 0 || out[facilitator.Unknown] > maxUnproven || failed > maxUnproven {
				t.Errorf("moved: %v; %v, %d reverted", moved, out, failed)
			}
		})
	}
}

// liar is code of a wallet that says yes to everything, unless what comes first
// leaves 1 on the stack: then it uses up all gas.
func liar(cond []byte) []byte {
	b := append([]byte{}, cond...)
	b = append(b, 0x60, byte(len(b)+17), 0x57)  // PUSH1 dest JUMPI
	b = append(b, 0x63, 0x16, 0x26, 0xba, 0x7e) // PUSH4 magic
	b = append(b, 0x60, 0xe0, 0x1b, 0x5f, 0x52) // SHL, MSTORE at 0
	b = append(b, 0x60, 0x20, 0x5f, 0xf3)       // RETURN
	return append(b, 0x5b, 0xfe)                // JUMPDEST INVALID
}

var (
	// byNumber tells by the number of the block, compared with the first word of the
	// signature.
	byNumber = []byte{0x60, 0x64, 0x35, 0x43, 0x11}
	// byPrice tells by the price of the gas: above the base fee.
	byPrice = []byte{0x48, 0x3a, 0x11}
	// byRandom tells by the random number of the block, compared with the first word of
	// the signature: that of the last block, in which simulations run. No override of a
	// simulation can know that of the next.
	byRandom = []byte{0x60, 0x64, 0x35, 0x44, 0x14, 0x15}
)

// lie signs for a liar, which sees that the chain is as it is now.
func (c *testChain) lie(account common.Address, nonce byte, cond []byte) facilitator.Request {
	c.t.Helper()
	head := must(c.backend.Client().HeaderByNumber(context.Background(), nil))
	word := head.MixDigest
	if bytes.Equal(cond, byNumber) {
		word = common.BigToHash(head.Number)
	}
	return c.sign(order{account: account, nonce: nonce, before: 300, change: func([]byte) []byte {
		return append(word.Bytes(), make([]byte, 64)...)
	}})
}

// liars puts wallets into the first block that lie in one way. Not all with the same
// code, so that they are not known by it.
func liars(n int, cond []byte, alike bool) (at []common.Address, genesis func(types.GenesisAlloc)) {
	for i := range n {
		at = append(at, common.BigToAddress(big.NewInt(0xbad0000+int64(i))))
	}
	return at, func(g types.GenesisAlloc) {
		for i, a := range at {
			code := liar(cond)
			if !alike {
				code = append(code, byte(i))
			}
			g[a] = types.Account{Code: code}
			having(a, 10000)(g) // never leaves it
			allows(token, a)(g)
		}
	}
}

// TestWalletsThatTellASimulationFromABlock: many wallets say yes when they are asked
// and waste gas in the block. What that costs us in a day is bounded, whoever
// pays and with how many wallets; and who has no code goes on.
func TestWalletsThatTellASimulationFromABlock(t *testing.T) {
	for name, tt := range map[string]struct {
		cond  []byte
		fails bool // some are not found out by the simulation
	}{
		"by the price of gas": {byPrice, false}, "by the block's number": {byNumber, false}, "by the block's random number": {byRandom, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, genesis := liars(24, tt.cond, false)
			c := startChain(t, genesis)
			// A quarter is for strangers with code.
			f, _ := c.start("base-sepolia", func(n *Network) { n.GasBudget = "0.016/day" })
			reasons := make(map[string]int)
			for i, a := range at {
				s := f.Settle(during(t, 5*time.Minute), c.lie(a, byte(i), tt.cond))
				reasons[s.Reason]++
			}
			_, failed, gas := c.burnt(first)
			if lost := f.chains[baseSepolia].shared.losses.today(c.now()); (failed > 0) != tt.fails || failed == len(at) || lost.Cmp(big.NewInt(4e15)) > 0 {
				t.Errorf("%d failed, %d gas, %s lost; %v", failed, gas, lost, reasons)
			}
			if v, err := f.Verify(during(t, 5*time.Minute), c.lie(at[0], 200, tt.cond)); tt.fails && (err != nil || v.Reason != string(codeGasBudget)) {
				t.Errorf("%+v %v", v, err)
			}
			if s := f.Settle(during(t, 5*time.Minute), c.sign(order{})); s.Outcome != facilitator.Settled {
				t.Errorf("who has no code: %+v", s)
			}
		})
	}
}

// TestWalletsWithOneCode: what wallets of one code have cost us is held against the
// next one with the same, unless most of those that have it pay.
func TestWalletsWithOneCode(t *testing.T) {
	for name, tt := range map[string]struct{ honest, want int }{"all of them lie": {0, 3}, "most of them pay": {9, 0}} {
		t.Run(name, func(t *testing.T) {
			at, genesis := liars(6, byRandom, true)
			c := startChain(t, genesis)
			f, _ := c.start("base-sepolia", func(n *Network) { n.GasBudget = "1/day" })
			for range tt.honest {
				f.chains[baseSepolia].shared.standings.moved(codeHash(liar(byRandom)))
			}
			reasons := make(map[string]int)
			for i, a := range at {
				reasons[f.Settle(during(t, 5*time.Minute), c.lie(a, byte(i), byRandom)).Reason]++
			}
			if reasons[string(codeReverts)] != tt.want {
				t.Errorf("%v", reasons)
			}
		})
	}
}

// TestNoContractWallets: the config takes no payers with code.
func TestNoContractWallets(t *testing.T) {
	c := startChain(t, withPermit2(t), withWallets(t))
	f, _ := c.start("base-sepolia", func(n *Network) { n.ContractWallets = "off" })
	refusedBoth(t, f, c.sign(order{account: wallet}), codeNoWallets)
	if s := f.Settle(during(t, 5*time.Minute), c.sign(order{nonce: 1})); s.Outcome != facilitator.Settled {
		t.Errorf("%+v", s)
	}
}

// TestADroppedTransactionWedgesNoKey: the node takes a transaction and drops it, since
// a wallet reverts in it that said yes before. Its number is used up, and the fee
// does not climb.
func TestADroppedTransactionWedgesNoKey(t *testing.T) {
	at, genesis := liars(1, byRandom, false)
	c := startChain(t, withPermit2(t), genesis)
	f, logs := c.start("base-sepolia")
	dropping := true
	rewire(f, 0, &protective{keepOpen{c.client}, &dropping})
	ctx, cancel := context.WithCancel(during(t, 5*time.Minute))
	c.asleep = cancel
	if s := f.Settle(ctx, c.lie(at[0], 0, byRandom)); s.Outcome != facilitator.Unknown || dropping {
		t.Fatalf("%+v", s)
	}
	c.asleep = nil
	begun := c.now()
	if s := f.Settle(during(t, 5*time.Minute), c.sign(order{nonce: 1, before: 1e6})); s.Outcome != facilitator.Settled {
		t.Errorf("%+v", s)
	}
	if took := c.now().Sub(begun); took > 3*time.Minute {
		t.Errorf("it took %s", took)
	}
	// What used up the number has cost us something, for nothing.
	c.pass(settlementWait, 1)
	if _, err := f.funds(t.Context(), f.chains[baseSepolia]); err != nil {
		t.Fatal(err)
	}
	if lost := f.chains[baseSepolia].losses().today(c.now()); lost.Int64() != leastGas {
		t.Errorf("%s gas was lost, want %d", lost, leastGas)
	}
	if text := logged(logs); !strings.Contains(text, whyReverts) && !strings.Contains(text, "number before ours") {
		t.Errorf("log: %s", text)
	}
}

// protective is a node with protection against reverts: it says that it has taken a
// transaction, and has not.
type protective struct {
	chain.Client
	drops *bool // the next one
}

func (n *protective) CallContext(ctx context.Context, result any, method string, args ...any) error {
	if method == "eth_sendRawTransaction" && *n.drops {
		*n.drops = false
		return nil
	}
	return n.Client.CallContext(ctx, result, method, args...)
}

// TestANodeThatForgetsItsPool: all transactions are sent once more, in one go, and none
// waits until the first of them counts as stuck.
func TestANodeThatForgetsItsPool(t *testing.T) {
	c := startChain(t)
	f, _ := c.start("base-sepolia", func(n *Network) { n.Batch = 1 })
	if s := f.Settle(during(t, 5*time.Minute), c.sign(order{nonce: 100, before: 1e6})); s.Outcome != facilitator.Settled {
		t.Fatalf("%+v", s)
	}
	for range maxOfPayer {
		f.chains[baseSepolia].shared.standings.moved(chain.AddressTopic(common.HexToAddress(payerAddress)))
	}
	node := &forgetful{Client: keepOpen{c.client}}
	rewire(f, 0, node)
	c.idle = true
	node.forgets.Store(true)
	requests := c.many(24, nil)
	var wg sync.WaitGroup
	for _, r := range requests {
		wg.Go(func() {
			if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled {
				t.Errorf("%+v", s)
			}
		})
	}
	for node.taken.Load() < 24 {
		time.Sleep(time.Millisecond)
	}
	node.forgets.Store(false)
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for blocks := 1; ; blocks++ {
		time.Sleep(60 * time.Millisecond)
		c.seal()
		select {
		case <-done:
			if blocks > 25 { // of one second; 30 is stuckAfter
				t.Errorf("it took %d blocks", blocks)
			}
			if known := f.chains[baseSepolia].shared.standings.of(chain.AddressTopic(common.HexToAddress(payerAddress))); known.reverted != 0 {
				t.Errorf("%d are held against the payer", known.reverted)
			}
			return
		default:
		}
	}
}

// forgetful takes transactions and forgets them, for a while.
type forgetful struct {
	chain.Client
	forgets atomic.Bool
	taken   atomic.Int64
}

func (n *forgetful) CallContext(ctx context.Context, result any, method string, args ...any) error {
	if method == "eth_sendRawTransaction" && n.forgets.Load() {
		n.taken.Add(1)
		return nil
	}
	return n.Client.CallContext(ctx, result, method, args...)
}

// TestConfirmationsHoldNoPlaces: a payment that is in a block and waits for more
// blocks is in nobody's way.
func TestConfirmationsHoldNoPlaces(t *testing.T) {
	c := startChain(t)
	f, _ := c.start("base-sepolia", func(n *Network) { n.Confirmations, n.Batch = 10, 1 })
	for range maxOfPayer {
		f.chains[baseSepolia].shared.standings.moved(chain.AddressTopic(common.HexToAddress(payerAddress)))
	}
	c.idle = true
	var settled atomic.Int64
	var wg sync.WaitGroup
	for _, r := range c.many(2*maxInFlight, nil) {
		wg.Go(func() {
			if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled {
				t.Errorf("%+v", s)
			}
			settled.Add(1)
		})
	}
	for sent := 0; sent < 2*maxInFlight && settled.Load() == 0; time.Sleep(5 * time.Millisecond) {
		mined, waiting := c.numbers(first)
		if sent = int(mined + waiting); sent == maxInFlight && waiting > 0 {
			c.seal()
		}
	}
	if n := settled.Load(); n != 0 {
		t.Errorf("%d had to settle first", n)
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for {
		select {
		case <-done:
			return
		case <-time.After(200 * time.Millisecond):
			c.seal()
		}
	}
}

// TestHonestPayersAreServedWithinThreeBlocks: attackers with money for one payment have
// sent all the signatures that they like before.
func TestHonestPayersAreServedWithinThreeBlocks(t *testing.T) {
	for name, batch := range map[string]int{"each in a transaction": 1, "many in a transaction": 20} {
		t.Run(name, func(t *testing.T) {
			keys := make([]*ecdsa.PrivateKey, 16)
			c := startChain(t, func(g types.GenesisAlloc) {
				for i := range keys {
					keys[i] = must(crypto.GenerateKey())
					having(crypto.PubkeyToAddress(keys[i].PublicKey), 10000)(g)
				}
			})
			f, _ := c.start("base-sepolia", func(n *Network) { n.Batch = batch })
			f.chains[baseSepolia].pairing.Store(token, c.now().Add(time.Hour))
			c.idle = true
			ctx, cancel := context.WithCancel(during(t, 5*time.Minute))
			var attackers sync.WaitGroup
			q := f.chains[baseSepolia].shared.queue
			for _, k := range keys {
				for j := range byte(12) {
					r := c.sign(order{from: k, nonce: j, before: 1e6})
					attackers.Go(func() { f.Settle(ctx, r) })
				}
			}
			for crowd := 0; crowd < 16*10; time.Sleep(time.Millisecond) {
				q.mu.Lock()
				crowd = q.waiting
				q.mu.Unlock()
			}
			done := make(chan facilitator.Settlement, 1)
			go func() { done <- f.Settle(ctx, c.sign(order{nonce: 200, before: 1e6})) }()
			start := must(c.backend.Client().BlockNumber(ctx))
			for len(done) == 0 {
				c.untilAllIsSent(f, func() bool { return len(done) > 0 })
				c.seal()
			}
			if s := <-done; s.Outcome != facilitator.Settled || s.Block.Number-start > 3 {
				t.Errorf("%+v, and it began after block %d", s, start)
			}
			cancel()
			attackers.Wait()
			if _, failed, _ := c.burnt(first); failed != 0 {
				t.Errorf("%d reverted", failed)
			}
		})
	}
}

// TestAPlaceComesBackWithoutItsCaller: the caller of a wallet's first payment has gone
// before it was in a block. The next wallet waits for nobody.
func TestAPlaceComesBackWithoutItsCaller(t *testing.T) {
	other := common.BigToAddress(big.NewInt(0x7a11e70001 + 50))
	c := startChain(t, withPermit2(t), withWallets(t), func(g types.GenesisAlloc) {
		g[other] = g[wallet]
		rich(other)(g)
	})
	f, _ := c.start("base-sepolia")
	c.idle = true
	ctx, gone := context.WithCancel(during(t, 5*time.Minute))
	done := make(chan facilitator.Settlement, 1)
	go func() { done <- f.Settle(ctx, c.sign(order{account: wallet, before: 1e6})) }()
	for waiting := uint64(0); waiting == 0; time.Sleep(time.Millisecond) {
		_, waiting = c.numbers(first)
	}
	gone()
	<-done
	c.seal()
	c.idle = false
	if s := f.Settle(during(t, 20*time.Second), c.sign(order{account: other, nonce: 1, before: 1e6})); s.Outcome != facilitator.Settled {
		t.Errorf("%+v", s)
	}
}

// TestANumberFarAheadIsNotBelieved: a node says one transaction number that is far too
// high. All payments after it would wait for those before.
func TestANumberFarAheadIsNotBelieved(t *testing.T) {
	f, node, r, log := at(t, world{})
	lied := false
	node.override = func(method string, params []json.RawMessage) (any, *rpcError, bool) {
		if method == "eth_getTransactionCount" && string(params[1]) == `"pending"` && !lied {
			lied = true
			return hexutil.Uint64(node.nonce + 5000), nil, true
		}
		return nil, nil, false
	}
	if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Settled || node.sent[0].Nonce() != 7 || !lied {
		t.Errorf("%+v, number %d", s, node.sent[0].Nonce())
	}
	if !strings.Contains(log(), "is not believed") {
		t.Errorf("log: %s", log())
	}
}

// TestSmallPaymentsAreInNoLargeOnesWay: payments that share transactions come all the
// time, and take no place of those that need one of their own.
func TestSmallPaymentsAreInNoLargeOnesWay(t *testing.T) {
	q, a := newQueue(newStandings()), new(account)
	for i := range 2000 {
		go func() {
			_, _ = q.enter(t.Context(), payerNo(i), wish{among: []*account{a}, kind: together, most: 640, life: time.Minute})
		}()
	}
	for waiting := 0; waiting < 2000-640; time.Sleep(time.Millisecond) {
		q.mu.Lock()
		waiting = q.waiting
		q.mu.Unlock()
	}
	if _, err := q.enter(t.Context(), payerNo(5000), wish{among: []*account{a}, most: maxInFlight, life: time.Second}); err != nil {
		t.Error(err)
	}
}

// untilAllIsSent waits until everybody who has a place has sent what it is for, and what
// was sent before the last block is known to be in it: blocks are long.
func (c *testChain) untilAllIsSent(f *Facilitator, or func() bool) {
	c.t.Helper()
	ch := f.chains[baseSepolia]
	for quiet := 0; quiet < 5 && !or(); time.Sleep(10 * time.Millisecond) {
		mined, _ := c.numbers(first)
		sent, places := 0, 0
		s := &ch.accounts[0].sender
		s.mu.Lock()
		old := slices.ContainsFunc(s.flights, func(fl *flight) bool { return fl.number < mined })
		for _, fl := range s.flights {
			sent += max(fl.shared, 1)
		}
		s.mu.Unlock()
		q := ch.shared.queue
		q.mu.Lock()
		for _, p := range q.payers {
			places += len(p.flying)
		}
		q.mu.Unlock()
		if quiet++; old || sent == 0 || sent != places {
			quiet = 0
		}
	}
}
