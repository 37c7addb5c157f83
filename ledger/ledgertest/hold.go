package ledgertest

import (
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// testTokens: the token decides who holds, not the key.
func testTokens(s *suite) {
	c := s.bring("k", ledger.Settling)
	other := s.bring("other", ledger.Settling)
	for _, token := range []ledger.Token{"", "guessed", other.Token, c.Token + "0"} {
		s.wantNoHold(ledger.Claim{Token: token, Payment: c.Payment})
	}
	s.wantNoHold(ledger.Claim{Token: c.Token, Payment: other.Payment})
	s.wantNoHold(ledger.Claim{Token: c.Token, Payment: ledger.Payment{Key: "nobody's"}})

	// Where nobody holds, no token is not the right one either.
	free := s.bring("unknown", ledger.Unknown)
	s.wantNoHold(ledger.Claim{Payment: free.Payment})
	let := s.bring("let go", ledger.Settled)
	s.move(let, ledger.Change{To: ledger.Settled})
	s.wantNoHold(ledger.Claim{Payment: let.Payment})

	// An old view of the row does no harm: the token and the key are the claim.
	s.move(ledger.Claim{Token: c.Token, Payment: ledger.Payment{Key: "k"}}, ledger.Change{To: ledger.Settled})
	s.move(c, ledger.Change{To: ledger.Delivering})

	// Every hold has a token of its own.
	seen := map[ledger.Token]bool{}
	for range 50 {
		c := s.claim("again")
		if seen[c.Token] {
			s.Fatal("a token came twice")
		}
		seen[c.Token] = true
		s.move(c, ledger.Change{To: ledger.Released})
	}
}

// testHoldEnds: a holder whom another has replaced can do nothing more, in
// whatever state it was.
func testHoldEnds(s *suite) {
	for _, state := range []ledger.State{ledger.Claimed, ledger.Settling, ledger.Settled, ledger.Delivering} {
		key := ledger.Key(state)
		old := s.bring(key, state)
		s.advance(lease)
		var c ledger.Claim
		switch state {
		case ledger.Claimed:
			c = s.claim(key)
		case ledger.Settling:
			c = s.take(key, ledger.Settling)
		default:
			c = s.take(key, ledger.Delivering)
		}
		s.wantNoHold(old)
		s.wantError("Renew by the new holder", s.Renew(s.Context(), c, lease), nil)
	}
}

// testLeaseEnds: who begins something must hold by the clock; who reports what
// has happened is heard until another has taken over.
func testLeaseEnds(s *suite) {
	for from, tos := range moves {
		for _, to := range tos {
			c := s.bring(ledger.Key(from+" to "+to), from)
			s.advance(lease)
			p, err := s.Move(s.Context(), c, ledger.Change{To: to})
			if to == ledger.Settling || to == ledger.Delivering {
				s.wantError(string("late Move from "+from+" to "+to), err, ledger.ErrLost)
				s.wantRow(c.Payment)
				continue
			}
			if err != nil || p.State != to {
				s.Errorf("late Move from %s to %s: %s, %v", from, to, p.State, err)
			}
		}
	}

	// Late news of a payment do not prolong the hold.
	c := s.bring("late", ledger.Settling)
	s.advance(lease)
	s.move(c, ledger.Change{To: ledger.Settled})
	s.take("late", ledger.Delivering)
	s.wantNoHold(c)
}

func testRenew(s *suite) {
	c := s.claim("k")
	renew := func(d time.Duration) {
		s.Helper()
		if err := s.Renew(s.Context(), c, d); err != nil {
			s.Fatalf("Renew: %v", err)
		}
	}
	want := c.Payment
	s.advance(lease - time.Second)
	renew(lease)
	want.Lease = s.Now().Add(lease)
	s.wantRow(want)

	renew(time.Second)
	s.wantRow(want) // not shortened

	s.advance(lease - time.Second)
	_, err := s.Claim(s.Context(), s.payment("k"), lease)
	s.wantTaken(err, want)
	renew(3 * lease)

	// Every state with a holder can be renewed.
	for _, to := range way(ledger.Delivering) {
		s.move(c, ledger.Change{To: to})
		s.advance(2 * lease)
		renew(3 * lease)
	}

	// A late Renew is as good as one in time, while nobody else came.
	s.advance(4 * lease)
	renew(lease)
	_, err = s.Take(s.Context(), "k", ledger.Delivering, lease)
	s.wantTaken(err, s.get("k"))
	s.move(c, ledger.Change{To: ledger.Delivered})
	s.wantNoHold(c)
}

// testMoveRace: copies of one claim cannot make the same move twice.
func testMoveRace(s *suite) {
	c := s.bring("k", ledger.Delivering)
	errs := race(50, func(int) error {
		_, err := s.Move(s.Context(), c, ledger.Change{To: ledger.Delivered, Runs: 1})
		return err
	})
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			s.wantError("Move", err, ledger.ErrLost)
		}
	}
	if p := s.get("k"); won != 1 || p.Runs != 1 {
		s.Errorf("%d moved, %d runs", won, p.Runs)
	}
}
