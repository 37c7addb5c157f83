package paywall

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
	"github.com/caddy-paywall/caddy-paywall/internal/offer"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// claim takes the authorization for this request alone. If it was taken
// before, its row says what this request may have of it.
func (p *purchase) claim(r *http.Request) *refusal {
	now := p.h.now()
	if misfit := p.match(r, now); misfit != nil {
		return p.boughtBefore(r, misfit, now)
	}
	if refused := p.mayTry(now); refused != nil {
		return refused
	}
	row := p.row(r, now)
	p.held.Payment = row
	if p.h.shared.held.has(row.Key) {
		return inFlight()
	}
	if refused := p.takeTry(now); refused != nil {
		return refused
	}
	claimed, err := p.h.app.ledger.Claim(r.Context(), row, ledger.LeaseFor)
	if taken, ok := errors.AsType[*ledger.TakenError](err); ok {
		if refused := p.takeLook(now); refused != nil {
			return refused
		}
		p.token.Refund() // it has cost a look instead
		return p.claimAgain(r, taken.Payment)
	}
	if err != nil {
		return p.ledgerFailed("claiming", err)
	}
	p.hold(claimed)
	return p.enter(now)
}

// boughtBefore decides about a payment that fits nothing which is offered now: it
// may have fitted, and moved money, a minute ago. To look costs a try, so that junk
// does not reach the ledger.
func (p *purchase) boughtBefore(r *http.Request, misfit *refusal, now time.Time) *refusal {
	if p.auth.Key == "" && !p.mayBeKnown {
		return misfit
	}
	if refused := p.takeLook(now); refused != nil {
		return refused
	}
	if p.auth.Key == "" {
		guessed, err := p.h.candidates.For(p.payment)
		if err != nil {
			return misfit
		}
		_ = p.fit(offer.Match{Requirement: guessed}, now) // for its key
	}
	if p.auth.Key == "" {
		return misfit
	}
	p.prove()
	p.held.Payment = p.row(r, now)
	known, err := p.h.app.ledger.Get(r.Context(), p.held.Payment.Key)
	if errors.Is(err, ledger.ErrNotFound) || err == nil && ledger.Claimable(known, now) {
		return misfit
	}
	if err != nil {
		return p.ledgerFailed("looking up", err)
	}
	p.settlers = nil // what does not fit is not settled, whatever comes
	return p.claimAgain(r, known)
}

// row is what the ledger is to know of this payment for this request.
func (p *purchase) row(r *http.Request, now time.Time) ledger.Payment {
	window := time.Duration(p.h.RetryWindow)
	row := ledger.Payment{
		Key:         ledger.Key(p.auth.Key),
		Scheme:      p.request.Requirement.Scheme,
		Network:     p.request.Requirement.Network,
		Asset:       p.request.Requirement.Asset,
		PayTo:       p.request.Requirement.PayTo,
		Payer:       p.auth.Payer,
		Amount:      p.request.Requirement.Amount,
		ValidBefore: p.auth.validBefore(),
		Method:      p.method,
		Host:        strings.ToLower(r.Host),
		URL:         requestURI(r),
		Line:        p.line.id,
		Client:      p.client,
		Identifier:  p.identifier,
		Effects:     p.acts,
		FetchBy:     now.Add(max(window, keepRequest)),
		Keep:        now.Add(maxLife + window),
	}
	if p.auth.ValidBefore == 0 {
		row.Keep = now.Add(keepWithoutEnd)
	}
	row.ID = ledger.ID(row.Key)
	return row
}

// prove finds out whether the payer has signed. A contract wallet may sign with
// another key, which only a facilitator can tell from junk.
func (p *purchase) prove() {
	if p.auth.Kind == x402.KindSolana {
		p.proven = p.auth.PayerSigned()
		return
	}
	if p.auth.Kind != x402.KindEIP3009 && p.auth.Kind != x402.KindPermit2 {
		return
	}
	own, err := eip712.SignedByPayer(p.auth.Authorization, p.request.Requirement)
	p.proven = err == nil && own
	p.unproven = !p.proven
}

// enterOrder lets one order of a payer be sold at a time; see orderBook.
func (p *purchase) enterOrder(r *http.Request) (refused *refusal) {
	if p.body != nil && !p.acts {
		_ = p.body.Record(r.Context(), r.Method) // over HTTP/3 every request may have one
	}
	digest, _ := p.body.Digest()
	if (p.acts || p.first && digest != delivery.NoBody) && p.auth.Payer != "" {
		name := p.identifier
		if name == "" {
			name = r.Header.Get("Idempotency-Key")
		}
		p.order, refused = p.h.shared.orders.enter(r.Context(), p.held.Payment, name, p.body)
	}
	return refused
}

// claimAgain decides about a payment that the ledger knows. A header alone
// proves nothing: once settled, anybody can read the signature on the chain.
// So the goods, or word of them, go only to the request that was paid for, from
// the network it came from, with the payer's signature.
func (p *purchase) claimAgain(r *http.Request, row ledger.Payment) *refusal {
	asked := p.held.Payment
	p.about = &row
	busy := ledger.Held(row, p.h.now()) || p.h.shared.held.has(row.Key)
	if row.State == ledger.Delivered || !busy && row.State == ledger.Settled && nothingCharged(row) {
		return &refusal{status: http.StatusPaymentRequired, code: x402.CodePaymentAlreadyUsed, receipt: p.receipt(row)}
	}
	if busy {
		return inFlight()
	}
	// Its own name for the purchase is the payer's secret, and no network is needed.
	named := row.Identifier != "" && row.Identifier == asked.Identifier
	if !p.sameRequest(row, asked) || !named && row.Client != asked.Client || !p.signedLike(row) {
		return boughtElse()
	}
	switch alike, refused := p.hasBodyOf(r.Context(), row); {
	case refused != nil:
		return refused
	case alike == delivery.Different:
		return boughtElse()
	case row.Reason == reasonUsedMore:
		return &refusal{status: http.StatusConflict, code: codeUsedMore, receipt: p.receipt(row)}
	}
	if row.State != ledger.Settled && row.State != ledger.Delivering {
		return p.askAgain(r.Context(), row)
	}
	if refused := p.redeemable(row); refused != nil {
		return refused
	}
	return p.takeOver(r.Context(), row)
}

// askAgain asks once more what became of a settlement of which nobody knows.
func (p *purchase) askAgain(ctx context.Context, row ledger.Payment) *refusal {
	if !p.restore(row) {
		return &refusal{status: http.StatusServiceUnavailable, code: x402.CodeSettlementPending, retryAfter: 30, receipt: p.pendingReceipt(row)}
	}
	if refused := p.enter(p.h.now()); refused != nil {
		return refused
	}
	return p.take(ctx, row.Key, ledger.Settling)
}

// restore prepares to repeat a settlement: in the same words, to the one that was
// asked before, whatever is offered now.
func (p *purchase) restore(row ledger.Payment) bool {
	stored, ok := storedRequest(row)
	if !ok || p.h.app.settlers.Closed(row.Network) {
		return false
	}
	p.request = stored
	if f, ok := p.h.app.settlers.Get(row.Facilitator); ok {
		p.settlers = []facilitator.Named{f}
	}
	return len(p.settlers) > 0
}

// storedRequest is what the ledger keeps of what a facilitator was asked, if it still
// does.
func storedRequest(row ledger.Payment) (stored facilitator.Request, ok bool) {
	err := json.Unmarshal(row.Request, &stored)
	return stored, err == nil && stored.Payment != nil
}

// take makes the purchase the holder of a payment that the ledger knows.
func (p *purchase) take(ctx context.Context, key ledger.Key, to ledger.State) *refusal {
	taken, err := p.h.app.ledger.Take(ctx, key, to, ledger.LeaseFor)
	if _, ok := errors.AsType[*ledger.TakenError](err); ok || errors.Is(err, ledger.ErrNotFound) {
		return inFlight()
	}
	if err != nil {
		return p.ledgerFailed("taking over", err)
	}
	p.release() // what was claimed and is no longer needed
	p.hold(taken)
	p.paidBy(taken.Payment.Payer)
	p.sold = soldFor(taken.Payment)
	p.about = nil
	return nil
}

// signedLike says whether a payment that comes again has the payer's signature:
// proven by our own check, or the same as the ledger has. Everything else of it can
// be read in the events of the token.
func (p *purchase) signedLike(row ledger.Payment) bool {
	if p.proven {
		return true
	}
	stored, ok := storedRequest(row)
	if !ok {
		return false
	}
	kept, came := stored.Payment.Payload.Clone(), p.payment.Payload.Clone()
	return kept.Canonicalize() == nil && came.Canonicalize() == nil && bytes.Equal(kept, came)
}

// hasBodyOf says whether this request has the body that a purchase was made with.
// Where the upstream must not begin before that is certain, the body is read ahead;
// one that is too long for that is compared at the status line, or for a copy of an
// answer read and forgotten.
func (p *purchase) hasBodyOf(ctx context.Context, row ledger.Payment) (delivery.Likeness, *refusal) {
	p.mustBe = ""
	if refused := p.readLimited(); refused != nil {
		return delivery.Unclear, refused
	}
	if row.Body == "" && p.acted(row) {
		return delivery.Unclear, nil
	}
	alike, err := p.body.Like(ctx, row.Body, p.h.uploadGrace)
	switch {
	case err == nil:
		return alike, nil
	case errors.Is(err, delivery.ErrTooLong) && p.acted(row):
		if digest, _ := p.body.Drain(row.Body); digest == row.Body {
			return delivery.Same, nil
		}
		// It is gone, and cannot be sold any more.
		return delivery.Unclear, p.unconfirmed(row)
	case errors.Is(err, delivery.ErrTooLong):
		if !row.Effects { // else the upstream acts before anybody can tell, and this pays for it, once
			p.mustBe = row.Body
		}
		return delivery.Same, nil
	}
	return delivery.Unclear, &refusal{status: http.StatusRequestTimeout, code: codeBodyTooSlow}
}

// readLimited reads a body ahead that nobody could read later, and refuses one that is
// longer than the site takes while nothing is paid for it.
func (p *purchase) readLimited() *refusal {
	err := p.body.ReadLimited()
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &refusal{status: http.StatusRequestEntityTooLarge, code: codeBodyTooLarge}
	}
	return &refusal{status: http.StatusRequestTimeout, code: codeBodyTooSlow}
}

// redeemable says whether a settled payment may start the upstream once more.
func (p *purchase) redeemable(row ledger.Payment) *refusal {
	switch {
	case p.acted(row) && !delivery.HasCopy(row) && p.h.shared.held.has(row.Key) && p.holding != row.Key:
		return inFlight() // its answer is being kept
	case p.h.now().After(row.Created.Add(time.Duration(p.h.RetryWindow))),
		row.Runs >= maxRuns,
		row.Runs >= maxHeads && p.method == http.MethodHead, // what is left is for the GET
		p.acted(row) && !delivery.HasCopy(row):
		return p.unconfirmed(row)
	}
	if wait, why := p.h.shared.admission.WaitToFetch(p.tabFor(row), p.h.now()); wait > 0 && !p.acted(row) {
		return p.limited(&refusal{status: http.StatusTooManyRequests, code: x402.Code(why), retryAfter: seconds(wait), receipt: p.receipt(row)})
	}
	return nil
}

// sameRequest says whether a request asks for what the payment bought: at the same
// price line, with the same method, host and URL. A HEAD buys one GET, but where the
// charge is by use.
func (p *purchase) sameRequest(bought, asked ledger.Payment) bool {
	method := bought.Method == asked.Method ||
		bought.Method == http.MethodHead && asked.Method == http.MethodGet && bought.Scheme != x402.SchemeUpto && !p.price.upto
	return method && bought.Line == asked.Line && bought.Line != "" && bought.Host == asked.Host && bought.URL == asked.URL
}

func safeMethod(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, "QUERY":
		return true
	}
	return false
}

// hold makes the purchase the holder of the claim for as long as it lives.
func (p *purchase) hold(c ledger.Claim) {
	p.held, p.holding = c, c.Payment.Key
	p.h.shared.held.add(p.holding, 1)
	// What else the row has, an open stream need not keep.
	slim := ledger.Claim{Token: c.Token, Payment: ledger.Payment{Key: c.Payment.Key, ID: c.Payment.ID}}
	p.lease = p.h.app.ledger.Keep(slim, p.h.renewEvery, p.h.logger)
}

// release gives a payment back that was claimed and not settled.
func (p *purchase) release() {
	if p.lease == nil {
		return
	}
	p.lease.End()
	p.lease = nil
	if p.held.Payment.State == ledger.Claimed {
		_ = p.move(ledger.Change{To: ledger.Released})
	}
	p.letKeyGo()
}

// letKeyGo tells copies of the payment that they may ask the ledger.
func (p *purchase) letKeyGo() {
	if p.holding != "" {
		p.h.shared.held.add(p.holding, -1)
		p.holding = ""
	}
}

// inFlight refuses what is in another request right now.
func inFlight() *refusal {
	return &refusal{status: http.StatusConflict, code: x402.CodePaymentInFlight, retryAfter: 2}
}

// boughtElse refuses what was paid for something else.
func boughtElse() *refusal {
	return &refusal{status: http.StatusConflict, code: codeBoughtElse}
}

// unconfirmed refuses what was paid for and cannot be given once more.
func (p *purchase) unconfirmed(row ledger.Payment) *refusal {
	return &refusal{status: http.StatusConflict, code: x402.CodeDeliveryUnconfirmed, receipt: p.receipt(row)}
}

// letGo is the end of every purchase: what was claimed and not settled is free
// again, what was settled and not delivered can be fetched. Only its first call
// does anything.
func (p *purchase) letGo() {
	if p.gone || p.finishing {
		return
	}
	p.gone = true
	switch {
	case p.lease == nil: // the settlement goes on alone, and holds the claim
	case p.isOurs():
		to := ledger.Settled
		if p.arrived {
			to = ledger.Delivered
		}
		p.end(ledger.Change{
			To: to, Status: p.status, Runs: p.missed.Runs, Body: cmp.Or(p.readBody(), p.missed.Body),
			Answer: p.answer, Reason: p.reason, Ended: p.ended,
		})
	default:
		p.release()
	}
	p.letKeyGo()
	if p.probing {
		p.line.health.DidNotTry()
	}
	p.slot.Leave() // unless the settlement goes on alone
	p.order.leave()
	p.report()
}
