package sqlite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// Claim implements ledger.Ledger.
func (l *Ledger) Claim(ctx context.Context, p ledger.Payment, lease time.Duration) (ledger.Claim, error) {
	token, err := l.begin(ctx)
	if err != nil {
		return ledger.Claim{}, err
	}
	r, found, err := l.lookUp(ctx, p.Key)
	if err != nil {
		return ledger.Claim{}, err
	}
	defer l.mu.Unlock()
	now := l.now()
	p, err = ledger.ApplyClaim(found.payment, p, now, lease)
	if err != nil {
		return ledger.Claim{}, ledger.CloneTaken(err)
	}
	if r == nil && !l.makeRoom(now) {
		return ledger.Claim{}, fmt.Errorf("%w: %d payments are under way", ledger.ErrFull, len(l.rows.all))
	}
	l.lastID = max(l.lastID+1, now.UnixNano())
	l.rows.add(&row{payment: p.Pack(), id: l.lastID, token: token})
	return ledger.Claim{Token: token, Payment: p.Clone()}, nil
}

// begin is what every call that begins something does first.
func (l *Ledger) begin(ctx context.Context) (ledger.Token, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := l.well(); err != nil {
		return "", err
	}
	return ledger.NewToken(l.random)
}

// lookUp finds a payment, in memory or in the file, and returns with l.mu locked,
// unless there is an error. A payment that nobody knows is the zero one.
func (l *Ledger) lookUp(ctx context.Context, key ledger.Key) (*row, stored, error) {
	l.mu.Lock()
	for {
		if err := l.usable(); err != nil {
			l.mu.Unlock()
			return nil, stored{}, err
		}
		if r := l.rows.all[key]; r != nil {
			return r, stored{id: r.id, payment: r.payment}, nil
		}
		commits := l.commits
		l.mu.Unlock()
		found, err := l.file.get(context.WithoutCancel(ctx), key) // see exec
		if err != nil {
			return nil, stored{}, unavailable(ctx, err)
		}
		l.mu.Lock()
		if l.rows.all[key] == nil && l.commits == commits && !l.closed {
			return nil, found, nil
		}
		// The row may have come to memory meanwhile, and gone again.
	}
}

// Take implements ledger.Ledger.
func (l *Ledger) Take(ctx context.Context, key ledger.Key, to ledger.State, lease time.Duration) (ledger.Claim, error) {
	token, err := l.begin(ctx)
	if err != nil {
		return ledger.Claim{}, err
	}
	r, found, err := l.lookUp(ctx, key)
	if err != nil {
		return ledger.Claim{}, err
	}
	defer l.mu.Unlock()
	if found.payment.Key == "" {
		return ledger.Claim{}, ledger.ErrNotFound
	}
	p, err := ledger.ApplyTake(found.payment, to, l.now(), lease)
	if err != nil {
		return ledger.Claim{}, ledger.CloneTaken(err)
	}
	if r == nil {
		r = l.rows.recall(found)
	}
	r.token = token
	l.record(r, p)
	return ledger.Claim{Token: token, Payment: p.Clone()}, nil
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

// Move implements ledger.Ledger. A move to Settling returns when its transaction is
// committed. Others join the next one, and go on while the file cannot be written: what
// has happened has happened.
func (l *Ledger) Move(ctx context.Context, c ledger.Claim, ch ledger.Change) (ledger.Payment, error) {
	if err := ctx.Err(); err != nil {
		return ledger.Payment{}, err
	}
	ch = ch.Clone()
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
	if p.State == ledger.Settling {
		return l.settle(ctx, r, p) // unlocks
	}
	defer l.mu.Unlock()
	if r.payment.State == ledger.Claimed { // anybody can have made it, for nothing
		l.rows.letGo(r)
	} else {
		l.record(r, p)
	}
	return p.Clone(), nil
}

// settle moves a row to Settling and waits until that is committed. It is called with
// l.mu locked, and returns without.
func (l *Ledger) settle(ctx context.Context, r *row, p ledger.Payment) (ledger.Payment, error) {
	if err := l.failure; err != nil {
		l.mu.Unlock()
		return ledger.Payment{}, unavailable(ctx, err)
	}
	token, b := r.token, l.filling
	w := &wait{row: r, before: r.payment}
	l.record(r, p)
	w.changes = r.changes
	b.waits = append(b.waits, w)
	signal(l.awaited)
	l.mu.Unlock()
	select {
	case <-b.done:
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-b.done:
	default:
		w.abandoned = true
		return ledger.Payment{}, fmt.Errorf("payment %s may be on its way to the disk: %w", p.ID, ctx.Err())
	}
	switch {
	case w.undone:
		return ledger.Payment{}, unavailable(ctx, b.err)
	case b.err != nil:
		return ledger.Payment{}, fmt.Errorf("payment %s may be on disk or not: %w", p.ID, b.err)
	case r.token != "" && (r.token != token || !ledger.Held(r.payment, l.now())):
		// The disk took longer than the lease, and another may be asking for the money.
		return ledger.Payment{}, fmt.Errorf("payment %s is on disk, but its lease ended before it was", p.ID)
	}
	return p.Clone(), nil
}

// Get implements ledger.Ledger.
func (l *Ledger) Get(ctx context.Context, key ledger.Key) (ledger.Payment, error) {
	if err := ctx.Err(); err != nil {
		return ledger.Payment{}, err
	}
	_, found, err := l.lookUp(ctx, key)
	if err != nil {
		return ledger.Payment{}, err
	}
	defer l.mu.Unlock()
	if found.payment.Key == "" {
		return ledger.Payment{}, ledger.ErrNotFound
	}
	return found.payment.Clone(), nil
}

// held returns the row that the claim holds.
func (l *Ledger) held(c ledger.Claim) (*row, error) {
	if err := l.usable(); err != nil {
		return nil, err
	}
	r := l.rows.all[c.Payment.Key]
	if r == nil || c.Token == "" || r.token != c.Token {
		return nil, ledger.ErrLost
	}
	return r, nil
}

// RememberGenesis implements ledger.Chains.
func (l *Ledger) RememberGenesis(ctx context.Context, network, hash string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var known string
	if err := l.asWriter(func(c *connection) (err error) {
		known, err = c.remember(network, hash)
		return err
	}); err != nil {
		return unavailable(ctx, err)
	}
	if known != hash {
		return fmt.Errorf("%w: the file %s has payments of %s with first block %s, and this one has %s", ledger.ErrGenesis, l.path, network, known, hash)
	}
	return nil
}

// Secret implements ledger.Secrets.
func (l *Ledger) Secret(context.Context) ([]byte, error) {
	return ledger.DeriveSecret(l.file.salt), nil
}

// Interface guards
var (
	_ ledger.Ledger  = (*Ledger)(nil)
	_ ledger.Chains  = (*Ledger)(nil)
	_ ledger.Secrets = (*Ledger)(nil)
)

// usable says why no call can be answered, with regard to the file. Under l.mu.
//
// A file that cannot be written now is usable: what has happened is recorded later. One
// that was taken away, or is damaged, is not: what it does not have may have been sold.
func (l *Ledger) usable() error {
	switch {
	case l.closed:
		return errClosed
	case l.damage != nil:
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, l.damage)
	case errors.Is(l.failure, errMoved):
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, l.failure)
	}
	return nil
}

var errClosed = fmt.Errorf("%w: it is closed", ledger.ErrUnavailable)

// unavailable is for a call that had no effect. One whose time is over says so.
func unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ledger.ErrUnavailable, err)
}
