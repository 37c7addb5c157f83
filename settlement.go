package paywall

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/internal/settlement"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// settle moves the money. The payer waits for it at most answerWithin; the
// settlement itself goes on without the payer, the request and the config, and
// records what became of it.
func (p *purchase) settle(ctx context.Context) *refusal {
	if p.held.Payment.State == ledger.Claimed {
		if misfit := p.stillLives(); misfit != nil {
			return misfit
		}
		if refused := p.chargeUsage(); refused != nil {
			return refused
		}
		stored, err := json.Marshal(p.request)
		if err != nil {
			return p.ledgerFailed("storing the request", err)
		}
		if err := p.move(ledger.Change{To: ledger.Settling, Request: stored, Facilitator: p.settlers[0].Name, Payer: p.auth.Payer, Status: p.status, Body: p.bodySoFar(ctx), Amount: p.due}); err != nil {
			return &refusal{status: http.StatusServiceUnavailable, code: codeLedger, retryAfter: 5}
		}
		if p.payer.Err() != nil {
			// Who comes again is told that nothing is sold to one who has left: see mayBeRetry.
			p.end(ledger.Change{To: ledger.Released})
			return clientGone()
		}
	}

	lease, slot := p.lease, p.slot
	work := p.h.app.desk.Settle(ctx, settlement.Order{
		Claim: p.held, Request: p.request, Facilitators: p.settlers,
		Heard:   p.customer().remember,
		Release: func() { lease.End(); slot.Leave() },
	})
	timer := time.NewTimer(p.h.answerWithin)
	defer timer.Stop()
	gone := p.payer.Done()
	for {
		select {
		case result := <-work.Done():
			return p.afterSettlement(result)
		case <-gone:
			gone = nil
			work.Doubt(p.bodySoFar(ctx))
		case <-timer.C:
			work.Doubt(p.bodySoFar(ctx))
			if !work.LeaveAlone() {
				continue
			}
			p.lease, p.slot = nil, nil
			p.outcome = metrics.Pending
			return &refusal{status: http.StatusServiceUnavailable, code: x402.CodeSettlementPending, retryAfter: 5, receipt: p.pendingReceipt(p.held.Payment)}
		}
	}
}

// bodySoFar is what the ledger is told of the request's body while the money moves: once
// the upstream has answered, that it is not known, if it is not; "" leaves what the ledger
// has from an earlier request.
func (p *purchase) bodySoFar(ctx context.Context) string {
	switch {
	case p.status != 0:
		return p.body.Record(context.WithoutCancel(ctx), p.method)
	case p.held.Payment.Status != 0:
		return ""
	}
	return p.readBody()
}

// readBody is the digest of the request's body, or "" while it is not known, and where
// the ledger has the answer to another one.
func (p *purchase) readBody() string {
	if delivery.HasCopy(p.held.Payment) {
		return ""
	}
	digest, _ := p.body.Digest()
	return digest
}

// afterSettlement says what the payer may have.
func (p *purchase) afterSettlement(s settlement.Result) *refusal {
	p.slot.Leave()
	if s.Err != nil {
		// It is not recorded, so it is not certain to be found again: not a 402,
		// and no goods that a second try would get once more. The settlement goes
		// on alone, and holds the claim: see settlement.Result.
		p.lease = nil
		p.outcome = metrics.Unrecorded
		return &refusal{status: http.StatusServiceUnavailable, code: codeLedger, retryAfter: 5, receipt: p.pendingReceipt(p.held.Payment)}
	}
	p.held.Payment = s.Row
	p.held.Payment.Request = nil // see move
	state := s.Row.State
	if s.Outcome == facilitator.Unsent && state == ledger.Refused {
		state = ledger.Released // in doubt meanwhile, see settlement.Running.Doubt
	}
	switch state {
	case ledger.Settled:
		p.settled = true
		p.receiptData = s.Settlement
		return nil
	case ledger.Refused:
		p.outcome = metrics.Refused
		code := x402.SafeCode(s.Reason, x402.CodeSettlementFailed)
		receipt := failedReceipt(p.held.Payment, code)
		return &refusal{status: http.StatusPaymentRequired, code: code, receipt: &receipt, cause: detail(s.Detail)}
	case ledger.Released:
		p.outcome = metrics.Unsent
		wait := 10
		if s.RetryAfter > 0 {
			wait = seconds(min(s.RetryAfter, facilitator.MaxRetryAfter))
		}
		return &refusal{status: http.StatusServiceUnavailable, code: x402.CodeFacilitatorUnavailable, retryAfter: wait, cause: detail(s.Detail)}
	default:
		p.outcome = metrics.Unknown
		return &refusal{status: http.StatusServiceUnavailable, code: x402.CodeSettlementPending, retryAfter: 5, receipt: p.pendingReceipt(p.held.Payment), cause: detail(s.Detail)}
	}
}

// stillLives checks, right before the money is asked for, that the
// authorization reaches a block: the upstream may have taken its time.
func (p *purchase) stillLives() *refusal {
	if err := p.auth.check(p.request.Requirement, p.h.now()); err != nil {
		p.outcome = metrics.Expired
		p.customer().remember(facilitator.Settlement{Outcome: facilitator.Refused})
		return refuseAnew(codeOf(err), err)
	}
	return nil
}

// buysOnce lets a transaction buy only once where the authorization itself
// cannot be recognised: a facilitator that answers two payments with one
// transaction has been paid once.
func (p *purchase) buysOnce() *refusal {
	row := p.held.Payment
	once := row
	once.Key = ledger.Key("transaction:" + row.Network + ":" + row.Transaction)
	once.ValidBefore = time.Time{}
	once.Client, once.Identifier = row.ID, "" // whose transaction it is
	ctx, l := context.Background(), p.h.app.ledger
	c, err := l.Claim(ctx, once, ledger.LeaseFor)
	for _, to := range []ledger.State{ledger.Settling, ledger.Settled, ledger.Delivering, ledger.Delivered} {
		if err == nil {
			_, err = l.Move(ctx, c, ledger.Change{To: to, Transaction: row.Transaction})
		}
	}
	taken, isTaken := errors.AsType[*ledger.TakenError](err)
	switch {
	case err == nil, isTaken && taken.Payment.Client == row.ID && taken.Payment.State != ledger.Claimed:
		return nil // ours, now or since an earlier run
	case isTaken && taken.Payment.Client == row.ID:
		return &refusal{status: http.StatusServiceUnavailable, code: codeLedger, retryAfter: 10, receipt: p.receipt(row), cause: err}
	case isTaken:
		p.outcome = metrics.TransactionReused
		// It buys nothing, now or later.
		if p.held.Payment.State == ledger.Settled {
			_ = p.move(ledger.Change{To: ledger.Delivering})
		}
		_ = p.move(ledger.Change{To: ledger.Delivered})
		return &refusal{status: http.StatusConflict, code: codeBoughtElse, cause: err}
	default:
		// Free again, if it is not yet recorded, so that the next try can.
		_, _ = l.Move(ctx, c, ledger.Change{To: ledger.Released})
		refused := p.ledgerFailed("recording a transaction", err)
		refused.receipt = p.receipt(row)
		return refused
	}
}
