package admission

import (
	"fmt"
	"testing"
	"time"
)

// However many payers come, only so many are remembered, the latest among them,
// and nobody for ever.
func TestPayersAreForgotten(t *testing.T) {
	var s Payers
	now := time.Now()
	if s.Has("nobody", now) {
		t.Error("an empty set has somebody")
	}
	const n = 5 * rememberMost
	for i := range n {
		s.Add(fmt.Sprint(i), now)
	}
	if got := len(s.younger) + len(s.older); got > 2*rememberMost {
		t.Errorf("%d remembered", got)
	}
	for i := n - rememberMost; i < n; i++ {
		if !s.Has(fmt.Sprint(i), now) {
			t.Fatalf("payer %d is forgotten", i)
		}
	}
	s.Remove(fmt.Sprint(n - 1))
	if s.Has(fmt.Sprint(n-1), now) || s.Has("", now) {
		t.Error("who was removed is remembered")
	}

	s = Payers{}
	s.Add("a", now)
	for _, c := range []struct {
		after time.Duration
		known bool
	}{{RememberFor - time.Second, true}, {RememberFor, true}, {2*RememberFor - time.Second, true}, {2 * RememberFor, false}} {
		if s.Has("a", now.Add(c.after)) != c.known {
			t.Errorf("after %s: known %v", c.after, !c.known)
		}
	}
	s.Add("b", now)
	if s.Has("b", now.Add(10*RememberFor)) {
		t.Error("remembered for ever")
	}
}

// A slot that is left twice is given back once, nothing is kept of who has none, and
// wallets that have never paid do not take the places of those that have.
func TestSlotsAreBounded(t *testing.T) {
	c := &Slots{of: map[Key]int{}, most: 6, kept: 2, mostOf: 2, mostFrom: 3}
	var taken []*Slot
	enter := func(k Key, want Reason) {
		t.Helper()
		s, why := c.Enter(k)
		switch {
		case want == "" && why == "":
			taken = append(taken, s)
		case why != want || c.Full(k) == "":
			t.Errorf("%+v: %q, want %q", k, why, want)
		}
	}
	enter(Key{Payer: "a", Network: "n"}, "")
	enter(Key{Payer: "a", Network: "n"}, "")
	enter(Key{Payer: "a", Network: "m"}, "too_many_unsettled_payments") // of one payer
	enter(Key{Payer: "b", Network: "n"}, "")
	enter(Key{Payer: "c", Network: "n"}, "too_many_unsettled_payments") // of one network, with whatever wallet
	enter(Key{Network: "n"}, "too_many_unsettled_payments")
	enter(Key{Payer: "d", Network: "n", Trusted: true}, "")
	enter(Key{Payer: "e", Network: "m"}, "")
	enter(Key{Payer: "f", Network: "l"}, "too_busy") // the rest is for who has paid
	enter(Key{Payer: "g", Network: "l", Trusted: true}, "")
	enter(Key{Payer: "h", Network: "l", Trusted: true}, "too_busy")
	for range 2 {
		for _, s := range taken {
			s.Leave()
		}
	}
	var none *Slot
	none.Leave()
	if c.Count() != 0 || c.others != 0 || len(c.of) != 0 {
		t.Errorf("%d slots, %d of others, %v", c.Count(), c.others, c.of)
	}
}

// A purchase takes back one time that its payer has left, and not all: a cheap one must
// not buy many runs of what is dear.
func TestPurchaseTakesOneHangUpBack(t *testing.T) {
	c, now := New(), time.Now()
	for range 10 {
		c.AddHangUp("p", now)
	}
	before, _ := c.WaitToFetch("p", now)
	c.Charged("p", now)
	now = now.Add(before)
	c.AddHangUp("p", now)
	if after, why := c.WaitToFetch("p", now); after < before || why != tooManyHangUps {
		t.Errorf("waits %s %s after %s", after, why, before)
	}
	c.Charged("nobody", now)
	for range 100 {
		c.AddFetch("q", now)
	}
	c.Charged("q", now)
	if wait, _ := c.WaitToFetch("q", now); wait != 0 {
		t.Errorf("waits %s for fetches before he was charged", wait)
	}
}
