package ledger

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestClaimable(t *testing.T) {
	for _, c := range []struct {
		name string
		row  Payment
		want bool
	}{
		{"unknown key", Payment{}, true},
		{"broken row", Payment{Key: "k"}, false},
		{"state of another version", Payment{Key: "k", State: "escrowed"}, false},
		{"claimed", kind{Claimed, false, "runs"}.row(), false},
		{"claimed, holder gone", kind{Claimed, false, "over"}.row(), true},
		{"released", kind{Released, false, "none"}.row(), true},
		{"refused", kind{Refused, false, "none"}.row(), true},
		{"refused by proof", kind{Refused, true, "none"}.row(), true},
		{"settling, holder gone", kind{Settling, false, "over"}.row(), false},
		{"unknown", kind{Unknown, true, "none"}.row(), false},
		{"settled", kind{Settled, false, "none"}.row(), false},
		{"delivering, holder gone", kind{Delivering, false, "over"}.row(), false},
		{"delivered", kind{Delivered, false, "none"}.row(), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Claimable(c.row, testTime); got != c.want {
				t.Errorf("Claimable = %v", got)
			}
		})
	}
}

func TestForgettable(t *testing.T) {
	for _, c := range []struct {
		kind          kind
		before, after bool // Keep
	}{
		{kind{Claimed, false, "runs"}, false, false},
		{kind{Claimed, false, "over"}, true, true},
		{kind{Released, false, "none"}, true, true},
		{kind{Refused, true, "none"}, true, true},
		{kind{Settling, false, "runs"}, false, false},
		{kind{Settling, true, "over"}, false, false},
		{kind{Unknown, true, "none"}, false, false},
		{kind{Settled, false, "runs"}, false, false},
		{kind{Settled, false, "none"}, false, true},
		{kind{Delivering, false, "runs"}, false, false},
		{kind{Delivering, false, "over"}, false, true},
		{kind{Delivered, false, "none"}, false, true},
	} {
		p := c.kind.row()
		p.Keep = testTime.Add(time.Second)
		if got := Forgettable(p, testTime); got != c.before {
			t.Errorf("%+v before Keep: Forgettable = %v", c.kind, got)
		}
		p.Keep = testTime
		if got := Forgettable(p, testTime); got != c.after {
			t.Errorf("%+v after Keep: Forgettable = %v", c.kind, got)
		}
	}
}

// TestShed: the signed request and the kept answer of a payment go when nobody can
// fetch it any more, and never while somebody may have to ask or to send again.
func TestShed(t *testing.T) {
	const early, late = "before", "after"
	for _, c := range []struct {
		kind        kind
		fetchBy     string // "before" or "after" now; "" if there is none
		keep        string
		want, later bool // at once, and when the lease is over
	}{
		{kind{Settled, false, "none"}, early, late, true, true},
		{kind{Settled, true, "none"}, early, late, true, true},
		{kind{Settled, false, "none"}, late, early, false, false},
		{kind{Settled, false, "none"}, "", late, false, false},
		{kind{Settled, false, "none"}, "", early, true, true},
		{kind{Settled, false, "runs"}, early, early, false, true},
		{kind{Settled, false, "over"}, early, early, true, true},
		{kind{Delivering, false, "runs"}, early, early, false, true},
		{kind{Delivering, false, "over"}, early, late, true, true},
		{kind{Delivering, false, "over"}, late, late, false, false},
		{kind{Claimed, false, "over"}, early, early, false, false},
		{kind{Settling, false, "over"}, early, early, false, false},
		{kind{Settling, true, "over"}, early, early, false, false},
		{kind{Unknown, true, "none"}, early, early, false, false},
	} {
		p := c.kind.row()
		p.Request, p.Answer, p.Transaction = []byte("signed"), []byte("kept"), "0x1"
		for at, when := range map[*time.Time]string{&p.FetchBy: c.fetchBy, &p.Keep: c.keep} {
			switch when {
			case early:
				*at = testTime
			case late:
				*at = testTime.Add(time.Hour)
			}
		}
		for now, want := range map[time.Time]bool{testTime: c.want, testTime.Add(testLease): c.later} {
			got := p
			if did := Shed(&got, now); did != want {
				t.Errorf("%+v, to be fetched until %s: Shed = %v at %s", c.kind, p.FetchBy, did, now)
			}
			expected := p
			if want {
				expected.Request, expected.Answer = nil, nil
			}
			if !reflect.DeepEqual(got, expected) {
				t.Errorf("%+v was shed to %+v", c.kind, got)
			}
			if Shed(&got, now) && want {
				t.Errorf("%+v was shed twice", c.kind)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	held := kind{Settling, false, "runs"}.row()
	if _, err := ApplyMove(held, Change{To: Delivered}, testTime); !errors.Is(err, ErrLost) ||
		!strings.Contains(err.Error(), "from settling to delivered") {
		t.Errorf("a forbidden move: %v", err)
	}
	if _, err := ApplyRenew(kind{Settled, false, "none"}.row(), testTime, testLease); !errors.Is(err, ErrLost) {
		t.Errorf("renew without a holder: %v", err)
	}
	var taken *TakenError
	if _, err := ApplyClaim(held, Payment{Key: "k"}, testTime, testLease); !errors.As(err, &taken) || taken.Payment.State != Settling {
		t.Errorf("claim of a held row: %v", err)
	}
	for name, f := range map[string]func() error{
		"no key":        func() error { _, err := ApplyClaim(Payment{}, Payment{}, testTime, testLease); return err },
		"claim, lease":  func() error { _, err := ApplyClaim(Payment{}, Payment{Key: "k"}, testTime, 0); return err },
		"take, lease":   func() error { _, err := ApplyTake(held, Settling, testTime, -1); return err },
		"renew, lease":  func() error { _, err := ApplyRenew(held, testTime, 0); return err },
		"negative ends": func() error { _, err := ApplyMove(held, Change{To: Settled, Ended: -1}, testTime); return err },
		"negative runs": func() error { _, err := ApplyMove(held, Change{To: Settled, Runs: -1}, testTime); return err },
	} {
		if err := f(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
