package purchase

import (
	"net/http"
	"time"

	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// An upstream that has acted may have to wait at its status line for a settlement of
// which nobody learns in time what became of it, or for a ledger that cannot take what the
// upstream has done. The payer is told to come back. What was done is not done again, so
// the upstream's answer is kept for him.

// inDoubt says whether it is not known what became of the settlement, or not recorded what
// became of the purchase.
func (p *Purchase) inDoubt() bool {
	return p.result.outcome == metrics.Pending || p.result.outcome == metrics.Unknown || p.result.outcome == metrics.Unrecorded
}

// isOurs says whether the purchase is settled, and this request has the claim.
func (p *Purchase) isOurs() bool {
	return p.hold.lease != nil && (p.hold.Payment.State == ledger.Settled || p.hold.Payment.State == ledger.Delivering)
}

// finishForLater answers the payer at the status line, and lets the upstream finish.
func (d *run) finishForLater(status int, header http.Header) {
	d.answer.Aside = &delivery.Recorder{}
	d.answer.Aside.Begin(status, header)
	d.answer.AsideOver = d.cancel
	time.AfterFunc(delivery.FinishWithin, d.cancel)
	d.answer.RestoreHeader()
	if d.r.ProtoMajor == 1 {
		d.w.Header().Set("Connection", "close") // it is busy until the upstream has finished
	}
	d.p.desk.Held.add(d.p.hold.Payment.Key, 1) // until its answer is there
	d.answered, d.p.hold.finishing = true, d.p.isOurs()
	_ = d.p.desk.Refuse(d.w, d.r, d.p, *d.refused)
	//nolint:bodyclose // a controller is no response
	_ = http.NewResponseController(d.w).Flush()
}

// keepForLater hands the upstream's answer to the ledger, if all of it came, and what it
// has answered.
func (d *run) keepForLater(whole bool) {
	d.p.readOn(d.r.Context())
	held, key := d.p.desk.Held, d.p.hold.Payment.Key
	answer := delivery.CredentialsOf(d.r, key)
	if kept := d.answer.Aside; whole && kept.Whole(kept.Header) {
		answer = kept.Encode(answer)
	}
	if d.p.hold.finishing {
		d.p.hold.finishing, d.p.result.answer = false, answer // which Close hands to the ledger
		held.add(key, -1)
		return
	}
	d.p.desk.KeepAnswer(key, answer, d.p.readBody(), func() { held.add(key, -1) })
}
