package evm

import (
	"context"
	"math/big"
	"testing"
	"time"
)

// TestLeastBusy: places go to the account with the fewest payments, and of those
// the one with the most coin.
func TestLeastBusy(t *testing.T) {
	has := func(taken int, balance int64) *account {
		return &account{funds: funds{taken: taken, balance: big.NewInt(balance)}}
	}
	unseen := &account{}
	for name, tt := range map[string]struct {
		among []*account
		want  int
	}{
		"fewest":              {[]*account{has(2, 9), has(1, 1), has(3, 9)}, 1},
		"richest of these":    {[]*account{has(1, 5), has(1, 7), has(1, 6)}, 1},
		"first of equals":     {[]*account{has(1, 5), has(1, 5)}, 0},
		"unseen is tried":     {[]*account{has(0, 1), unseen}, 1},
		"full is out":         {[]*account{has(maxInFlight, 9), has(maxInFlight-1, 1)}, 1},
		"all full":            {[]*account{has(maxInFlight, 9)}, -1},
		"nothing seen of any": {[]*account{unseen, {}}, 0},
	} {
		var want *account
		if tt.want >= 0 {
			want = tt.among[tt.want]
		}
		if got := leastBusy(tt.among, maxInFlight); got != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestPlaces: who waits is served in turn, with what it waits for, and who has
// given up keeps nothing.
func TestPlaces(t *testing.T) {
	var s places
	a, b := new(account), new(account)
	for range 2 * maxInFlight {
		must(s.enter(context.Background(), []*account{a, b}))
	}
	if a.taken != maxInFlight || b.taken != maxInFlight {
		t.Fatalf("%d and %d", a.taken, b.taken)
	}
	type got struct {
		who string
		a   *account
	}
	served := make(chan got)
	wait := func(who string, among ...*account) {
		before := len(s.waiting)
		go func() { served <- got{who, must(s.enter(context.Background(), among))} }()
		for {
			s.mu.Lock()
			n := len(s.waiting)
			s.mu.Unlock()
			if n > before {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	wait("1", b)
	wait("2", a, b)
	wait("3", a)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.enter(ctx, []*account{a}); err == nil {
		t.Error("who has given up got a place")
	}
	for _, want := range []struct {
		free *account
		who  string
	}{{a, "2"}, {a, "3"}, {b, "1"}} {
		s.leave(want.free)
		if g := <-served; g.who != want.who || g.a != want.free {
			t.Errorf("%s got a place, not %s", g.who, want.who)
		}
	}
	for range maxInFlight {
		s.leave(a)
		s.leave(b)
	}
	if a.taken != 0 || b.taken != 0 || len(s.waiting) != 0 {
		t.Errorf("%d and %d are taken, %d wait", a.taken, b.taken, len(s.waiting))
	}
}

// inThatMoment is over when it is asked, and gives back a place just then.
type inThatMoment struct {
	context.Context
	leave func()
}

func (c inThatMoment) Done() <-chan struct{} {
	c.leave()
	return c.Context.Done()
}

// TestPlacesAreNotLost: who gives up in the moment in which a place is given back
// does not take it along.
func TestPlacesAreNotLost(t *testing.T) {
	var s places
	a := new(account)
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for range 50 { // each time one of two ways, by chance
		for a.taken < maxInFlight {
			must(s.enter(context.Background(), []*account{a}))
		}
		_, err := s.enter(inThatMoment{over, func() { s.leave(a) }}, []*account{a})
		if given := err == nil; given && a.taken != maxInFlight || !given && a.taken != maxInFlight-1 {
			t.Fatalf("given: %v, and %d are taken", given, a.taken)
		}
	}
}
