package paywall

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// lease renews a claim while its request lives.
type lease struct {
	mu    sync.Mutex
	ended bool
	timer *time.Timer
}

// keepLease renews c every third of its lease, until end.
func keepLease(l ledger.Ledger, c ledger.Claim, logger *zap.Logger) *lease {
	kept := &lease{}
	kept.mu.Lock()
	defer kept.mu.Unlock()
	kept.timer = time.AfterFunc(leaseFor/3, func() {
		err := renew(l, c)
		if err != nil {
			logger.Error("renewing a claim", zap.String("payment", c.Payment.ID), zap.Error(err))
		}
		kept.mu.Lock()
		defer kept.mu.Unlock()
		if !kept.ended && !errors.Is(err, ledger.ErrLost) {
			kept.timer.Reset(leaseFor / 3)
		}
	})
	return kept
}

// renew prolongs a claim, and survives a ledger that panics.
func renew(l ledger.Ledger, c ledger.Claim) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	ctx, cancel := ledgerContext(context.Background())
	defer cancel()
	return l.Renew(ctx, c, leaseFor)
}

// end stops the renewals; the claim ends with its next change, or its lease.
func (l *lease) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.timer.Stop()
}
