package paywall

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

const (
	// renewEvery is how often a claim is renewed, and renewAgain how soon after a
	// failure.
	renewEvery = leaseFor / 3
	renewAgain = 5 * time.Second
)

// lease renews a claim while its request lives.
type lease struct {
	mu    sync.Mutex
	ended bool
	timer *time.Timer
	every time.Duration
	until time.Time // nobody can take the claim before
	lost  bool
	stop  func() // what its holder must stop then
}

// keepLease renews c until end.
func keepLease(l *ledger.Guarded, c ledger.Claim, every time.Duration, logger *zap.Logger) *lease {
	kept := &lease{every: every, until: time.Now().Add(leaseFor)}
	kept.mu.Lock()
	defer kept.mu.Unlock()
	kept.timer = time.AfterFunc(every, func() {
		begun := time.Now()
		err := l.Renew(context.Background(), c, leaseFor)
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
func (l *lease) renewed(begun time.Time, err error) {
	switch again := time.Now().Add(renewAgain + ledger.CallWithin); {
	case l.ended:
	case err == nil:
		l.until = begun.Add(leaseFor)
		l.timer.Reset(l.every)
	case errors.Is(err, ledger.ErrLost):
		l.lose()
	case !again.Before(l.until):
		l.lose()
		l.timer.Reset(renewAgain) // the claim may still be ours: what happened can be recorded
	default:
		l.timer.Reset(renewAgain)
	}
}

func (l *lease) lose() {
	if !l.lost && l.stop != nil {
		l.stop()
	}
	l.lost = true
}

// onLoss calls stop, which does not take long, once the claim cannot be kept; nil
// calls nobody any more.
func (l *lease) onLoss(stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop = stop
	if l.lost && stop != nil {
		stop()
	}
}

// end stops the renewals; the claim ends with its next change, or its lease.
func (l *lease) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.timer.Stop()
}
