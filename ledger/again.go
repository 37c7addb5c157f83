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
	if ch.To == Settling {
		// What a store shows need not be on the disk, and this has to be. Nobody was asked
		// for money, as nobody knew that it could be.
		ch.Announces = true
		return g.Move(ctx, c, ch)
	}
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
		if row.Lease.IsZero() {
			_, _ = g.move(ctx, c, ch) // nothing changes, and the store learns that the claim is over
			return row, nil
		}
		if err := g.Renew(ctx, c, LeaseFor); err != nil {
			return Payment{}, err // somebody else may have made the same change
		}
		return row, nil
	}
	return g.Move(ctx, c, ch)
}

// alike says whether two states of a payment are the same in what a change changes that must not
// be made twice.
func alike(a, b Payment) bool {
	return a.State == b.State && a.Lease.IsZero() == b.Lease.IsZero() && a.Status == b.Status && a.Runs == b.Runs && a.Ended == b.Ended
}

// mayBeBehind says whether the ledger may have less of a payment than its holder knows: a
// change that the rules allow is refused, or one by which the claim should have ended has not ended it.
func mayBeBehind(known, to State, row Payment, err error) bool {
	if known != Settled && known != Delivering || to == Settling {
		return false
	}
	return errors.Is(err, ErrLost) || err == nil && to == Settled && !row.Lease.IsZero()
}

// catchUp tells the ledger again what the holder of a payment knows, and then what was to be
// changed. refused is what became of that at first. Of runs that the ledger has lost nobody
// may know any more: that costs one run too many at most.
func (g *Guarded) catchUp(ctx context.Context, c Claim, ch Change, refused error) (Payment, error) {
	known := c.Payment
	facts := Change{To: Settled, Facilitator: known.Facilitator, Transaction: known.Transaction, Payer: known.Payer, Amount: known.Amount}
	if refused == nil {
		return g.move(ctx, c, facts) // it was settling, and is settled now; this ends the claim
	}
	row, err := g.Get(ctx, known.Key)
	if err != nil || row.Lease.IsZero() || !row.Created.Equal(known.Created) || row.State != Settling && (row.State != Settled || known.State != Delivering) {
		return Payment{}, refused // it is as it should be, and the holder's no more
	}
	if row.State == Settling {
		if row, err = g.move(ctx, c, facts); err != nil {
			return Payment{}, err
		}
	}
	if known.State == Delivering && ch.To != Settled {
		going := Change{To: Delivering, Status: known.Status, Body: known.Body, Runs: max(0, known.Runs-row.Runs), Ended: max(0, known.Ended-row.Ended)}
		if _, err := g.move(ctx, c, going); err != nil {
			return Payment{}, err
		}
	}
	return g.move(ctx, c, ch)
}
