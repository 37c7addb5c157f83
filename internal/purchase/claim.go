package purchase

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
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/internal/offer"
	"github.com/caddy-paywall/caddy-paywall/internal/request"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// Claim takes the authorization for this request alone. If it was taken
// before, its row says what this request may have of it.
func (p *Purchase) Claim(r *http.Request) *Refusal {
	now := p.desk.Now()
	if misfit := p.match(now); misfit != nil {
		return p.boughtBefore(r, misfit, now)
	}
	if refused := p.mayTry(now); refused != nil {
		return refused
	}
	row := p.newRow(r, now)
	p.hold.Payment = row
	if p.desk.Held.has(row.Key) {
		return inFlight()
	}
	if refused := p.takeTry(now); refused != nil {
		return refused
	}
	claimed, err := p.desk.Settler.Ledger.Claim(r.Context(), row, ledger.LeaseFor)
	if taken, ok := errors.AsType[*ledger.TakenError](err); ok {
		if refused := p.takeLook(now); refused != nil {
			return refused
		}
		p.hold.token.Refund() // it has cost a look instead
		return p.claimAgain(r, taken.Payment)
	}
	if err != nil {
		return p.ledgerFailed("claiming", err)
	}
	p.keep(claimed)
	return p.enter(now)
}

// boughtBefore decides about a payment that fits nothing which is offered now: it
// may have fitted, and moved money, a minute ago. To look costs a try, so that junk
// does not reach the ledger.
func (p *Purchase) boughtBefore(r *http.Request, misfit *Refusal, now time.Time) *Refusal {
	if p.signed.auth.Key == "" && !p.signed.mayBeKnown {
		return misfit
	}
	if refused := p.takeLook(now); refused != nil {
		return refused
	}
	if p.signed.auth.Key == "" {
		guessed, err := p.desk.Candidates.For(p.signed.payment)
		if err != nil {
			return misfit
		}
		_ = p.fit(offer.Match{Requirement: guessed}, now) // for its key
	}
	if p.signed.auth.Key == "" {
		return misfit
	}
	p.prove()
	p.hold.Payment = p.newRow(r, now)
	known, err := p.desk.Settler.Ledger.Get(r.Context(), p.hold.Payment.Key)
	if errors.Is(err, ledger.ErrNotFound) || err == nil && ledger.Claimable(known, now) {
		return misfit
	}
	if err != nil {
		return p.ledgerFailed("looking up", err)
	}
	p.signed.settlers = nil // what does not fit is not settled, whatever comes
	return p.claimAgain(r, known)
}

// newRow is what the ledger is to know of this payment for this request.
func (p *Purchase) newRow(r *http.Request, now time.Time) ledger.Payment {
	window := p.desk.RetryWindow
	row := ledger.Payment{
		Key:         ledger.Key(p.signed.auth.Key),
		Scheme:      p.signed.request.Requirement.Scheme,
		Network:     p.signed.request.Requirement.Network,
		Asset:       p.signed.request.Requirement.Asset,
		PayTo:       p.signed.request.Requirement.PayTo,
		Payer:       p.signed.auth.Payer,
		Amount:      p.signed.request.Requirement.Amount,
		ValidBefore: p.signed.auth.validBefore(),
		Method:      p.ask.Method,
		Host:        strings.ToLower(r.Host),
		URL:         request.URI(r),
		Line:        p.offered.Line.ID,
		Client:      p.ask.Client,
		Identifier:  p.signed.identifier,
		Effects:     p.ask.Acts,
		FetchBy:     now.Add(max(window, keepRequest)),
		Keep:        now.Add(maxLife + window),
	}
	if p.signed.auth.ValidBefore == 0 {
		row.Keep = now.Add(keepWithoutEnd)
	}
	row.ID = ledger.ID(row.Key)
	return row
}

// prove finds out whether the payer has signed. A contract wallet may sign with
// another key, which only a facilitator can tell from junk.
func (p *Purchase) prove() {
	if p.signed.auth.Kind == x402.KindSolana {
		p.signed.proven = p.signed.auth.PayerSigned()
		return
	}
	if p.signed.auth.Kind != x402.KindEIP3009 && p.signed.auth.Kind != x402.KindPermit2 {
		return
	}
	own, err := eip712.SignedByPayer(p.signed.auth.Authorization, p.signed.request.Requirement)
	p.signed.proven = err == nil && own
	p.signed.unproven = !p.signed.proven
}

// enterOrder lets one order of a payer be sold at a time; see orderBook.
func (p *Purchase) enterOrder(r *http.Request) (refused *Refusal) {
	if p.ask.Body != nil && !p.ask.Acts {
		_ = p.ask.Body.Record(r.Context(), r.Method) // over HTTP/3 every request may have one
	}
	digest, _ := p.ask.Body.Digest()
	if (p.ask.Acts || p.offered.First && digest != delivery.NoBody) && p.signed.auth.Payer != "" {
		name := p.signed.identifier
		if name == "" {
			name = r.Header.Get("Idempotency-Key")
		}
		p.hold.order, refused = p.desk.Orders.enter(r.Context(), p.hold.Payment, name, p.ask.Body)
	}
	return refused
}

// claimAgain decides about a payment that the ledger knows. A header alone
// proves nothing: once settled, anybody can read the signature on the chain.
// So the goods, or word of them, go only to the request that was paid for, from
// the network it came from, with the payer's signature.
func (p *Purchase) claimAgain(r *http.Request, row ledger.Payment) *Refusal {
	asked := p.hold.Payment
	p.result.about = &row
	busy := ledger.Held(row, p.desk.Now()) || p.desk.Held.has(row.Key)
	if row.State == ledger.Delivered || !busy && row.State == ledger.Settled && nothingCharged(row) {
		return p.alreadyUsed(row)
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
		return p.mayCostMore(row)
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
func (p *Purchase) askAgain(ctx context.Context, row ledger.Payment) *Refusal {
	if !p.restore(row) {
		return p.pending(row, 30)
	}
	if refused := p.enter(p.desk.Now()); refused != nil {
		return refused
	}
	return p.take(ctx, row.Key, ledger.Settling)
}

// restore prepares to repeat a settlement: in the same words, to the one that was
// asked before, whatever is offered now.
func (p *Purchase) restore(row ledger.Payment) bool {
	stored, ok := storedRequest(row)
	if !ok || p.desk.Settler.Facilitators.Closed(row.Network) {
		return false
	}
	p.signed.request = stored
	if f, ok := p.desk.Settler.Facilitators.Get(row.Facilitator); ok {
		p.signed.settlers = []facilitator.Named{f}
	}
	return len(p.signed.settlers) > 0
}

// storedRequest is what the ledger keeps of what a facilitator was asked, if it still
// does.
func storedRequest(row ledger.Payment) (stored facilitator.Request, ok bool) {
	err := json.Unmarshal(row.Request, &stored)
	return stored, err == nil && stored.Payment != nil
}

// take makes the purchase the holder of a payment that the ledger knows.
func (p *Purchase) take(ctx context.Context, key ledger.Key, to ledger.State) *Refusal {
	taken, err := p.desk.Settler.Ledger.Take(ctx, key, to, ledger.LeaseFor)
	if _, ok := errors.AsType[*ledger.TakenError](err); ok || errors.Is(err, ledger.ErrNotFound) {
		return inFlight()
	}
	if err != nil {
		return p.ledgerFailed("taking over", err)
	}
	p.release() // what was claimed and is no longer needed
	p.keep(taken)
	p.paidBy(taken.Payment.Payer)
	p.result.sold = soldFor(taken.Payment)
	p.result.about = nil
	return nil
}

// signedLike says whether a payment that comes again has the payer's signature:
// proven by our own check, or the same as the ledger has. Everything else of it can
// be read in the events of the token.
func (p *Purchase) signedLike(row ledger.Payment) bool {
	if p.signed.proven {
		return true
	}
	stored, ok := storedRequest(row)
	if !ok {
		return false
	}
	kept, came := stored.Payment.Payload.Clone(), p.signed.payment.Payload.Clone()
	return kept.Canonicalize() == nil && came.Canonicalize() == nil && bytes.Equal(kept, came)
}

// hasBodyOf says whether this request has the body that a purchase was made with.
// Where the upstream must not begin before that is certain, the body is read ahead;
// one that is too long for that is compared at the status line, or for a copy of an
// answer read and forgotten.
func (p *Purchase) hasBodyOf(ctx context.Context, row ledger.Payment) (delivery.Likeness, *Refusal) {
	p.result.mustBe = ""
	if refused := p.readLimited(); refused != nil {
		return delivery.Unclear, refused
	}
	if row.Body == "" && p.acted(row) {
		return delivery.Unclear, nil
	}
	alike, err := p.ask.Body.Like(ctx, row.Body, p.desk.UploadGrace)
	switch {
	case err == nil:
		return alike, nil
	case errors.Is(err, delivery.ErrTooLong) && p.acted(row):
		if digest, _ := p.ask.Body.Drain(row.Body); digest == row.Body {
			return delivery.Same, nil
		}
		// It is gone, and cannot be sold any more.
		return delivery.Unclear, p.unconfirmed(row)
	case errors.Is(err, delivery.ErrTooLong):
		if !row.Effects { // else the upstream acts before anybody can tell, and this pays for it, once
			p.result.mustBe = row.Body
		}
		return delivery.Same, nil
	}
	return delivery.Unclear, bodyTooSlow()
}

// readLimited reads a body ahead that nobody could read later, and refuses one that is
// longer than the site takes while nothing is paid for it.
func (p *Purchase) readLimited() *Refusal {
	err := p.ask.Body.ReadLimited()
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &Refusal{Status: http.StatusRequestEntityTooLarge, Code: codeBodyTooLarge}
	}
	return bodyTooSlow()
}

// redeemable says whether a settled payment may start the upstream once more.
func (p *Purchase) redeemable(row ledger.Payment) *Refusal {
	switch {
	case p.acted(row) && !delivery.HasCopy(row) && p.desk.Held.has(row.Key) && p.hold.key != row.Key:
		return inFlight() // its answer is being kept
	case p.desk.Now().After(row.Created.Add(p.desk.RetryWindow)),
		row.Runs >= maxRuns,
		row.Runs >= maxHeads && p.ask.Method == http.MethodHead, // what is left is for the GET
		p.acted(row) && !delivery.HasCopy(row):
		return p.unconfirmed(row)
	}
	if wait, why := p.desk.Settler.Admission.WaitToFetch(p.tabFor(row), p.desk.Now()); wait > 0 && !p.acted(row) {
		return p.limited(&Refusal{Status: http.StatusTooManyRequests, Code: x402.Code(why), RetryAfter: seconds(wait), Receipt: p.receipt(row)})
	}
	return nil
}

// sameRequest says whether a request asks for what the payment bought: at the same
// price line, with the same method, host and URL. A HEAD buys one GET, but where the
// charge is by use.
func (p *Purchase) sameRequest(bought, asked ledger.Payment) bool {
	method := bought.Method == asked.Method ||
		bought.Method == http.MethodHead && asked.Method == http.MethodGet && bought.Scheme != x402.SchemeUpto && !p.offered.Price.Upto
	return method && bought.Line == asked.Line && bought.Line != "" && bought.Host == asked.Host && bought.URL == asked.URL
}

// keep makes the purchase the holder of the claim for as long as it lives.
func (p *Purchase) keep(c ledger.Claim) {
	p.hold.Claim, p.hold.key = c, c.Payment.Key
	p.desk.Held.add(p.hold.key, 1)
	// What else the row has, an open stream need not keep.
	slim := ledger.Claim{Token: c.Token, Payment: ledger.Payment{Key: c.Payment.Key, ID: c.Payment.ID}}
	p.hold.lease = p.desk.Settler.Ledger.Keep(slim, p.desk.RenewEvery, p.desk.Logger)
}

// release gives a payment back that was claimed and not settled.
func (p *Purchase) release() {
	if p.hold.lease == nil {
		return
	}
	p.hold.lease.End()
	p.hold.lease = nil
	if p.hold.Payment.State == ledger.Claimed {
		_ = p.move(ledger.Change{To: ledger.Released})
	}
	p.letKeyGo()
}

// letKeyGo tells copies of the payment that they may ask the ledger.
func (p *Purchase) letKeyGo() {
	if p.hold.key != "" {
		p.desk.Held.add(p.hold.key, -1)
		p.hold.key = ""
	}
}

// inFlight refuses what is in another request right now.
func inFlight() *Refusal {
	return &Refusal{Status: http.StatusConflict, Code: x402.CodePaymentInFlight, RetryAfter: 2}
}

// bodyTooSlow refuses a request whose body takes too long to come.
func bodyTooSlow() *Refusal {
	return &Refusal{Status: http.StatusRequestTimeout, Code: codeBodyTooSlow}
}

// identifierTaken refuses a payment-identifier that names another purchase.
func identifierTaken() *Refusal {
	return &Refusal{Status: http.StatusConflict, Code: codeIdentifierTaken}
}

// pending refuses while it is not known what became of a settlement. The payer comes again
// after so many seconds.
func (p *Purchase) pending(row ledger.Payment, after int) *Refusal {
	return &Refusal{Status: http.StatusServiceUnavailable, Code: x402.CodeSettlementPending, RetryAfter: after, Receipt: p.pendingReceipt(row)}
}

// unrecorded refuses while the ledger does not take what became of the payment: the payer
// gets it once it is recorded.
func (p *Purchase) unrecorded() *Refusal {
	p.result.outcome = metrics.Unrecorded
	return &Refusal{Status: http.StatusServiceUnavailable, Code: codeLedger, RetryAfter: 5, Receipt: p.pendingReceipt(p.hold.Payment)}
}

// alreadyUsed refuses a payment whose goods have arrived.
func (p *Purchase) alreadyUsed(row ledger.Payment) *Refusal {
	return &Refusal{Status: http.StatusPaymentRequired, Code: x402.CodePaymentAlreadyUsed, Receipt: p.receipt(row)}
}

// mayCostMore refuses an upto purchase whose upstream, asked again, would charge more than
// was charged.
func (p *Purchase) mayCostMore(row ledger.Payment) *Refusal {
	return &Refusal{Status: http.StatusConflict, Code: codeUsedMore, Receipt: p.receipt(row)}
}

// boughtElse refuses what was paid for something else.
func boughtElse() *Refusal {
	return &Refusal{Status: http.StatusConflict, Code: codeBoughtElse}
}

// unconfirmed refuses what was paid for and cannot be given once more.
func (p *Purchase) unconfirmed(row ledger.Payment) *Refusal {
	return &Refusal{Status: http.StatusConflict, Code: x402.CodeDeliveryUnconfirmed, Receipt: p.receipt(row)}
}

// Close is the end of every purchase: what was claimed and not settled is free
// again, what was settled and not delivered can be fetched. Only its first call
// does anything.
func (p *Purchase) Close() {
	if p.hold.closed || p.hold.finishing {
		return
	}
	p.hold.closed = true
	switch {
	case p.hold.lease == nil: // the settlement goes on alone, and holds the claim
	case p.isOurs():
		to := ledger.Settled
		if p.result.arrived {
			to = ledger.Delivered
		}
		p.endClaim(ledger.Change{
			To: to, Status: p.result.status, Runs: p.result.missed.Runs, Body: cmp.Or(p.readBody(), p.result.missed.Body),
			Answer: p.result.answer, Reason: p.result.reason, Ended: p.result.ended,
		})
	default:
		p.release()
	}
	p.letKeyGo()
	if p.hold.probing {
		p.offered.Line.Health.DidNotTry()
	}
	p.hold.slot.Leave() // unless the settlement goes on alone
	p.hold.order.leave()
	p.report()
}
