package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Verify implements facilitator.Facilitator.
func (f *Facilitator) Verify(ctx context.Context, r facilitator.Request) (facilitator.Verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(f.Timeout))
	defer cancel()
	body, _, err := f.body(r)
	if err != nil {
		return facilitator.Verdict{}, failure("verify", fmt.Errorf("%w: %w", facilitator.ErrNotAsked, err))
	}
	a, err := f.call(ctx, "verify", bytes.NewReader(body), len(body), maxAnswer)
	if err != nil {
		return facilitator.Verdict{}, failure("verify", err)
	}
	return f.judgeVerify(a, r)
}

// judgeVerify decides what an answer to /verify means. Yes needs a success
// status, a body that is JSON from the first byte to the last, a literal true,
// and nothing that contradicts it. No needs a literal false, under any status:
// some facilitators answer a no with 400, 412 or 500. All else is no answer, and
// the payment is not accepted.
func (f *Facilitator) judgeVerify(a answer, r facilitator.Request) (facilitator.Verdict, error) {
	if a.redirect() {
		return facilitator.Verdict{}, f.statusError("verify", a)
	}
	m, err := parse(a.body)
	valid, decided := boolean(m.IsValid)
	if err != nil || !decided {
		if !a.ok() {
			return facilitator.Verdict{}, f.statusError("verify", a)
		}
		if err == nil {
			err = errors.New("isValid is not there, or neither true nor false")
		}
		return facilitator.Verdict{}, f.nonsense("verify", a, err)
	}
	reason, reasonErr := text(m.InvalidReason)
	payer, payerErr := text(m.Payer)
	if !valid {
		return facilitator.Verdict{
			Reason: string(x402.SafeCode(reason, x402.CodePaymentInvalid)),
			Detail: f.detail(a),
		}, nil
	}
	switch {
	case !a.ok():
		return facilitator.Verdict{}, f.statusError("verify", a)
	case reasonErr != nil || reason != "":
		return facilitator.Verdict{}, f.nonsense("verify", a, errors.New("isValid is true, and yet there is an invalidReason"))
	case payerErr != nil:
		return facilitator.Verdict{}, f.nonsense("verify", a, fmt.Errorf("payer: %w", payerErr))
	case !samePayer(r.Requirement.Network, r.Payer, payer):
		return facilitator.Verdict{}, f.nonsense("verify", a, errors.New("payer is not who signed"))
	}
	return facilitator.Verdict{Valid: true, Payer: payerOf(r, payer)}, nil
}

// failure is the Error for a call without an answer.
func failure(op string, err error) *facilitator.Error {
	e := &facilitator.Error{Op: op, Code: facilitator.CodeUnavailable, Status: http.StatusServiceUnavailable, Err: err}
	var slow net.Error
	if errors.As(err, &slow) && slow.Timeout() {
		e.Code = facilitator.CodeTimeout
	}
	return e
}

// nonsense is the Error for an answer that is none.
func (f *Facilitator) nonsense(op string, a answer, err error) *facilitator.Error {
	return &facilitator.Error{
		Op: op, Code: facilitator.CodeInvalidAnswer, Status: http.StatusBadGateway,
		Err: fmt.Errorf("%s; %w", f.detail(a), err),
	}
}

// statusError is the Error for an answer of which only the status says
// something.
func (f *Facilitator) statusError(op string, a answer) *facilitator.Error {
	e := &facilitator.Error{
		Op: op, Code: facilitator.CodeUnavailable, Status: http.StatusServiceUnavailable,
		RetryAfter: a.retryAfter, Err: errors.New(f.detail(a)),
	}
	switch {
	case a.redirect():
		e.Code, e.Status = facilitator.CodeInvalidAnswer, http.StatusBadGateway
		e.Err = &facilitator.MovedError{Status: a.status, To: a.to}
	case a.status == http.StatusUnauthorized || a.status == http.StatusForbidden:
		e.Err = fmt.Errorf("%w; the facilitator does not accept our credentials, or does not serve us: check auth", e.Err)
	case a.status == http.StatusRequestTimeout || a.status == http.StatusGatewayTimeout:
		e.Code = facilitator.CodeTimeout
	case a.status == http.StatusTooManyRequests || a.status >= 500:
	default:
		e.Code, e.Status = facilitator.CodeInvalidAnswer, http.StatusBadGateway
	}
	return e
}
