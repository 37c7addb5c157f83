package postgres

import (
	"context"
	"iter"
	"sync/atomic"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// turns is a ledger whose calls go to two gateways in turn.
type turns struct {
	gateways [2]*Ledger
	calls    atomic.Uint64
}

func (s *turns) next() *Ledger { return s.gateways[s.calls.Add(1)%2] }

func (s *turns) Claim(ctx context.Context, p ledger.Payment, lease time.Duration) (ledger.Claim, error) {
	return s.next().Claim(ctx, p, lease)
}

func (s *turns) Take(ctx context.Context, key ledger.Key, to ledger.State, lease time.Duration) (ledger.Claim, error) {
	return s.next().Take(ctx, key, to, lease)
}

func (s *turns) Renew(ctx context.Context, c ledger.Claim, lease time.Duration) error {
	return s.next().Renew(ctx, c, lease)
}

func (s *turns) Move(ctx context.Context, c ledger.Claim, ch ledger.Change) (ledger.Payment, error) {
	return s.next().Move(ctx, c, ch)
}

func (s *turns) Get(ctx context.Context, key ledger.Key) (ledger.Payment, error) {
	return s.next().Get(ctx, key)
}

func (s *turns) List(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Payment, error] {
	return s.next().List(ctx, f)
}

func (s *turns) Clean() error { return cleaner{s.next()}.Clean() }
