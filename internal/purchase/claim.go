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
	done := p.desk.Held.claims(row.Key)
	claimed, err := p.desk.Settler.Ledger.Claim(r.Context(), row, ledger.LeaseFor)
	if err == nil {
		p.keep(claimed)
	}
	done()
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
func (p *Purchase) enterOrder(r *http.Request) *Refusal {
	if p.ask.Body != nil && !p.ask.Acts {
		_ = p.ask.Body.Record(r.Context(), r.Method) // over HTTP/3 every request may have one
	}
	digest, _ := p.ask.Body.Digest()
	if (p.ask.Acts || p.offered.First && digest != delivery.NoBody) && p.signed.auth.Payer != "" {
		var alone bool
		if p.hold.order, alone = p.desk.Orders.enter(r.Context(), p.hold.Payment, p.orderName(r), p.ask.Body); !alone {
			return p.earlierInFlight()
		}
	}
	return nil
}

// orderName is the name that the payer has given the order, or "".
func (p *Purchase) orderName(r *http.Request) string {
	return cmp.Or(p.signed.identifier, r.Header.Get("Idempotency-Key"))
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
		if key == p.hold.Payment.Key {
			return inFlight()
		}
		return p.earlierInFlight()
	}
	if err != nil {
		return p.ledgerFailed("taking over", err)
	}
	p.release() // what was claimed and is no longer needed
	p.keep(taken)
	p.hold.order.isPaidBy(taken.Payment.Key)
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

// redeemable says whether a settled payment may start the upstream once more.
func (p *Purchase) redeemable(row ledger.Payment) *Refusal {
	switch {
	case p.acted(row) && !delivery.HasCopy(row) && p.desk.Held.has(row.Key) && p.hold.key != row.Key:
		return busyWith(sayKeeping)
	case p.desk.Now().After(row.Created.Add(p.desk.RetryWindow)),
		row.Runs >= maxRuns,
		row.Runs >= maxHeads && p.ask.Method == http.MethodHead, // what is left is for the GET
		p.mayHaveActed(row),
		p.acted(row) && !delivery.HasCopy(row):
		if p.acted(row) && p.isKeptElsewhere(row) {
			return busyWith(sayKeeping)
		}
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
