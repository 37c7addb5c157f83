package paywall

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// An upstream that has acted may have to wait at its status line for a settlement of
// which nobody learns in time what became of it. The payer is told to come back. What
// was done is not done again, so the upstream's answer is kept for him.

// inDoubt says whether it is not known what became of the settlement.
func (p *purchase) inDoubt() bool {
	return p.outcome == "pending" || p.outcome == "unknown" || p.outcome == "unrecorded"
}

// finishForLater answers the payer at the status line, and lets the upstream finish.
func (d *delivery) finishForLater(status int, header http.Header) {
	d.answer.aside = &spool{}
	d.answer.aside.begin(status, header)
	d.answer.asideOver = d.cancel
	time.AfterFunc(finishWithin, d.cancel)
	d.answer.restoreHeader()
	if d.r.ProtoMajor == 1 {
		d.w.Header().Set("Connection", "close") // it is busy until the upstream has finished
	}
	d.p.h.shared.held.add(d.p.held.Payment.Key, 1) // until its answer is there
	d.answered = true
	_ = d.p.h.refuseSale(d.w, d.r, d.p, *d.refused)
	//nolint:bodyclose // a controller is no response
	_ = http.NewResponseController(d.w).Flush()
}

// keepForLater hands the upstream's answer to the ledger, if all of it came, and what it
// has answered.
func (d *delivery) keepForLater(whole bool) {
	d.p.readOn(d.r.Context())
	l, held, key := d.p.h.app.ledger, d.p.h.shared.held, d.p.held.Payment.Key
	answer := credentialsOf(d.r, key)
	if kept := d.answer.aside; whole && kept.whole(kept.Header) {
		answer = kept.encode(answer)
	}
	body := d.p.readBody()
	settlements.Go(func() {
		defer held.add(key, -1)
		keepAnswer(l, key, answer, body)
	})
}

// keepAnswer records an upstream's answer, and the body that it is for, with a purchase
// that others find out about, as soon as nobody holds it.
func keepAnswer(l *ledger.Guarded, key ledger.Key, answer []byte, body string) {
	ctx, pause := context.Background(), 50*time.Millisecond
	for end := time.Now().Add(recordFor); time.Now().Before(end); pause = min(2*pause, lastRecordPause) {
		for _, way := range []struct{ take, leave ledger.State }{{ledger.Settling, ledger.Unknown}, {ledger.Delivering, ledger.Settled}} {
			c, err := l.Take(ctx, key, way.take, leaseFor)
			if err == nil {
				_, err = l.Move(ctx, c, ledger.Change{To: way.leave, Answer: answer, Body: body})
			}
			taken, isTaken := errors.AsType[*ledger.TakenError](err)
			switch {
			case err == nil, errors.Is(err, ledger.ErrNotFound), errors.Is(err, ledger.ErrInvalid), isTaken && !taken.Payment.State.Open():
				return // it has it, or nothing is owed
			}
		}
		time.Sleep(pause)
	}
}
