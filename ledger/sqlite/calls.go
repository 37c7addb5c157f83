package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// Claim implements ledger.Ledger.
func (l *Ledger) Claim(ctx context.Context, p ledger.Payment, lease time.Duration) (ledger.Claim, error) {
	if err := ctx.Err(); err != nil {
		return ledger.Claim{}, err
	}
	token, err := ledger.NewToken(l.random)
	if err != nil {
		return ledger.Claim{}, err
	}
	if err := l.well(); err != nil {
		return ledger.Claim{}, err
	}
	l.giveWay(ctx)
	pack(&p)
	key := digestOf(p.Key)
	old, known, err := l.lookUp(ctx, p.Key, &key)
	if err != nil {
		return ledger.Claim{}, err
	}
	defer l.mu.Unlock()
	now := l.now()
	p, err = ledger.ApplyClaim(known, p, now, lease)
	if err != nil {
		return ledger.Claim{}, shown(err)
	}
	if old == nil && len(l.rows.all) >= l.max {
		l.claimed.Add(-l.rows.sweep(now, 100))
		l.evict(now, 100, true)
		if len(l.rows.all) >= l.max {
			return ledger.Claim{}, fmt.Errorf("%w: %d payments are not finished", ledger.ErrFull, len(l.rows.all))
		}
	}
	r := &row{payment: p, key: key, token: token}
	if old != nil {
		r.stored = old.stored
		switch {
		case old.payment.State == ledger.Claimed:
			r.below = old.below
			l.claimed.Add(-1)
		case old.dirty:
			r.below = old
		}
	} else if known.Key != "" {
		r.stored = true
	}
	l.rows.add(r)
	// Two for each new one, so that those whose holder is gone become fewer.
	l.claimed.Add(1 - l.rows.sweep(now, 2))
	return ledger.Claim{Token: token, Payment: copied(p)}, nil
}

// lookUp finds a payment, in memory or in the database, and returns with l.mu
// locked, unless there is an error. A payment that nobody knows is the zero one.
func (l *Ledger) lookUp(ctx context.Context, name ledger.Key, key *digest) (*row, ledger.Payment, error) {
	l.mu.Lock()
	for {
		if l.closed {
			l.mu.Unlock()
			return nil, ledger.Payment{}, errClosed
		}
		if r := l.rows.all[name]; r != nil {
			return r, r.payment, nil
		}
		if !l.filter.mayHave(key) {
			return nil, ledger.Payment{}, nil
		}
		evicted := l.rows.evicted
		l.mu.Unlock()
		p, err := l.db.get(ctx, key)
		if errors.Is(err, ledger.ErrNotFound) {
			p, err = ledger.Payment{}, nil
		}
		if err != nil {
			return nil, ledger.Payment{}, unavailable(ctx, err)
		}
		l.mu.Lock()
		if l.rows.all[name] == nil && l.rows.evicted == evicted {
			return nil, p, nil
		}
		// Another came in between, and may be gone from memory again.
	}
}

// Take implements ledger.Ledger.
func (l *Ledger) Take(ctx context.Context, key ledger.Key, to ledger.State, lease time.Duration) (ledger.Claim, error) {
	if err := ctx.Err(); err != nil {
		return ledger.Claim{}, err
	}
	token, err := ledger.NewToken(l.random)
	if err != nil {
		return ledger.Claim{}, err
	}
	if err := l.well(); err != nil {
		return ledger.Claim{}, err
	}
	name := digestOf(key)
	r, known, err := l.lookUp(ctx, key, &name)
	if err != nil {
		return ledger.Claim{}, err
	}
	defer l.mu.Unlock()
	if known.Key == "" {
		return ledger.Claim{}, ledger.ErrNotFound
	}
	p, err := ledger.ApplyTake(known, to, l.now(), lease)
	if err != nil {
		return ledger.Claim{}, shown(err)
	}
	switch {
	case r == nil:
		r = l.recall(known, name)
	case finished(known.State): // the old one may be on its way to the database: see ready
		r = &row{payment: known, key: name, stored: r.stored}
		l.rows.add(r)
	}
	old := r.payment
	l.rows.change(r, p)
	r.token = token
	l.record(r, &old, nil)
	return ledger.Claim{Token: token, Payment: copied(p)}, nil
}

// recall brings a row back into memory that is in the database alone. Nobody holds it.
func (l *Ledger) recall(p ledger.Payment, key digest) *row {
	p.Lease = time.Time{}
	r := &row{payment: p, key: key, stored: true}
	l.rows.add(r)
	return r
}

// Renew implements ledger.Ledger. Leases are not recorded: they end with the
// process.
func (l *Ledger) Renew(ctx context.Context, c ledger.Claim, lease time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r, err := l.held(c)
	if err != nil {
		return err
	}
	p, err := ledger.ApplyRenew(r.payment, l.now(), lease)
	if err != nil {
		return err
	}
	r.payment.Lease = p.Lease
	return nil
}

// Move implements ledger.Ledger. A move to Settling waits for the disk. Others
// do not, and go on while the disk fails: what has happened has happened.
func (l *Ledger) Move(ctx context.Context, c ledger.Claim, ch ledger.Change) (ledger.Payment, error) {
	if err := ctx.Err(); err != nil {
		return ledger.Payment{}, err
	}
	given := ch
	ch.Request, ch.Answer = bytes.Clone(ch.Request), bytes.Clone(ch.Answer)
	for _, s := range []*string{&ch.Facilitator, &ch.Transaction, &ch.Payer, &ch.Amount, &ch.Reason, &ch.Body} {
		*s = strings.Clone(*s)
	}
	l.mu.Lock()
	r, err := l.held(c)
	if err != nil {
		l.mu.Unlock()
		return ledger.Payment{}, err
	}
	p, err := ledger.ApplyMove(r.payment, ch, l.now())
	if err != nil {
		l.mu.Unlock()
		return ledger.Payment{}, err
	}
	if p.State != ledger.Settling {
		l.changed(r, p)
		l.mu.Unlock()
		return copiedFor(p, c.Payment, given), nil
	}
	wait, err := l.settling(r, p)
	l.mu.Unlock()
	if err != nil {
		return ledger.Payment{}, unavailable(ctx, err)
	}
	select {
	case <-wait.batch.done:
	case <-ctx.Done():
		if l.abandon(wait) {
			return ledger.Payment{}, fmt.Errorf("payment %s may be on its way to the disk: %w", p.ID, ctx.Err())
		}
	}
	switch {
	case wait.batch.err == nil:
		return copiedFor(p, c.Payment, given), nil
	case wait.undone:
		return ledger.Payment{}, unavailable(ctx, wait.batch.err)
	default:
		return ledger.Payment{}, fmt.Errorf("payment %s may be on disk or not: %w", p.ID, wait.batch.err)
	}
}

// Get implements ledger.Ledger.
func (l *Ledger) Get(ctx context.Context, key ledger.Key) (ledger.Payment, error) {
	if err := ctx.Err(); err != nil {
		return ledger.Payment{}, err
	}
	name := digestOf(key)
	_, p, err := l.lookUp(ctx, key, &name)
	if err != nil {
		return ledger.Payment{}, err
	}
	defer l.mu.Unlock()
	if p.Key == "" {
		return ledger.Payment{}, ledger.ErrNotFound
	}
	return copied(p), nil
}

// held returns the row that the claim holds.
func (l *Ledger) held(c ledger.Claim) (*row, error) {
	if l.closed {
		return nil, errClosed
	}
	r := l.rows.all[c.Payment.Key]
	if r == nil || c.Token == "" || r.token != c.Token {
		return nil, ledger.ErrLost
	}
	return r, nil
}

var errClosed = fmt.Errorf("%w: it is closed", ledger.ErrUnavailable)

// unavailable is for a call that had no effect. One whose time is over says so.
func unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ledger.ErrUnavailable, err)
}

// shown is an error for the caller, who may change what is in it.
func shown(err error) error {
	if taken, ok := errors.AsType[*ledger.TakenError](err); ok {
		taken.Payment = copied(taken.Payment)
	}
	return err
}
