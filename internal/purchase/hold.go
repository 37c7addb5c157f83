package purchase

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

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

// keep makes the purchase the holder of the claim for as long as it lives.
func (p *Purchase) keep(c ledger.Claim) {
	p.hold.Claim, p.hold.key = c, c.Payment.Key
	p.desk.Held.add(p.hold.key, 1)
	p.hold.lease = p.desk.Settler.Ledger.Keep(c, p.desk.RenewEvery, p.desk.Logger)
}

// release gives a payment back that was claimed and not settled.
func (p *Purchase) release() {
	if p.hold.lease == nil {
		return
	}
	if p.hold.Payment.State == ledger.Claimed {
		p.endClaim(ledger.Change{To: ledger.Released})
	}
	p.hold.lease.End()
	p.hold.lease = nil
	p.letKeyGo()
}

// letKeyGo tells copies of the payment that they may ask the ledger.
func (p *Purchase) letKeyGo() {
	if p.hold.key != "" {
		p.desk.Held.add(p.hold.key, -1)
		p.hold.key = ""
	}
}

// move changes the row that the purchase holds.
func (p *Purchase) move(ch ledger.Change) error {
	row, err := p.desk.Settler.Ledger.Move(context.Background(), p.hold.Claim, ch)
	return p.moved(row, ch, err)
}

// moved takes note of what became of a change.
func (p *Purchase) moved(row ledger.Payment, ch ledger.Change, err error) error {
	if err != nil {
		p.desk.Logger.Error("recording a payment", zap.String("payment", p.hold.Payment.ID),
			zap.String("from", string(p.hold.Payment.State)), zap.String("to", string(ch.To)), zap.Error(err))
		return fmt.Errorf("recording %s: %w", ch.To, err)
	}
	p.hold.Payment = row
	p.hold.Payment.Request = nil // the ledger keeps it; an open stream need not
	return nil
}

// insistFor is how long a change is tried for which an upstream waits.
const insistFor = 2 * time.Second

// insistOn changes the row as move does, and tries it again where the ledger may just have
// had a hiccup: an upstream that has acted waits, and would act again for the payer who is
// told to come back, or could not say any more what it has done.
func (p *Purchase) insistOn(ch ledger.Change) error {
	row, err := p.desk.Settler.Ledger.Insist(context.Background(), p.hold.Claim, ch, insistFor)
	return p.moved(row, ch, err)
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
		status := p.result.status
		if status == 0 && p.hold.Payment.Status == ledger.StatusBegan {
			status = http.StatusBadGateway // it has ended without an answer
		}
		p.endClaim(ledger.Change{
			To: to, Status: status, Runs: p.result.missed.Runs, Body: cmp.Or(p.readBody(), p.result.missed.Body),
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
