package purchase

import (
	"errors"
	"net/http"

	"github.com/holiman/uint256"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/internal/offer"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// A price of the scheme upto is a maximum, which the payer signs. What is
// charged the upstream says when its status line is there, and that is what the
// facilitator is asked for, what the ledger holds and what every repeat repeats.

// meter takes the upstream's word, its Settlement-Overrides header, for what is
// to be charged. No word means the maximum. A word that makes no sense costs
// the payer nothing: the upstream's author has to hear of it.
func (p *Purchase) meter(said []string) *Refusal {
	if p.signed.request.Requirement.Scheme != x402.SchemeUpto {
		return nil
	}
	due, err := charge(said, p.signed.request.Requirement.Amount, p.signed.option)
	if err != nil {
		p.result.outcome = metrics.Uncharged
		p.desk.Logger.Error("the upstream's Settlement-Overrides header cannot be used; its answer is withheld, and nothing is charged",
			zap.String("payment", p.hold.Payment.ID), zap.Error(err))
		return &Refusal{Status: http.StatusBadGateway, Code: codeUsage, cause: err}
	}
	p.signed.due = due
	return nil
}

// charge is what an upstream's word charges of at most so much, in atomic units.
func charge(said []string, most string, o *offer.Option) (string, error) {
	switch len(said) {
	case 0:
		return most, nil
	case 1:
		return x402.Usage{Maximum: most, Decimals: o.Decimals, Dollars: o.PegUSD}.Charge(said[0])
	default:
		return "", errors.New("there are two")
	}
}

// sale is what an upto purchase was: what its payer signed, and what was charged.
type sale struct {
	network, asset string
	most           string // signed, in atomic units
	charged        uint256.Int
}

// soldFor reads what an upto purchase was; nil for others, and where nobody can say.
func soldFor(row ledger.Payment) *sale {
	stored, ok := storedRequest(row)
	if row.Scheme != x402.SchemeUpto || !ok {
		return nil
	}
	signed, err := stored.Payment.Authorization(stored.Requirement)
	if err != nil {
		return nil
	}
	s := &sale{network: row.Network, asset: row.Asset, most: signed.Value.Dec()}
	if err := s.charged.SetFromDecimal(row.Amount); err != nil {
		return nil
	}
	return s
}

// usedMore says whether an upstream that is asked again for an upto purchase would
// charge more for its answer than was charged. What it says, or does not, means the
// same as at the first time, whoever asks now, and in whatever token.
func (p *Purchase) usedMore(said []string) bool {
	if p.hold.Payment.Scheme != x402.SchemeUpto {
		return false
	}
	if p.result.sold == nil {
		return true
	}
	token := p.offered.Price.Token(p.result.sold.network, p.result.sold.asset)
	if token == nil {
		return true // nobody knows any more what a dollar of it is
	}
	due, err := charge(said, p.result.sold.most, token)
	if err != nil {
		return true
	}
	now, err := uint256.FromDecimal(due)
	return err != nil || now.Gt(&p.result.sold.charged)
}

// nothingCharged says whether the upstream has charged nothing of an upto payment:
// then nothing is owed.
func nothingCharged(row ledger.Payment) bool {
	return row.Scheme == x402.SchemeUpto && row.Amount == "0"
}

// chargeUsage makes what is due the amount that is settled. Whoever settles an
// upto payment before the upstream has spoken would charge the maximum.
func (p *Purchase) chargeUsage() *Refusal {
	if p.signed.request.Requirement.Scheme != x402.SchemeUpto {
		return nil
	}
	if p.signed.due == "" {
		p.result.outcome = metrics.Rejected
		return refuseAnew(codeUptoFirst, errors.New("an upto payment was to be settled before the upstream answered"))
	}
	p.signed.request.Requirement.Amount = p.signed.due
	return nil
}
