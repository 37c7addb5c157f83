// Package purchase is one payment for one request: what it pays for, whose it is, what is
// owed for it, when its money moves, and how the upstream runs for it. It refuses with
// codes, and writes no answer of its own.
package purchase

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
	"github.com/caddy-paywall/caddy-paywall/internal/dialect"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/internal/offer"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Purchase is one payment for one request, from the payment to the goods. One goroutine
// uses it, but for the settlement, which outlives a payer who does not wait.
type Purchase struct {
	desk    *Desk
	ask     Ask
	offered Offered
	signed  signed
	hold    hold
	result  result
}

// Ask is what was asked for. It does not change.
type Ask struct {
	Method string // with the methods and paths that headers and query name
	Acts   bool   // it may have effects
	Client string // the network it comes from
	Site   string // the larger one, for the bounds
	Body   *delivery.Body
	Upload *delivery.Upload // the same body, bounded while nothing is paid
	// ResourceURL is the URL of the goods as the payer knows it.
	ResourceURL string
	Payer       context.Context // ends when the payer leaves
	// Started is when the request came.
	Started time.Time
}

// Offered is what the request costs.
type Offered struct {
	Price   *offer.Price
	Line    *Line
	First   bool // settle before the upstream runs
	Current *offer.Offer
	// Resource is what the offer is for; see offer.History.
	Resource uint64
}

// signed is what the payer signed, and what it means.
type signed struct {
	payment  *x402.Payment
	said     dialect.Dialect     // in which it came, and its receipt goes out
	request  facilitator.Request // to settle it
	settlers []facilitator.Named
	option   *offer.Option // that was chosen
	auth     authorization
	// due is what an upto payment is charged, once the upstream has said so.
	due string
	// identifier is the payer's own name for the purchase, or "".
	identifier string
	// unproven: the signature is not the payer's own. A contract wallet may sign
	// so, and only a facilitator can tell.
	unproven bool
	// proven: the signature is the payer's own.
	proven bool
	// mayBeKnown: it fits nothing, and its key is not known yet.
	mayBeKnown bool
}

// result is what has become of the purchase so far.
type result struct {
	heardBefore bool                   // the verdict on the payment is some seconds old
	redeemed    bool                   // it was paid earlier, and is owed
	settled     bool                   // the money has moved, and the claim says so
	about       *ledger.Payment        // another payment that the answer is about, or nil
	sold        *sale                  // what an upto purchase was that is fetched
	mustBe      string                 // the digest that the body must turn out to have, or ""
	status      int                    // what the upstream answered
	ended       int                    // 1 if the payer ended an answer himself
	excused     bool                   // the ledger failed: what the upstream has done is nobody's debt
	arrived     bool                   // the payer has the goods
	missed      ledger.Change          // what the ledger could not be told of the run
	answer      []byte                 // a copy of what did not arrive
	reason      string                 // for the ledger
	outcome     metrics.Outcome        // for log and metrics; "" while undecided
	refused     *Refusal               // what the payer got instead of goods
	settlement  facilitator.Settlement // what the facilitator added for the receipt
}

// Open begins a purchase. Its Close must be called, whatever comes of it.
func (d *Desk) Open(a Ask, o Offered, payment *x402.Payment, said dialect.Dialect) *Purchase {
	return &Purchase{desk: d, ask: a, offered: o, signed: signed{payment: payment, said: said}}
}

// match finds what the payment pays for, and checks all that can be checked
// without asking anybody. A payment that does not fit is not yet refused: it
// may have fitted, and moved money, a minute ago.
func (p *Purchase) match(now time.Time) (misfit *Refusal) {
	t := p.offered.Price.Offers(p.offered.First)
	p.signed.request = facilitator.Request{
		Payment:  p.signed.payment,
		From:     p.ask.Site,
		Resource: x402.Resource{URL: p.ask.ResourceURL, Description: t.Description, MimeType: t.MimeType},
	}
	found, err := p.matches(now)
	if len(found) == 0 {
		if m, ok := t.Quoted(p.ask.Payer, p.desk.Quotes, p.signed.payment, p.offered.Line.ID, now); ok {
			found = append(found, m)
		}
	}
	for _, f := range found {
		misfit = p.fit(f, now)
		if misfit == nil {
			break
		}
	}
	identifier, unnamed := p.signed.payment.Identifier()
	p.signed.identifier = identifier
	if len(found) == 0 {
		p.signed.mayBeKnown = true
		return refuseAnew(CodeOf(err), err)
	}
	if misfit != nil {
		return misfit
	}
	if err := x402.CheckExtensions(p.offered.Current.Extensions, p.signed.payment.Extensions); err != nil {
		return refuseAnew(CodeOf(err), err)
	}
	if unnamed != nil {
		return refuseAnew(CodeOf(unnamed), unnamed)
	}
	p.prove()
	p.signed.request.Unproven = p.signed.unproven
	return nil
}

// matches finds what the payment pays for, of what this line asks for and has asked for
// lately. The price may have been read by a method that settles in the other order than
// this request, as agents and browsers do by a GET before a POST or an upgrade. Its terms
// differ in nothing that anybody signs, and which comes first is decided by this request
// alone, whatever the payer says of it.
func (p *Purchase) matches(now time.Time) (found []offer.Match, err error) {
	own, otherwise := p.matchesSettled(p.offered.First, now)
	names := bytes.Contains(p.signed.payment.Accepted, []byte("paymentFlow"))
	if p.offered.Price.Upto || len(own) > 0 && p.signed.payment.Version == x402.V2 && (p.offered.First || !names) {
		return own, otherwise // upto is never settled first
	}
	other, _ := p.matchesSettled(!p.offered.First, now)
	if names && !p.offered.First {
		// What was accepted has all that is asked for here, and says more. A facilitator may want
		// to see just that.
		return append(other, own...), otherwise
	}
	return append(own, other...), otherwise
}

// matchesSettled finds what the payment pays for among the offers for one order of settling.
func (p *Purchase) matchesSettled(first bool, now time.Time) ([]offer.Match, error) {
	current, resource := p.offered.Current, p.offered.Resource
	if first != p.offered.First {
		var err error
		if current, err = p.offered.Price.Offers(first).Current(); err != nil {
			return nil, err
		}
		resource = offer.Otherwise(resource)
	}
	return p.desk.History.Matches(p.signed.payment, current, resource, p.desk.Settler.Facilitators, now)
}

// fit reads what was signed as an authorization for one requirement.
func (p *Purchase) fit(f offer.Match, now time.Time) (misfit *Refusal) {
	p.signed.settlers, p.signed.request.Requirement, p.signed.option = f.Settlers, f.Requirement, f.Option
	var err error
	if p.signed.auth, err = readAuthorization(p.signed.payment, f.Requirement, p.offered.First); err == nil {
		err = p.signed.auth.check(f.Requirement, now)
	}
	if p.signed.auth.Kind != x402.KindSolana { // there a facilitator may name a wallet for which another key signs
		p.signed.request.Payer = p.signed.auth.Payer
	}
	if err != nil {
		if ahead := p.desk.Settler.Facilitators.ClockAhead(); ahead != 0 && p.signed.auth.check(f.Requirement, now.Add(ahead)) == nil {
			return clockOff(err) // ours, and not the payer's fault
		}
		return refuseAnew(CodeOf(err), err)
	}
	return nil
}

// Prepare verifies a new payment and, where that comes first, settles it.
func (p *Purchase) Prepare(r *http.Request) *Refusal {
	switch {
	case p.result.settled: // bought earlier, not delivered
		return p.enterOrder(r)
	case p.hold.Payment.State == ledger.Settling: // asked for earlier, never heard of again
		if refused := p.settle(r.Context()); refused != nil {
			return refused
		}
		p.result.redeemed = true // the upstream may have run before
		if refused := p.redeemable(p.hold.Payment); refused != nil {
			return refused
		}
		return p.enterOrder(r)
	}
	if refused := p.verify(r.Context()); refused != nil {
		return refused
	}
	// Only now is it certain that the payer signed, and that nobody has used it.
	p.noteNetwork(r)
	if refused := p.readLimited(); refused != nil {
		return refused
	}
	if refused := p.enterOrder(r); refused != nil {
		return refused
	}
	if refused := p.redeemEarlier(r); p.result.settled || refused != nil {
		return refused
	}
	// What was offered by use, before a reload, is charged by use.
	first := p.offered.First && p.signed.request.Requirement.Scheme != x402.SchemeUpto
	// Of a payer whom nobody can name, nothing can be remembered.
	upfront := first || p.signed.auth.Payer == "" || p.desk.Settler.Admission.Distrusted.Has(p.signed.auth.Payer, p.desk.Now())
	if !upfront {
		return nil
	}
	if !p.offered.Line.Health.MayTry(p.attempt(), p.desk.Now()) {
		return &Refusal{Status: http.StatusServiceUnavailable, Code: codeUpstreamDown, RetryAfter: int(admission.ProbeEvery / time.Second)}
	}
	p.hold.probing = true
	return p.settle(r.Context())
}

// sawUpstream tells the health of the line what became of a paid request.
func (p *Purchase) sawUpstream(status int, returned bool) {
	if !p.hold.probing {
		return
	}
	p.hold.probing = false
	if p.ask.Body.Broken() { // the payer's doing says nothing of the upstream
		p.offered.Line.Health.DidNotTry()
		return
	}
	p.offered.Line.Health.Saw(p.attempt(), status, returned, p.desk.Now())
}

// verify uses what a facilitator said of this payment within the last seconds, and asks if
// there is nothing.
func (p *Purchase) verify(ctx context.Context) *Refusal {
	now := p.desk.Now()
	if said := p.desk.Verdicts.get(p.verdictKey(), now); said != nil && p.canSettle(said.by, now) {
		p.result.heardBefore = true
		return p.heed(said)
	}
	return p.askFacilitator(ctx)
}

// askFacilitator asks a facilitator whether the payment would settle. Nothing has moved
// yet, so a payer who hangs up ends it.
func (p *Purchase) askFacilitator(ctx context.Context) *Refusal {
	verdict, name, err := facilitator.Verify(ctx, p.signed.settlers, p.signed.request)
	if err != nil {
		p.result.outcome, p.hold.Payment.Facilitator = metrics.Unverified, name
		return unavailable(err)
	}
	said := heard{of: p.verdictKey(), verdict: verdict, by: name, at: p.desk.Now()}
	if verdict.Valid { // a no may be a yes a second later, and costs its sender a try
		p.desk.Verdicts.put(said)
	}
	return p.heed(&said)
}

// heed does as a facilitator says.
func (p *Purchase) heed(said *heard) *Refusal {
	p.paidBy(said.verdict.Payer)
	if !said.verdict.Valid {
		// Somebody else may have sent what the payer has used elsewhere, or what he has
		// not signed.
		if p.signed.proven && strings.Contains(said.verdict.Reason, "insufficient") {
			p.desk.Settler.Admission.Trusted.Remove(p.signed.auth.Payer)
		}
		p.result.outcome = metrics.Invalid
		p.hold.Payment.Reason, p.hold.Payment.Facilitator = said.verdict.Reason, said.by
		return refuseAnew(x402.SafeCode(said.verdict.Reason, x402.CodePaymentInvalid), detail(said.verdict.Detail))
	}
	// The facilitator that verified is asked first to settle: another may give no answer
	// after the money has moved.
	if i := slices.IndexFunc(p.signed.settlers, func(n facilitator.Named) bool { return n.Name == said.by }); i > 0 {
		p.signed.settlers = slices.Concat(p.signed.settlers[i:], p.signed.settlers[:i])
	}
	return nil
}

// paidBy notes who pays, as others say, where what was signed does not. "" is nobody.
func (p *Purchase) paidBy(payer string) {
	if p.signed.auth.Payer == "" {
		p.signed.auth.Payer = payer
	}
	if p.hold.Payment.Payer == "" {
		p.hold.Payment.Payer = p.signed.auth.Payer
	}
}

// canSettle says whether a facilitator of the offer can be asked to settle now.
func (p *Purchase) canSettle(name string, now time.Time) bool {
	r := &p.signed.request.Requirement
	return slices.ContainsFunc(p.signed.settlers, func(n facilitator.Named) bool {
		_, closed := n.Breaker.Open(r.Network, r.Scheme, now)
		return n.Name == name && !closed
	})
}
