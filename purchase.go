package paywall

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/eip712"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// purchase is one paid request, from its payment to its goods. One goroutine
// uses it, but for the settlement, which outlives a payer who does not wait.
type purchase struct {
	h      *Handler
	price  *price
	health *health // of the upstream behind the line
	first  bool    // settle before the upstream runs
	offer  *offer
	// resource is what the offer is for; see quotes.
	resource uint64
	paths    [2]string // as received, and as rewritten
	payment  *x402.Payment
	started  time.Time
	payer    context.Context // ends when the payer leaves

	request  facilitator.Request
	settlers []facilitator.Named
	option   *option // that was chosen
	auth     authorization
	// due is what an upto payment is charged, once the upstream has said so.
	due string
	// order is set while the purchase stands in orders.
	order string
	// identifier is the payer's own name for the purchase, or "".
	identifier string
	// stranger: the signature is not the payer's own. A contract wallet may sign
	// so, and only a facilitator can tell.
	stranger bool
	// proven: the signature is the payer's own.
	proven bool
	// upfront: the money moves before the upstream runs, whatever was offered.
	upfront bool

	held     ledger.Claim // our hold on the authorization
	lease    *lease       // keeps it while the request lives
	seat     *seat        // among the payments that are not yet settled
	trial    *bucket      // the try that the payment costs if it is bad
	gone     bool         // letGo was here
	redeemed bool         // it was paid earlier, and is owed
	settled  bool         // the money has moved, and held says so
	answer   []byte       // a copy of what did not arrive
	runs     int          // starts of the upstream that the row does not count yet
	outcome  string       // for log and metrics; "" while undecided
	status   int          // what the upstream answered
	refused  *refusal     // what the payer got instead of goods

	receiptData facilitator.Settlement // what the facilitator added for the receipt
}

// match finds what the payment pays for, and checks all that can be checked
// without asking anybody. A payment that does not fit is not yet refused: it
// may have fitted, and moved money, a minute ago.
func (p *purchase) match(r *http.Request, t *tariff, now time.Time) (misfit *refusal) {
	p.paths[0], p.paths[1] = pathsOf(r)
	p.request = facilitator.Request{
		Payment:  p.payment,
		Resource: x402.Resource{URL: p.h.resourceURL(r), Description: t.description, MimeType: t.mimeType},
	}
	found, err := p.h.fits(p.payment, p.offer, p.resource, now)
	for _, f := range found {
		misfit = p.fit(f, now)
		if misfit == nil {
			break
		}
	}
	if len(found) == 0 {
		misfit = refuseAnew(codeOf(err), err)
		guessed, err := p.h.guess(p.payment)
		if err != nil {
			return misfit
		}
		_ = p.fit(fit{requirement: guessed}, now) // for its key
	}
	if misfit != nil {
		return misfit
	}
	if err := x402.CheckExtensions(p.offer.extensions, p.payment.Extensions); err != nil {
		return refuseAnew(codeOf(err), err)
	}
	if p.identifier, err = p.payment.Identifier(); err != nil {
		return refuseAnew(codeOf(err), err)
	}
	if p.auth.Kind == x402.KindEIP3009 || p.auth.Kind == x402.KindPermit2 {
		own, err := eip712.SignedByPayer(p.auth.Authorization, p.request.Requirement)
		p.proven = err == nil && own
		p.stranger, p.request.Unproven = !p.proven, !p.proven
	}
	return nil
}

// fit reads what was signed as an authorization for one requirement.
func (p *purchase) fit(f fit, now time.Time) (misfit *refusal) {
	p.settlers, p.request.Requirement, p.option = f.settlers, f.requirement, f.option
	var err error
	if p.auth, err = readAuthorization(p.payment, f.requirement, p.first); err == nil {
		err = p.auth.check(f.requirement, now)
	}
	p.request.Payer = p.auth.Payer
	if err != nil {
		return refuseAnew(codeOf(err), err)
	}
	return nil
}

// prepare verifies a new payment and, where that comes first, settles it.
func (p *purchase) prepare(r *http.Request) *refusal {
	switch {
	case p.settled: // bought earlier, not delivered
		p.outcome, p.redeemed = "redeemed", true
		return nil
	case p.held.Payment.State == ledger.Settling: // asked for earlier, never heard of again
		if refused := p.settle(r.Context()); refused != nil {
			return refused
		}
		return p.redeemable(p.held.Payment)
	}
	if p.stranger && !p.h.app.strangers.Allow() {
		p.outcome = "limited"
		return tooManyStrangers()
	}
	if refused := p.verify(r.Context()); refused != nil {
		return refused
	}
	if p.stranger {
		// Only now is it certain that the payer signed.
		if refused := p.redeemEarlier(r); p.settled || refused != nil {
			p.seat.leave()
			return refused
		}
	}
	p.upfront = p.first || defaulters.has(p.auth.Payer, p.h.now())
	if !p.upfront {
		return nil
	}
	if !p.health.mayTry(p.h.now()) {
		return &refusal{status: http.StatusServiceUnavailable, code: codeUpstreamDown, retryAfter: int(probeEvery / time.Second)}
	}
	refused := p.settle(r.Context())
	if refused != nil {
		p.health.didNotTry()
	}
	return refused
}

// verify asks the facilitator whether the payment would settle. Nothing has
// moved yet, so a payer who hangs up ends it.
func (p *purchase) verify(ctx context.Context) *refusal {
	verdict, name, err := facilitator.Verify(ctx, p.settlers, p.request)
	if err != nil {
		p.outcome = "unverified"
		p.h.logger.Error("payment not verified", zap.String("payment", p.held.Payment.ID), zap.String("facilitator", name), zap.Error(err))
		return unavailable(err)
	}
	if verdict.Payer != "" && p.auth.Payer == "" {
		p.held.Payment.Payer = verdict.Payer
	}
	if !verdict.Valid {
		customers.remove(p.auth.Payer)
		p.trial = nil // spent
		p.outcome = "invalid"
		p.held.Payment.Reason, p.held.Payment.Facilitator = verdict.Reason, name
		return refuseAnew(x402.SafeCode(verdict.Reason, x402.CodePaymentInvalid), errors.New(verdict.Detail))
	}
	p.acquit()
	// Who has answered settles: one that gave no answer to verify might give none
	// to settle, and then nobody would know.
	i := slices.IndexFunc(p.settlers, func(n facilitator.Named) bool { return n.Name == name })
	p.settlers = slices.Concat(p.settlers[i:], p.settlers[:i])
	return nil
}

// deliver runs the upstream and hands its answer to the payer: settled first,
// or settled when its status line is there.
func (p *purchase) deliver(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) (err error) {
	ctx, cancel := context.WithCancel(r.Context())
	acts := !safeMethod(r.Method) && !tunnels(r)
	var sold atomic.Bool
	sold.Store(p.settled)
	if acts {
		cancel()
		ctx, cancel = outlive(r.Context(), &sold)
	}
	defer cancel()

	if p.settled && p.auth.opaque {
		if refused := p.buysOnce(); refused != nil {
			return p.h.refuseSale(w, r, p, *refused)
		}
	}

	var refused *refusal
	a := newAnswer(w, p.settled, nil)
	a.payer = r.Context()
	kept := p.lease
	kept.onLoss(func() { // another may sell it or deliver it now
		cancel()
		a.cut.Store(true)
	})
	defer kept.onLoss(nil) // a settlement may go on alone, and keep the claim
	if copied := p.held.Payment.Answer; p.settled && len(copied) > 0 {
		if next, err = replay(copied); err != nil {
			return p.h.refuseSale(w, r, p, refusal{status: http.StatusConflict, code: x402.CodeDeliveryUnconfirmed, receipt: p.receipt(p.held.Payment), cause: err})
		}
	} else if acts && p.settled {
		a.spool = &spool{}
	}
	sent := p.upstreamRequest(r.WithContext(context.WithValue(ctx, chargedKey{}, true)))
	var body *upload
	if !p.settled {
		body = p.boundUpload(w, sent, cancel)
	}
	a.atStatus = func(status int, header http.Header) bool {
		p.status = status
		usage := header.Values(x402.HeaderSettlementOverrides)
		removeReceipts(header)
		switch {
		case !body.free():
			refused = &refusal{status: http.StatusRequestTimeout, code: codeBodyTooSlow}
		case p.settled && status == http.StatusPaymentRequired:
			// To the payer a 402 of ours would say that nothing has moved.
			refused = &refusal{status: http.StatusBadGateway, code: codeUpstreamWantsPayment, receipt: p.receipt(p.held.Payment)}
		case !p.settled && r.Context().Err() != nil:
			refused = &refusal{status: statusClientGone, code: codeClientGone} // nobody reads it
		case !p.settled && !p.price.chargeable(status, header, r):
			p.outcome = "uncharged"
			p.seat.leave()
			forPayerOnly(header)
			p.h.addCORS(header, r)
			return true
		case !p.settled:
			if refused = p.meter(usage); refused == nil {
				sold.Store(true)
				refused = p.settle(ctx)
			}
		}
		switch {
		case refused != nil:
		case p.held.Payment.State == ledger.Settled:
			refused = p.beginDelivery(1)
			if acts {
				a.spool = &spool{}
			}
		case a.spool != nil:
			// The upstream has acted: that must be known whatever happens next.
			refused = p.beginDelivery(0)
		}
		if refused != nil {
			cancel() // an endless upstream would run on
			return false
		}
		p.setReceipt(header)
		forPayerOnly(header)
		p.h.addCORS(header, r)
		return true
	}

	if p.settled && p.held.Payment.State == ledger.Settled {
		if refused := p.beginDelivery(1); refused != nil {
			return p.h.refuseSale(w, r, p, *refused)
		}
	}
	returned := false
	defer func() {
		panicked := recover()
		if refused != nil {
			if panicked != nil && panicked != http.ErrAbortHandler { //nolint:errorlint // a panic value, not an error
				p.h.logger.Error("the upstream panicked", zap.Any("panic", panicked), zap.Stack("stack"))
			}
			// The upstream was cut off by us; that is no failure of its own. Its
			// trailers may have come after its header was taken back.
			a.restoreHeader()
			err = p.h.refuseSale(w, r, p, *refused)
			return
		}
		removeReceiptTrailers(a.Header())
		p.finish(a, err, r, returned)
		if panicked != nil {
			panic(panicked) // not ours: http.ErrAbortHandler must reach the server
		}
	}()
	err = next.ServeHTTP(a, sent)
	returned = true
	if body.wasCut() && refused == nil && a.status == 0 {
		a.status = -1
		refused = &refusal{status: http.StatusRequestTimeout, code: codeBodyTooSlow}
	}
	if refused == nil && err == nil && a.status == 0 {
		// Nobody answered. An empty 200 is not what the payer came for.
		a.status = -1
		refused = &refusal{status: http.StatusBadGateway, code: codeNoAnswer}
		if p.settled {
			refused.receipt = p.receipt(p.held.Payment)
		}
	}
	if refused == nil && err != nil && a.status == 0 {
		if clientError(err) {
			if p.settled {
				p.setReceipt(w.Header())
			}
			forPayerOnly(w.Header())
			// A missing page is the error routes' business. What they ask is an
			// upstream too.
			removePayments(r.Header)
			removeTrailers(r, isPayment)
			return err
		}
		// An upstream that failed is not: these routes know nothing of payments,
		// and what they serve in its place would be served for nothing.
		refused, err = p.upstreamFailed(err), nil
	}
	return err
}

// beginDelivery records that the upstream's goods are on their way, and what it
// has said so far.
func (p *purchase) beginDelivery(runs int) *refusal {
	if err := p.move(ledger.Change{To: ledger.Delivering, Runs: runs + p.runs, Status: p.status}); err != nil {
		return &refusal{status: http.StatusServiceUnavailable, code: codeLedger, retryAfter: 5, receipt: p.pendingReceipt()}
	}
	p.runs = 0
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
		f.receipt = p.receipt(p.held.Payment)
	} else {
		p.outcome = "uncharged"
	}
	if p.upfront {
		p.health.saw(p.status, true, p.h.now())
	}
	return f
}

// finish decides whether the goods have arrived.
func (p *purchase) finish(a *answer, err error, r *http.Request, returned bool) {
	p.status = max(a.status, 0)
	if p.upfront {
		p.health.saw(p.status, returned, p.h.now())
	}
	if !p.settled {
		if p.outcome == "" {
			p.outcome = "uncharged"
		}
		return
	}
	goods := p.status >= 200 && p.status < 400 || a.hijacked
	if p.redeemed {
		// What a first payer would not be charged for does not use up a purchase.
		goods = goods && p.price.chargeable(p.status, a.Header(), r)
	}
	arrived := returned && err == nil && a.complete(r.Method)
	if a.hijacked || r.Method == http.MethodConnect && goods {
		arrived = true // a tunnel ends when either side leaves
	}
	if arrived && goods && r.Method != http.MethodHead {
		if p.move(ledger.Change{To: ledger.Delivered, Status: p.status, Runs: p.runs}) == nil {
			p.outcome = "delivered"
			return
		}
	}
	p.outcome = "undelivered"
	if returned && err == nil && a.spool.whole(a.Header()) {
		p.answer = a.spool.encode()
	}
	if r.Method == http.MethodHead && arrived {
		p.outcome = "settled" // a HEAD delivers nothing: its payment buys one GET
	}
}

// move changes the row that the purchase holds.
func (p *purchase) move(ch ledger.Change) error {
	row, err := moveTo(p.h.app.ledger, p.held, ch)
	if err != nil {
		p.h.logger.Error("recording a payment", zap.String("payment", p.held.Payment.ID),
			zap.String("from", string(p.held.Payment.State)), zap.String("to", string(ch.To)), zap.Error(err))
		return fmt.Errorf("recording %s: %w", ch.To, err)
	}
	p.held.Payment = row
	p.held.Payment.Request = nil // the ledger keeps it; an open stream need not
	return nil
}

// ledgerFailed answers when the ledger cannot: closed, and not with a 402.
func (p *purchase) ledgerFailed(doing string, err error) *refusal {
	p.h.logger.Error("ledger failed", zap.String("doing", doing), zap.String("payment", p.held.Payment.ID), zap.Error(err))
	return &refusal{status: http.StatusServiceUnavailable, code: codeLedger, retryAfter: 5}
}

// ledgerWithin is how long a call to the ledger may take.
const ledgerWithin = 5 * time.Second

// ledgerContext bounds a call to the ledger. It does not end with the request:
// half a step is worse than a late one.
func ledgerContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), ledgerWithin)
}
