package paywall

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
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
			_ = p.move(ledger.Change{To: ledger.Released})
			return clientGone()
		}
	}

	// Whoever sets it first decides: the settlement that it answers the payer,
	// or the payer that the settlement goes on alone.
	const waiting, answered, alone = 0, 1, 2
	var who atomic.Int32
	done := make(chan settled, 1)
	work := context.WithoutCancel(ctx)
	p.request.Since = p.held.Payment.Created
	order, request, id, logger, book := p.settlers, p.request, p.held.Payment.ID, p.h.logger, p.held
	l, app, unrecorded := p.h.app.ledger, p.h.app, &p.h.shared.unrecorded
	lease, slot, payer := p.lease, p.slot, p.customer()
	request.Transaction, request.Announce = book.Payment.Transaction, announce(l, book)
	settlements.Go(func() {
		defer unrecorded.Delete(book.Payment.Key)
		s, name := ask(work, order, request)
		observeSettlement(s.Outcome)
		payer.remember(s.Outcome)
		record := func(c ledger.Claim) (ledger.Payment, error) { return recordSettlement(l, c, s, name) }
		row, err := record(book)
		if other := chargedOtherwise(book.Payment, s); s.Outcome == facilitator.Settled && other != "" {
			logger.Error("the facilitator says that it has charged another amount than it was asked to", zap.String("payment", id),
				zap.String("facilitator", name), zap.String("asked", book.Payment.Amount), zap.String("charged", other))
		}
		watch := func() {
			if s.Outcome == facilitator.Settled {
				app.watch(row, s.Block)
			}
		}
		if err == nil {
			watch()
		} else {
			unrecorded.Store(book.Payment.Key, true)
		}
		if who.CompareAndSwap(waiting, answered) {
			done <- settled{settlement: s, row: row, err: err}
			if err == nil {
				return
			}
		}
		if err != nil {
			logger.Error("a settlement cannot be recorded; that is tried again", zap.String("payment", id),
				zap.Stringer("outcome", s.Outcome), zap.String("transaction", s.Transaction), zap.Error(err))
			if book, err = recordWithRetry(l, book, s.Outcome == facilitator.Settled, record); err == nil {
				row = book.Payment
				watch()
			}
		}
		lease.end()
		slot.Leave()
		if row.State == ledger.Settled {
			if !row.Lease.IsZero() { // else it was let go when it was recorded
				book.Payment = row
				_, err = l.Move(context.Background(), book, ledger.Change{To: ledger.Settled})
			}
			logger.Info("a payment was settled after its payer had been told to come back",
				zap.String("payment", id), zap.String("transaction", s.Transaction), zap.Error(err))
		} else {
			logger.Warn("a settlement ended after its payer had been told to come back", zap.String("payment", id),
				zap.Stringer("outcome", s.Outcome), zap.String("reason", s.Reason), zap.String("detail", s.Detail), zap.Error(err))
		}
	})

	timer := time.NewTimer(p.h.answerWithin)
	defer timer.Stop()
	gone := p.payer.Done()
	for {
		select {
		case result := <-done:
			if result.err == nil {
				unrecorded.Delete(book.Payment.Key) // see doubt, which may have been late
			}
			return p.afterSettlement(result)
		case <-gone:
			gone = nil
			p.doubt(book, p.bodySoFar(ctx))
		case <-timer.C:
			p.doubt(book, p.bodySoFar(ctx))
			if !who.CompareAndSwap(waiting, alone) {
				continue
			}
			p.lease, p.slot = nil, nil
			p.outcome = "pending"
			return &refusal{status: http.StatusServiceUnavailable, code: x402.CodeSettlementPending, retryAfter: 5, receipt: p.pendingReceipt(p.held.Payment)}
		}
	}
}

// announce writes down which transaction is about to be sent, so that it is looked
// for, and not sent a second time, when this process ends before it knows more.
func announce(l *ledger.Guarded, c ledger.Claim) func(transaction string) error {
	return func(transaction string) error {
		_, err := l.Move(context.Background(), c, ledger.Change{To: ledger.Settling, Transaction: transaction, Announces: true})
		return err
	}
}

// doubt marks a settlement whose payer no longer waits for it: if the payer
// signs anew, that is no other purchase, but this one. When the settlement has
// just ended, the rules refuse the mark, and it is not needed.
func (p *purchase) doubt(c ledger.Claim, body string) {
	_, err := p.h.app.ledger.Move(context.Background(), c, ledger.Change{To: ledger.Settling, Body: body})
	if err != nil && !errors.Is(err, ledger.ErrLost) {
		p.h.shared.unrecorded.Store(c.Payment.Key, true) // until the settlement ends
	}
}

// bodySoFar is what the ledger is told of the request's body while the money moves: once
// the upstream has answered, that it is not known, if it is not; "" leaves what the ledger
// has from an earlier request.
func (p *purchase) bodySoFar(ctx context.Context) string {
	switch {
	case p.status != 0:
		return p.body.record(context.WithoutCancel(ctx), p.method)
	case p.held.Payment.Status != 0:
		return ""
	}
	return p.readBody()
}

// readBody is the digest of the request's body, or "" while it is not known, and where
// the ledger has the answer to another one.
func (p *purchase) readBody() string {
	if hasCopy(p.held.Payment) {
		return ""
	}
	digest, _ := p.body.digest()
	return digest
}

// settled is what the payer's goroutine learns of a settlement.
type settled struct {
	settlement facilitator.Settlement
	row        ledger.Payment
	err        error
}

// ask asks the facilitators, with a bound, and survives their panics: what
// panicked half-way may have moved money.
func ask(ctx context.Context, order []facilitator.Named, r facilitator.Request) (s facilitator.Settlement, name string) {
	defer func() {
		if rec := recover(); rec != nil {
			s = facilitator.Settlement{
				Outcome: facilitator.Unknown, Reason: string(x402.CodeSettlementPending),
				Detail: fmt.Sprintf("panic: %v\n%s", rec, debug.Stack()),
			}
		}
	}()
	if nothingDue(r) {
		return facilitator.Settlement{Outcome: facilitator.Settled, Network: r.Requirement.Network, Amount: "0"}, order[0].Name
	}
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	return facilitator.Settle(ctx, order, r)
}

// recordSettlement writes an outcome into the ledger. A refusal after doubt
// stays unknown: an earlier try may be what emptied the account.
func recordSettlement(l *ledger.Guarded, c ledger.Claim, s facilitator.Settlement, name string) (ledger.Payment, error) {
	change := ledger.Change{
		Facilitator: name,
		Transaction: s.Transaction,
		Payer:       s.Payer,
		Reason:      s.Reason,
	}
	switch s.Outcome {
	case facilitator.Settled:
		change.To = ledger.Settled
		change.Amount = chargedOtherwise(c.Payment, s)
	case facilitator.Refused:
		change.To = ledger.Refused
	case facilitator.Unsent:
		change.To = ledger.Released
	default:
		change.To = ledger.Unknown
	}
	if c.Payment.Doubt && change.To != ledger.Settled {
		change.To = ledger.Unknown
	}
	if c.Payment.Payer != "" {
		change.Payer = "" // what was signed is better than what was said
	}
	row, err := l.Move(context.Background(), c, change)
	if errors.Is(err, ledger.ErrLost) && (change.To == ledger.Refused || change.To == ledger.Released) {
		// The payer has left meanwhile: see doubt. Who still has the claim has asked
		// first and alone, and was told that nothing moved.
		change.To, change.Proven = ledger.Refused, true
		row, err = l.Move(context.Background(), c, change)
	}
	return row, err
}

// afterSettlement says what the payer may have.
func (p *purchase) afterSettlement(result settled) *refusal {
	s := result.settlement
	p.slot.Leave()
	if result.err != nil {
		// It is not recorded, so it is not certain to be found again: not a 402,
		// and no goods that a second try would get once more. The settlement goes
		// on alone, and holds the claim: see recordWithRetry.
		p.lease = nil
		p.outcome = "unrecorded"
		return &refusal{status: http.StatusServiceUnavailable, code: codeLedger, retryAfter: 5, receipt: p.pendingReceipt(p.held.Payment)}
	}
	p.held.Payment = result.row
	p.held.Payment.Request = nil // see move
	state := result.row.State
	if s.Outcome == facilitator.Unsent && state == ledger.Refused {
		state = ledger.Released // in doubt meanwhile, see recordSettlement
	}
	switch state {
	case ledger.Settled:
		p.settled = true
		p.receiptData = s
		return nil
	case ledger.Refused:
		p.outcome = "refused"
		code := x402.SafeCode(s.Reason, x402.CodeSettlementFailed)
		receipt := failedReceipt(p.held.Payment, code)
		return &refusal{status: http.StatusPaymentRequired, code: code, receipt: &receipt, cause: detail(s.Detail)}
	case ledger.Released:
		p.outcome = "unsent"
		wait := 10
		if s.RetryAfter > 0 {
			wait = seconds(min(s.RetryAfter, facilitator.MaxRetryAfter))
		}
		return &refusal{status: http.StatusServiceUnavailable, code: x402.CodeFacilitatorUnavailable, retryAfter: wait, cause: detail(s.Detail)}
	default:
		p.outcome = "unknown"
		return &refusal{status: http.StatusServiceUnavailable, code: x402.CodeSettlementPending, retryAfter: 5, receipt: p.pendingReceipt(p.held.Payment), cause: detail(s.Detail)}
	}
}

// stillLives checks, right before the money is asked for, that the
// authorization reaches a block: the upstream may have taken its time.
func (p *purchase) stillLives() *refusal {
	if err := p.auth.check(p.request.Requirement, p.h.now()); err != nil {
		p.outcome = "expired"
		p.customer().remember(facilitator.Refused)
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
	c, err := l.Claim(ctx, once, leaseFor)
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
		p.outcome = "transaction_reused"
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
