package ledgertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// tally counts what happened to one key. The clock stands still in the test, so
// that no lease ends and a hold lasts until its holder ends it.
type tally struct {
	key                          ledger.Key
	holders, delivered, settling atomic.Int32
}

// testStress lets workers claim, take, look at and carry on the same few
// payments at once.
func testStress(s *suite) {
	const workers = 8
	rounds := 200
	if testing.Short() {
		rounds = 40
	}
	tallies := make([]*tally, 5)
	for i := range tallies {
		tallies[i] = &tally{key: ledger.Key(fmt.Sprint("k", i))}
	}
	race(workers, func(worker int) any {
		random := rand.New(rand.NewPCG(1, uint64(worker))) //nolint:gosec // a test that can be repeated
		for range rounds {
			s.work(tallies[random.IntN(len(tallies))], random)
		}
		return nil
	})
	for _, t := range tallies {
		// Bring every payment to its end: none may be stuck.
		random := rand.New(rand.NewPCG(2, 0)) //nolint:gosec // a test that can be repeated
		for i := 0; t.delivered.Load() == 0; i++ {
			if i == 1000 {
				s.Fatalf("%s is stuck: %+v", t.key, s.get(t.key))
			}
			s.work(t, random)
		}
		if p := s.get(t.key); p.State != ledger.Delivered || p.Runs != int(t.settling.Load()) {
			s.Errorf("%s is %s with %d runs, want %d", t.key, p.State, p.Runs, t.settling.Load())
		}
	}
}

// work gets hold of the payment if it can, and goes some way with it. It never
// leaves while it holds, for the lease would not end.
func (s *suite) work(t *tally, random *rand.Rand) {
	c, ok := s.begin(t, random)
	if !ok {
		return
	}
	if n := t.holders.Add(1); n != 1 {
		s.Errorf("%s has %d holders", t.key, n)
	}
	state := c.Payment.State
	for {
		to := s.choose(state, c.Payment.Doubt, random)
		last := !keepsHold(state, to)
		if last {
			t.holders.Add(-1) // before: another may come at once
		}
		ch := ledger.Change{To: to}
		if to == ledger.Settling {
			// Settlings are counted as runs. A free row starts anew.
			ch.Runs = 1
			t.settling.Add(1)
		}
		if to == ledger.Released || to == ledger.Refused {
			t.settling.Store(0)
		}
		p, err := s.Move(s.Context(), c, ch)
		if err != nil {
			s.Errorf("the holder of %s cannot go from %s to %s: %v", t.key, state, to, err)
			return
		}
		if to == ledger.Delivered && t.delivered.Add(1) != 1 {
			s.Errorf("%s was delivered twice", t.key)
		}
		if last {
			return
		}
		state, c.Payment = to, p
	}
}

func (s *suite) begin(t *tally, random *rand.Rand) (ledger.Claim, bool) {
	var c ledger.Claim
	var err error
	switch random.IntN(5) {
	case 0:
		_, err = s.Get(s.Context(), t.key)
	case 1:
		for _, err = range s.List(s.Context(), ledger.Filter{}) {
		}
	case 2:
		c, err = s.Take(s.Context(), t.key, ledger.Settling, lease)
	case 3:
		c, err = s.Take(s.Context(), t.key, ledger.Delivering, lease)
	case 4:
		c, err = s.Claim(s.Context(), s.payment(t.key), lease)
	}
	_, taken := errors.AsType[*ledger.TakenError](err)
	if err != nil && !taken && !errors.Is(err, ledger.ErrNotFound) {
		s.Errorf("%s: %v", t.key, err)
	}
	return c, err == nil && c.Token != ""
}

// choose picks one of the moves that the rules allow.
func (s *suite) choose(from ledger.State, doubt bool, random *rand.Rand) ledger.State {
	for {
		to := moves[from][random.IntN(len(moves[from]))]
		if !doubt || to != ledger.Refused && to != ledger.Released {
			return to
		}
	}
}
