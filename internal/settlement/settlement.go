// Package settlement moves the money of payments, and records what became of it, whatever
// happens to the request, the payer and the config: a settlement outlives them; an outcome
// that the ledger cannot take is told to it later; what nobody knows is asked for again;
// and what a reorganisation of the chain has taken back is seen to.
package settlement

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Within bounds one settlement.
const Within = 120 * time.Second

// Settler settles the payments of a config.
type Settler struct {
	Ledger       *ledger.Guarded
	Facilitators *facilitator.Set
	Admission    *admission.Control
	Unrecorded   *Unrecorded
	Blocks       *Blocks
	Logger       *zap.Logger
}

// Unrecorded are the payments of which this process knows what is not recorded yet: what
// became of the settlement, or of the goods. Their payers were told to come back: if they
// sign anew, that is no other purchase. The zero value has none.
type Unrecorded struct{ keys sync.Map }

// mark identifies the settlement or change that waits to be recorded.
type mark struct{ _ byte } // not empty, so that no two are the same

// Has says whether something of a payment waits to be recorded.
func (u *Unrecorded) Has(key ledger.Key) bool {
	_, ok := u.keys.Load(key)
	return ok
}

func (u *Unrecorded) add(key ledger.Key, by *mark) { u.keys.Store(key, by) }

// remove takes a payment out again, unless it is somebody else's by now.
func (u *Unrecorded) remove(key ledger.Key, by *mark) { u.keys.CompareAndDelete(key, by) }

// Order is a payment that is to be settled.
type Order struct {
	Claim        ledger.Claim // in the state settling
	Request      facilitator.Request
	Facilitators []facilitator.Named // in the order in which they are asked
	// AnswerWithin is how long the payer's request waits.
	AnswerWithin time.Duration
	// Body is what is known by then of the body that the payment is for, or "": while nobody
	// knows what became of it, that tells it from other orders of its payer.
	Body func() string
	// Heard is told what they said, whether or not somebody waits for it.
	Heard func(facilitator.Settlement)
	// Release gives back what the payer's request held, once the outcome is recorded, if
	// the settlement goes on alone.
	Release func()
}

// Result is what the payer's request learns of a settlement.
type Result struct {
	facilitator.Settlement
	Row ledger.Payment // as it is recorded
	// Err says why it could not be recorded. It is tried again, and the settlement keeps
	// the claim meanwhile.
	Err error
}

// Running is a settlement under way.
type Running struct {
	by    *Settler
	claim ledger.Claim
	done  chan Result
	// left is decided once, by whoever is first: the settlement that hands its result to
	// the payer's request, or the request that goes without it.
	left  atomic.Int32
	ended atomic.Bool
	mark  mark // while it is not recorded
}

const (
	undecided int32 = iota
	handedOver
	leftAlone
)

// Settle begins to move the money. What becomes of it is recorded, whatever happens to ctx.
func (s *Settler) Settle(ctx context.Context, o Order) *Running {
	running := &Running{by: s, claim: o.Claim, done: make(chan Result, 1)}
	o.Request.Since = o.Claim.Payment.Created
	o.Request.Transaction, o.Request.Announce = o.Claim.Payment.Transaction, announce(s.Ledger, o.Claim)
	ctx = context.WithoutCancel(ctx)
	inFlight.Go(func() { running.run(ctx, o) })
	return running
}

func (r *Running) run(ctx context.Context, o Order) {
	d, claim := r.by, r.claim
	defer func() {
		r.ended.Store(true)
		d.Unrecorded.remove(r.claim.Payment.Key, &r.mark)
	}()
	said, name := d.askAndLook(ctx, o)
	metrics.CountSettlement(said.Outcome)
	o.Heard(said)
	settled := said.Outcome == facilitator.Settled
	if other := chargedOtherwise(claim.Payment, said); settled && other != "" {
		d.Logger.Error("the facilitator says that it has charged another amount than it was asked to", zap.String("payment", claim.Payment.ID),
			zap.String("facilitator", name), zap.String("asked", claim.Payment.Amount), zap.String("charged", other))
	}
	row, err := recordSettlement(d.insist, claim, said, name, o.Body())
	if err == nil && settled {
		d.watch(row, said.Block)
	} else if err != nil {
		d.Unrecorded.add(claim.Payment.Key, &r.mark)
	}
	if r.left.CompareAndSwap(undecided, handedOver) {
		r.done <- Result{Settlement: said, Row: row, Err: err}
		if err == nil {
			return
		}
	}
	claim.Payment = row
	if err != nil {
		d.Logger.Error("a settlement cannot be recorded; that is tried again", zap.String("payment", r.claim.Payment.ID),
			zap.Stringer("outcome", said.Outcome), zap.String("transaction", said.Transaction), zap.Error(err))
		record := func(c ledger.Claim) (ledger.Payment, error) {
			return recordSettlement(d.Ledger.Again, c, said, name, o.Body())
		}
		if claim, err = recordWithRetry(d.Ledger, r.claim, afterLoss(settled), record); err == nil && settled {
			d.watch(claim.Payment, said.Block)
		}
	}
	o.Release()
	if err == nil {
		claim.Payment, err = letGo(d.Ledger, claim)
	}
	if claim.Payment.State == ledger.Settled {
		d.Logger.Info("a payment was settled after its payer had been told to come back",
			zap.String("payment", claim.Payment.ID), zap.String("transaction", said.Transaction), zap.Error(err))
	} else {
		d.Logger.Warn("a settlement ended after its payer had been told to come back", zap.String("payment", claim.Payment.ID),
			zap.Stringer("outcome", said.Outcome), zap.String("reason", said.Reason), zap.String("detail", said.Detail), zap.Error(err))
	}
}

// insistFor is how long it is tried to record a settlement while its payer waits: where the
// upstream has acted, its answer would be lost.
const insistFor = 2 * time.Second

func (s *Settler) insist(ctx context.Context, c ledger.Claim, ch ledger.Change) (ledger.Payment, error) {
	return s.Ledger.Insist(ctx, c, ch, insistFor)
}

// Done has the result, once there is one, unless the settlement was left alone.
func (r *Running) Done() <-chan Result { return r.done }

// LeaveAlone says that the payer's request does not wait for the result any more: the
// settlement keeps the claim, and lets go of it. It returns false if the result is there.
func (r *Running) LeaveAlone() bool { return r.left.CompareAndSwap(undecided, leftAlone) }

// Doubt marks a settlement whose payer no longer waits for it: if the payer signs anew,
// that is no other purchase, but this one. When the settlement has just ended, the rules
// refuse the mark, and it is not needed. The body is what is known of the request's, or "".
func (r *Running) Doubt(body string) {
	_, err := r.by.Ledger.Move(context.Background(), r.claim, ledger.Change{To: ledger.Settling, Body: body})
	if err != nil && !errors.Is(err, ledger.ErrLost) {
		r.by.Unrecorded.add(r.claim.Payment.Key, &r.mark) // until the settlement ends
		if r.ended.Load() {
			r.by.Unrecorded.remove(r.claim.Payment.Key, &r.mark)
		}
	}
}

// announce writes down which transaction is about to be sent, so that it is looked
// for, and not sent a second time, when this process ends before it knows more.
func announce(l *ledger.Guarded, c ledger.Claim) func(transaction string) error {
	return func(transaction string) error {
		_, err := l.Move(context.Background(), c, ledger.Change{To: ledger.Settling, Transaction: transaction, Announces: true})
		return err
	}
}

// ask asks the facilitators, with a bound, and survives their panics: what
// panicked half-way may have moved money.
func ask(ctx context.Context, order []facilitator.Named, r facilitator.Request) (s facilitator.Settlement, name string) {
	defer func() {
		if rec := recover(); rec != nil {
			s = facilitator.Settlement{
				Outcome: facilitator.Unknown, Reason: string(x402.CodeSettlementPending),
				Detail: fmt.Sprintf("panic: %v\n%s", rec, debug.Stack()),
			}
		}
	}()
	if NothingDue(r) {
		return facilitator.Settlement{Outcome: facilitator.Settled, Network: r.Requirement.Network, Amount: "0"}, order[0].Name
	}
	ctx, cancel := context.WithTimeout(ctx, Within)
	defer cancel()
	return facilitator.Settle(ctx, order, r)
}

// NothingDue says whether there is nothing to settle: the upstream charges
// nothing of an upto payment. The authorization stays unused on the chain, and
// the ledger keeps it from buying twice.
func NothingDue(r facilitator.Request) bool {
	return r.Requirement.Scheme == x402.SchemeUpto && r.Requirement.Amount == "0"
}

// chargedOtherwise is what a facilitator says it has charged of an upto payment,
// where that is not what it was asked to: the ledger tells what has happened.
func chargedOtherwise(row ledger.Payment, s facilitator.Settlement) string {
	if row.Scheme != x402.SchemeUpto || s.Amount == row.Amount || s.Amount == "" || strings.Trim(s.Amount, "0123456789") != "" {
		return ""
	}
	return s.Amount
}
