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
func (r *run) finishForLater(status int, header http.Header) {
	r.answer.Aside = &delivery.Recorder{}
	r.answer.Aside.Begin(status, header)
	r.answer.AsideOver = r.cancel
	time.AfterFunc(delivery.FinishWithin, r.cancel)
	r.answer.RestoreHeader()
	if r.request.ProtoMajor == 1 {
		r.w.Header().Set("Connection", "close") // it is busy until the upstream has finished
	}
	r.p.desk.Held.add(r.p.hold.Payment.Key, 1) // until its answer is there
	r.answered, r.p.hold.finishing = true, r.p.isOurs()
	told := r.request.WithContext(r.request.Context())
	told.Body = http.NoBody // the upstream may still read it
	_ = r.p.desk.Refuse(r.w, told, r.p, *r.refused)
	//nolint:bodyclose // a controller is no response
	_ = http.NewResponseController(r.w).Flush()
}

// keepForLater hands the upstream's answer to the ledger, if all of it came, and what it
// has answered.
func (r *run) keepForLater(whole bool) {
	r.p.readOn(r.request.Context())
	held, key := r.p.desk.Held, r.p.hold.Payment.Key
	answer := delivery.CredentialsOf(r.request, key)
	if kept := r.answer.Aside; whole && kept.Whole() {
		answer = kept.Encode(answer)
	}
	if r.p.hold.finishing {
		r.p.hold.finishing, r.p.result.answer = false, answer // which Close hands to the ledger
		held.add(key, -1)
		return
	}
	r.p.desk.Settler.KeepAnswer(key, answer, r.p.readBody(), func() { held.add(key, -1) })
}
