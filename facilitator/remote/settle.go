package remote

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Settle implements facilitator.Facilitator.
func (f *Facilitator) Settle(ctx context.Context, r facilitator.Request) facilitator.Settlement {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	body, version, err := f.body(r)
	if err != nil {
		s := notSettled(r, facilitator.Unsent, facilitator.CodeUnavailable, err)
		s.NotAsked = true
		return s
	}
	// The body is read once at most: net/http must not send a settle twice.
	a, err := f.call(ctx, "settle", newOnceBody(body), len(body), maxAnswer)
	if err != nil {
		if failed, ok := errors.AsType[*callError](err); ok && failed.unsent {
			s := notSettled(r, facilitator.Unsent, failure("settle", err).Code, err)
			s.Unreached = true
			return s
		}
		return notSettled(r, facilitator.Unknown, x402.CodeSettlementPending, err)
	}
	return f.confirmed(ctx, r, f.judgeSettle(a, r, version))
}

func notSettled(r facilitator.Request, o facilitator.Outcome, c x402.Code, err error) facilitator.Settlement {
	return facilitator.Settlement{
		Outcome: o,
		Network: r.Requirement.Network,
		Reason:  string(c),
		Detail:  err.Error(),
	}
}

// judgeSettle decides what an answer to /settle means. There are three
// meanings, and the middle one is the default:
//
//   - Settled: success under a success status, a literal true, a transaction
//     that can be one, on the network that was asked for, and nothing that
//     contradicts.
//   - Unknown: everything else, since /settle was called.
//   - Refused: a literal false without a transaction, for a reason after which
//     nothing can have moved.
func (f *Facilitator) judgeSettle(a answer, r facilitator.Request, version int) facilitator.Settlement {
	unknown := notSettled(r, facilitator.Unknown, x402.CodeSettlementPending, f.statusError("settle", a).Err)
	if a.redirect() {
		return unknown
	}
	m, err := parse(a.body)
	if err != nil {
		unknown.Detail = f.detail(a) + "; " + err.Error()
		return unknown
	}
	s := f.readSettle(m)
	unknown.Detail = f.detail(a)
	// A node that has seen the transaction will know this id, whatever else is
	// wrong with the answer.
	if anyTransaction.MatchString(s.transaction) {
		unknown.Transaction = s.transaction
	}
	switch {
	case s.err != nil:
		return doubt(unknown, s.err.Error())
	case !s.decided:
		return doubt(unknown, "success is not there, or neither true nor false")
	case !samePayer(r.Requirement.Network, r.Payer, s.payer):
		return doubt(unknown, "payer is not who signed")
	case s.success:
		return s.settled(a, r, version, unknown)
	default:
		return s.notSuccessful(r, version, unknown)
	}
}

// settleAnswer is an answer to /settle, read.
type settleAnswer struct {
	success, decided                             bool
	transaction, network, payer, reason, message string
	amount                                       string
	raw                                          members
	err                                          error // a member that matters is of the wrong type
}

func (f *Facilitator) readSettle(m members) settleAnswer {
	s := settleAnswer{raw: m, message: lenientText(m.ErrorMessage)}
	s.success, s.decided = boolean(m.Success)
	var errs [4]error
	s.transaction, errs[0] = text(m.Transaction)
	s.network, errs[1] = text(m.Network)
	s.payer, errs[2] = text(m.Payer)
	s.reason, errs[3] = text(m.ErrorReason)
	for i, name := range []string{"transaction", "network", "payer", "errorReason"} {
		if errs[i] != nil {
			s.err = fmt.Errorf("%s: %w", name, errs[i])
		}
	}
	if amount, err := text(m.Amount); err == nil && atomicAmount.MatchString(amount) {
		s.amount = amount
	}
	return s
}

// atomicAmount is an amount as networks write it: digits, or on the XRP ledger a
// decimal fraction.
var atomicAmount = regexp.MustCompile(`^[0-9]{1,78}(\.[0-9]{1,40})?$`)

// settled decides about success: true.
func (s settleAnswer) settled(a answer, r facilitator.Request, version int, unknown facilitator.Settlement) facilitator.Settlement {
	// Nothing of an "upto" payment was used: there is nothing to send.
	nothing := s.transaction == "" && r.Requirement.Scheme == x402.SchemeUpto && r.Requirement.Amount == "0"
	switch {
	case !a.ok():
		return doubt(unknown, "success is true, the status is not")
	case s.reason != "":
		return doubt(unknown, "success is true, and yet there is an errorReason")
	case !sameNetwork(r.Requirement.Network, s.network, version):
		return doubt(unknown, "success on another network")
	case !nothing && !plausible(r.Requirement.Network, s.transaction):
		return doubt(unknown, "success without the id of a transaction")
	}
	return facilitator.Settlement{
		Outcome:     facilitator.Settled,
		Transaction: s.transaction,
		Network:     r.Requirement.Network,
		Payer:       payerOf(r, s.payer),
		Amount:      s.amount,
		Detail:      unknown.Detail,
		Extra:       object(s.raw.Extra),
		Extensions:  object(s.raw.Extensions),
	}
}

// notSuccessful decides about success: false.
func (s settleAnswer) notSuccessful(r facilitator.Request, version int, unknown facilitator.Settlement) facilitator.Settlement {
	switch {
	case s.transaction != "":
		return doubt(unknown, "refused, and yet there is a transaction")
	case s.network != "" && !sameNetwork(r.Requirement.Network, s.network, version):
		return doubt(unknown, "refused on another network")
	case !nothingMoved(s.reason, s.message):
		return unknown
	}
	return facilitator.Settlement{
		Outcome:    facilitator.Refused,
		Network:    r.Requirement.Network,
		Payer:      payerOf(r, s.payer),
		Reason:     string(x402.SafeCode(s.reason, x402.CodeSettlementFailed)),
		Detail:     unknown.Detail,
		Extra:      object(s.raw.Extra),
		Extensions: object(s.raw.Extensions),
	}
}

// doubt adds to an unknown settlement why it is one.
func doubt(s facilitator.Settlement, why string) facilitator.Settlement {
	s.Detail += "; " + why
	return s
}
