package ledgertest

import (
	"errors"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

func testClaim(s *suite) {
	_, err := s.Get(s.Context(), "k")
	s.wantError("Get of an unknown key", err, ledger.ErrNotFound)

	want := s.payment("k")
	c := s.claim("k")
	want.ID, want.State = ledger.ID("k"), ledger.Claimed
	want.Created, want.Updated, want.Lease = s.Now(), s.Now(), s.Now().Add(lease)
	if c.Token == "" {
		s.Error("the claim has no token")
	}
	s.wantEqual("the claimed row", c.Payment, want)
	s.wantRow(want)

	for _, state := range []ledger.State{
		ledger.Claimed, ledger.Settling, ledger.Settled, ledger.Delivering, ledger.Delivered, ledger.Unknown,
	} {
		row := s.bring(ledger.Key(state), state).Payment
		_, err := s.Claim(s.Context(), s.payment(row.Key), lease)
		s.wantTaken(err, row)
		s.wantRow(row)
	}
	for _, state := range []ledger.State{ledger.Released, ledger.Refused} {
		s.bring(ledger.Key(state), state)
		s.claim(ledger.Key(state))
	}

	// Only a claim goes back to free because its holder is gone.
	s.advance(lease)
	s.claim(ledger.Key(ledger.Claimed))
	for _, state := range []ledger.State{ledger.Settling, ledger.Settled, ledger.Delivering} {
		_, err := s.Claim(s.Context(), s.payment(ledger.Key(state)), lease)
		s.wantTaken(err, s.get(ledger.Key(state)))
	}
}

// testClaimStartsAnew: nothing of the earlier attempt is left, and nothing that
// the caller cannot know is taken from it.
func testClaimStartsAnew(s *suite) {
	for _, state := range []ledger.State{ledger.Claimed, ledger.Released, ledger.Refused} {
		key := ledger.Key(state)
		c := s.claim(key)
		for _, state := range way(state) {
			s.move(c, ledger.Change{
				To: state, Facilitator: "cdp", Transaction: "0x1", Payer: "0xother", Amount: "5",
				Reason: "no", Status: 502, Request: []byte("[]"), Runs: 1,
				Body: "old", Ended: 2,
			})
		}
		s.advance(lease)
		p := s.payment(key)
		want := p
		p.ID, p.State, p.Doubt = "forged", ledger.Delivered, true
		p.Transaction, p.Reason, p.Status, p.Runs, p.Ended = "0x2", "yes", 200, 7, 7
		p.Created, p.Updated, p.Lease = s.Now().Add(-time.Hour), s.Now().Add(time.Hour), s.Now().Add(time.Hour)
		got, err := s.Claim(s.Context(), p, 2*lease)
		if err != nil {
			s.Fatalf("Claim of a %s row: %v", state, err)
		}
		want.ID, want.State = ledger.ID(key), ledger.Claimed
		want.Created, want.Updated, want.Lease = s.Now(), s.Now(), s.Now().Add(2*lease)
		s.wantEqual("the row claimed again", got.Payment, want)
		s.wantRow(want)
	}
}

// testClaimRace: of any number of requests with one authorization, one goes on.
func testClaimRace(s *suite) {
	for _, prepare := range []func(ledger.Key){
		func(ledger.Key) {},
		func(key ledger.Key) { s.bring(key, ledger.Refused) },
		func(key ledger.Key) { s.claim(key); s.advance(lease) },
	} {
		key := ledger.Key(s.Now().String())
		prepare(key)
		p := s.payment(key)
		claims := race(200, func(int) ledger.Claim {
			c, err := s.Claim(s.Context(), p, lease)
			if _, taken := errors.AsType[*ledger.TakenError](err); err != nil && !taken {
				s.Errorf("Claim: %v", err)
			}
			return c
		})
		s.wantOneHolder(key, claims)
		s.advance(time.Hour)
	}
}

// wantOneHolder tests that one of the claims was won, and holds.
func (s *suite) wantOneHolder(key ledger.Key, claims []ledger.Claim) {
	s.Helper()
	won := 0
	for _, c := range claims {
		if c.Token == "" {
			continue
		}
		won++
		s.wantRow(c.Payment)
		s.wantError("Renew by the winner", s.Renew(s.Context(), c, lease), nil)
	}
	if won != 1 {
		s.Errorf("%d of %d won %q", won, len(claims), key)
	}
}

func testTake(s *suite) {
	_, err := s.Take(s.Context(), "nobody's", ledger.Delivering, lease)
	s.wantError("Take of an unknown key", err, ledger.ErrNotFound)

	// to is where a row whose holder is gone can be taken.
	to := map[ledger.State]ledger.State{
		ledger.Settling: ledger.Settling, ledger.Unknown: ledger.Settling,
		ledger.Settled: ledger.Delivering, ledger.Delivering: ledger.Delivering,
		ledger.Delivered: ledger.Delivered,
	}
	for _, from := range ledger.States() {
		for _, target := range ledger.States() {
			key := ledger.Key(from + " to " + target)
			row := s.bring(key, from).Payment
			if _, err := s.Get(s.Context(), key); errors.Is(err, ledger.ErrNotFound) {
				continue // free and forgotten
			}
			if to[from] != target || !row.Lease.IsZero() { // else nobody holds it, and it can be taken
				_, err := s.Take(s.Context(), key, target, lease)
				s.wantTaken(err, row)
			}
			s.advance(lease - time.Second)
			if !row.Lease.IsZero() {
				_, err := s.Take(s.Context(), key, target, lease)
				s.wantTaken(err, row)
			}
			s.advance(time.Second)
			c, err := s.Take(s.Context(), key, target, 2*lease)
			if to[from] != target {
				if !errors.Is(err, ledger.ErrNotFound) || !ledger.Claimable(row, s.Now()) {
					s.wantTaken(err, row)
				}
				s.wantRow(row)
				continue
			}
			if err != nil {
				s.Errorf("Take from %s to %s: %v", from, target, err)
				continue
			}
			row.State, row.Updated, row.Lease = target, s.Now(), s.Now().Add(2*lease)
			row.Doubt = target == ledger.Settling
			s.wantEqual("the row taken", c.Payment, row)
			s.wantRow(row)
			s.wantError("Renew by the taker", s.Renew(s.Context(), c, lease), nil)
		}
	}
}

// testTakeRace: two redeliveries, or two reconcilers, of one payment.
func testTakeRace(s *suite) {
	for from, to := range map[ledger.State]ledger.State{
		ledger.Settling: ledger.Settling, ledger.Unknown: ledger.Settling,
		ledger.Settled: ledger.Delivering, ledger.Delivering: ledger.Delivering,
		ledger.Delivered: ledger.Delivered,
	} {
		key := ledger.Key(from)
		s.bring(key, from)
		s.advance(lease)
		claims := race(100, func(int) ledger.Claim {
			c, err := s.Take(s.Context(), key, to, lease)
			if _, taken := errors.AsType[*ledger.TakenError](err); err != nil && !taken {
				s.Errorf("Take: %v", err)
			}
			return c
		})
		s.wantOneHolder(key, claims)
	}
}
