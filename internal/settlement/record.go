package settlement

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
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

// mover is how a change is made: at the first try, or at a later one.
type mover func(context.Context, ledger.Claim, ledger.Change) (ledger.Payment, error)

// recordSettlement writes an outcome into the ledger. A refusal after doubt
// stays unknown: an earlier try may be what emptied the account. The body is recorded where
// it stays unknown.
func recordSettlement(move mover, c ledger.Claim, s facilitator.Settlement, name, body string) (ledger.Payment, error) {
	change := ledger.Change{
		Facilitator: name,
		Transaction: s.Transaction,
		Payer:       s.Payer,
		Reason:      s.Reason,
	}
	switch s.Outcome {
	case facilitator.Settled:
		change.To = ledger.Settled
		change.Amount = chargedOtherwise(c.Payment, s)
	case facilitator.Refused:
		change.To = ledger.Refused
	case facilitator.Unsent:
		change.To = ledger.Released
	default:
		change.To = ledger.Unknown
	}
	if c.Payment.Doubt && change.To != ledger.Settled {
		change.To = ledger.Unknown
	}
	if change.To == ledger.Unknown {
		change.Body = body
	}
	if c.Payment.Payer != "" {
		change.Payer = "" // what was signed is better than what was said
	}
	row, err := move(context.Background(), c, change)
	if errors.Is(err, ledger.ErrLost) && (change.To == ledger.Refused || change.To == ledger.Released) {
		// The payer has left meanwhile, see Doubt. This settlement still has the claim, has
		// asked first and alone, and was told that nothing moved.
		change.To, change.Proven = ledger.Refused, true
		row, err = move(context.Background(), c, change)
	}
	return row, err
}

// letGo ends the claim of a payment that is recorded as settled, so that its payer can
// come for the goods. Every other outcome has ended it already. What the ledger does not
// take at once it is told again, until it takes it or somebody else has the claim, for an
// hour at most.
func letGo(l *ledger.Guarded, c ledger.Claim) (ledger.Payment, error) {
	if c.Payment.State != ledger.Settled || c.Payment.Lease.IsZero() {
		return c.Payment, nil
	}
	change := ledger.Change{To: ledger.Settled}
	row, err := l.Move(context.Background(), c, change)
	if err == nil {
		return row, nil
	}
	if !errors.Is(err, ledger.ErrLost) && !errors.Is(err, ledger.ErrInvalid) {
		inFlight.Go(func() {
			_, _ = recordWithRetry(l, c, "", func(c ledger.Claim) (ledger.Payment, error) { return l.Again(context.Background(), c, change) })
		})
	}
	return c.Payment, err
}

// recordWithRetry records what could not be recorded, until it can. If the claim was lost
// meanwhile, it takes the payment over, into the state again, to say what nobody else
// knows, and leaves it alone if that is "". It returns the claim with the row as it is
// then.
func recordWithRetry(l *ledger.Guarded, c ledger.Claim, again ledger.State, record func(ledger.Claim) (ledger.Payment, error)) (ledger.Claim, error) {
	pause := firstRecordPause
	for end := time.Now().Add(recordFor); ; pause = min(2*pause, lastRecordPause) {
		time.Sleep(pause)
		row, err := record(c)
		if err == nil {
			c.Payment = row
			return c, nil
		}
		switch {
		case errors.Is(err, ledger.ErrInvalid), time.Now().After(end):
			return c, err
		case !errors.Is(err, ledger.ErrLost):
			continue
		case again == "":
			return c, err // whoever holds it finds out
		}
		taken, err := l.Take(context.Background(), c.Payment.Key, again, ledger.LeaseFor)
		known, isTaken := errors.AsType[*ledger.TakenError](err)
		switch {
		case err == nil:
			c, pause = taken, firstRecordPause
		case isTaken && (known.Payment.State == again || known.Payment.State == ledger.Claimed || again == ledger.Delivering && known.Payment.State.Open()):
			// Somebody holds it for a while.
		case isTaken:
			c.Payment = known.Payment
			c.Payment.Lease = time.Time{} // it was recorded, by us or by others, who hold it
			return c, nil
		case errors.Is(err, ledger.ErrNotFound):
			return c, err
		}
	}
}

// afterLoss is the state into which a payment is taken whose claim was lost before it could
// be recorded what its facilitator said. Of money that has moved nobody else may hear:
// whoever holds the payment only asks what is known here.
func afterLoss(moved bool) ledger.State {
	if moved {
		return ledger.Settling
	}
	return ""
}

// RecordLater makes a change that the ledger could not take, as soon as it can, and then
// calls done. Until then it keeps the claim, and who signs anew is told to wait. If the
// claim was lost, it takes the payment over into the state again, unless that is "". It
// outlives its caller.
func (s *Settler) RecordLater(c ledger.Claim, ch ledger.Change, again ledger.State, done func()) {
	mine := new(mark)
	s.Unrecorded.add(c.Payment.Key, mine)
	lease := s.Ledger.Keep(c, ledger.RenewEvery, s.Logger)
	inFlight.Go(func() {
		defer done()
		defer s.Unrecorded.remove(c.Payment.Key, mine)
		defer lease.End()
		_, err := recordWithRetry(s.Ledger, c, again, func(c ledger.Claim) (ledger.Payment, error) {
			row, err := s.Ledger.Again(context.Background(), c, ch)
			if errors.Is(err, ledger.ErrLost) {
				lease.End() // it must not keep ourselves out
			}
			return row, err
		})
		logger := s.Logger.With(zap.String("payment", c.Payment.ID), zap.String("to", string(ch.To)))
		if err != nil {
			logger.Error("what became of a payment cannot be recorded", zap.Error(err))
			return
		}
		logger.Warn("what became of a payment was recorded late")
	})
}

// KeepAnswer records an upstream's answer, and the digest of the body that it is for, with
// a purchase that others find out about, as soon as nobody holds it; then it calls done.
// It outlives its caller.
func (s *Settler) KeepAnswer(key ledger.Key, answer []byte, body string, done func()) {
	inFlight.Go(func() {
		defer done()
		pause := 50 * time.Millisecond
		for end := time.Now().Add(recordFor); time.Now().Before(end); pause = min(2*pause, lastRecordPause) {
			if s.keepAnswer(key, answer, body) {
				return
			}
			time.Sleep(pause)
		}
	})
}

// keepAnswer tries once, and returns whether there is nothing more to try.
func (s *Settler) keepAnswer(key ledger.Key, answer []byte, body string) bool {
	for _, way := range []struct{ take, leave ledger.State }{{ledger.Settling, ledger.Unknown}, {ledger.Delivering, ledger.Settled}} {
		c, err := s.Ledger.Take(context.Background(), key, way.take, ledger.LeaseFor)
		if err == nil {
			_, err = s.Ledger.Move(context.Background(), c, ledger.Change{To: way.leave, Answer: answer, Body: body})
		}
		taken, isTaken := errors.AsType[*ledger.TakenError](err)
		switch {
		case err == nil, errors.Is(err, ledger.ErrNotFound), errors.Is(err, ledger.ErrInvalid), isTaken && !taken.Payment.State.Open():
			return true // it has it, or nothing is owed
		}
	}
	return false
}
