package ledger

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"
	"time"
)

// CallWithin is how long a call to a guarded ledger may take.
const CallWithin = 5 * time.Second

// Opener is a ledger that opens what it needs before its first call.
type Opener interface {
	Open(ctx context.Context) error
}

// Guarded is a ledger as those use it who handle money: each call has a time limit, as far
// as the ledger heeds it, and outlives its caller's context, since half a step is worse
// than a late one; and a ledger that panics gives an error, which says nothing about what
// it has done.
type Guarded struct {
	ledger    Ledger
	condition condition
}

// Guard guards a ledger.
func Guard(l Ledger) *Guarded { return &Guarded{ledger: l} }

// change makes a call that changes a row.
func (g *Guarded) change(ctx context.Context, key Key, call func(ctx context.Context) error) error {
	err := guard(ctx, CallWithin, call)
	g.condition.changed(key, err, time.Now())
	return err
}

func guard(ctx context.Context, within time.Duration, call func(ctx context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
	defer cancel()
	return call(ctx)
}

// Claim implements Ledger.
func (g *Guarded) Claim(ctx context.Context, p Payment, lease time.Duration) (c Claim, err error) {
	err = g.change(ctx, p.Key, func(ctx context.Context) error {
		c, err = g.ledger.Claim(ctx, p, lease)
		return err
	})
	return c, err
}

// Take implements Ledger.
func (g *Guarded) Take(ctx context.Context, key Key, to State, lease time.Duration) (c Claim, err error) {
	err = g.change(ctx, key, func(ctx context.Context) error {
		c, err = g.ledger.Take(ctx, key, to, lease)
		return err
	})
	return c, err
}

// Renew implements Ledger.
func (g *Guarded) Renew(ctx context.Context, c Claim, lease time.Duration) error {
	return g.change(ctx, c.Payment.Key, func(ctx context.Context) error { return g.ledger.Renew(ctx, c, lease) })
}

// Move implements Ledger.
//
// A database may answer without waiting for the disk, and crash: then it has a payment as it
// was some changes before. What c knows of it is told it again.
func (g *Guarded) Move(ctx context.Context, c Claim, ch Change) (row Payment, err error) {
	row, err = g.move(ctx, c, ch)
	if mayBeBehind(c.Payment.State, ch.To, row, err) {
		return g.catchUp(ctx, c, ch, err)
	}
	return row, err
}

func (g *Guarded) move(ctx context.Context, c Claim, ch Change) (row Payment, err error) {
	err = g.change(ctx, c.Payment.Key, func(ctx context.Context) error {
		row, err = g.ledger.Move(ctx, c, ch)
		return err
	})
	return row, err
}

// Get implements Ledger.
func (g *Guarded) Get(ctx context.Context, key Key) (row Payment, err error) {
	err = guard(ctx, CallWithin, func(ctx context.Context) error {
		row, err = g.ledger.Get(ctx, key)
		return err
	})
	if answered(err) {
		g.condition.answers(false, time.Now())
	}
	return row, err
}

// List implements Ledger. It may be long, so that the caller bounds it.
func (g *Guarded) List(ctx context.Context, f Filter) iter.Seq2[Payment, error] {
	return func(yield func(Payment, error) bool) {
		looping, going := false, true // the loop's own panics are not the ledger's
		defer func() {
			if looping || !going {
				return
			}
			if p := recover(); p != nil {
				yield(Payment{}, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
			}
		}()
		for row, err := range g.ledger.List(ctx, f) {
			looping = true
			going = yield(row, err)
			looping = false
			if !going {
				return
			}
		}
	}
}

// Interface guard
var _ Ledger = (*Guarded)(nil)
