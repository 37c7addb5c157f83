package purchase

import (
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/internal/offer"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Codes of refusals that are the gate's own. They are stable: payers' software
// may act on them.
const (
	CodeUndecided            x402.Code = "price_undecided"
	CodeRefused              x402.Code = "not_for_sale"
	CodeMethodNotAllowed     x402.Code = "method_not_allowed"
	CodeAmbiguousPath                  = x402.CodeAmbiguousPath
	CodeChargedTwice         x402.Code = "priced_twice"
	CodeNoFacilitator        x402.Code = "no_facilitator"
	CodeTooEarly             x402.Code = "too_early"
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
	codeClockOff             x402.Code = "server_clock_off"
)

// Refusal is an answer of the gate instead of the goods.
type Refusal struct {
	Status     int
	Code       x402.Code
	Receipt    *x402.Receipt // nil: none
	RetryAfter int           // seconds; 0: none
	Allow      []string      // for 405
	says       string        // see Words; "": what its code says
	cause      error         // for the log, never for the payer
}

// refuseAnew refuses a payment in a way that makes signing a new one safe.
func refuseAnew(code x402.Code, cause error) *Refusal {
	return &Refusal{Status: http.StatusPaymentRequired, Code: code, cause: cause}
}

// unavailable refuses because nobody could tell whether a payment is good.
func unavailable(err error) *Refusal {
	r := &Refusal{Status: http.StatusServiceUnavailable, Code: x402.CodeFacilitatorUnavailable, RetryAfter: 10, cause: err}
	if e, ok := errors.AsType[*facilitator.Error](err); ok {
		if e.Status == http.StatusBadGateway {
			r.Status = e.Status
		}
		if e.Code != "" {
			r.Code = e.Code
		}
		if e.RetryAfter > 0 {
			r.RetryAfter = seconds(e.RetryAfter)
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

// CodeOf is the machine code of an error of the x402 package.
func CodeOf(err error) x402.Code {
	if e, ok := errors.AsType[*x402.Error](err); ok {
		return e.Code
	}
	return x402.CodePaymentMalformed
}

// Refuse ends a purchase with a refusal, and records why for the operator. It returns what
// the payer is told, and for a 402 what he is asked for.
func (p *Purchase) Refuse(f Refusal) (told Refusal, asked *x402.Template) {
	var shown *offer.Offer
	if f.Status == http.StatusPaymentRequired {
		var closed *Refusal
		if shown, closed = p.desk.Shown(p.offered, p.desk.Now()); closed != nil {
			closed.Receipt, closed.cause, f = f.Receipt, f.cause, *closed
		}
	}
	if p.result.outcome == "" {
		p.result.outcome = metrics.Rejected
		if p.result.settled {
			p.result.outcome = metrics.Undelivered // it is owed
		}
	}
	p.result.refused = &f
	p.Close() // before a payer who reads slowly, or sends slowly, is written to
	if shown != nil {
		asked = p.desk.Challenge(p.offered, shown, p.desk.Now())
	}
	return f, asked
}

// closed refuses to ask for money that nobody could take, or remember.
func closed(code x402.Code, wait time.Duration, cause error) *Refusal {
	return &Refusal{Status: http.StatusServiceUnavailable, Code: code, RetryAfter: seconds(wait), cause: cause}
}

// Cause is why, for the log.
func (f *Refusal) Cause() error { return f.cause }

// clockOff refuses a payment whose times fit by the clocks of others, and not by ours.
func clockOff(cause error) *Refusal {
	return &Refusal{Status: http.StatusServiceUnavailable, Code: codeClockOff, RetryAfter: 60, cause: cause}
}

// clientGone is for a client that has left: nobody reads it.
func clientGone() *Refusal { return &Refusal{Status: admission.ClientGone, Code: codeClientGone} }

// tooLate refuses a payment for which the upstream took so long that it cannot be
// settled any more. Nothing has moved.
func tooLate() *Refusal {
	return &Refusal{Status: http.StatusGatewayTimeout, Code: codeUpstreamSlow}
}

// seconds rounds up.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// bodyTooSlow refuses a request whose body takes too long to come.
func bodyTooSlow() *Refusal {
	return &Refusal{Status: http.StatusRequestTimeout, Code: codeBodyTooSlow}
}

// identifierTaken refuses a payment-identifier that names another purchase.
func identifierTaken() *Refusal {
	return &Refusal{Status: http.StatusConflict, Code: codeIdentifierTaken}
}

// pending refuses while it is not known what became of a settlement. The payer comes again
// after so many seconds.
func (p *Purchase) pending(row ledger.Payment, after int) *Refusal {
	return &Refusal{Status: http.StatusServiceUnavailable, Code: x402.CodeSettlementPending, RetryAfter: after, Receipt: p.pendingReceipt(row)}
}

// unrecorded refuses while the ledger does not take what became of the payment: the payer
// gets it once it is recorded.
func (p *Purchase) unrecorded() *Refusal {
	p.result.outcome = metrics.Unrecorded
	return &Refusal{Status: http.StatusServiceUnavailable, Code: codeLedger, RetryAfter: 5, Receipt: p.pendingReceipt(p.hold.Payment)}
}

// alreadyUsed refuses a payment whose goods have arrived.
func (p *Purchase) alreadyUsed(row ledger.Payment) *Refusal {
	return &Refusal{Status: http.StatusPaymentRequired, Code: x402.CodePaymentAlreadyUsed, Receipt: p.receipt(row)}
}

// mayCostMore refuses an upto purchase whose upstream, asked again, would charge more than
// was charged.
func (p *Purchase) mayCostMore(row ledger.Payment) *Refusal {
	return &Refusal{Status: http.StatusConflict, Code: codeUsedMore, Receipt: p.receipt(row)}
}

// boughtElse refuses what was paid for something else.
func boughtElse() *Refusal {
	return &Refusal{Status: http.StatusConflict, Code: codeBoughtElse}
}

// unconfirmed refuses what was paid for and cannot be given once more.
func (p *Purchase) unconfirmed(row ledger.Payment) *Refusal {
	return &Refusal{Status: http.StatusConflict, Code: x402.CodeDeliveryUnconfirmed, Receipt: p.receipt(row)}
}

// ledgerFailed answers when the ledger cannot: closed, and not with a 402.
func (p *Purchase) ledgerFailed(doing string, err error) *Refusal {
	p.desk.Logger.Error("ledger failed", zap.String("doing", doing), zap.String("payment", p.hold.Payment.ID), zap.Error(err))
	return &Refusal{Status: http.StatusServiceUnavailable, Code: codeLedger, RetryAfter: 5}
}
