package paywall

import (
	"fmt"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// However many payers come, only so many are remembered, the latest among them,
// and nobody for ever.
func TestPayersAreForgotten(t *testing.T) {
	var s payers
	now := time.Now()
	if s.has("nobody", now) {
		t.Error("an empty set has somebody")
	}
	const n = 5 * rememberMost
	for i := range n {
		s.add(fmt.Sprint(i), now)
	}
	if got := len(s.younger) + len(s.older); got > 2*rememberMost {
		t.Errorf("%d remembered", got)
	}
	for i := n - rememberMost; i < n; i++ {
		if !s.has(fmt.Sprint(i), now) {
			t.Fatalf("payer %d is forgotten", i)
		}
	}
	s.remove(fmt.Sprint(n - 1))
	if s.has(fmt.Sprint(n-1), now) || s.has("", now) {
		t.Error("who was removed is remembered")
	}

	s = payers{}
	s.add("a", now)
	for _, c := range []struct {
		after time.Duration
		known bool
	}{{rememberFor - time.Second, true}, {rememberFor, true}, {2*rememberFor - time.Second, true}, {2 * rememberFor, false}} {
		if s.has("a", now.Add(c.after)) != c.known {
			t.Errorf("after %s: known %v", c.after, !c.known)
		}
	}
	s.add("b", now)
	if s.has("b", now.Add(10*rememberFor)) {
		t.Error("remembered for ever")
	}
}

// A slot that is left twice is given back once, nothing is kept of who has none, and
// wallets that have never paid do not take the places of those that have.
func TestSlotsAreBounded(t *testing.T) {
	c := &slots{of: map[limitKey]int{}, most: 6, kept: 2, mostOf: 2, mostFrom: 3}
	var taken []*slot
	enter := func(k limitKey, code string) {
		t.Helper()
		s, refused := c.enter(k)
		switch {
		case code == "" && refused == nil:
			taken = append(taken, s)
		case refused == nil || string(refused.code) != code || c.full(k) == nil:
			t.Errorf("%+v: %+v, want %q", k, refused, code)
		}
	}
	enter(limitKey{payer: "a", network: "n"}, "")
	enter(limitKey{payer: "a", network: "n"}, "")
	enter(limitKey{payer: "a", network: "m"}, "too_many_unsettled_payments") // of one payer
	enter(limitKey{payer: "b", network: "n"}, "")
	enter(limitKey{payer: "c", network: "n"}, "too_many_unsettled_payments") // of one network, with whatever wallet
	enter(limitKey{network: "n"}, "too_many_unsettled_payments")
	enter(limitKey{payer: "d", network: "n", trusted: true}, "")
	enter(limitKey{payer: "e", network: "m"}, "")
	enter(limitKey{payer: "f", network: "l"}, "too_busy") // the rest is for who has paid
	enter(limitKey{payer: "g", network: "l", trusted: true}, "")
	enter(limitKey{payer: "h", network: "l", trusted: true}, "too_busy")
	for range 2 {
		for _, s := range taken {
			s.leave()
		}
	}
	var none *slot
	none.leave()
	if c.count() != 0 || c.others != 0 || len(c.of) != 0 {
		t.Errorf("%d slots, %d of others, %v", c.count(), c.others, c.of)
	}
}

// A settlement that ends unsent or refused is on the payer's account where the upstream
// has run for it, whoever still waits for it.
func TestSettlementsAreOnThePayersAccount(t *testing.T) {
	for _, c := range []struct {
		name       string
		outcome    facilitator.Outcome
		ran, doubt bool
		times      int // until the payer pays first; 0 is never
	}{
		{"refused after a run", facilitator.Refused, true, false, 1},
		{"refused before a run", facilitator.Refused, false, false, 0},
		{"refused when asked for again", facilitator.Refused, true, true, 0},
		{"unsent after a run", facilitator.Unsent, true, false, 5},
		{"unsent before a run", facilitator.Unsent, false, false, 0},
		{"unknown", facilitator.Unknown, true, false, 0},
		{"settled", facilitator.Settled, true, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			payer := customer{payer: t.Name(), wallet: t.Name(), tab: t.Name(), ran: c.ran, doubt: c.doubt, now: time.Now}
			for n := 1; n <= 10; n++ {
				payer.remember(c.outcome)
				if got, want := distrusted.has(payer.payer, time.Now()), c.times > 0 && n >= c.times; got != want {
					t.Fatalf("after %d: pays first: %v", n, got)
				}
			}
		})
	}
}
