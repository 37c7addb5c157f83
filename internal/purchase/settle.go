package purchase

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/internal/settlement"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// settle moves the money. The payer waits for it at most Desk.AnswerWithin;
// the settlement itself goes on without the payer, the request and the config, and
// records what became of it.
func (p *Purchase) settle(ctx context.Context) *Refusal {
	if p.hold.Payment.State == ledger.Claimed {
		if misfit := p.stillLives(); misfit != nil {
			return misfit
		}
		if refused := p.chargeUsage(); refused != nil {
			return refused
		}
		stored, err := json.Marshal(p.signed.request)
		if err != nil {
			return p.ledgerFailed("storing the request", err)
		}
		if err := p.insistOn(ledger.Change{
			To:          ledger.Settling,
			Request:     stored,
			Facilitator: p.signed.settlers[0].Name,
			Payer:       p.signed.auth.Payer,
			Status:      p.result.status,
			Body:        p.bodySoFar(ctx),
			Amount:      p.signed.due,
		}); err != nil {
			p.result.excused = true
			p.endClaim(ledger.Change{To: ledger.Released}) // it may have been written all the same
			return &Refusal{Status: http.StatusServiceUnavailable, Code: codeLedger, RetryAfter: 5}
		}
		if p.ask.Payer.Err() != nil {
			// Who comes again is told that nothing is sold to one who has left: see mayBeRetry.
			p.endClaim(ledger.Change{To: ledger.Released})
			return clientGone()
		}
	}

	lease, slot := p.hold.lease, p.hold.slot
	work := p.desk.Settler.Settle(ctx, settlement.Order{
		Claim: p.hold.Claim, Request: p.signed.request, Facilitators: p.signed.settlers, AnswerWithin: p.desk.AnswerWithin,
		Body:    p.knownBody(),
		Heard:   p.customer().remember,
		Release: func() { lease.End(); slot.Leave() },
	})
	timer := time.NewTimer(p.desk.AnswerWithin)
	defer timer.Stop()
	gone := p.ask.Payer.Done()
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
			p.hold.lease, p.hold.slot = nil, nil
			p.result.outcome = metrics.Pending
			return p.pending(p.hold.Payment, 5)
		}
	}
}

// afterSettlement says what the payer may have.
func (p *Purchase) afterSettlement(s settlement.Result) *Refusal {
	p.hold.slot.Leave()
	if s.Err != nil {
		// It is not recorded, so it is not certain to be found again: not a 402,
		// and no goods that a second try would get once more. The settlement goes
		// on alone, and holds the claim: see settlement.Result.
		p.hold.lease = nil
		return p.unrecorded()
	}
	p.hold.Payment = s.Row
	p.hold.Payment.Request = nil // see move
	state := s.Row.State
	if s.Outcome == facilitator.Unsent && state == ledger.Refused {
		state = ledger.Released // in doubt meanwhile, see settlement.Running.Doubt
	}
	switch state {
	case ledger.Settled:
		p.result.settled = true
		p.result.settlement = s.Settlement
		return nil
	case ledger.Refused:
		p.result.outcome = metrics.Refused
		code := x402.SafeCode(s.Reason, x402.CodeSettlementFailed)
		receipt := failedReceipt(p.hold.Payment, code)
		return &Refusal{Status: http.StatusPaymentRequired, Code: code, Receipt: &receipt, cause: detail(s.Detail)}
	case ledger.Released:
		p.result.outcome = metrics.Unsent
		wait := 10
		if s.RetryAfter > 0 {
			wait = seconds(min(s.RetryAfter, facilitator.MaxRetryAfter))
		}
		return &Refusal{Status: http.StatusServiceUnavailable, Code: x402.CodeFacilitatorUnavailable, RetryAfter: wait, cause: detail(s.Detail)}
	default:
		p.result.outcome = metrics.Unknown
		refused := p.pending(p.hold.Payment, 5)
		refused.cause = detail(s.Detail)
		return refused
	}
}

// stillLives checks, right before the money is asked for, that the
// authorization reaches a block: the upstream may have taken its time.
func (p *Purchase) stillLives() *Refusal {
	if err := p.signed.auth.check(p.signed.request.Requirement, p.desk.Now()); err != nil {
		p.result.outcome = metrics.Expired
		p.customer().remember(facilitator.Settlement{Outcome: facilitator.Refused})
		return refuseAnew(CodeOf(err), err)
	}
	return nil
}

// buysOnce lets a transaction buy only once where the authorization itself
// cannot be recognised: a facilitator that answers two payments with one
// transaction has been paid once.
func (p *Purchase) buysOnce() *Refusal {
	row := p.hold.Payment
	once := row
	once.Key = ledger.Key("transaction:" + row.Network + ":" + row.Transaction)
	once.ValidBefore = time.Time{}
	once.Client, once.Identifier = row.ID, "" // whose transaction it is
	ctx, l := context.Background(), p.desk.Settler.Ledger
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
		return &Refusal{Status: http.StatusServiceUnavailable, Code: codeLedger, RetryAfter: 10, Receipt: p.receipt(row), cause: err}
	case isTaken:
		p.result.outcome = metrics.TransactionReused
		// It buys nothing, now or later.
		if p.hold.Payment.State == ledger.Settled {
			_ = p.move(ledger.Change{To: ledger.Delivering})
		}
		p.endClaim(ledger.Change{To: ledger.Delivered})
		return &Refusal{Status: http.StatusConflict, Code: codeBoughtElse, cause: err}
	default:
		// Free again, if it is not yet recorded, so that the next try can.
		_, _ = l.Move(ctx, c, ledger.Change{To: ledger.Released})
		refused := p.ledgerFailed("recording a transaction", err)
		refused.Receipt = p.receipt(row)
		return refused
	}
}
