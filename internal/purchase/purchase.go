// Package purchase is one payment for one request: what it pays for, whose it is, what is
// owed for it, when its money moves, and how the upstream runs for it. It refuses with
// codes, and writes no answer of its own.
package purchase

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

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

// hold is what the purchase has taken, and gives back when it is over; see Close.
type hold struct {
	ledger.Claim                  // our hold on the authorization
	key          ledger.Key       // that the claim says is ours, or ""
	lease        *ledger.Lease    // keeps the claim while the request lives
	slot         *admission.Slot  // among the payments that are not yet settled
	token        *admission.Token // that the payment costs until money has moved
	order        *order           // in the book of orders
	probing      bool             // the upstream may be tried, and nobody has said yet how it did
	finishing    bool             // the payer is answered, and the upstream is not done: Close waits
	closed       bool             // all was given back
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
	found, err := p.desk.History.Matches(p.signed.payment, p.offered.Current, p.offered.Resource, p.desk.Settler.Facilitators, now)
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
		return refuseAnew(CodeOf(err), err)
	}
	return nil
}

// Prepare verifies a new payment and, where that comes first, settles it.
func (p *Purchase) Prepare(r *http.Request) *Refusal {
	switch {
	case p.result.settled: // bought earlier, not delivered
		return nil
	case p.hold.Payment.State == ledger.Settling: // asked for earlier, never heard of again
		if refused := p.settle(r.Context()); refused != nil {
			return refused
		}
		p.result.redeemed = true // the upstream may have run before
		return p.redeemable(p.hold.Payment)
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
	// Of a payer whom nobody can name, nothing can be remembered.
	upfront := p.offered.First || p.signed.auth.Payer == "" || p.desk.Settler.Admission.Distrusted.Has(p.signed.auth.Payer, p.desk.Now())
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

// Deliver runs the upstream and hands its answer to the payer: settled first,
// or settled when its status line is there.
func (p *Purchase) Deliver(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.result.settled && !p.ask.Upload.Free() {
		refused := bodyTooSlow()
		refused.Receipt = p.receipt(p.hold.Payment)
		return p.desk.Refuse(w, r, p, *refused)
	}
	if p.result.settled && p.signed.auth.opaque {
		if refused := p.buysOnce(); refused != nil {
			return p.desk.Refuse(w, r, p, *refused)
		}
	}
	d := &run{p: p, w: w, request: r}
	d.answer = delivery.NewResponseWriter(r.Context(), w, p.result.settled, d.atStatus)
	ctx, cancel := d.begin()
	defer cancel()
	defer p.hold.lease.OnLoss(nil) // a settlement may go on alone, and keep the claim
	if copied := p.hold.Payment.Answer; p.result.settled && delivery.HasCopy(p.hold.Payment) {
		if !delivery.IsFor(copied, r, p.hold.Payment.Key) {
			return p.desk.Refuse(w, r, p, Refusal{Status: http.StatusConflict, Code: codeOtherCredentials, Receipt: p.receipt(p.hold.Payment)})
		}
		var err error
		if next, err = delivery.Replay(copied); err != nil {
			refused := p.unconfirmed(p.hold.Payment)
			refused.cause = err
			return p.desk.Refuse(w, r, p, *refused)
		}
		d.replayed = true
	} else if p.ask.Acts && p.result.settled {
		d.answer.Recorder = &delivery.Recorder{}
	}
	sent, err := p.upstreamRequest(r.WithContext(context.WithValue(ctx, chargedKey{}, true)))
	if err != nil {
		refused := p.ledgerFailed("asking for the secret of the upstream's keys", err)
		if p.result.settled {
			refused.Receipt = p.receipt(p.hold.Payment)
		}
		return p.desk.Refuse(w, r, p, *refused)
	}
	if p.hold.Payment.State == ledger.Settled {
		if refused := p.record(ledger.Change{To: ledger.Delivering}); refused != nil {
			return p.desk.Refuse(w, r, p, *refused)
		}
	}
	return d.serve(w, next, sent)
}

// record writes down how the delivery goes.
func (p *Purchase) record(ch ledger.Change) *Refusal {
	if err := p.move(ch); err != nil {
		return p.unrecorded()
	}
	return nil
}

// clientError says whether an upstream's error is about the request, and not
// one that would mean to a payer that nothing has moved.
func clientError(err error) bool {
	e, ok := errors.AsType[caddyhttp.HandlerError](err)
	return ok && e.StatusCode >= 400 && e.StatusCode < 500 && e.StatusCode != http.StatusPaymentRequired
}

// upstreamFailed answers for an upstream that gave an error and no answer.
func (p *Purchase) upstreamFailed(err error) *Refusal {
	p.result.status = http.StatusBadGateway
	if e, ok := errors.AsType[caddyhttp.HandlerError](err); ok && e.StatusCode >= 500 {
		p.result.status = e.StatusCode
	}
	f := &Refusal{Status: p.result.status, Code: codeUpstreamFailed, cause: err}
	if p.result.settled {
		f.Receipt, f.RetryAfter = p.receipt(p.hold.Payment), fetchAgainAfter
	} else {
		p.result.outcome = metrics.Uncharged
	}
	p.sawUpstream(p.result.status, true)
	return f
}

// move changes the row that the purchase holds.
func (p *Purchase) move(ch ledger.Change) error {
	row, err := p.desk.Settler.Ledger.Move(context.Background(), p.hold.Claim, ch)
	if err != nil {
		p.desk.Logger.Error("recording a payment", zap.String("payment", p.hold.Payment.ID),
			zap.String("from", string(p.hold.Payment.State)), zap.String("to", string(ch.To)), zap.Error(err))
		return fmt.Errorf("recording %s: %w", ch.To, err)
	}
	p.hold.Payment = row
	p.hold.Payment.Request = nil // the ledger keeps it; an open stream need not
	return nil
}

// endClaim lets the claim go with what is known of the purchase. If the ledger cannot take that
// now it is told later, and the purchase stays held until then: one that has acted does
// not act again, and what has arrived is not given again.
func (p *Purchase) endClaim(ch ledger.Change) {
	p.hold.lease.End()
	err := p.move(ch)
	var again ledger.State
	if ch.To == ledger.Delivered || ch.To == ledger.Settled && p.ask.Acts && p.isGoods(ch.Status) {
		again = ledger.Delivering
	}
	if err == nil || errors.Is(err, ledger.ErrInvalid) || again == "" && errors.Is(err, ledger.ErrLost) {
		return
	}
	held, key := p.desk.Held, p.hold.key
	p.hold.key = ""
	p.desk.Settler.RecordLater(p.hold.Claim, ch, again, func() { held.add(key, -1) })
	p.hold.Payment.State = ch.To // as far as this request goes
}

// ledgerFailed answers when the ledger cannot: closed, and not with a 402.
func (p *Purchase) ledgerFailed(doing string, err error) *Refusal {
	p.desk.Logger.Error("ledger failed", zap.String("doing", doing), zap.String("payment", p.hold.Payment.ID), zap.Error(err))
	return &Refusal{Status: http.StatusServiceUnavailable, Code: codeLedger, RetryAfter: 5}
}
