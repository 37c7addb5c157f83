package paywall

import (
	"errors"
	"net/http"
	"strings"

	"github.com/holiman/uint256"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// A price of the scheme upto is a maximum, which the payer signs. What is
// charged the upstream says when its status line is there, and that is what the
// facilitator is asked for, what the ledger holds and what every repeat repeats.

// meter takes the upstream's word, its Settlement-Overrides header, for what is
// to be charged. No word means the maximum. A word that makes no sense costs
// the payer nothing: the upstream's author has to hear of it.
func (p *purchase) meter(said []string) *refusal {
	if p.request.Requirement.Scheme != schemeUpto {
		return nil
	}
	due, err := p.charge(said, p.request.Requirement.Amount)
	if err != nil {
		p.outcome = "uncharged"
		p.h.logger.Error("the upstream's Settlement-Overrides header cannot be used; its answer is withheld, and nothing is charged",
			zap.String("payment", p.held.Payment.ID), zap.Error(err))
		return &refusal{status: http.StatusBadGateway, code: codeUsage, cause: err}
	}
	p.due = due
	return nil
}

// charge is what an upstream's word charges of at most so much, in atomic units.
func (p *purchase) charge(said []string, most string) (string, error) {
	switch len(said) {
	case 0:
		return most, nil
	case 1:
		return x402.Usage{Maximum: most, Decimals: p.option.decimals, Dollars: p.option.pegUSD}.Charge(said[0])
	default:
		return "", errors.New("there are two")
	}
}

// usedMore says whether an upstream that is asked again for an upto purchase would
// charge more for its answer than was charged. What it says, or does not, means the
// same as at the first time.
func (p *purchase) usedMore(said []string) bool {
	row := p.held.Payment
	if row.Scheme != schemeUpto {
		return false
	}
	if p.option == nil || p.request.Requirement.Scheme != schemeUpto {
		return true // what the maximum was, nobody can say
	}
	due, err := p.charge(said, p.auth.Value.Dec()) // what was signed; the request may say what is due
	if err != nil {
		return true
	}
	now, err := uint256.FromDecimal(due)
	if err != nil {
		return true
	}
	charged, err := uint256.FromDecimal(row.Amount)
	return err != nil || now.Gt(charged)
}

// nothingCharged says whether the upstream has charged nothing of an upto payment:
// then nothing is owed.
func nothingCharged(row ledger.Payment) bool { return row.Scheme == schemeUpto && row.Amount == "0" }

// chargeUsage makes what is due the amount that is settled. Whoever settles an
// upto payment before the upstream has spoken would charge the maximum.
func (p *purchase) chargeUsage() *refusal {
	if p.request.Requirement.Scheme != schemeUpto {
		return nil
	}
	if p.due == "" {
		p.outcome = "rejected"
		return refuseAnew(codeUptoFirst, errors.New("an upto payment was to be settled before the upstream answered"))
	}
	p.request.Requirement.Amount = p.due
	return nil
}

// nothingDue says whether there is nothing to settle: the upstream charges
// nothing of an upto payment. The authorization stays unused on the chain, and
// the ledger keeps it from buying twice.
func nothingDue(r facilitator.Request) bool {
	return r.Requirement.Scheme == schemeUpto && r.Requirement.Amount == "0"
}

// chargedOtherwise is what a facilitator says it has charged of an upto payment,
// where that is not what it was asked to: the ledger tells what has happened.
func chargedOtherwise(row ledger.Payment, s facilitator.Settlement) string {
	if row.Scheme != schemeUpto || s.Amount == row.Amount || s.Amount == "" || strings.Trim(s.Amount, "0123456789") != "" {
		return ""
	}
	return s.Amount
}
