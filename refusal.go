package paywall

import (
	"errors"
	"net/http"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/internal/offer"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Codes of refusals that are the gate's own. They are stable: payers' software
// may act on them.
const (
	codeUndecided            x402.Code = "price_undecided"
	codeRefused              x402.Code = "not_for_sale"
	codeMethodNotAllowed     x402.Code = "method_not_allowed"
	codeAmbiguousPath                  = x402.CodeAmbiguousPath
	codeChargedTwice         x402.Code = "priced_twice"
	codeNoFacilitator        x402.Code = "no_facilitator"
	codeTooEarly             x402.Code = "too_early"
	codeLedger               x402.Code = "ledger_unavailable"
	codeBoughtElse           x402.Code = "payment_bought_something_else"
	codeOtherCredentials     x402.Code = "other_credentials"
	codeIdentifierTaken      x402.Code = "payment_identifier_conflict"
	codeTooManyStrangers     x402.Code = "too_many_contract_wallets"
	codeTooManyTries         x402.Code = "too_many_bad_payments"
	codeBodyTooSlow          x402.Code = "request_body_too_slow"
	codeBodyTooLarge         x402.Code = "request_body_too_large"
	codeUpstreamDown         x402.Code = "upstream_unavailable"
	codeUpstreamWantsPayment x402.Code = "upstream_wants_payment"
	codeUpstreamFailed       x402.Code = "upstream_failed"
	codeClientGone           x402.Code = "client_gone"
	codeNoAnswer             x402.Code = "upstream_gave_no_answer"
	codeUsage                x402.Code = "upstream_usage_invalid"
	codeUptoFirst            x402.Code = "upto_cannot_be_settled_first"
	codeUsedMore             x402.Code = "usage_above_charge"
	codeUpstreamSlow         x402.Code = "upstream_too_slow"
)

// refusal is an answer of the gate instead of the goods.
type refusal struct {
	status     int
	code       x402.Code
	receipt    *x402.Receipt // nil: none
	retryAfter int           // seconds; 0: none
	allow      []string      // for 405
	cause      error         // for the log, never for the payer
}

// refuseAnew refuses a payment in a way that makes signing a new one safe.
func refuseAnew(code x402.Code, cause error) *refusal {
	return &refusal{status: http.StatusPaymentRequired, code: code, cause: cause}
}

// unavailable refuses because nobody could tell whether a payment is good.
func unavailable(err error) *refusal {
	r := &refusal{status: http.StatusServiceUnavailable, code: x402.CodeFacilitatorUnavailable, retryAfter: 10, cause: err}
	if e, ok := errors.AsType[*facilitator.Error](err); ok {
		if e.Status == http.StatusBadGateway {
			r.status = e.Status
		}
		if e.Code != "" {
			r.code = e.Code
		}
		if e.RetryAfter > 0 {
			r.retryAfter = seconds(e.RetryAfter)
		}
	}
	return r
}

// detail makes a facilitator's words an error for the log.
func detail(s string) error {
	if s == "" {
		return nil
	}
	return errors.New(s)
}

// codeOf is the machine code of an error of the x402 package.
func codeOf(err error) x402.Code {
	if e, ok := errors.AsType[*x402.Error](err); ok {
		return e.Code
	}
	return x402.CodePaymentMalformed
}

// end ends a purchase with a refusal, and records why for the operator. It returns what
// the payer is told, and for a 402 what he is offered.
func (p *purchase) end(f refusal) (told refusal, shown *offer.Offer) {
	if f.status == http.StatusPaymentRequired {
		var wait time.Duration
		var down error
		if shown, wait, down = p.offered.price.Offers(p.offered.first).Shown(p.offered.current, p.desk.Now()); down != nil {
			// Nobody is asked to sign what nobody could settle.
			closed := outage(wait)
			closed.receipt, closed.cause, f = f.receipt, f.cause, closed
		}
	}
	if p.result.outcome == "" {
		p.result.outcome = metrics.Rejected
		if p.result.settled {
			p.result.outcome = metrics.Undelivered // it is owed
		}
	}
	p.result.refused = &f
	p.close() // before a payer who reads slowly, or sends slowly, is written to
	if f.receipt != nil && p.signed.payment.Version == x402.V1 {
		v1 := f.receipt.V1()
		f.receipt = &v1
	}
	if shown != nil {
		p.desk.Offered.Remember(p.offered.resource, shown, p.desk.Now())
	}
	return f, shown
}

// outage refuses to ask for money that nobody could take.
func outage(wait time.Duration) refusal {
	return refusal{
		status: http.StatusServiceUnavailable, code: x402.CodeFacilitatorUnavailable,
		retryAfter: seconds(wait),
	}
}

func clientGone() *refusal { return &refusal{status: statusClientGone, code: codeClientGone} }

// tooLate refuses a payment for which the upstream took so long that it cannot be
// settled any more. Nothing has moved.
func tooLate() *refusal {
	return &refusal{status: http.StatusGatewayTimeout, code: codeUpstreamSlow}
}

// seconds rounds up.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// statusClientGone is what Caddy logs for a client that has left.
const statusClientGone = admission.ClientGone
