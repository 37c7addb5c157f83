package ledger

import (
	"errors"
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
		"negative runs": func() error { _, err := ApplyMove(held, Change{To: Settled, Runs: -1}, testTime); return err },
	} {
		if err := f(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
