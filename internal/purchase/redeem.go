package purchase

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// Stock clients never send a payment twice: told to come back, they sign anew.
// So a fresh signature of the same payer for the same request means the
// purchase that is still owed, if there is one, and moves no money.
//
// Fresh means that nobody else can have it: its key is not in the ledger, and a
// facilitator has said that it is unused. Who pays by EIP-3009 or Permit2 publishes
// his signature with every purchase.

// endWithin is how long a request waits for the end of another one at another gateway.
const endWithin = compareWithin

// redeemEarlier looks for a purchase of this payer that was paid for and not
// delivered, and takes it over instead of selling a second one. It is called
// when this payment is claimed and verified. When it finds one, p.result.settled is true.
func (p *Purchase) redeemEarlier(r *http.Request) *Refusal {
	if p.signed.auth.Payer == "" {
		return nil
	}
	asked := p.hold.Payment
	filters := []ledger.Filter{{
		States: []ledger.State{ledger.Settled, ledger.Delivering, ledger.Unknown, ledger.Settling, ledger.Claimed},
		Payer:  asked.Payer, Method: asked.Method, Host: asked.Host, URL: asked.URL,
		Since: p.desk.Now().Add(-p.desk.RetryWindow), // see redeem
		Brief: true,                                  // a payer may have many, each with a long answer
	}}
	if asked.Method == http.MethodGet {
		head := filters[0] // a HEAD buys one GET
		head.Method = http.MethodHead
		filters = append(filters, head)
	}
	if p.signed.identifier != "" {
		filters = append(filters, ledger.Filter{Payer: asked.Payer, Identifier: p.signed.identifier, Brief: true})
	}
	rows, err := p.list(r.Context(), filters)
	if err != nil {
		return p.ledgerFailed("looking for an earlier purchase", err)
	}
	rows = slices.DeleteFunc(rows, func(row ledger.Payment) bool { return row.Key == asked.Key })
	if len(rows) > 0 && p.result.heardBefore {
		// What was unused some seconds ago may be on the chain by now.
		if refused := p.askFacilitator(r.Context()); refused != nil {
			return refused
		}
	}
	// Of which the order is not known may be another one: it comes after those that can be told.
	slices.SortStableFunc(rows, func(a, b ledger.Payment) int { return cmp.Compare(vagueness(a), vagueness(b)) })
	for _, row := range rows {
		named := p.signed.identifier != "" && row.Identifier == p.signed.identifier
		if refused := p.redeem(r, row, named); p.result.settled || refused != nil {
			return refused
		}
	}
	return nil
}

// vagueness ranks purchases by how little is known of the body that they are for.
func vagueness(row ledger.Payment) int {
	switch {
	case row.Body == "":
		return 2
	case delivery.IsUnread(row.Body):
		return 1
	}
	return 0
}

// list asks the ledger, and is done with it before anything is made of the rows: that
// may take until the payer has sent the body.
func (p *Purchase) list(ctx context.Context, filters []ledger.Filter) (rows []ledger.Payment, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ledger.CallWithin)
	defer cancel()
	for _, f := range filters {
		for row, err := range p.desk.Settler.Ledger.List(ctx, f) {
			if err != nil {
				return nil, err
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// redeem decides about one earlier purchase of the payer. named says that the
// payer means exactly this one.
func (p *Purchase) redeem(r *http.Request, row ledger.Payment, named bool) *Refusal {
	ctx, asked := r.Context(), p.hold.Payment
	now := p.desk.Now()
	switch {
	case row.State == ledger.Released, row.State == ledger.Refused, row.State == ledger.Claimed && !ledger.Held(row, now):
		return nil // nothing came of it
	case named && !p.namesSame(ctx, row):
		return identifierTaken()
	case row.State == ledger.Delivered:
		// Named again: the same outcome, not another charge.
		p.result.about = &row
		return p.alreadyUsed(row)
	case !named && p.signed.identifier != "" && len(row.Answer) > 0 && !delivery.IsFor(row.Answer, r, row.Key):
		return nil // somebody else's order, whose payer has the same wallet
	case !named && (!p.sameRequest(row, asked) || row.Reason == reasonUsedMore || nothingCharged(row)):
		return nil // other goods, what costs more by now, or nothing
	case !named && now.After(row.Created.Add(p.desk.RetryWindow)):
		return nil // a doubt that nobody could end must not close the shop to its payer
	case ledger.Held(row, now) && !row.Doubt:
		return p.besides(r, row, named)
	case p.desk.Settler.Unrecorded.Has(row.Key) && (row.State == ledger.Settled || row.State == ledger.Delivering):
		p.result.about = &row // its lease is over, and what became of it is known and not in it
		return p.earlierInFlight()
	}
	switch alike, refused := p.hasBodyOf(ctx, row); {
	case refused != nil:
		return refused
	case alike == delivery.Different && named:
		return identifierTaken()
	case alike == delivery.Different:
		return nil // another order to the same address
	case row.State == ledger.Unknown, row.State == ledger.Settling:
		// Whoever holds it, if anybody, is finding out what became of it.
		return p.waitFor(row)
	case alike == delivery.Unclear && p.acted(row) && !named:
		// Whether it is the order that was done already, nobody can tell.
		p.result.about = &row
		return p.unconfirmed(row)
	}
	if ledger.Held(row, now) {
		return p.besides(r, row, named)
	}
	p.result.about = &row
	if refused := p.redeemable(row); refused != nil {
		return refused
	}
	return p.takeOver(ctx, row)
}

// waitFor answers while an earlier purchase may have moved money, and the
// reconciler finds out.
func (p *Purchase) waitFor(row ledger.Payment) *Refusal {
	p.result.about = &row
	refused := p.pending(row, 5)
	refused.says = sayEarlierPending
	return refused
}

// besides decides about a purchase that somebody holds.
func (p *Purchase) besides(r *http.Request, row ledger.Payment, named bool) *Refusal {
	ctx, wait := r.Context(), p.earlierInFlight()
	here := p.desk.Settler.Ledger.HeldHere(row.Key)
	if named || p.mayBeRetry(ctx, row) {
		return p.waitForEnd(r, row, named)
	}
	if here && p.desk.Held.hasOrClaims(row.Key) {
		return nil // somebody is being served: this is another purchase
	}
	// Another gateway holds it, and may be dead until the lease ends; or it was
	// held here, and its end was recorded since it was read; or it is held here for no
	// request, and whoever sees to it is done soon.
	fresh, err := p.desk.Settler.Ledger.Get(ctx, row.Key)
	switch {
	case errors.Is(err, ledger.ErrNotFound), err == nil && fresh.State == ledger.Delivered:
		return nil
	case err != nil:
		return p.ledgerFailed("looking for an earlier purchase", err)
	case ledger.Held(fresh, p.desk.Now()) && fresh.Doubt:
	case ledger.Held(fresh, p.desk.Now()) && here:
		if p.desk.Held.hasOrClaims(row.Key) {
			return nil // it is taken up again
		}
		p.result.about = &row
		return wait
	case ledger.Held(fresh, p.desk.Now()):
		apart, gone := p.isApart(r, fresh)
		if apart {
			return nil
		}
		if !gone {
			return p.waitForEnd(r, fresh, named)
		}
		wait.RetryAfter = max(wait.RetryAfter, p.leaseLeft(ctx, fresh))
		p.result.about = &row
		return wait
	}
	return p.redeem(r, fresh, named)
}

// waitForEnd refuses a request that may be the same as a purchase which is held, or waits
// a moment for the end of that: where its payer has all of the answer from another gateway,
// he may order the same again before the end is recorded.
func (p *Purchase) waitForEnd(r *http.Request, row ledger.Payment, named bool) *Refusal {
	p.result.about = &row
	if p.desk.Settler.Ledger.HeldHere(row.Key) {
		return p.earlierInFlight()
	}
	ctx, cancel := context.WithTimeout(r.Context(), 2*compareWithin)
	defer cancel()
	if a, err := p.askHolder(ctx, row.Key); err != nil || !a.Read || named {
		return p.earlierInFlight()
	}
	ctx, cancel = context.WithTimeout(r.Context(), endWithin)
	defer cancel()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(endWithin / 40):
		}
		switch fresh, err := p.desk.Settler.Ledger.Get(ctx, row.Key); {
		case errors.Is(err, ledger.ErrNotFound), err == nil && fresh.State == ledger.Delivered:
			p.result.about = nil
			return nil
		case err == nil && !ledger.Held(fresh, p.desk.Now()):
			p.result.about = nil
			return p.redeem(r, fresh, named)
		}
	}
	return p.earlierInFlight()
}

// leaseLeft is how many seconds a payment stays held whose holder does not answer, 0 if
// that has just let go of it.
func (p *Purchase) leaseLeft(ctx context.Context, row ledger.Payment) int {
	fresh, err := p.desk.Settler.Ledger.Get(ctx, row.Key)
	if err != nil || fresh.State != row.State {
		return 0
	}
	return seconds(max(0, min(fresh.Lease.Sub(p.desk.Now()), ledger.LeaseFor)))
}

// mayBeRetry says whether a request may be a retry of one whose payer is lost, or gets
// nothing, though it is still held: it waits then, rather than to be charged.
func (p *Purchase) mayBeRetry(ctx context.Context, row ledger.Payment) bool {
	if row.Doubt {
		return true // just found out to be paid for
	}
	if p.desk.Settler.Unrecorded.Has(row.Key) {
		return true
	}
	if p.desk.Held.isLost(row.Key) {
		// An upstream that acts, or does not notice, goes on for a while without its payer;
		// and a payer who has read in the header that there are no goods waits for no body.
		alike, _ := p.ask.Body.Like(ctx, row.Body, p.desk.UploadGrace)
		return alike != delivery.Different && !p.sellsNothing(ctx, row)
	}
	digest, ok := p.ask.Body.Digest()
	return row.Effects && ok && digest == row.Body
}

// sellsNothing says whether a purchase whose payer has left was not charged before that,
// and so never will be.
func (p *Purchase) sellsNothing(ctx context.Context, row ledger.Payment) bool {
	if row.State != ledger.Claimed {
		return false
	}
	fresh, err := p.desk.Settler.Ledger.Get(ctx, row.Key)
	return errors.Is(err, ledger.ErrNotFound) || err == nil && (fresh.State == ledger.Claimed || fresh.State == ledger.Released)
}

// takeOver takes a purchase that is owed, instead of what was held so far.
func (p *Purchase) takeOver(ctx context.Context, seen ledger.Payment) *Refusal {
	if refused := p.take(ctx, seen.Key, ledger.Delivering); refused != nil {
		return refused
	}
	if refused := p.stillOwed(seen); refused != nil {
		p.endClaim(ledger.Change{To: ledger.Settled}) // as it was
		p.hold.lease = nil
		p.letKeyGo()
		return refused
	}
	p.hold.slot.Leave()
	p.result.settled, p.result.redeemed = true, true
	p.result.outcome = metrics.Redeemed
	return nil
}

// stillOwed judges a purchase that was taken by what it is now: it may have been some time
// ago that it was seen, since the payer may let us wait for his body, and others may have
// had a run of it meanwhile.
func (p *Purchase) stillOwed(seen ledger.Payment) *Refusal {
	row := p.hold.Payment
	if row.Reason == reasonUsedMore {
		return p.mayCostMore(row)
	}
	if row.Body != seen.Body {
		digest, known := p.ask.Body.Digest()
		switch {
		case p.result.mustBe != "":
			p.result.mustBe = row.Body
		case !known || digest != row.Body:
			return boughtElse()
		}
	}
	return p.redeemable(row)
}

// acted says whether the upstream has done what it was asked to, so that it must
// not be asked again. Many that have answer with a redirect.
func (p *Purchase) acted(row ledger.Payment) bool { return row.Effects && p.isGoods(row.Status) }

// mayHaveActed says whether an upstream was asked by a process that ended before it answered:
// whether it has acted, nobody knows. One that is told the same Idempotency-Key for every
// run of a payment knows itself.
func (p *Purchase) mayHaveActed(row ledger.Payment) bool {
	return row.Effects && row.Status == ledger.StatusBegan && !p.desk.UpstreamHeaders
}

// namesSame says whether this request asks for what a purchase of its name bought.
// The ledger may have hashed the query of one that is finished; it still finds it
// by the URL as it was.
func (p *Purchase) namesSame(ctx context.Context, row ledger.Payment) bool {
	asked := p.hold.Payment
	if p.sameRequest(row, asked) {
		return true
	}
	known := row
	known.URL = asked.URL
	if row.State.Open() || !p.sameRequest(known, asked) {
		return false
	}
	rows, err := p.list(ctx, []ledger.Filter{
		{States: []ledger.State{row.State}, Payer: row.Payer, Identifier: row.Identifier, URL: asked.URL, Brief: true},
	})
	return err == nil && // else a conflict: nothing is sold
		slices.ContainsFunc(rows, func(found ledger.Payment) bool { return found.Key == row.Key })
}
