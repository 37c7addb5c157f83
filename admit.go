package paywall

import (
	"cmp"
	"net/http"
	"strings"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/internal/settlement"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Who may cost us work; the bounds are in the package admission.

func (p *purchase) limitKey(now time.Time) admission.Key {
	key := admission.Key{Network: p.site, Trusted: p.isTrusted(now) || p.isKnownWallet(now)}
	if p.proven {
		key.Payer = p.auth.Payer
	}
	return key
}

// whose are the tries that a purchase takes.
func (p *purchase) whose(now time.Time) (*admission.Buckets, string) {
	if p.isTrusted(now) {
		// From here: what he has paid with stands on the chain, and others send it again.
		return p.h.shared.admission.PayerTries, p.site + " " + p.auth.Payer
	}
	return p.h.shared.admission.NetworkTries, p.site
}

// mayTry says, before anybody is asked, whether a payment would be looked at.
func (p *purchase) mayTry(now time.Time) *refusal {
	if why := p.h.shared.admission.Unsettled.Full(p.limitKey(now)); why != "" {
		return p.limited(noSlot(why))
	}
	if t, name := p.whose(now); !t.Left(name, now) {
		return p.limited(tooManyTries())
	}
	if p.unproven && !p.isKnownWallet(now) && (!p.h.shared.admission.Strangers.Left(p.site, now) || !p.h.shared.admission.AllStrangers.Left("", now)) {
		return p.limited(tooManyStrangers())
	}
	return nil
}

// takeLook takes what it costs to look what became of a payment that fits nothing, or
// was used.
func (p *purchase) takeLook(now time.Time) *refusal {
	if p.h.shared.admission.Looks.Take(p.site, now) == nil {
		return p.limited(tooManyTries())
	}
	return nil
}

// takeTry takes the try that a payment costs before the ledger or a facilitator is
// asked about it. It comes back when the money has moved.
func (p *purchase) takeTry(now time.Time) *refusal {
	if p.unproven {
		if refused := p.takeStrangerTry(now); refused != nil {
			return refused
		}
	}
	t, name := p.whose(now)
	if p.token = t.Take(name, now); p.token == nil {
		return p.limited(tooManyTries())
	}
	return nil
}

// takeStrangerTry takes what a signature costs that only a facilitator can judge.
func (p *purchase) takeStrangerTry(now time.Time) *refusal {
	if p.isKnownWallet(now) {
		if p.h.shared.admission.Strangers.Take(p.walletHere(), now) == nil {
			return p.limited(tooManyStrangers())
		}
		return nil
	}
	if p.h.shared.admission.Strangers.Take(p.site, now) == nil || p.h.shared.admission.AllStrangers.Take("", now) == nil {
		return p.limited(tooManyStrangers())
	}
	return nil
}

// walletHere names a contract wallet together with the network that it comes from: its
// address alone anybody can write.
func (p *purchase) walletHere() string { return p.client + " " + p.auth.Payer }

// isKnownWallet says whether a contract wallet has paid lately from this network.
func (p *purchase) isKnownWallet(now time.Time) bool {
	return p.unproven && p.h.shared.admission.Trusted.Has(p.walletHere(), now)
}

// limited marks a refusal as a bound's.
func (p *purchase) limited(refused *refusal) *refusal {
	p.outcome = metrics.Limited
	return refused
}

// isTrusted says whether the payer has paid lately, and has signed this.
func (p *purchase) isTrusted(now time.Time) bool {
	return p.proven && p.h.shared.admission.Trusted.Has(p.auth.Payer, now)
}

func tooManyTries() *refusal {
	return &refusal{status: http.StatusTooManyRequests, code: codeTooManyTries, retryAfter: 1}
}

func tooManyStrangers() *refusal {
	return &refusal{status: http.StatusServiceUnavailable, code: codeTooManyStrangers, retryAfter: 1}
}

// enter takes a slot among the payments that are not yet settled.
func (p *purchase) enter(now time.Time) *refusal {
	var why admission.Reason
	if p.slot, why = p.h.shared.admission.Unsettled.Enter(p.limitKey(now)); why != "" {
		return p.limited(noSlot(why))
	}
	return nil
}

// noSlot refuses for want of a slot.
func noSlot(why admission.Reason) *refusal {
	if why == admission.Busy {
		return &refusal{status: http.StatusServiceUnavailable, code: x402.Code(why), retryAfter: 2}
	}
	return &refusal{status: http.StatusTooManyRequests, code: x402.Code(why), retryAfter: 1}
}

// attempt is what the purchase asks of the upstream behind its line.
func (p *purchase) attempt() admission.Attempt {
	path, _, _ := strings.Cut(p.request.Resource.URL, "?")
	return admission.Attempt{Payer: p.auth.Payer, Path: path, Network: p.site, Trusted: p.isTrusted(p.h.now())}
}

// tabFor names the tab of a payment: its payer's, or its own where nobody knows him.
func (p *purchase) tabFor(row ledger.Payment) string {
	return cmp.Or(p.auth.Payer, row.Payer, string(row.Key))
}

// customer is a payer as a settlement leaves its mark on him, which may end when nobody
// waits for it any more.
type customer struct {
	payer  string // "" is nobody
	wallet string // his name as one whose signature is proven, or else the wallet here
	tab    string
	ran    bool      // the upstream has run for him
	free   bool      // nothing is due
	doubt  bool      // it is not the first time that the money is asked for
	since  time.Time // of his request
	token  *admission.Token
	in     *admission.Control
	now    func() time.Time
}

func (p *purchase) customer() customer {
	c := customer{
		payer: p.auth.Payer, wallet: p.auth.Payer, tab: p.tabFor(p.held.Payment), ran: p.status != 0,
		free: settlement.NothingDue(p.request), doubt: p.held.Payment.Doubt, since: p.started, token: p.token, in: p.h.shared.admission, now: p.h.now,
	}
	if !p.proven {
		c.wallet = p.walletHere()
	}
	return c
}

// remember learns from a settlement how the payer fares. A refusal after doubt
// proves nothing.
func (c customer) remember(s facilitator.Settlement) {
	switch o := s.Outcome; {
	case o == facilitator.Settled && !c.free:
		c.token.Refund()
		c.in.Charged(c.payer, c.now())
		c.in.Trusted.Add(c.wallet, c.now())
	case o == facilitator.Refused && !c.doubt:
		c.in.Trusted.Remove(c.payer)
		if c.ran {
			c.in.Distrusted.Add(c.payer, c.now())
		}
	case o == facilitator.Unsent && c.ran && s.Unreached:
		c.in.AddOutage(c.tab, c.since, admission.CostOfHangUp, c.now())
	case o == facilitator.Unsent && c.ran:
		c.in.AddUncharged(c.tab, admission.CostOfHangUp, c.now())
	}
}
