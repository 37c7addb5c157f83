package ledger

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// LeaseFor is how long a claim outlives a holder that no longer renews it.
	LeaseFor = 60 * time.Second
	// RenewEvery is how often a claim is renewed, and renewAgain how soon after a
	// failure.
	RenewEvery = LeaseFor / 3
	renewAgain = 5 * time.Second
)

// Lease renews a claim while its request lives.
type Lease struct {
	mu    sync.Mutex
	ended bool
	timer *time.Timer
	every time.Duration
	until time.Time // nobody can take the claim before
	lost  bool
	stop  func() // what its holder must stop then
}

// Keep renews c until End, every so often; RenewEvery is right.
func (l *Guarded) Keep(c Claim, every time.Duration, logger *zap.Logger) *Lease {
	// What else the row has, an open stream need not keep.
	c = Claim{Token: c.Token, Payment: Payment{Key: c.Payment.Key, ID: c.Payment.ID}}
	kept := &Lease{every: every, until: time.Now().Add(LeaseFor)}
	kept.mu.Lock()
	defer kept.mu.Unlock()
	kept.timer = time.AfterFunc(every, func() {
		begun := time.Now()
		err := l.Renew(context.Background(), c, LeaseFor)
		if err != nil {
			logger.Error("renewing a claim", zap.String("payment", c.Payment.ID), zap.Error(err))
		}
		kept.mu.Lock()
		defer kept.mu.Unlock()
		kept.renewed(begun, err)
	})
	return kept
}

// renewed learns from a try to renew, under the lock. Who cannot renew stops before
// another may begin.
func (l *Lease) renewed(begun time.Time, err error) {
	switch again := time.Now().Add(renewAgain + CallWithin); {
	case l.ended:
	case err == nil:
		l.until = begun.Add(LeaseFor)
		l.timer.Reset(l.every)
	case errors.Is(err, ErrLost):
		l.lose()
	case !again.Before(l.until):
		l.lose()
		l.timer.Reset(renewAgain) // the claim may still be ours: what happened can be recorded
	default:
		l.timer.Reset(renewAgain)
	}
}

func (l *Lease) lose() {
	if !l.lost && l.stop != nil {
		l.stop()
	}
	l.lost = true
}

// OnLoss calls stop, which does not take long, once the claim cannot be kept; nil
// calls nobody any more.
func (l *Lease) OnLoss(stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop = stop
	if l.lost && stop != nil {
		stop()
	}
}

// End stops the renewals; the claim ends with its next change, or its lease.
func (l *Lease) End() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.timer.Stop()
}
