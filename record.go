package paywall

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// A settlement's outcome is often known once: whoever asks a facilitator again may
// hear no more than that the authorization is used. So a ledger that cannot take
// it now is told later.

const (
	// firstRecordPause and lastRecordPause bound the pause between two tries to record, and
	// recordFor is how long it is tried.
	firstRecordPause = 250 * time.Millisecond
	lastRecordPause  = 15 * time.Second
	recordFor        = time.Hour
)

// recordWithRetry records an outcome that could not be recorded, until it can, and lets go
// of the payment. If the claim was lost meanwhile and money has moved, it takes the
// payment over to say so: whoever holds it only asks what is known here. It returns
// the claim with the row as it is then.
func recordWithRetry(l *ledger.Guarded, c ledger.Claim, moved bool, record func(ledger.Claim) (ledger.Payment, error)) (ledger.Claim, error) {
	pause := firstRecordPause
	for end := time.Now().Add(recordFor); ; pause = min(2*pause, lastRecordPause) {
		time.Sleep(pause)
		row, err := record(c)
		if err == nil {
			c.Payment = row
			if row.State == ledger.Settled && !row.Lease.IsZero() {
				if row, err = l.Move(context.Background(), c, ledger.Change{To: ledger.Settled}); err == nil { // its payer comes for the goods
					c.Payment = row
				}
			}
			return c, nil
		}
		switch {
		case errors.Is(err, ledger.ErrInvalid), time.Now().After(end):
			return c, err
		case !errors.Is(err, ledger.ErrLost):
			continue
		case !moved:
			return c, err // whoever holds it finds out
		}
		taken, err := l.Take(context.Background(), c.Payment.Key, ledger.Settling, leaseFor)
		known, isTaken := errors.AsType[*ledger.TakenError](err)
		switch {
		case err == nil:
			c, pause = taken, firstRecordPause
		case isTaken && (known.Payment.State == ledger.Settling || known.Payment.State == ledger.Claimed):
			// Somebody holds it for a while.
		case isTaken:
			c.Payment = known.Payment
			return c, nil // it was recorded, by us or by others
		case errors.Is(err, ledger.ErrNotFound):
			return c, err
		}
	}
}
