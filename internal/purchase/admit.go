package purchase

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

func (p *Purchase) limitKey(now time.Time) admission.Key {
	key := admission.Key{Network: p.ask.Site, Trusted: p.isTrusted(now) || p.isKnownWallet(now)}
	if p.signed.proven {
		key.Payer = p.signed.auth.Payer
	}
	return key
}

// triesOf returns the buckets that this purchase takes its try from, and the name there.
func (p *Purchase) triesOf(now time.Time) (*admission.Buckets, string) {
	if p.isTrusted(now) {
		// From here: what he has paid with stands on the chain, and others send it again.
		return p.desk.Settler.Admission.PayerTries, p.ask.Site + " " + p.signed.auth.Payer
	}
	return p.desk.Settler.Admission.NetworkTries, p.ask.Site
}

// mayTry says, before anybody is asked, whether a payment would be looked at.
func (p *Purchase) mayTry(now time.Time) *Refusal {
	if why := p.desk.Settler.Admission.Unsettled.Full(p.limitKey(now)); why != "" {
		return p.limited(noSlot(why))
	}
	if t, name := p.triesOf(now); !t.Left(name, now) {
		return p.limited(tooManyTries())
	}
	if p.signed.unproven && !p.isKnownWallet(now) && (!p.desk.Settler.Admission.Strangers.Left(p.ask.Site, now) || !p.desk.Settler.Admission.AllStrangers.Left("", now)) {
		return p.limited(tooManyStrangers())
	}
	return nil
}

// takeLook takes what it costs to look what became of a payment that fits nothing, or
// was used.
func (p *Purchase) takeLook(now time.Time) *Refusal {
	if p.desk.Settler.Admission.Looks.Take(p.ask.Site, now) == nil {
		return p.limited(tooManyTries())
	}
	return nil
}

// takeTry takes the try that a payment costs before the ledger or a facilitator is
// asked about it. It comes back when the money has moved.
func (p *Purchase) takeTry(now time.Time) *Refusal {
	if p.signed.unproven {
		if refused := p.takeStrangerTry(now); refused != nil {
			return refused
		}
	}
	t, name := p.triesOf(now)
	if p.hold.token = t.Take(name, now); p.hold.token == nil {
		return p.limited(tooManyTries())
	}
	return nil
}

// takeStrangerTry takes what a signature costs that only a facilitator can judge.
func (p *Purchase) takeStrangerTry(now time.Time) *Refusal {
	if p.isKnownWallet(now) {
		if p.desk.Settler.Admission.Strangers.Take(p.walletHere(), now) == nil {
			return p.limited(tooManyStrangers())
		}
		return nil
	}
	if p.desk.Settler.Admission.Strangers.Take(p.ask.Site, now) == nil || p.desk.Settler.Admission.AllStrangers.Take("", now) == nil {
		return p.limited(tooManyStrangers())
	}
	return nil
}

// walletHere names a contract wallet together with the network that it comes from: its
// address alone anybody can write.
func (p *Purchase) walletHere() string { return p.ask.Client + " " + p.signed.auth.Payer }

// isKnownWallet says whether a contract wallet has paid lately from this network.
func (p *Purchase) isKnownWallet(now time.Time) bool {
	return p.signed.unproven && p.desk.Settler.Admission.Trusted.Has(p.walletHere(), now)
}

// limited marks a refusal as a bound's.
func (p *Purchase) limited(refused *Refusal) *Refusal {
	p.result.outcome = metrics.Limited
	return refused
}

// isTrusted says whether the payer has paid lately, and has signed this.
func (p *Purchase) isTrusted(now time.Time) bool {
	return p.signed.proven && p.desk.Settler.Admission.Trusted.Has(p.signed.auth.Payer, now)
}

func tooManyTries() *Refusal {
	return &Refusal{Status: http.StatusTooManyRequests, Code: codeTooManyTries, RetryAfter: 1}
}

func tooManyStrangers() *Refusal {
	return &Refusal{Status: http.StatusServiceUnavailable, Code: codeTooManyStrangers, RetryAfter: 1}
}

// enter takes a slot among the payments that are not yet settled.
func (p *Purchase) enter(now time.Time) *Refusal {
	var why admission.Reason
	if p.hold.slot, why = p.desk.Settler.Admission.Unsettled.Enter(p.limitKey(now)); why != "" {
		return p.limited(noSlot(why))
	}
	return nil
}

// noSlot refuses for want of a slot.
func noSlot(why admission.Reason) *Refusal {
	if why == admission.Busy {
		return &Refusal{Status: http.StatusServiceUnavailable, Code: x402.Code(why), RetryAfter: 2}
	}
	return &Refusal{Status: http.StatusTooManyRequests, Code: x402.Code(why), RetryAfter: 1}
}

// attempt is what the purchase asks of the upstream behind its line.
func (p *Purchase) attempt() admission.Attempt {
	path, _, _ := strings.Cut(p.signed.request.Resource.URL, "?")
	return admission.Attempt{Payer: p.signed.auth.Payer, Path: path, Network: p.ask.Site, Trusted: p.isTrusted(p.desk.Now())}
}

// tabFor names the tab of a payment: its payer's, or its own where nobody knows him.
func (p *Purchase) tabFor(row ledger.Payment) string {
	return cmp.Or(p.signed.auth.Payer, row.Payer, string(row.Key))
}

// customer is what a settlement must know of its payer when it ends, which may be after
// the request.
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

func (p *Purchase) customer() customer {
	c := customer{
		payer: p.signed.auth.Payer, wallet: p.signed.auth.Payer, tab: p.tabFor(p.hold.Payment), ran: p.result.status != 0,
		free: settlement.NothingDue(p.signed.request), doubt: p.hold.Payment.Doubt, since: p.ask.Started, token: p.hold.token, in: p.desk.Settler.Admission, now: p.desk.Now,
	}
	if !p.signed.proven {
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
	case o == facilitator.Unknown && c.ran:
		// Until it turns out to have moved money: whose settlements are reverted has had the
		// upstream work for nothing.
		c.in.AddUncharged(c.tab, admission.CostOfHangUp, c.now())
	case o == facilitator.Unsent && c.ran && s.Unreached:
		c.in.AddOutage(c.tab, c.since, admission.CostOfHangUp, c.now())
	case o == facilitator.Unsent && c.ran:
		c.in.AddUncharged(c.tab, admission.CostOfHangUp, c.now())
	}
}
