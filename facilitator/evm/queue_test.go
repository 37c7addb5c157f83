package evm

import (
	"context"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// payerNo is one of many payers.
func payerNo(n int) common.Address { return common.BigToAddress(big.NewInt(0xabc000 + int64(n))) }

// occupy takes places for as many payers.
func occupy(q *queue, among []*account, n int) (places []*place) {
	for i := range n {
		places = append(places, must(q.enter(context.Background(), payerNo(1e6+i), wish{among: among, most: maxInFlight, life: time.Minute})))
	}
	return places
}

// TestLeastBusy: places go to the account with the fewest payments, and of those
// the one with the most coin.
func TestLeastBusy(t *testing.T) {
	has := func(taken int, balance int64) *account {
		return &account{funds: funds{taken: [kinds]int{alone: taken}, balance: big.NewInt(balance)}}
	}
	unseen := &account{}
	const most = 30
	for name, tt := range map[string]struct {
		among []*account
		want  int
	}{
		"fewest":              {[]*account{has(2, 9), has(1, 1), has(3, 9)}, 1},
		"richest of these":    {[]*account{has(1, 5), has(1, 7), has(1, 6)}, 1},
		"first of equals":     {[]*account{has(1, 5), has(1, 5)}, 0},
		"unseen is tried":     {[]*account{has(0, 1), unseen}, 1},
		"full is out":         {[]*account{has(most, 9), has(most-1, 1)}, 1},
		"all full":            {[]*account{has(most, 9)}, -1},
		"nothing seen of any": {[]*account{unseen, {}}, 0},
	} {
		var want *account
		if tt.want >= 0 {
			want = tt.among[tt.want]
		}
		if got := leastBusy(tt.among, alone, most); got != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// crowd is a queue before one account, all of whose places are taken, and those who
// wait in it.
type crowd struct {
	t      *testing.T
	q      *queue
	a      *account
	first  []*place
	served chan served
}

type served struct {
	who string
	*place
}

func newCrowd(t *testing.T) *crowd {
	c := &crowd{t: t, q: newQueue(newStandings()), a: new(account), served: make(chan served, 1000)}
	c.first = occupy(c.q, []*account{c.a}, maxInFlight)
	return c
}

// waits puts a payment into the queue.
func (c *crowd) waits(who string, payer common.Address, change ...func(*wish)) {
	c.t.Helper()
	w := wish{among: []*account{c.a}, most: maxInFlight, life: time.Minute}
	for _, f := range change {
		f(&w)
	}
	c.q.mu.Lock()
	before := c.q.waiting
	c.q.mu.Unlock()
	go func() {
		p, err := c.q.enter(c.t.Context(), payer, w)
		if err != nil {
			if c.t.Context().Err() == nil {
				c.t.Errorf("%s: %v", who, err)
			}
			return
		}
		c.served <- served{who, p}
	}()
	for {
		c.q.mu.Lock()
		n := c.q.waiting
		c.q.mu.Unlock()
		if n > before {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// next frees a place, and says who has got it.
func (c *crowd) next() served {
	c.t.Helper()
	c.first[0].landed()
	c.first = c.first[1:]
	select {
	case s := <-c.served:
		c.first = append(c.first, s.place)
		return s
	case <-time.After(10 * time.Second):
		c.t.Fatal("nobody was served")
		return served{}
	}
}

func (c *crowd) pays(payer common.Address) { c.q.standings.moved(chain.AddressTopic(payer)) }

// TestPayersTakeTurns: who has many payments waits behind who has one.
func TestPayersTakeTurns(t *testing.T) {
	c := newCrowd(t)
	for i := range 4 {
		for range 4 {
			c.pays(payerNo(i))
		}
	}
	for i := range 4 {
		c.waits(fmt.Sprint("a", i), payerNo(1))
	}
	c.waits("b0", payerNo(2))
	c.waits("c0", payerNo(3))
	var got []string
	for range 5 {
		got = append(got, c.next().who)
	}
	if want := []string{"a0", "b0", "c0", "a1", "a2"}; !slices.Equal(got[:4], want[:4]) {
		t.Errorf("%v", got)
	}
}

// TestStrangersHaveAShare: three of four places are for payers who have paid here, and
// the fourth for the others, however many there are.
func TestStrangersHaveAShare(t *testing.T) {
	c := newCrowd(t)
	for i := range 8 {
		c.waits("stranger", payerNo(i))
	}
	for i := 100; i < 109; i++ {
		c.pays(payerNo(i))
		c.waits("known", payerNo(i))
	}
	count := map[string]int{}
	for range 12 {
		count[c.next().who]++
	}
	if count["known"] != 9 || count["stranger"] != 3 {
		t.Errorf("%v", count)
	}
	if s := c.next(); s.who != "stranger" {
		t.Error("a place stayed free, or went to nobody")
	}
}

// TestAPayerHasAsManyPlacesAsWerePaidFor: what one move of a payer's balance, or one
// word to Permit2, can make fail.
func TestAPayerHasAsManyPlacesAsWerePaidFor(t *testing.T) {
	for name, tt := range map[string]struct{ paid, reverted, want int }{
		"never paid":           {0, 0, maxUnproven},
		"paid":                 {5, 0, maxUnproven + 5},
		"paid often":           {1000, 0, maxOfPayer},
		"reverted since":       {5, 1, maxUnproven},
		"one transaction each": {0, 1, maxUnproven},
	} {
		t.Run(name, func(t *testing.T) {
			q, a := newQueue(newStandings()), new(account)
			for range tt.paid {
				q.standings.moved(chain.AddressTopic(payerNo(1)))
			}
			for range tt.reverted {
				q.standings.reverted(time.Now(), chain.AddressTopic(payerNo(1)))
			}
			w := wish{among: []*account{a}, kind: together, most: 1000, life: time.Minute, token: token, value: *uint256.NewInt(7)}
			var last *place
			for range tt.want {
				last = must(q.enter(context.Background(), payerNo(1), w))
			}
			over, cancel := context.WithCancel(context.Background())
			cancel()
			if _, err := q.enter(over, payerNo(1), w); err == nil {
				t.Error("one more got a place")
			}
			if sum, _ := q.onTheirWay(last); sum.Uint64() != uint64(7*tt.want) {
				t.Errorf("%s are on their way", sum)
			}
			last.leave() // it is in the chain, or is still in the pool
			if _, err := q.enter(over, payerNo(1), w); err == nil {
				t.Error("one more got a place, before one has landed")
			}
			last.landed()
			if _, err := q.enter(context.Background(), payerNo(1), w); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFirstPaymentsOfWalletsGoOneByOne: of payers with code who have not paid here
// one is on its way at a time; nobody else waits for that.
func TestFirstPaymentsOfWalletsGoOneByOne(t *testing.T) {
	c := newCrowd(t)
	wallet := func(w *wish) { w.wallet = true }
	c.waits("w1", payerNo(1), wallet)
	c.waits("w2", payerNo(2), wallet)
	c.waits("w3", payerNo(3), wallet)
	c.waits("a", payerNo(4))
	first := c.next()
	if second := c.next(); first.who != "w1" || second.who != "a" {
		t.Fatalf("%s and %s", first.who, second.who)
	}
	first.place.landed()
	if s := <-c.served; s.who != "w2" {
		t.Errorf("%s", s.who)
	}
}

// TestFewFirstPaymentsOfWalletsWait: there may be as many of them as somebody likes.
func TestFewFirstPaymentsOfWalletsWait(t *testing.T) {
	c := newCrowd(t)
	wallet := func(w *wish) { w.wallet = true }
	for i := range maxWaitingWallets {
		c.waits("wallet", payerNo(i), wallet)
	}
	_, err := c.q.enter(context.Background(), payerNo(1000), wish{among: []*account{c.a}, most: maxInFlight, wallet: true, life: time.Minute})
	busy, ok := isBusy(err)
	if !ok {
		t.Errorf("%v", err)
	}
	if busy != nil && busy.wait == 0 {
		t.Error("it is not told when to come again")
	}
	c.waits("other", payerNo(1001))
	c.next()
	if s := c.next(); s.who != "other" {
		t.Error(s.who)
	}
}

// TestOneWalletTakesNotAllWaitingPlaces: one payer with code has first payments wait, as
// many as there is room for. Other wallets wait, too.
func TestOneWalletTakesNotAllWaitingPlaces(t *testing.T) {
	c := newCrowd(t)
	wallet := func(w *wish) { w.wallet = true }
	c.waits("on its way", payerNo(1), wallet)
	c.next()
	for range maxWaitingOfWallet {
		c.waits("bad", payerNo(2), wallet)
	}
	_, err := c.q.enter(context.Background(), payerNo(2), wish{among: []*account{c.a}, most: maxInFlight, wallet: true, life: time.Minute})
	if busy, ok := isBusy(err); !ok || busy.wait == 0 {
		t.Errorf("%v", err)
	}
	c.waits("good", payerNo(3), wallet) // fails if it may not
}

// TestTheLastWaitsForTheOthersOfItsPayer: a payment for which there is too little money
// while others are on their way.
func TestTheLastWaitsForTheOthersOfItsPayer(t *testing.T) {
	c := newCrowd(t)
	c.waits("a", payerNo(1))
	a := c.next()
	c.waits("b", payerNo(1), func(w *wish) { w.last = true })
	c.waits("other", payerNo(2))
	if s := c.next(); s.who != "other" {
		t.Fatal(s.who)
	}
	a.place.landed()
	if s := <-c.served; s.who != "b" {
		t.Error(s.who)
	}
}

// TestWhatCannotBeServedInTimeIsToldSo: at once, and when to come again.
func TestWhatCannotBeServedInTimeIsToldSo(t *testing.T) {
	c := newCrowd(t)
	for i := range 200 {
		c.waits("", payerNo(i))
	}
	for range paceOf {
		time.Sleep(time.Millisecond)
		c.next()
	}
	_, err := c.q.enter(context.Background(), payerNo(999), wish{among: []*account{c.a}, most: maxInFlight, life: time.Millisecond})
	busy, ok := isBusy(err)
	if !ok || busy.wait < 10*time.Millisecond || busy.wait > time.Minute {
		t.Errorf("%v", err)
	}
	for range maxWaitingOfPayer {
		c.waits("", payerNo(1000))
	}
	if _, err := c.q.enter(context.Background(), payerNo(1000), wish{among: []*account{c.a}, most: maxInFlight, life: time.Minute}); !strings.Contains(fmt.Sprint(err), "too many payments") {
		t.Errorf("%v", err)
	}
}

// TestAPlaceIsOfNoUseToTheDead: who waits for longer than the payment lives gets
// none.
func TestAPlaceIsOfNoUseToTheDead(t *testing.T) {
	c := newCrowd(t)
	if _, err := c.q.enter(context.Background(), payerNo(1), wish{among: []*account{c.a}, most: maxInFlight, life: 20 * time.Millisecond}); err == nil {
		t.Error("it got a place")
	}
	if c.q.waiting != 0 {
		t.Errorf("%d wait", c.q.waiting)
	}
}

// TestPlacesAreNotLost: whatever happens at once, in the end all places are free, and
// nothing is kept of anybody.
func TestPlacesAreNotLost(t *testing.T) {
	q := newQueue(newStandings())
	accounts := []*account{{}, {}, {}}
	var wg sync.WaitGroup
	for i := range 400 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i%7)*time.Millisecond)
			defer cancel()
			p, err := q.enter(ctx, payerNo(i%23), wish{
				among: accounts[:1+i%3], kind: kind(i % 2), most: 3, last: i%5 == 0, wallet: i%6 == 0, life: time.Duration(1+i%11) * time.Millisecond,
			})
			if err != nil {
				return
			}
			time.Sleep(time.Duration(i%3) * time.Millisecond)
			p.leave()
			p.leave()
			time.Sleep(time.Duration(i%2) * time.Millisecond)
			p.landed()
			p.landed()
		})
	}
	wg.Wait()
	if len(q.payers) != 0 || q.waiting != 0 || q.wallets != 0 || q.behind != 0 {
		t.Errorf("%d lines, %d wait, %d wallets", len(q.payers), q.waiting, q.wallets)
	}
	for _, a := range accounts {
		if a.taken != [kinds]int{} {
			t.Errorf("%v are taken", a.taken)
		}
	}
}
