package paywall

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
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/internal/offer"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// purchase is one paid request, from its payment to its goods. One goroutine
// uses it, but for the settlement, which outlives a payer who does not wait.
type purchase struct {
	h     *Handler
	price *price
	line  *line
	first bool // settle before the upstream runs
	offer *offer.Offer
	// resource is what the offer is for; see offer.History.
	resource uint64
	payment  *x402.Payment
	started  time.Time
	payer    context.Context // ends when the payer leaves

	// What was asked for.
	method string // with the methods and paths that headers and query name
	acts   bool   // it may have effects
	client string // the network it comes from
	site   string // the larger one, for the bounds
	body   *delivery.Body
	upload *delivery.Upload // the same body, bounded while nothing is paid

	request  facilitator.Request
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
	// upfront: the money moves before the upstream runs, whatever was offered.
	upfront bool

	held    ledger.Claim     // our hold on the authorization
	holding ledger.Key       // that held says is ours, or ""
	about   *ledger.Payment  // another payment that the answer is about, or nil
	lease   *ledger.Lease    // keeps held while the request lives
	slot    *admission.Slot  // among the payments that are not yet settled
	token   *admission.Token // that the payment costs until money has moved
	// heardBefore: the verdict on it is some seconds old.
	heardBefore bool
	probing     bool            // the upstream may be tried, and nobody has said yet how it did
	order       *order          // in the book of orders
	gone        bool            // letGo was here
	finishing   bool            // the payer is answered, and the upstream is not done: letGo waits
	redeemed    bool            // it was paid earlier, and is owed
	settled     bool            // the money has moved, and held says so
	sold        *sale           // what an upto purchase was that is fetched
	mustBe      string          // the digest that the body must turn out to have, or ""
	arrived     bool            // the payer has the goods
	missed      ledger.Change   // what the ledger could not be told of the run
	answer      []byte          // a copy of what did not arrive
	reason      string          // for the ledger
	ended       int             // 1 if the payer ended an answer himself
	outcome     metrics.Outcome // for log and metrics; "" while undecided
	status      int             // what the upstream answered
	refused     *refusal        // what the payer got instead of goods

	receiptData facilitator.Settlement // what the facilitator added for the receipt
}

// match finds what the payment pays for, and checks all that can be checked
// without asking anybody. A payment that does not fit is not yet refused: it
// may have fitted, and moved money, a minute ago.
func (p *purchase) match(r *http.Request, now time.Time) (misfit *refusal) {
	t := p.price.offersFor(p.first)
	p.request = facilitator.Request{
		Payment:  p.payment,
		From:     p.site,
		Resource: x402.Resource{URL: p.h.resourceURL(r), Description: t.Description, MimeType: t.MimeType},
	}
	found, err := p.h.shared.offered.Matches(p.payment, p.offer, p.resource, p.h.app.settlers, now)
	for _, f := range found {
		misfit = p.fit(f, now)
		if misfit == nil {
			break
		}
	}
	identifier, unnamed := p.payment.Identifier()
	p.identifier = identifier
	if len(found) == 0 {
		p.mayBeKnown = true
		return refuseAnew(codeOf(err), err)
	}
	if misfit != nil {
		return misfit
	}
	if err := x402.CheckExtensions(p.offer.Extensions, p.payment.Extensions); err != nil {
		return refuseAnew(codeOf(err), err)
	}
	if unnamed != nil {
		return refuseAnew(codeOf(unnamed), unnamed)
	}
	p.prove()
	p.request.Unproven = p.unproven
	return nil
}

// fit reads what was signed as an authorization for one requirement.
func (p *purchase) fit(f offer.Match, now time.Time) (misfit *refusal) {
	p.settlers, p.request.Requirement, p.option = f.Settlers, f.Requirement, f.Option
	var err error
	if p.auth, err = readAuthorization(p.payment, f.Requirement, p.first); err == nil {
		err = p.auth.check(f.Requirement, now)
	}
	if p.auth.Kind != x402.KindSolana { // there a facilitator may name a wallet for which another key signs
		p.request.Payer = p.auth.Payer
	}
	if err != nil {
		return refuseAnew(codeOf(err), err)
	}
	return nil
}

// prepare verifies a new payment and, where that comes first, settles it.
func (p *purchase) prepare(r *http.Request) *refusal {
	switch {
	case p.settled: // bought earlier, not delivered
		return nil
	case p.held.Payment.State == ledger.Settling: // asked for earlier, never heard of again
		if refused := p.settle(r.Context()); refused != nil {
			return refused
		}
		p.redeemed = true // the upstream may have run before
		return p.redeemable(p.held.Payment)
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
	if refused := p.redeemEarlier(r); p.settled || refused != nil {
		return refused
	}
	// Of a payer whom nobody can name, nothing can be remembered.
	p.upfront = p.first || p.auth.Payer == "" || p.h.shared.admission.Distrusted.Has(p.auth.Payer, p.h.now())
	if !p.upfront {
		return nil
	}
	if !p.line.health.MayTry(p.attempt(), p.h.now()) {
		return &refusal{status: http.StatusServiceUnavailable, code: codeUpstreamDown, retryAfter: int(admission.ProbeEvery / time.Second)}
	}
	p.probing = true
	return p.settle(r.Context())
}

// sawUpstream tells the health of the line what became of a paid request.
func (p *purchase) sawUpstream(status int, returned bool) {
	if !p.probing {
		return
	}
	p.probing = false
	if p.body.Broken() { // the payer's doing says nothing of the upstream
		p.line.health.DidNotTry()
		return
	}
	p.line.health.Saw(p.attempt(), status, returned, p.h.now())
}

// verify asks the facilitator whether the payment would settle. Nothing has
// moved yet, so a payer who hangs up ends it.
func (p *purchase) verify(ctx context.Context) *refusal {
	now := p.h.now()
	if said := p.h.shared.verdicts.get(p.verdictKey(), now); said != nil && p.canSettle(said.by, now) {
		p.heardBefore = true
		return p.heed(said)
	}
	return p.ask(ctx)
}

// ask asks the facilitator whether the payment would settle.
func (p *purchase) ask(ctx context.Context) *refusal {
	verdict, name, err := facilitator.Verify(ctx, p.settlers, p.request)
	if err != nil {
		p.outcome, p.held.Payment.Facilitator = metrics.Unverified, name
		return unavailable(err)
	}
	said := heard{of: p.verdictKey(), verdict: verdict, by: name, at: p.h.now()}
	if verdict.Valid { // a no may be a yes a second later, and costs its sender a try
		p.h.shared.verdicts.put(said)
	}
	return p.heed(&said)
}

// heed does as a facilitator says.
func (p *purchase) heed(said *heard) *refusal {
	p.paidBy(said.verdict.Payer)
	if !said.verdict.Valid {
		// Somebody else may have sent what the payer has used elsewhere, or what he has
		// not signed.
		if p.proven && strings.Contains(said.verdict.Reason, "insufficient") {
			p.h.shared.admission.Trusted.Remove(p.auth.Payer)
		}
		p.outcome = metrics.Invalid
		p.held.Payment.Reason, p.held.Payment.Facilitator = said.verdict.Reason, said.by
		return refuseAnew(x402.SafeCode(said.verdict.Reason, x402.CodePaymentInvalid), detail(said.verdict.Detail))
	}
	// Who has answered settles: one that gave no answer to verify might give none
	// to settle, and then nobody would know.
	if i := slices.IndexFunc(p.settlers, func(n facilitator.Named) bool { return n.Name == said.by }); i > 0 {
		p.settlers = slices.Concat(p.settlers[i:], p.settlers[:i])
	}
	return nil
}

// paidBy notes who pays, as others say, where what was signed does not. "" is nobody.
func (p *purchase) paidBy(payer string) {
	if p.auth.Payer == "" {
		p.auth.Payer = payer
	}
	if p.held.Payment.Payer == "" {
		p.held.Payment.Payer = p.auth.Payer
	}
}

// canSettle says whether a facilitator of the offer can be asked to settle now.
func (p *purchase) canSettle(name string, now time.Time) bool {
	r := &p.request.Requirement
	return slices.ContainsFunc(p.settlers, func(n facilitator.Named) bool {
		_, closed := n.Breaker.Open(r.Network, r.Scheme, now)
		return n.Name == name && !closed
	})
}

// deliver runs the upstream and hands its answer to the payer: settled first,
// or settled when its status line is there.
func (p *purchase) deliver(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.settled && !p.upload.Free() {
		return p.h.refuseSale(w, r, p, refusal{status: http.StatusRequestTimeout, code: codeBodyTooSlow, receipt: p.receipt(p.held.Payment)})
	}
	if p.settled && p.auth.opaque {
		if refused := p.buysOnce(); refused != nil {
			return p.h.refuseSale(w, r, p, *refused)
		}
	}
	d := &run{p: p, w: w, r: r, answer: delivery.NewResponseWriter(w, p.settled, nil)}
	d.answer.AtStatus = d.atStatus
	d.answer.Payer = r.Context()
	ctx, cancel := d.begin()
	defer cancel()
	defer p.lease.OnLoss(nil) // a settlement may go on alone, and keep the claim
	if copied := p.held.Payment.Answer; p.settled && delivery.HasCopy(p.held.Payment) {
		if !delivery.IsFor(copied, r, p.held.Payment.Key) {
			return p.h.refuseSale(w, r, p, refusal{status: http.StatusConflict, code: codeOtherCredentials, receipt: p.receipt(p.held.Payment)})
		}
		var err error
		if next, err = delivery.Replay(copied); err != nil {
			refused := p.unconfirmed(p.held.Payment)
			refused.cause = err
			return p.h.refuseSale(w, r, p, *refused)
		}
		d.replayed = true
	} else if p.acts && p.settled {
		d.answer.Recorder = &delivery.Recorder{}
	}
	sent, err := p.upstreamRequest(r.WithContext(context.WithValue(ctx, chargedKey{}, true)))
	if err != nil {
		refused := p.ledgerFailed("asking for the secret of the upstream's keys", err)
		if p.settled {
			refused.receipt = p.receipt(p.held.Payment)
		}
		return p.h.refuseSale(w, r, p, *refused)
	}
	if p.held.Payment.State == ledger.Settled {
		if refused := p.record(ledger.Change{To: ledger.Delivering}); refused != nil {
			return p.h.refuseSale(w, r, p, *refused)
		}
	}
	return d.serve(w, next, sent)
}

// record writes down how the delivery goes.
func (p *purchase) record(ch ledger.Change) *refusal {
	if err := p.move(ch); err != nil {
		p.outcome = metrics.Unrecorded
		return &refusal{status: http.StatusServiceUnavailable, code: codeLedger, retryAfter: 5, receipt: p.pendingReceipt(p.held.Payment)}
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
func (p *purchase) upstreamFailed(err error) *refusal {
	p.status = http.StatusBadGateway
	if e, ok := errors.AsType[caddyhttp.HandlerError](err); ok && e.StatusCode >= 500 {
		p.status = e.StatusCode
	}
	f := &refusal{status: p.status, code: codeUpstreamFailed, cause: err}
	if p.settled {
		f.receipt, f.retryAfter = p.receipt(p.held.Payment), fetchAgainAfter
	} else {
		p.outcome = metrics.Uncharged
	}
	p.sawUpstream(p.status, true)
	return f
}

// move changes the row that the purchase holds.
func (p *purchase) move(ch ledger.Change) error {
	row, err := p.h.app.ledger.Move(context.Background(), p.held, ch)
	if err != nil {
		p.h.logger.Error("recording a payment", zap.String("payment", p.held.Payment.ID),
			zap.String("from", string(p.held.Payment.State)), zap.String("to", string(ch.To)), zap.Error(err))
		return fmt.Errorf("recording %s: %w", ch.To, err)
	}
	p.held.Payment = row
	p.held.Payment.Request = nil // the ledger keeps it; an open stream need not
	return nil
}

// end lets the claim go with what is known of the purchase. If the ledger cannot take that
// now it is told later, and the purchase stays held until then: one that has acted does
// not act again, and what has arrived is not given again.
func (p *purchase) end(ch ledger.Change) {
	p.lease.End()
	err := p.move(ch)
	var again ledger.State
	if ch.To == ledger.Delivered || ch.To == ledger.Settled && p.acts && p.isGoods(ch.Status) {
		again = ledger.Delivering
	}
	if err == nil || errors.Is(err, ledger.ErrInvalid) || again == "" && errors.Is(err, ledger.ErrLost) {
		return
	}
	held, key := p.h.shared.held, p.holding
	p.holding = ""
	p.h.app.desk.RecordLater(p.held, ch, again, func() { held.add(key, -1) })
	p.held.Payment.State = ch.To // as far as this request goes
}

// ledgerFailed answers when the ledger cannot: closed, and not with a 402.
func (p *purchase) ledgerFailed(doing string, err error) *refusal {
	p.h.logger.Error("ledger failed", zap.String("doing", doing), zap.String("payment", p.held.Payment.ID), zap.Error(err))
	return &refusal{status: http.StatusServiceUnavailable, code: codeLedger, retryAfter: 5}
}
