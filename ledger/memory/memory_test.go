package memory

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/ledger/ledgertest"
)

const lease = 30 * time.Second

func TestContract(t *testing.T) {
	ledgertest.Run(t, func(t *testing.T, now func() time.Time) ledger.Ledger {
		l := New(Options{Now: now})
		t.Cleanup(func() { l.wantSound(t) })
		return l
	})
}

// tester is a ledger with a clock, in a test of any kind.
type tester struct {
	*Ledger
	rapid.TB
	time time.Time
}

func newTester(t rapid.TB, limit int) *tester {
	s := &tester{TB: t, time: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	s.Ledger = New(Options{Max: limit, Now: func() time.Time { return s.time }})
	return s
}

// way leads to each state from a fresh claim.
var way = map[ledger.State][]ledger.State{
	ledger.Claimed:    {},
	ledger.Settling:   {ledger.Settling},
	ledger.Settled:    {ledger.Settling, ledger.Settled, ledger.Settled},
	ledger.Delivering: {ledger.Settling, ledger.Settled, ledger.Delivering},
	ledger.Delivered:  {ledger.Settling, ledger.Settled, ledger.Delivering, ledger.Delivered},
	ledger.Released:   {ledger.Released},
	ledger.Refused:    {ledger.Settling, ledger.Refused},
	ledger.Unknown:    {ledger.Settling, ledger.Unknown},
}

// bring claims a payment to be kept for an hour and moves it to the state.
func (s *tester) bring(key ledger.Key, to ledger.State) error {
	c, err := s.Claim(context.Background(), ledger.Payment{Key: key, Keep: s.time.Add(time.Hour)}, lease)
	if err != nil {
		return err
	}
	for _, state := range way[to] {
		if _, err := s.Move(context.Background(), c, ledger.Change{To: state}); err != nil {
			s.Fatalf("%s to %s: %v", key, state, err)
		}
	}
	return nil
}

// fill brings n payments to the state.
func (s *tester) fill(n int, to ledger.State) {
	for i := range n {
		if err := s.bring(ledger.Key(fmt.Sprint(to, i)), to); err != nil {
			s.Fatalf("payment %d: %v", i, err)
		}
		s.time = s.time.Add(1) // so that there is an order
	}
}

func (s *tester) knows(key ledger.Key) bool {
	_, err := s.Get(context.Background(), key)
	return !errors.Is(err, ledger.ErrNotFound)
}

// TestFull: a full ledger takes nothing new until something may be forgotten.
func TestFull(t *testing.T) {
	for state, rooms := range map[ledger.State]struct{ atOnce, afterLease, afterKeep bool }{
		ledger.Claimed:    {false, true, true},
		ledger.Settling:   {false, false, false},
		ledger.Settled:    {false, false, true},
		ledger.Delivering: {false, false, true},
		ledger.Delivered:  {false, false, true},
		ledger.Released:   {true, true, true},
		ledger.Refused:    {true, true, true},
		ledger.Unknown:    {false, false, false},
	} {
		t.Run(string(state), func(t *testing.T) {
			s := newTester(t, 10)
			s.fill(10, state)
			try := func(when string, fits bool) {
				t.Helper()
				var want error
				if !fits {
					want = ledger.ErrFull
				}
				if err := s.bring(ledger.Key(when), ledger.Claimed); !errors.Is(err, want) {
					t.Errorf("%s: %v, want %v", when, err, want)
				}
				if s.knows(ledger.Key(when)) != fits {
					t.Errorf("%s: known = %v", when, !fits)
				}
				s.wantSound(t)
			}
			try("at once", rooms.atOnce)
			s.time = s.time.Add(lease)
			try("after the lease", rooms.afterLease)
			s.time = s.time.Add(time.Hour)
			try("after keep", rooms.afterKeep)
		})
	}
}

// TestFullOfLive: the payments that fill the ledger go on, and can be claimed
// again where that is allowed.
func TestFullOfLive(t *testing.T) {
	s := newTester(t, 2)
	s.fill(1, ledger.Unknown)
	s.fill(1, ledger.Claimed)
	s.time = s.time.Add(lease)
	if err := s.bring("claimed0", ledger.Delivered); err != nil {
		t.Errorf("Claim of a row that has its room: %v", err)
	}
	if _, err := s.Take(context.Background(), "unknown0", ledger.Settling, lease); err != nil {
		t.Errorf("Take: %v", err)
	}
	if err := s.bring("new", ledger.Claimed); !errors.Is(err, ledger.ErrFull) {
		t.Errorf("Claim: %v", err)
	}
}

// TestSetMax: a reload may change the limit, and forgets nothing.
func TestSetMax(t *testing.T) {
	s := newTester(t, 1)
	s.fill(1, ledger.Unknown)
	s.SetMax(2)
	if err := s.bring("second", ledger.Unknown); err != nil {
		t.Errorf("Claim: %v", err)
	}
	s.SetMax(1)
	if err := s.bring("third", ledger.Unknown); !errors.Is(err, ledger.ErrFull) {
		t.Errorf("Claim: %v", err)
	}
	if !s.knows("unknown0") || !s.knows("second") {
		t.Error("the ledger forgot")
	}
}

// TestWhoGoesFirst: room is taken from what is worth least.
func TestWhoGoesFirst(t *testing.T) {
	s := newTester(t, 3)
	s.fill(1, ledger.Settled)
	s.fill(1, ledger.Refused)
	s.fill(1, ledger.Delivered)
	s.time = s.time.Add(time.Hour)
	for _, goes := range []ledger.Key{"delivered0", "refused0", "settled0"} {
		if !s.knows(goes) {
			t.Errorf("%s went too early", goes)
		}
		if err := s.bring("in the place of "+goes, ledger.Unknown); err != nil {
			t.Errorf("for %s: %v", goes, err)
		}
		if s.knows(goes) {
			t.Errorf("%s stayed", goes)
		}
	}
	s.wantSound(t)
}

// TestJunk: payments that cost nothing leave nothing.
func TestJunk(t *testing.T) {
	s := newTester(t, 100_000)
	s.fill(50_000, ledger.Released)
	if n := len(s.rows); n != 0 {
		t.Errorf("%d rows after released ones", n)
	}
	s.fill(maxRefused+500, ledger.Refused)
	if n := len(s.rows); n != maxRefused {
		t.Errorf("%d rows after refused ones", n)
	}
	if s.knows("refused499") || !s.knows("refused500") {
		t.Error("not the latest refused ones are kept")
	}
	s.fill(1000, ledger.Claimed) // and nobody comes back
	s.time = s.time.Add(lease)
	s.fill(500, ledger.Unknown)
	if n := len(s.rows); n != maxRefused+500 {
		t.Errorf("%d rows after abandoned claims", n)
	}
	s.wantSound(t)
}

// TestSweep: delivered payments make room without a pause.
func TestSweep(t *testing.T) {
	s := newTester(t, 0)
	for i := range 10_000 {
		if err := s.bring(ledger.Key(fmt.Sprint(i)), ledger.Delivered); err != nil {
			t.Fatal(err)
		}
		s.time = s.time.Add(10 * time.Second) // 360 in an hour
	}
	if n := len(s.rows); n != 360 {
		t.Errorf("%d rows, want those of the last hour", n)
	}
	if s.knows("9638") || !s.knows("9640") {
		t.Error("not the latest are kept")
	}
	s.wantSound(t)
}

// TestListWhileForgetting: a List goes on when the row on which it stands goes.
func TestListWhileForgetting(t *testing.T) {
	s := newTester(t, 0)
	s.fill(5*page, ledger.Delivered)
	s.fill(1, ledger.Unknown)
	s.time = s.time.Add(time.Hour)
	seen := map[ledger.Key]bool{}
	for p, err := range s.List(context.Background(), ledger.Filter{}) {
		if err != nil || seen[p.Key] {
			t.Fatalf("%s, %v", p.Key, err)
		}
		seen[p.Key] = true
		if len(seen) == 1 {
			for i := range 3 * page { // forgets all the delivered ones
				_ = s.bring(ledger.Key(fmt.Sprint("new", i)), ledger.Claimed)
			}
		}
	}
	if len(seen) != page+1 || !seen["unknown0"] {
		t.Errorf("%d rows, want one page and the one that stayed", len(seen))
	}
}

func TestNoRandomness(t *testing.T) {
	l := New(Options{Random: iotest.ErrReader(errors.New("none"))})
	if _, err := l.Claim(t.Context(), ledger.Payment{Key: "k"}, lease); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("Claim: %v", err)
	}
	if _, err := l.Take(t.Context(), "k", ledger.Settling, lease); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("Take: %v", err)
	}
}
