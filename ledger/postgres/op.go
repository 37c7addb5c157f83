package postgres

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// op is one call of a method that concerns one row.
type op struct {
	kind    kind
	key     ledger.Key
	payment ledger.Payment // of a Claim
	change  ledger.Change  // of a Move; To also of a Take
	lease   time.Duration
	// token is the new one of a Claim or Take, and the caller's of others.
	token ledger.Token

	// seq is when the call began, in the order of all.
	seq   uint64
	state atomic.Int32
	done  chan struct{}
	row   ledger.Payment
	err   error
}

type kind uint8

const (
	claiming kind = iota
	taking
	renewing
	moving
	getting
)

// The states of an op.
const (
	waiting int32 = iota
	// sent: the database may have been told to make the change.
	sent
	// cancelled: the caller has gone before that.
	cancelled
)

// durable says whether the change must be on disk before the call returns. The
// comment of the package says why.
func (o *op) durable() bool {
	switch o.kind {
	case taking, renewing:
		return true
	case moving:
		return o.change.To == ledger.Settling
	default:
		return false
	}
}

// finish answers the call.
func (o *op) finish(row ledger.Payment, err error) {
	o.row, o.err = row, err
	close(o.done)
}

// do puts a call into its line and waits for the answer.
func (l *Ledger) do(ctx context.Context, o *op) (ledger.Payment, error) {
	if err := ctx.Err(); err != nil {
		return ledger.Payment{}, err
	}
	if err := l.users.begin(); err != nil {
		return ledger.Payment{}, err
	}
	defer l.users.end()
	o.done = make(chan struct{})
	l.enqueue(o)
	select {
	case <-o.done:
		return o.row, o.err
	case <-ctx.Done():
	}
	if o.state.CompareAndSwap(waiting, cancelled) {
		return ledger.Payment{}, fmt.Errorf("%w: %w", ledger.ErrUnavailable, ctx.Err())
	}
	select {
	case <-o.done: // at the same time
		return o.row, o.err
	default:
		// It may happen yet.
		return ledger.Payment{}, ctx.Err()
	}
}

// record is a row of the database. The zero record is one that is not there.
type record struct {
	payment  ledger.Payment
	token    ledger.Token
	revision int64
}

// apply is what the rules make of the call. The error is the call's answer,
// if the record is what the database has.
func (o *op) apply(r record, now time.Time) (ledger.Payment, error) {
	switch o.kind {
	case claiming:
		if r.payment.Key != "" && r.payment.Key != o.key {
			return ledger.Payment{}, fmt.Errorf("payment %s has another key of the same name", r.payment.ID)
		}
		return ledger.ApplyClaim(r.payment, o.payment, now, o.lease)
	case taking:
		if r.payment.Key != o.key {
			return ledger.Payment{}, ledger.ErrNotFound
		}
		return ledger.ApplyTake(r.payment, o.change.To, now, o.lease)
	case renewing, moving:
		if r.payment.Key != o.key || o.token == "" || o.token != r.token {
			return ledger.Payment{}, ledger.ErrLost
		}
		if o.kind == renewing {
			return ledger.ApplyRenew(r.payment, now, o.lease)
		}
		return ledger.ApplyMove(r.payment, o.change, now)
	default:
		if r.payment.Key != o.key {
			return ledger.Payment{}, ledger.ErrNotFound
		}
		return r.payment, nil
	}
}

// write is a change that the rules allow, for the database to make if the row is
// still the one that was judged.
type write struct {
	what    action
	old     record
	next    record
	need    need
	hold    hold
	lease   int64 // in microseconds
	touched bool  // Updated is now
}

// action is how the row is changed.
type action uint8

const (
	insert action = iota
	update
	remove
	// replace: a free row starts anew.
	replace
)

// need is what must hold by the clock of the database.
type need int16

const (
	always need = iota
	leaseRuns
	nobodyHolds
)

// hold is what becomes of the lease.
type hold int16

const (
	holdEnds hold = iota
	holdStays
	holdStarts
	holdGrows
)

// plan says what to write, or why nothing can be. The time is not known here; it
// decides nothing but whether the old lease runs. So the rules are asked about
// both cases, and if they differ the database looks at its clock.
func (o *op) plan(r record) (write, error) {
	before, after := r.payment.Lease.Add(-1), r.payment.Lease
	next, err := o.apply(r, after)
	w := write{what: update, old: r, lease: micros(o.lease), touched: o.kind != renewing}
	if !r.payment.Lease.IsZero() {
		held, errHeld := o.apply(r, before)
		switch {
		case errHeld == nil && err == nil:
		case errHeld == nil:
			next, err, w.need = held, nil, leaseRuns
		case err == nil:
			w.need = nobodyHolds
		}
	}
	if err != nil {
		return write{}, err
	}
	w.next = record{payment: next, token: r.token, revision: rand.Int64()}
	switch {
	case o.kind == claiming || o.kind == taking:
		w.hold, w.next.token = holdStarts, o.token
	case next.Lease.IsZero():
		w.hold, w.next.token = holdEnds, ""
	case o.kind == renewing:
		w.hold = holdGrows
	default:
		w.hold = holdStays
	}
	switch {
	case o.kind == claiming && r.payment.Key == "":
		w.what = insert
	case o.kind == claiming:
		w.what = replace
	case next.State == ledger.Released:
		// Anybody can have made it, for nothing, and it is free.
		w.what = remove
	}
	return w, nil
}

// uuid reads what is written as 32 hexadecimal digits.
func uuid(s string) (id [16]byte, ok bool) {
	if len(s) != 2*len(id) {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(s))
	return id, err == nil
}
