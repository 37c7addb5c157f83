package evm

import (
	"context"
	"errors"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// publishedFor is an oracle of the OP stack that says one amount, of at most 7 bytes, whatever
// it is asked.
func publishedFor(amount int64) func(types.GenesisAlloc) {
	word := common.LeftPadBytes(big.NewInt(amount).Bytes(), 7)
	return func(g types.GenesisAlloc) {
		g[feeOracle] = types.Account{Code: append(append([]byte{0x66}, word...), 0x5f, 0x52, 0x60, 0x20, 0x5f, 0xf3)}
	}
}

// pricing is a node by which gas costs the same all the time.
type pricing struct {
	chain.Client
	base, tip int64
}

func (n pricing) BatchCallContext(ctx context.Context, b []rpc.BatchElem) error {
	err := n.Client.BatchCallContext(ctx, b)
	for i := range b {
		switch r := b[i].Result.(type) {
		case **chain.Head:
			if *r != nil {
				(*r).BaseFee = (*hexutil.Big)(big.NewInt(n.base))
			}
		case **hexutil.Big:
			if b[i].Method == "eth_maxPriorityFeePerGas" {
				*r = (*hexutil.Big)(big.NewInt(n.tip))
			}
		}
	}
	return err
}

// company makes a facilitator that sends payments together which come at about the same
// time, while one of the payer's is on its way. end is called when all is sent.
func (c *testChain) company(change ...func(*Facilitator, *settler)) (f *Facilitator, end func()) {
	c.t.Helper()
	f, _ = c.start("base-sepolia")
	ch := f.chains[baseSepolia]
	ch.pairing.Store(token, c.now().Add(time.Hour))
	for _, set := range change {
		set(f, ch)
	}
	ch.batchWait = time.Second
	c.idle = true
	end = c.settleAside(f, c.sign(order{nonce: 99, before: 1e6}))
	untilSteady(f)
	return f, end
}

// atTheSameTime settles payments at about the same time, and makes blocks meanwhile.
func (c *testChain) atTheSameTime(f *Facilitator, requests []facilitator.Request) []facilitator.Settlement {
	c.t.Helper()
	ctx := during(c.t, time.Minute)
	got := make([]facilitator.Settlement, len(requests))
	var wg sync.WaitGroup
	for i, r := range requests {
		wg.Go(func() { got[i] = f.Settle(ctx, r) })
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for {
		select {
		case <-done:
			return got
		case <-time.After(300 * time.Millisecond):
			c.seal()
		}
	}
}

// TestARushIsServedWhereItsPublicationIsDear: the half of the newcomers has no room to
// spare. They go together, one batch after the other.
func TestARushIsServedWhereItsPublicationIsDear(t *testing.T) {
	const newcomers = 24
	c := startChain(t, payersNo(newcomers), publishedFor(1e15)) // 625,000 gas, with a quarter
	f, _ := c.start("base-sepolia")
	ch := f.chains[baseSepolia]
	rewire(f, 0, pricing{keepOpen{c.client}, 1e9, 1e9})
	ch.pairing.Store(token, c.now().Add(time.Hour))
	if _, _, err := ch.accountNow(t.Context(), ch.accounts[0]); err != nil { // as the watch does at the start
		t.Fatal(err)
	}
	var requests []facilitator.Request
	for i := range newcomers {
		requests = append(requests, c.sign(order{from: keyNo(i), before: 1e6}))
	}
	if out := c.atOnce(f, requests, nil); out[facilitator.Settled] != newcomers {
		t.Errorf("%v", out)
	}
	if sent := c.transactions(); sent > newcomers/2 {
		t.Errorf("%d transactions", sent)
	}
}

// TestAMemberHasSetAsideWhatItsPartTakes: however many go together, and however dear the
// publication is.
func TestAMemberHasSetAsideWhatItsPartTakes(t *testing.T) {
	c := startChain(t, payersNo(1))
	for name, budget := range map[string]string{"in gas": "", "in coin": "1/day"} {
		t.Run(name, func(t *testing.T) {
			f, _ := c.start("base-sepolia", func(n *Network) { n.GasBudget = budget })
			ch := f.chains[baseSepolia]
			ch.pairing.Store(token, c.now().Add(time.Hour))
			p := must(ch.read(c.sign(order{from: keyNo(0)})))
			for _, published := range []int64{0, 1, 291, 1e6 + 1, 3e12 + 7, 1e15 - 1} {
				now := gwei(1)
				now.published = big.NewInt(published)
				ch.lastFees.Store(&now)
				held := ch.risk(p)
				for n := 2; n <= maxBatch; n++ {
					size := programSize(n, false) + n*transferSize
					if takes := ch.mayCostEach(n, programGas(n, size), now.of(size)); takes.Cmp(held) > 0 {
						t.Errorf("%d published: one of %d takes %s, and %s are set aside", published, n, takes, held)
					}
				}
			}
		})
	}
}

// cheap has publications seem to cost nothing until something is about to be sent.
func (c *testChain) cheap(ch *settler) {
	ch.now = func() time.Time {
		ch.lastFees.Store(&fees{feeCap: new(big.Int), tip: new(big.Int)})
		return c.now()
	}
}

// TestWhoHasNoRoomIsLeftOut: the publication turns out dearer than it was, and the half of
// the newcomers is full. The customers of the batch go, and the newcomer waits until there
// is room.
func TestWhoHasNoRoomIsLeftOut(t *testing.T) {
	c := startChain(t, payersNo(3), publishedFor(1e14))
	f, end := c.company(func(f *Facilitator, ch *settler) {
		c.cheap(ch)
		for _, customer := range []common.Address{common.HexToAddress(payerAddress), addressOf(keyNo(0)), addressOf(keyNo(1))} {
			for range 4 {
				ch.shared.standings.moved(chain.AddressTopic(customer))
			}
		}
	})
	defer end()
	ch := f.chains[baseSepolia]
	room := int64(programGas(2, pairSize)/2 + 1)
	full, ok := ch.losses().hold(ofAccounts, false, big.NewInt(defaultGasBudget/2-room), ch.budget(), c.now())
	if !ok {
		t.Fatal("there is less room")
	}
	type outcome struct {
		newcomer bool
		facilitator.Settlement
	}
	ends := make(chan outcome, 3)
	for i := range 3 {
		r := c.sign(order{from: keyNo(i), before: 1e6})
		go func() { ends <- outcome{i == 2, f.Settle(during(t, 5*time.Minute), r)} }()
	}
	for sent := 0; sent < 3; sent, _ = flying(f) { // the first, and the customers'
		if len(ends) > 0 {
			t.Fatalf("%+v", <-ends)
		}
		time.Sleep(20 * time.Millisecond)
	}
	for got := range 3 {
		for len(ends) == 0 {
			time.Sleep(100 * time.Millisecond)
			c.seal()
		}
		if s := <-ends; s.Outcome != facilitator.Settled || s.newcomer != (got == 2) {
			t.Errorf("%d: newcomer: %v, %+v", got, s.newcomer, s.Settlement)
		}
		if got == 1 {
			full.end(nil)
			ch.shared.queue.wake()
		}
	}
}

// TestWhoFindsNoPlaceMayComeAgain: each time when it is about to be sent, a payment turns
// out to cost more than there is room for.
func TestWhoFindsNoPlaceMayComeAgain(t *testing.T) {
	c := startChain(t, payersNo(1), publishedFor(1e15))
	f, _ := c.start("base-sepolia")
	ch := f.chains[baseSepolia]
	c.cheap(ch)
	if _, ok := ch.losses().hold(ofAccounts, false, big.NewInt(defaultGasBudget/2-transferGas), ch.budget(), c.now()); !ok {
		t.Fatal("there is less room")
	}
	s := f.Settle(during(t, 5*time.Minute), c.sign(order{from: keyNo(0), before: 1e6}))
	if s.Outcome != facilitator.Unsent || s.RetryAfter != placeWait || !strings.Contains(s.Detail, "room") || strings.Contains(s.Detail, "code") {
		t.Errorf("%+v", s)
	}
}

// TestABatchThatIsTooDearGoesOneByOne: all together would offer more than one coin, and
// each of them does not.
func TestABatchThatIsTooDearGoesOneByOne(t *testing.T) {
	c := startChain(t, payersNo(4), func(g types.GenesisAlloc) { g[first] = types.Account{Balance: big.NewInt(9e18)} })
	f, end := c.company(func(f *Facilitator, ch *settler) {
		rewire(f, 0, pricing{keepOpen{c.client}, 1400e9, 1e9})
	})
	defer end()
	var requests []facilitator.Request
	for i := range 4 {
		requests = append(requests, c.sign(order{from: keyNo(i), before: 1e6}))
	}
	for i, s := range c.atTheSameTime(f, requests) {
		if s.Outcome != facilitator.Settled {
			t.Errorf("%d: %+v", i, s)
		}
	}
}

// TestOneThatCannotBeAnnouncedIsLeftOut: the ledger has lost the row of one of several
// payments that go together.
func TestOneThatCannotBeAnnouncedIsLeftOut(t *testing.T) {
	c := startChain(t, payersNo(4))
	f, end := c.company()
	defer end()
	told := make([]announced, 4)
	var requests []facilitator.Request
	for i := range told {
		r := c.sign(order{from: keyNo(i), before: 1e6})
		r.Announce = told[i].tell
		if i == 2 {
			r.Announce = func(string) error { return errors.New("the row is gone") }
		}
		requests = append(requests, r)
	}
	for i, s := range c.atTheSameTime(f, requests) {
		want := facilitator.Settled
		if i == 2 {
			want = facilitator.Unsent
		}
		if s.Outcome != want || i != 2 && told[i].list[len(told[i].list)-1] != s.Transaction {
			t.Errorf("%d: %+v, told %v", i, s, told[i].list)
		}
	}
}
