package ledger

import (
	"fmt"
	"time"
)

// rule is one line of the table: a way in which a payment can change.
type rule struct {
	from, to State
	by       means
	need     need
	lease    leaseEffect
	doubt    doubtEffect
}

// means is the call that brings the change.
type means string

const (
	byClaim means = "Claim"
	byTake  means = "Take"
	byMove  means = "Move"
)

// need is what must hold for the change, beside the token for byMove.
type need uint8

const (
	// leaseRuns: the holder is still the holder by the clock.
	leaseRuns need = 1 << iota
	// nobodyHolds: there is no holder, or its lease has ended.
	nobodyHolds
	noDoubt
	noDoubtOrProven
	reorganised
)

// leaseEffect is what becomes of the lease, and with it of the token.
type leaseEffect string

const (
	starts leaseEffect = "starts"
	stays  leaseEffect = "stays"
	ends   leaseEffect = "ends"
)

// doubtEffect is what becomes of Payment.Doubt; no rule takes doubt away but
// that by which a free row starts anew.
type doubtEffect bool

const setsDoubt doubtEffect = true

// nowhere is the state of a payment that the ledger does not know.
const nowhere State = ""

// rules is all that can happen to a payment. The comment of the package shows
// the same table and says why; a test keeps the two alike.
var rules = [...]rule{
	{nowhere, Claimed, byClaim, 0, starts, false},
	{Released, Claimed, byClaim, 0, starts, false},
	{Refused, Claimed, byClaim, 0, starts, false},
	{Claimed, Claimed, byClaim, nobodyHolds, starts, false},

	{Claimed, Settling, byMove, leaseRuns, stays, false},
	{Claimed, Released, byMove, 0, ends, false},

	{Settling, Settling, byMove, leaseRuns, stays, setsDoubt},
	{Settling, Settling, byTake, nobodyHolds, starts, setsDoubt},
	{Settling, Settled, byMove, 0, stays, false},
	{Settling, Unknown, byMove, 0, ends, setsDoubt},
	{Settling, Refused, byMove, noDoubtOrProven, ends, false},
	{Settling, Released, byMove, noDoubt, ends, false},

	{Unknown, Settling, byTake, nobodyHolds, starts, setsDoubt},

	{Settled, Delivering, byMove, leaseRuns, stays, false},
	{Settled, Delivering, byTake, nobodyHolds, starts, false},
	{Settled, Settled, byMove, 0, ends, false},
	{Settled, Settling, byMove, leaseRuns | reorganised, stays, setsDoubt},

	{Delivering, Delivered, byMove, 0, ends, false},
	{Delivering, Settled, byMove, 0, ends, false},
	{Delivering, Delivering, byMove, leaseRuns, stays, false},
	{Delivering, Delivering, byTake, nobodyHolds, starts, false},
	{Delivering, Settling, byMove, leaseRuns | reorganised, stays, setsDoubt},

	{Delivered, Delivered, byTake, nobodyHolds, starts, false},
	{Delivered, Delivered, byMove, reorganised, ends, false},
}

// find returns the rule for a change, or nil if there is none.
func find(by means, from, to State) *rule {
	for i := range rules {
		if r := &rules[i]; r.from == from && r.to == to && r.by == by {
			return r
		}
	}
	return nil
}

// allows says whether the row has what the rule needs. A nil rule allows nothing.
func (r *rule) allows(p *Payment, ch *Change, now time.Time) bool {
	switch {
	case r == nil,
		r.need&leaseRuns != 0 && !Held(*p, now),
		r.need&nobodyHolds != 0 && Held(*p, now),
		r.need&noDoubt != 0 && p.Doubt,
		r.need&noDoubtOrProven != 0 && p.Doubt && !ch.Proven,
		r.need&reorganised != 0 && !ch.Reorganised:
		return false
	}
	return true
}

// apply makes the change that the rule describes. The lease counts only for a
// rule that starts one.
func (r *rule) apply(p *Payment, now time.Time, lease time.Duration) {
	p.State = r.to
	p.Updated = now
	if r.doubt == setsDoubt {
		p.Doubt = true
	}
	switch r.lease {
	case starts:
		p.Lease = now.Add(lease)
	case ends:
		p.Lease = time.Time{}
	}
}

// Held says whether somebody holds the row: its lease runs.
func Held(p Payment, now time.Time) bool {
	return now.Before(p.Lease)
}

// Claimable says whether the row is free: the ledger does not know it (the zero
// Payment), it was released or refused, or it was claimed by somebody who is
// gone.
func Claimable(p Payment, now time.Time) bool {
	// A row without a state is not an unknown payment but a broken one.
	if p.State == nowhere && p.Key != "" {
		return false
	}
	return find(byClaim, p.State, Claimed).allows(&p, &Change{}, now)
}

// Takeable says whether the row can be taken over to the given state: Settled
// or Delivering to Delivering, Unknown or Settling to Settling, Delivered to
// Delivered, when nobody holds it.
func Takeable(p Payment, to State, now time.Time) bool {
	return find(byTake, p.State, to).allows(&p, &Change{}, now)
}

// Forgettable says whether a store may drop the row. A free row always: to
// forget it changes nothing. A paid one when its Keep has passed and nobody
// holds it. One whose money may have moved without our knowing, never: it waits
// for a person.
//
// A store drops a Settled row, for which the payer has not got the goods, only
// when it has no other room.
func Forgettable(p Payment, now time.Time) bool {
	switch p.State {
	case Settled, Delivering, Delivered:
		return !Held(p, now) && !now.Before(p.Keep)
	default:
		return Claimable(p, now)
	}
}

// ShedAt returns from when on the request and the answer of a row serve nobody: it
// is paid for and not delivered, nobody can fetch it any more, and nobody holds it.
// ok is false if it has neither, or may need them for ever.
func ShedAt(p Payment) (at time.Time, ok bool) {
	if len(p.Request) == 0 && len(p.Answer) == 0 || p.State != Settled && p.State != Delivering {
		return time.Time{}, false
	}
	at = p.FetchBy
	if at.IsZero() {
		at = p.Keep
	}
	if at.Before(p.Lease) {
		at = p.Lease
	}
	return at, true
}

// Shed takes the request and the answer out of a row whose time for them is over
// (see ShedAt), and says whether it did. A payer's signature and what a site told
// him must not lie about longer than somebody can have a use for them. A store does
// so with all its rows, not at once but soon, and in all places that it has them.
func Shed(p *Payment, now time.Time) bool {
	at, ok := ShedAt(*p)
	if !ok || now.Before(at) {
		return false
	}
	p.Request, p.Answer = nil, nil
	return true
}

// ApplyClaim returns the row that a Claim for p makes of row, which is the zero
// Payment if the ledger knows none. The new row has of p what was signed, what
// was asked for, Facilitator, Request and Keep. The error is *TakenError or
// ErrInvalid.
func ApplyClaim(row, p Payment, now time.Time, lease time.Duration) (Payment, error) {
	if p.Key == "" {
		return Payment{}, fmt.Errorf("%w: no key", ErrInvalid)
	}
	if err := checkLease(lease); err != nil {
		return Payment{}, err
	}
	if !Claimable(row, now) {
		return Payment{}, &TakenError{Payment: row}
	}
	p.ID = ID(p.Key)
	p.Doubt = false
	p.Transaction, p.Reason, p.Answer = "", "", nil
	p.Status, p.Runs, p.Ended = 0, 0, 0
	p.Created = now
	// Who forgets a payment before it ends can be paid with it twice.
	if p.Keep.Before(p.ValidBefore) {
		p.Keep = p.ValidBefore
	}
	find(byClaim, row.State, Claimed).apply(&p, now, lease)
	return p, nil
}

// ApplyTake returns the row that a Take makes of row. The error is *TakenError
// or ErrInvalid.
func ApplyTake(row Payment, to State, now time.Time, lease time.Duration) (Payment, error) {
	if err := checkLease(lease); err != nil {
		return Payment{}, err
	}
	if !Takeable(row, to, now) {
		return Payment{}, &TakenError{Payment: row}
	}
	find(byTake, row.State, to).apply(&row, now, lease)
	return row, nil
}

// ApplyRenew returns the row with its lease prolonged, for its holder: the store
// compares the token. The error is ErrLost if the row has no holder, or
// ErrInvalid.
func ApplyRenew(row Payment, now time.Time, lease time.Duration) (Payment, error) {
	if err := checkLease(lease); err != nil {
		return Payment{}, err
	}
	if row.Lease.IsZero() {
		return Payment{}, ErrLost
	}
	if end := now.Add(lease); row.Lease.Before(end) {
		row.Lease = end
	}
	return row, nil
}

// ApplyMove returns the row that a Move makes of row, for its holder: the store
// compares the token, and forgets it when the new row has no lease. The error
// is ErrLost, with words that say which change was not allowed, or ErrInvalid.
func ApplyMove(row Payment, ch Change, now time.Time) (Payment, error) {
	if ch.Runs < 0 || ch.Ended < 0 {
		return Payment{}, fmt.Errorf("%w: %d runs, %d ended", ErrInvalid, ch.Runs, ch.Ended)
	}
	r := find(byMove, row.State, ch.To)
	if row.Lease.IsZero() || !r.allows(&row, &ch, now) {
		return Payment{}, fmt.Errorf("%w: payment %s cannot go from %s to %s", ErrLost, row.ID, row.State, ch.To)
	}
	if row.State == Delivered {
		row.Reason = "" // see Change.Reorganised
	}
	row.learn(ch)
	doubt := row.Doubt
	if r.apply(&row, now, 0); ch.Announces {
		row.Doubt = doubt
	}
	switch row.State {
	case Delivered, Refused, Released:
		row.Request, row.Answer = nil, nil
	default:
	}
	return row, nil
}

func checkLease(lease time.Duration) error {
	if lease <= 0 {
		return fmt.Errorf("%w: a lease of %s", ErrInvalid, lease)
	}
	return nil
}
