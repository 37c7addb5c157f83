package facilitator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// repeatDelay is the pause before a settle that ended in the dark is repeated:
// long enough for a process that restarts or a proxy that changes its backend,
// short against the time a payer waits for an answer.
const repeatDelay = 250 * time.Millisecond

// Named is a facilitator and the name the operator gave it.
type Named struct {
	Name string
	Facilitator
	// Breaker keeps it from being asked while it gives no answers; may be nil.
	Breaker *Breaker
}

// Verify asks the facilitators in order until one answers, and returns its
// answer and its name. Only a facilitator that gives no answer is passed over, or
// one whose breaker is open: a no is an answer, and nobody shops around for a yes.
//
// When none answers the error is an *Error, and the name is the last one
// asked.
func Verify(ctx context.Context, order []Named, r Request) (Verdict, string, error) {
	if len(order) == 0 {
		return Verdict{}, "", unavailable("verify", errNobody)
	}
	var (
		failed []failure
		name   string
	)
	for _, n := range order {
		name = n.Name
		if wait, open := n.Breaker.Open(r.Requirement.Network, r.Requirement.Scheme, time.Now()); open {
			why := errLeftAlone
			if n.Breaker.empty(r.Requirement.Network, r.Requirement.Scheme) {
				why = errEmpty
			}
			failed = append(failed, failure{n.Name, leftAlone("verify", why, wait)})
			continue
		}
		v, err := verifyOne(ctx, n, r)
		if !r.Unproven && ctx.Err() == nil {
			n.Breaker.verified(r, err, time.Now())
		}
		if err == nil {
			return v, n.Name, nil
		}
		failed = append(failed, failure{n.Name, err})
		if ctx.Err() != nil {
			break // a payer who has left needs no second opinion
		}
	}
	return Verdict{}, name, join("verify", failed)
}

// Settle asks the facilitators in order to move the money, and returns the
// outcome with the name of the facilitator it is about.
//
// The next facilitator is asked only when the one before was certainly not
// asked (Unsent, or it gives no answers): a second facilitator cannot know what the first has already
// sent to the chain. When the outcome is Unknown, the identical call is repeated
// once at the same facilitator, which is what settlement_pending wants, and what
// finds the answer that a broken connection swallowed. Only Settled counts then:
// Refused on the repeat proves nothing, because the first call may itself be
// what emptied the account.
func Settle(ctx context.Context, order []Named, r Request) (Settlement, string) {
	return settle(ctx, order, r, Sleep)
}

// sleeper waits for d, or returns early with the error of ctx.
type sleeper func(ctx context.Context, d time.Duration) error

func settle(ctx context.Context, order []Named, r Request, wait sleeper) (Settlement, string) {
	last := Settlement{
		Outcome: Unsent,
		Network: r.Requirement.Network,
		Reason:  string(CodeUnavailable),
		Detail:  errNobody.Error(),
	}
	var name, details string
	reached := false
	for _, n := range order {
		name = n.Name
		if n.Breaker.silent(r.Requirement.Network) {
			last = Settlement{Outcome: Unsent, Unreached: true, Network: r.Requirement.Network, Reason: string(CodeUnavailable), Detail: errLeftAlone.Error()}
		} else {
			// One whose accounts are empty is asked: it may have sent this payment before,
			// and if not it knows best that it cannot.
			last = settleOne(ctx, n, r)
			if !r.Unproven && ctx.Err() == nil && !last.NotAsked && !n.Breaker.empty(r.Requirement.Network, r.Requirement.Scheme) {
				n.Breaker.settled(r, last.Outcome, time.Now())
			}
		}
		if last.Outcome == Unknown {
			last = repeat(ctx, n, r, last, wait)
		}
		details = joinDetail(details, n.Name+": "+last.Detail)
		last.Detail = details
		reached = reached || !last.Unreached
		last.Unreached = !reached
		if last.Outcome != Unsent || ctx.Err() != nil {
			break
		}
	}
	return last, name
}

// repeat calls Settle once more after first ended Unknown, and says what is
// known after both.
func repeat(ctx context.Context, n Named, r Request, first Settlement, wait sleeper) Settlement {
	delay := repeatDelay
	// Pending: the facilitator is well, has the transaction, and waits for the
	// chain inside the repeated call.
	if first.Reason == string(x402.CodeSettlementPending) {
		delay = 0
	}
	if err := wait(ctx, delay); err != nil {
		first.Detail = joinDetail(first.Detail, "not repeated: "+err.Error())
		return first
	}
	second := settleOne(ctx, n, r)
	if second.Outcome == first.Outcome && second.Detail == first.Detail {
		second.Detail = "twice: " + first.Detail
	} else {
		second.Detail = joinDetail(first.Detail, "repeated, "+second.Outcome.String()+": "+second.Detail)
	}
	if second.Outcome == Settled {
		return second
	}
	first.Detail = second.Detail
	if second.Outcome == Unknown && second.Transaction != "" {
		// The newer one: a transaction that was stuck may have been replaced.
		first.Transaction = second.Transaction
		first.Reason = second.Reason
	}
	return first
}

// verifyOne is Verify of one facilitator, with a panic turned into an error.
func verifyOne(ctx context.Context, n Named, r Request) (v Verdict, err error) {
	defer func() {
		if p := recover(); p != nil {
			v, err = Verdict{}, unavailable("verify", panicked(p))
		}
	}()
	return n.Verify(ctx, r)
}

// settleOne is Settle of one facilitator. After a panic nobody knows what was
// sent.
func settleOne(ctx context.Context, n Named, r Request) (s Settlement) {
	defer func() {
		if p := recover(); p != nil {
			s = Settlement{
				Outcome: Unknown,
				Network: r.Requirement.Network,
				Reason:  string(x402.CodeSettlementPending),
				Detail:  panicked(p).Error(),
			}
		}
	}()
	s = n.Settle(ctx, r)
	if s.Outcome < Unknown || s.Outcome > Unsent {
		s.Outcome = Unknown
	}
	return s
}

// failure is the error of a facilitator, with the name that the operator gave it.
type failure struct {
	name string
	err  error
}

// join makes one error of several: the code of the first facilitator, which is
// the one the operator prefers, and the shortest wait that any of them asked
// for. What was asked, and the code, it says once.
func join(op string, failed []failure) error {
	joined := unavailable(op, nil)
	var errs []error
	for i, f := range failed {
		text := f.err.Error()
		if e, ok := errors.AsType[*Error](f.err); ok {
			if i == 0 {
				joined.Code, joined.Status = e.Code, e.Status
			}
			if e.RetryAfter > 0 && (joined.RetryAfter == 0 || e.RetryAfter < joined.RetryAfter) {
				joined.RetryAfter = e.RetryAfter
			}
			if text = fmt.Sprint(e.Err); e.Code != joined.Code {
				text = fmt.Sprintf("%s: %s", e.Code, text)
			}
		}
		errs = append(errs, &saidError{f.name + ": " + text, f.err})
	}
	joined.Err = errors.Join(errs...)
	return joined
}

// saidError is an error in other words.
type saidError struct {
	text string
	err  error
}

func (e *saidError) Error() string { return e.text }
func (e *saidError) Unwrap() error { return e.err }

func joinDetail(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// Sleep waits for d, or returns early with the error of ctx.
func Sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil || d <= 0 {
		return err
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
