package ledger

import (
	"context"
	"errors"
	"time"
)

// The answer to a call of a ledger can get lost after the change was made. Who made such a
// change a second time would bring a payment into doubt of which nobody was asked, count a
// run twice, or let go of what he is about to deliver. So before a change is tried again,
// the ledger is asked whether it was made.

// firstPause is how long Insist waits before it tries again at first; then it waits longer.
const firstPause = 50 * time.Millisecond

// Insist makes a change as Move does, and tries for some time where the ledger may just
// have had a hiccup: somebody waits for it who cannot be told to come back.
func (g *Guarded) Insist(ctx context.Context, c Claim, ch Change, within time.Duration) (Payment, error) {
	began := time.Now()
	row, err := g.Move(ctx, c, ch)
	for pause := firstPause; err != nil && time.Since(began)+pause < within; pause *= 4 {
		if errors.Is(err, ErrLost) || errors.Is(err, ErrInvalid) {
			break
		}
		time.Sleep(pause)
		row, err = g.Again(ctx, c, ch)
	}
	return row, err
}

// Again makes a change of which an earlier call could not say whether it was made. c is as
// it was then. If the ledger cannot tell either, nothing is changed.
func (g *Guarded) Again(ctx context.Context, c Claim, ch Change) (Payment, error) {
	want, err := ApplyMove(c.Payment, ch, c.Payment.Updated)
	if err != nil || alike(want, c.Payment) {
		return g.Move(ctx, c, ch) // it shows nowhere whether it was made, and does no harm twice
	}
	row, err := g.Get(ctx, c.Payment.Key)
	switch {
	case errors.Is(err, ErrNotFound) && Claimable(want, c.Payment.Updated):
		return want, nil // it is free, and a store may forget it
	case err != nil:
		return Payment{}, err
	case alike(row, want) && row.Created.Equal(c.Payment.Created):
		return row, nil
	}
	return g.Move(ctx, c, ch)
}

// alike says whether two states of a payment are the same in what a change changes that must not
// be made twice.
func alike(a, b Payment) bool {
	return a.State == b.State && a.Lease.IsZero() == b.Lease.IsZero() && a.Status == b.Status && a.Runs == b.Runs && a.Ended == b.Ended
}
