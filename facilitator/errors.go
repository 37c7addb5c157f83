package facilitator

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// What a payer is told when no facilitator judged the payment. In all three
// cases the same payment may be tried again.
const (
	// CodeUnavailable: the facilitator was not reached, or was not well.
	CodeUnavailable = x402.CodeFacilitatorUnavailable
	// CodeInvalidAnswer: the facilitator said something that is no answer.
	CodeInvalidAnswer x402.Code = "facilitator_invalid_answer"
	// CodeTimeout: the facilitator did not answer in time.
	CodeTimeout x402.Code = "facilitator_timeout"
)

// MaxRetryAfter bounds how long a facilitator can make a payer wait: its
// Retry-After header is passed on up to this.
const MaxRetryAfter = 60 * time.Second

// Error says why a facilitator gave no answer. What it prints is for the log;
// a payer is told Code and nothing else.
type Error struct {
	// Op is "verify", "settle" or "supported".
	Op string
	// Code is what the payer is told.
	Code x402.Code
	// Status is the HTTP status to answer with: 502 when the facilitator spoke
	// nonsense, 503 when it could not be asked.
	Status int
	// RetryAfter is how long the facilitator asked to be left alone, at most
	// MaxRetryAfter; 0 if it did not say.
	RetryAfter time.Duration
	// Err is what happened, in words for the log. It holds no secret.
	Err error
}

// Error returns the text for the log.
func (e *Error) Error() string {
	return fmt.Sprintf("facilitator %s: %s: %v", e.Op, e.Code, e.Err)
}

// Unwrap returns what happened.
func (e *Error) Unwrap() error { return e.Err }

// unavailable is the Error for a facilitator that was not asked, or was no help.
func unavailable(op string, err error) *Error {
	return &Error{Op: op, Code: CodeUnavailable, Status: http.StatusServiceUnavailable, Err: err}
}

// MovedError is for a facilitator that answers with a redirect, which is not followed:
// whoever can redirect would receive payments and credentials. No payer can cause it.
type MovedError struct {
	Status int
	// To is the address that it names, fit for the log; "" if it names none.
	To string
}

// Error returns the text for the log.
func (e *MovedError) Error() string {
	if e.To == "" {
		return fmt.Sprintf("status %d: it redirects to nowhere", e.Status)
	}
	return fmt.Sprintf("status %d: it redirects to %s, which is not followed; write that address into the config if you trust it", e.Status, e.To)
}

// ErrNotAsked is for a facilitator that was not asked because the request could not be
// written: that says nothing of the facilitator.
var ErrNotAsked = errors.New("the facilitator was not asked")

// errNobody is for a payment that no facilitator in the config can judge.
var errNobody = errors.New("no facilitator for this payment")

// errLeftAlone is for a facilitator whose breaker is open.
var errLeftAlone = errors.New("it gave no answers, and is left alone until it answers a probe")

// errEmpty is for a facilitator that could not pay for a settlement.
var errEmpty = errors.New("its accounts cannot pay the gas of a settlement")

// leftAlone is the Error for a facilitator that is not asked.
func leftAlone(op string, why error, wait time.Duration) *Error {
	e := unavailable(op, why)
	e.RetryAfter = wait
	return e
}

// panicked makes an error of a recovered panic. Guests are written by others,
// and no decision means no: a panic in one must not decide anything.
func panicked(p any) error {
	return fmt.Errorf("panic: %v\n%s", p, debug.Stack())
}
