package purchase

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	// fetchAgainAfter is when a payer tries again to fetch what an upstream failed to
	// give, in seconds.
	fetchAgainAfter = 5
	// maxEnded is how often a payer may end an answer himself of which he has had a
	// good part. Then he has got it.
	maxEnded = 3
	// reasonUsedMore is recorded for an upto purchase whose upstream, asked again,
	// would charge more than was charged.
	reasonUsedMore = "usage_above_charge"
)

// run is one run of the upstream for a purchase.
type run struct {
	p        *Purchase
	w        http.ResponseWriter
	request  *http.Request // the payer's
	answer   *delivery.ResponseWriter
	cancel   context.CancelFunc // of the upstream
	upstream context.Context    // its own
	sale     atomic.Int32
	short    bool     // the payer has signed for a shorter time than he was asked for
	used     bool     // this run is recorded as one that uses up what is owed
	replayed bool     // the upstream does not run: its earlier answer goes out
	answered bool     // the payer has an answer of ours, and the upstream finishes for later
	refused  *Refusal // what the payer gets instead
}

// What may become of the payment while the upstream runs. It leaves open once.
const (
	saleOpen   int32 = iota
	saleClosed       // it is settled, or about to be
	saleLate         // the upstream took too long
)

// Deliver runs the upstream and hands its answer to the payer: settled first,
// or settled when its status line is there.
func (p *Purchase) Deliver(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.result.settled && !p.ask.Upload.Free() {
		refused := bodyTooSlow()
		refused.Receipt = p.receipt(p.hold.Payment)
		return p.desk.Refuse(w, r, p, *refused)
	}
	if p.result.settled && p.signed.auth.opaque {
		if refused := p.buysOnce(); refused != nil {
			return p.desk.Refuse(w, r, p, *refused)
		}
	}
	d := &run{p: p, w: w, request: r}
	d.answer = delivery.NewResponseWriter(r.Context(), w, p.result.settled, d.atStatus)
	ctx, cancel := d.begin()
	d.upstream = ctx
	defer cancel()
	defer p.hold.lease.OnLoss(nil) // a settlement may go on alone, and keep the claim
	if copied := p.hold.Payment.Answer; p.result.settled && delivery.HasCopy(p.hold.Payment) {
		if !delivery.IsFor(copied, r, p.hold.Payment.Key) {
			return p.desk.Refuse(w, r, p, Refusal{Status: http.StatusConflict, Code: codeOtherCredentials, Receipt: p.receipt(p.hold.Payment)})
		}
		var err error
		if next, err = delivery.Replay(copied); err != nil {
			refused := p.unconfirmed(p.hold.Payment)
			refused.cause = err
			return p.desk.Refuse(w, r, p, *refused)
		}
		d.replayed = true
	} else if p.ask.Acts && p.result.settled {
		d.answer.Recorder = &delivery.Recorder{}
	}
	sent, err := p.upstreamRequest(r.WithContext(context.WithValue(ctx, chargedKey{}, true)))
	if err != nil {
		refused := p.ledgerFailed("asking for the secret of the upstream's keys", err)
		if p.result.settled {
			refused.Receipt = p.receipt(p.hold.Payment)
		}
		return p.desk.Refuse(w, r, p, *refused)
	}
	begins := ledger.Change{To: ledger.Delivering}
	if p.ask.Acts && !d.replayed {
		begins.Status = ledger.StatusBegan
	}
	if p.hold.Payment.State == ledger.Settled || p.result.settled && begins.Status != 0 {
		if refused := p.record(begins); refused != nil {
			p.result.status = refused.Status // the upstream is not asked
			return p.desk.Refuse(w, r, p, *refused)
		}
	}
	return d.serve(w, next, sent)
}

// begin makes the context of the upstream's run. It ends when the payer leaves, at
// once where nothing was sold, and a while later where the upstream acts; when the
// claim is lost; and when a payment was held for too long without being settled.
func (r *run) begin() (ctx context.Context, done context.CancelFunc) {
	p := r.p
	if p.result.settled {
		r.sale.Store(saleClosed)
	}
	key := p.hold.key
	stop := context.AfterFunc(r.request.Context(), func() {
		if !r.answer.All.Load() { // else nothing is lost
			p.desk.Held.payerLeft(key)
		}
	})
	defer func() {
		end := done
		done = func() { stop(); end() }
	}()
	if p.ask.Acts {
		ctx, r.cancel = delivery.Outlive(r.request.Context(), func() bool { return r.sale.Load() == saleClosed })
	} else {
		ctx, r.cancel = context.WithCancel(r.request.Context())
	}
	p.ask.Upload.OnCut(r.cancel)
	p.hold.lease.OnLoss(func() { // another may sell it or deliver it now
		r.cancel()
		r.answer.Cut.Store(true)
	})
	if p.result.settled {
		return ctx, r.cancel
	}
	hold := p.holdFor()
	r.short = 2*hold < time.Duration(p.signed.request.Requirement.MaxTimeoutSeconds)*time.Second-minLife
	late := time.AfterFunc(hold, func() {
		if r.sale.CompareAndSwap(saleOpen, saleLate) {
			r.cancel()
		}
	})
	return ctx, func() {
		late.Stop()
		r.cancel()
	}
}

// holdFor is how long the payment can wait for the upstream: until it could no longer
// be settled, and no longer than a payment lives that we ask for.
func (p *Purchase) holdFor() time.Duration {
	hold := p.desk.HoldWithin
	if end := p.signed.auth.validBefore(); !end.IsZero() {
		hold = min(hold, end.Sub(p.desk.Now())-minLife)
	}
	return max(hold, 0)
}

// atStatus decides at the status line of the upstream what becomes of its answer.
func (r *run) atStatus(status int, header http.Header) (pass bool) {
	p := r.p
	p.result.status = status
	r.noteCut()
	r.answer.Goods = p.isGoods(status)
	usage := header.Values(x402.HeaderSettlementOverrides)
	delivery.RemoveReceipts(header)
	charge := p.chargeable(status, header)
	uses := charge || p.result.settled && p.usesUp(status, header)
	switch {
	case r.sale.Load() == saleLate:
		r.refused = tooLate() // what comes now speaks of the end that we made
	case !p.ask.Upload.Free():
		r.refused = bodyTooSlow()
	case p.result.settled && status == http.StatusPaymentRequired:
		// To the payer a 402 of ours would say that nothing has moved.
		r.refused = &Refusal{Status: http.StatusBadGateway, Code: codeUpstreamWantsPayment, Receipt: p.receipt(p.hold.Payment), RetryAfter: fetchAgainAfter}
	case !p.result.settled && r.request.Context().Err() != nil:
		r.refused = clientGone() // nobody reads it
	case !p.result.settled && !charge:
		p.result.outcome = metrics.Uncharged
		p.hold.slot.Leave()
		p.hold.order.leave() // nothing was sold
		r.handOut(header)
		return true
	case !p.result.settled:
		r.refused = r.sell(usage)
	case p.result.redeemed && uses && !r.replayed:
		r.refused = p.isOwed(usage)
	}
	if r.refused == nil || r.refused.Code == codeUsedMore {
		if refused := r.record(uses); r.refused == nil {
			r.refused = refused
		}
	}
	if r.refused == nil && r.isMissed() {
		r.refused = clientGone()
	}
	if r.refused != nil {
		gone := p.result.settled && r.refused.Code == codeClientGone
		if p.ask.Acts && (p.inDoubt() || gone) && r.answer.Goods && !r.replayed {
			r.finishForLater(status, header)
			return false
		}
		r.cancel() // an endless upstream would run on
		return false
	}
	if !r.answer.Goods || r.headOnly() {
		p.desk.Held.givesNothing(p.hold.key)
	}
	p.hold.order.answered(r.answer)
	p.setReceipt(header)
	r.handOut(header)
	return true
}

// isMissed says whether the payer has left before goods that he has paid for could begin.
// They stay owed to him, and nothing of them is sent: he may have closed his side of the
// connection alone, to read them again and again.
func (r *run) isMissed() bool {
	p := r.p
	if !p.result.settled || nothingCharged(p.hold.Payment) || !r.answer.Goods && p.result.status != http.StatusNotModified {
		return false
	}
	return r.request.Context().Err() != nil || p.ask.Body.Broken()
}

// noteCut notes where we have ended the run of an upstream that acts, before its status
// line: its payer has left long ago, or the claim is lost. What comes then speaks of that, and
// nobody knows whether it has acted.
func (r *run) noteCut() {
	p := r.p
	if p.ask.Acts && p.result.settled && !r.replayed && r.upstream.Err() != nil && !p.ask.Upload.WasCut() && !p.isGoods(p.result.status) {
		p.result.status = ledger.StatusBegan
	}
}

// handOut prepares the header of an answer of the upstream that goes to the payer.
func (r *run) handOut(header http.Header) {
	delivery.ForPayerOnly(header)
	r.p.desk.Decorate(header, r.request)
}

// sell settles at the status line.
func (r *run) sell(usage []string) *Refusal {
	p := r.p
	if refused := p.meter(usage); refused != nil {
		return refused
	}
	if !r.sale.CompareAndSwap(saleOpen, saleClosed) {
		return tooLate()
	}
	return p.settle(r.request.Context())
}

// isOwed says whether what the upstream is about to give is what was paid for
// earlier.
func (p *Purchase) isOwed(usage []string) *Refusal {
	if digest, ok := p.ask.Body.Digest(); p.result.mustBe != "" && (!ok || digest != p.result.mustBe) {
		return boughtElse()
	}
	if p.usedMore(usage) {
		p.result.reason = reasonUsedMore
		return p.mayCostMore(p.hold.Payment)
	}
	return nil
}

// record writes down that the upstream has answered, before anybody gets anything
// of it: an upstream that has acted must not be made to act again, whatever comes,
// and what is charged is run so often and not more often.
func (r *run) record(uses bool) *Refusal {
	p := r.p
	if p.hold.Payment.State != ledger.Settled && p.hold.Payment.State != ledger.Delivering {
		return nil // nothing is sold
	}
	if p.ask.Acts && !r.replayed && r.answer.Recorder == nil {
		r.answer.Recorder = &delivery.Recorder{}
	}
	change := ledger.Change{To: ledger.Delivering, Status: p.result.status}
	if uses {
		change.Runs = 1
	} else if !p.ask.Acts {
		return nil
	}
	if !r.replayed {
		change.Body = p.ask.Body.Record(r.request.Context(), r.request.Method)
	}
	refused := p.record(change)
	if refused != nil {
		p.result.missed = change
	}
	r.used = uses && refused == nil
	return refused
}

// headOnly says whether the run is of a HEAD that delivers nothing: its payment buys one
// GET. A redirect gives a HEAD as much as a GET.
func (r *run) headOnly() bool {
	p := r.p
	return r.request.Method == http.MethodHead && p.signed.request.Requirement.Scheme != x402.SchemeUpto && (p.result.status < 300 || p.result.status >= 400)
}

// serve runs the upstream, and answers in its place where that is necessary.
func (r *run) serve(w http.ResponseWriter, next caddyhttp.Handler, sent *http.Request) (err error) {
	p, returned := r.p, false
	defer func() {
		panicked := recover()
		r.noteUncharged()
		if (r.answered || r.refused != nil) && panicked != nil && panicked != http.ErrAbortHandler { //nolint:errorlint // a panic value, not an error
			p.desk.Logger.Error("the upstream panicked", zap.Any("panic", panicked), zap.Stack("stack")) // it goes no further
		}
		if r.answered {
			r.answer.Aside.End(r.answer.Header())
			r.answer.RestoreHeader() // its trailers would follow our answer
			r.keepForLater(returned && err == nil)
			err = nil
			return
		}
		if r.refused != nil {
			// The upstream was cut off by us; that is no failure of its own. Its
			// trailers may have come after its header was taken back.
			r.answer.RestoreHeader()
			err = p.desk.Refuse(w, r.request, p, *r.refused)
			return
		}
		delivery.RemoveReceiptTrailers(r.answer.Header())
		r.finish(err, returned)
		if panicked != nil {
			panic(panicked) // not ours: http.ErrAbortHandler must reach the server
		}
	}()
	err = next.ServeHTTP(r.answer, sent)
	returned = true
	if r.refused != nil || r.answer.Status != 0 {
		return err
	}
	switch {
	case r.sale.Load() == saleLate:
		r.refuse(tooLate())
	case p.ask.Upload.WasCut():
		r.refuse(bodyTooSlow())
	case err == nil:
		// Nobody answered. An empty 200 is not what the payer came for.
		p.sawUpstream(http.StatusBadGateway, true)
		refused := &Refusal{Status: http.StatusBadGateway, Code: codeNoAnswer}
		if p.result.settled {
			refused.Receipt, refused.RetryAfter = p.receipt(p.hold.Payment), fetchAgainAfter
		}
		r.refuse(refused)
		r.noteCut()
	case clientError(err):
		if p.result.settled {
			p.setReceipt(w.Header())
		}
		delivery.ForPayerOnly(w.Header())
		if _, read := p.ask.Body.Digest(); !read && r.request.ProtoMajor == 1 {
			// What is left of the body would be taken for the next request: Caddy's own
			// body hides from the server that it was closed early.
			w.Header().Set("Connection", "close")
		}
		// A missing page is the error routes' business. What they ask is an
		// upstream too.
		delivery.RemovePayments(r.request.Header)
		delivery.RemoveTrailers(r.request, delivery.IsPayment)
		return err
	default:
		// An upstream that failed is not: these routes know nothing of payments,
		// and what they serve in its place would be served for nothing.
		r.refuse(p.upstreamFailed(err))
		r.noteCut()
	}
	return nil
}

// refuse sets an answer of ours in place of one that did not come.
func (r *run) refuse(f *Refusal) {
	r.answer.Status = -1
	r.refused = f
}

// payerLeft says whether it was the payer's doing that he got no goods: he signed for too
// short a time, broke the request's body off, or left before the answer.
func (r *run) payerLeft() bool {
	status := r.p.result.status
	switch {
	case r.short && r.sale.Load() == saleLate, r.refused != nil && r.refused.Code == codeClientGone:
		return true
	case r.p.ask.Body.Broken() && !r.p.isGoods(status):
		return true
	case r.request.Context().Err() == nil:
		return false
	}
	return status == 0 || status == admission.ClientGone
}

// noteUncharged writes down what the upstream has done and nobody was charged for.
func (r *run) noteUncharged() {
	p := r.p
	left := r.payerLeft()
	control, tab, now := p.desk.Settler.Admission, p.tabFor(p.hold.Payment), p.desk.Now()
	switch {
	case r.replayed, p.result.excused, p.result.outcome == metrics.Unrecorded:
	case p.result.settled && nothingCharged(p.hold.Payment):
		control.AddUncharged(tab, 1, now)
	case p.result.settled && (left || r.refused != nil && r.refused.Code == codeBoughtElse):
		control.AddHangUp(tab, now)
	case p.result.settled && p.result.redeemed && !r.used:
		control.AddFetch(tab, now)
	case left && p.hold.Payment.State == ledger.Released: // see settle
		control.AddUncharged(tab, admission.CostOfHangUp, now)
	case p.result.settled || p.hold.Payment.State != ledger.Claimed:
	case left:
		control.AddUncharged(tab, admission.CostOfHangUp, now)
	default:
		control.AddUncharged(tab, 1, now)
	}
}

// finish decides whether the goods have arrived.
func (r *run) finish(err error, returned bool) {
	p, a := r.p, r.answer
	switch {
	case p.result.status == ledger.StatusBegan: // see noteCut
	case a.Status > 0:
		p.result.status = a.Status
	default:
		p.result.status = 0
		r.noteCut()
	}
	p.sawUpstream(p.result.status, returned)
	if !p.result.settled {
		if p.result.outcome == "" {
			p.result.outcome = metrics.Uncharged
		}
		return
	}
	goods := p.isGoods(p.result.status) || p.result.status == http.StatusNotModified || a.Hijacked
	if p.result.redeemed {
		goods = a.Hijacked || p.isGoods(p.result.status) && (p.ask.Acts || p.chargeable(p.result.status, a.Header()))
	}
	arrived := returned && err == nil && a.Complete(r.request.Method)
	if a.Hijacked || r.request.Method == http.MethodConnect && goods {
		arrived = true // a tunnel ends when either side leaves
	}
	if arrived && goods {
		p.desk.Held.payerHasAll(p.hold.key)
	}
	head := r.headOnly()
	if goods && !arrived && !head && (a.EndedByPayer() || p.ask.Body.Broken()) {
		// Who stops before the last byte has had what he came for, or will have.
		p.result.ended = 1
		arrived = p.hold.Payment.Ended+1 >= maxEnded || !p.ask.Acts && (p.offered.Price.Upto || delivery.IsUnread(p.hold.Payment.Body))
	}
	if arrived && !goods && p.usesUp(p.result.status, a.Header()) {
		// A redirect within the site: it may be of no use to the payer, or all that he wants.
		p.result.ended = 1
		goods = p.hold.Payment.Ended+1 >= maxEnded
	}
	if arrived && goods && !head || nothingCharged(p.hold.Payment) {
		p.result.arrived = true
		p.result.outcome = metrics.Delivered
		return
	}
	p.result.outcome = metrics.Undelivered
	p.readOn(r.request.Context())
	if p.ask.Acts && a.Goods && !r.replayed {
		p.result.answer = delivery.CredentialsOf(r.request, p.hold.Payment.Key)
		if returned && err == nil && a.Recorder.Whole() {
			a.Recorder.End(a.Header())
			p.result.answer = a.Recorder.Encode(p.result.answer)
		}
	}
	if head && arrived {
		p.result.outcome = metrics.Settled // a HEAD delivers nothing: its payment buys one GET
	}
}

// record writes down how the delivery goes.
func (p *Purchase) record(ch ledger.Change) *Refusal {
	change := p.move
	if p.ask.Acts {
		change = p.insistOn
	}
	if err := change(ch); err != nil {
		return p.unrecorded()
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
func (p *Purchase) upstreamFailed(err error) *Refusal {
	p.result.status = http.StatusBadGateway
	if e, ok := errors.AsType[caddyhttp.HandlerError](err); ok && e.StatusCode >= 500 {
		p.result.status = e.StatusCode
	}
	f := &Refusal{Status: p.result.status, Code: codeUpstreamFailed, cause: err}
	if p.result.settled {
		f.Receipt, f.RetryAfter = p.receipt(p.hold.Payment), fetchAgainAfter
	} else {
		p.result.outcome = metrics.Uncharged
	}
	p.sawUpstream(p.result.status, true)
	return f
}
