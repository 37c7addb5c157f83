package paywall

import (
	"fmt"
	"testing"
	"time"
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

// A seat that is left twice is given back once, and nothing is kept of who has
// none.
func TestCrowdForgets(t *testing.T) {
	c := &crowd{of: map[bearer]int{}, most: 3, mostOf: 2, mostFrom: 1}
	var seats []*seat
	enter := func(b bearer, code string) {
		t.Helper()
		s, refused := c.enter(b)
		switch {
		case code == "" && refused == nil:
			seats = append(seats, s)
		case refused == nil || string(refused.code) != code || c.full(b) == nil:
			t.Errorf("%+v: %+v, want %q", b, refused, code)
		}
	}
	enter(bearer{payer: "a"}, "")
	enter(bearer{payer: "a"}, "")
	enter(bearer{payer: "a"}, "too_many_unsettled_payments")
	enter(bearer{network: "n"}, "")
	enter(bearer{network: "n"}, "too_many_unsettled_payments")
	enter(bearer{payer: "b"}, "too_busy")
	for range 2 {
		for _, s := range seats {
			s.leave()
		}
	}
	var none *seat
	none.leave()
	if c.count() != 0 || len(c.of) != 0 {
		t.Errorf("%d seats, %v", c.count(), c.of)
	}
}
