package paywall

import (
	"context"
	"errors"
	"sync"

	"github.com/go-json-experiment/json"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// What became of a payment whose block is gone, for the metric.
const (
	reorganisedMoved    = "moved"    // the chain has it in another block
	reorganisedReverted = "reverted" // it does not show it
	reorganisedRestored = "restored" // it does so again
)

// seeTo sees to the payments of a block that is gone, as many at once as there is
// room in free.
func (l *lookout) seeTo(ctx context.Context, at blockOf, free chan struct{}) {
	list := l.watch.lost(at)
	decided := make([]bool, len(list))
	var trying sync.WaitGroup
	for i := range list {
		free <- struct{}{}
		trying.Add(1)
		settlements.Go(func() { // see drain: money may move
			defer trying.Done()
			defer func() {
				if p := recover(); p != nil {
					l.logger.Error("seeing to a payment whose block is gone", zap.String("payment", ledger.ID(list[i].key)), zap.Any("panic", p), zap.Stack("stack"))
				}
				<-free
			}()
			if ctx.Err() == nil {
				decided[i] = l.decide(ctx, at.network, &list[i])
			}
		})
	}
	trying.Wait()
	var undecided []watched
	for i, p := range list {
		if !decided[i] {
			undecided = append(undecided, p)
		}
	}
	l.watch.left(at, len(list), undecided, l.now())
}

// decide finds out what became of one payment whose block is gone, and reports
// whether there is nothing more to do here.
func (l *lookout) decide(ctx context.Context, network string, p *watched) bool {
	logger := l.logger.With(zap.String("payment", ledger.ID(p.key)), zap.String("network", network))
	row, err := l.ledger.Get(ctx, p.key)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return true // another ledger's
	case err != nil:
		return false
	case row.State != ledger.Settled && row.State != ledger.Delivering && row.State != ledger.Delivered:
		return true // the reconciler finds out
	}
	var request facilitator.Request
	if err := json.Unmarshal(p.request, &request); err != nil || request.Payment == nil {
		logger.Error("a payment whose block is gone cannot be asked about: its request is unreadable", zap.Error(err))
		return true
	}
	request.Since = row.Created
	proof, err := l.seek(ctx, network, request)
	switch {
	case err != nil:
		return false // nobody could tell
	case proof.Evidence == facilitator.Moved:
		return l.found(ctx, network, p, row, ledger.Change{Transaction: proof.Transaction}, proof.Block, logger)
	}
	if !p.told {
		p.told = true
		reorganised.WithLabelValues(reorganisedReverted).Inc()
		l.admission.Distrusted.Add(row.Payer, l.now())
		l.admission.Trusted.Remove(row.Payer)
		logger.Error("a reorganisation of the chain has taken back a payment that was settled, and the chain does not show it in another block",
			zap.String("transaction", row.Transaction), zap.String("state", string(row.State)), zap.String("payer", row.Payer),
			zap.String("asset", row.Asset), zap.String("amount", row.Amount))
	}
	if row.State != ledger.Delivered && !ledger.Held(row, l.now()) { // who delivers is not stopped
		return l.unsettle(ctx, row, logger)
	}
	if row.State == ledger.Delivered && row.Reason != ledger.ReasonReverted {
		if err := l.amend(ctx, row, ledger.Change{Reason: ledger.ReasonReverted}); err != nil {
			logger.Error("recording that a payment was taken back", zap.Error(err))
			return false
		}
		row.Reason = ledger.ReasonReverted
	}
	named, known := l.facilitator(p.facilitator)
	over := !row.ValidBefore.IsZero() && !l.now().Before(row.ValidBefore)
	switch {
	case proof.Evidence == facilitator.Void:
		return true
	case over || !known || ctx.Err() != nil:
		return false // it may be on its way
	}
	s, _ := ask(context.WithoutCancel(ctx), []facilitator.Named{named}, request)
	observeSettlement(s.Outcome)
	if s.Outcome != facilitator.Settled || s.Block == (facilitator.Block{}) {
		// Nobody's word counts here: the next look tells whether it is true.
		logger.Warn("a payment that was taken back was asked for again", zap.Stringer("outcome", s.Outcome), zap.String("reason", s.Reason), zap.String("detail", s.Detail))
		return false
	}
	return l.found(ctx, network, p, row, ledger.Change{Transaction: s.Transaction, Facilitator: named.Name}, s.Block, logger)
}

// seek looks for a payment on the chain. The error is for when nobody could tell.
func (l *lookout) seek(ctx context.Context, network string, r facilitator.Request) (facilitator.Proof, error) {
	err := errors.New("nobody can look at this network")
	var said facilitator.Proof
	for _, w := range l.witnesses(network) {
		proof, failed := testify(ctx, w, r, r.Since)
		switch {
		case failed != nil && err != nil:
			err = failed
		case failed != nil:
		case proof.Evidence == facilitator.Moved:
			return proof, nil
		default:
			said, err = proof, nil
		}
	}
	return said, err
}

// found is for a payment that the chain has after all. It is watched in its new
// block.
func (l *lookout) found(ctx context.Context, network string, p *watched, row ledger.Payment, ch ledger.Change, b facilitator.Block, logger *zap.Logger) bool {
	if row.Reason == ledger.ReasonReverted || ch.Transaction != row.Transaction {
		if err := l.amend(ctx, row, ch); err != nil {
			logger.Error("recording the new transaction of a payment", zap.String("transaction", ch.Transaction), zap.Error(err))
			return false
		}
	}
	outcome := reorganisedMoved
	if p.told {
		outcome = reorganisedRestored
	}
	reorganised.WithLabelValues(outcome).Inc()
	logger.Info("a payment whose block was taken back is in another one", zap.String("transaction", ch.Transaction), zap.Uint64("block", b.Number))
	again := *p
	again.told = false
	l.watch.add(network, b, again, l.now(), l.logger)
	return true
}

// amend records what became of the money of a payment that stays where it is.
func (l *lookout) amend(ctx context.Context, row ledger.Payment, ch ledger.Change) error {
	take := ledger.Delivered
	ch.To, ch.Reorganised = ledger.Delivered, true
	if row.State != ledger.Delivered {
		take, ch.To = ledger.Delivering, ledger.Settled
	}
	claim, err := l.ledger.Take(ctx, row.Key, take, leaseFor)
	if err == nil {
		_, err = l.ledger.Move(ctx, claim, ch)
	}
	return err
}

// unsettle gives a payment whose goods are owed to the reconciler.
func (l *lookout) unsettle(ctx context.Context, row ledger.Payment, logger *zap.Logger) bool {
	claim, err := l.ledger.Take(ctx, row.Key, ledger.Delivering, leaseFor)
	if _, ok := errors.AsType[*ledger.TakenError](err); ok {
		return false // somebody came for the goods
	}
	for _, to := range []ledger.State{ledger.Settling, ledger.Unknown} {
		if err == nil {
			_, err = l.ledger.Move(ctx, claim, ledger.Change{To: to, Reorganised: true})
		}
	}
	if err != nil {
		logger.Error("recording that a payment was taken back", zap.Error(err))
	}
	return err == nil
}
