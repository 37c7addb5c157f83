package settlement

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// reorgWatch looks whether the chains still have the blocks of the latest payments,
// and sees to the payments of those that they do not have. Goods that are owed go
// out again only when their payment is settled again, which is for the reconciler.
// Where the goods are gone, the money is asked for again in the same words, while
// the authorization is good, and the payer pays first from now on.
type reorgWatch struct {
	watch       *Blocks
	ledger      *ledger.Guarded
	admission   *admission.Control
	facilitator func(name string) (facilitator.Named, bool)
	blocks      func(network string) []facilitator.Blocks
	witnesses   func(network string) []facilitator.Witness
	closed      func(network string) bool
	now         func() time.Time
	logger      *zap.Logger
}

// run looks until ctx ends.
func (w *reorgWatch) run(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for network, list := range w.watch.due(w.now()) {
			go w.lookAt(ctx, network, list)
		}
	}
}

// lookAt looks at some blocks of a network, and sees to the payments of those that
// are gone.
func (w *reorgWatch) lookAt(ctx context.Context, network string, list []blockOf) {
	defer w.watch.rest(network)
	var seeing sync.WaitGroup
	defer seeing.Wait()
	free := make(chan struct{}, triedAtOnce)
	for _, at := range list {
		if ctx.Err() != nil {
			return
		}
		if w.closed(network) { // what another chain says is worth nothing
			w.watch.unclear(at, w.now())
			continue
		}
		if !w.watch.isGone(at) {
			has, err := w.hasBlock(ctx, at)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				w.logger.Debug("it cannot be told whether the chain still has a block", zap.String("network", network), zap.Uint64("block", at.Number), zap.Error(err))
				w.watch.unclear(at, w.now())
				return // the others later: nobody may be there to ask
			case has:
				w.watch.seen(at, w.now())
				continue
			}
			n := w.watch.takenBack(at, w.now())
			w.logger.Warn("a reorganisation of the chain has taken back a block with payments", zap.String("network", network),
				zap.Uint64("block", at.Number), zap.String("hash", at.Hash), zap.Int("payments", n))
		}
		seeing.Go(func() { w.seeTo(ctx, at, free) })
	}
}

// hasBlock asks those who can look, and survives their panics.
func (w *reorgWatch) hasBlock(ctx context.Context, at blockOf) (has bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, askChainWithin)
	defer cancel()
	err = errors.New("nobody can look at this network")
	for _, b := range w.blocks(at.network) {
		if has, err = b.HasBlock(ctx, at.network, at.Block); err == nil {
			break
		}
	}
	return has, err
}

// watch watches the block of a payment that was settled, where it is known and
// somebody can look.
func (s *Settler) watch(row ledger.Payment, b facilitator.Block) {
	if b != (facilitator.Block{}) && len(s.Facilitators.Blocks(row.Network)) > 0 {
		s.Blocks.add(row.Network, b, watched{key: row.Key, facilitator: row.Facilitator, request: row.Request}, time.Now(), s.Logger)
	}
}

// WatchBlocks looks at the blocks of the latest payments until ctx ends.
func (s *Settler) WatchBlocks(ctx context.Context) {
	l := &reorgWatch{
		watch:       s.Blocks,
		ledger:      s.Ledger,
		admission:   s.Admission,
		facilitator: s.Facilitators.Get,
		blocks:      s.Facilitators.Blocks,
		witnesses:   s.Facilitators.Witnesses,
		closed:      s.Facilitators.Closed,
		now:         time.Now,
		logger:      s.Logger.Named("reorganisations"),
	}
	l.run(ctx)
}

// seeTo sees to the payments of a block that is gone, as many at once as there is
// room in free.
func (w *reorgWatch) seeTo(ctx context.Context, at blockOf, free chan struct{}) {
	list := w.watch.lost(at)
	decided := make([]bool, len(list))
	var trying sync.WaitGroup
	for i := range list {
		free <- struct{}{}
		trying.Add(1)
		inFlight.Go(func() { // see Drain: money may move
			defer trying.Done()
			defer func() {
				if p := recover(); p != nil {
					w.logger.Error("seeing to a payment whose block is gone", zap.String("payment", ledger.ID(list[i].key)), zap.Any("panic", p), zap.Stack("stack"))
				}
				<-free
			}()
			if ctx.Err() == nil {
				decided[i] = w.decide(ctx, at.network, &list[i])
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
	w.watch.left(at, len(list), undecided, w.now())
}

// decide finds out what became of one payment whose block is gone, and reports
// whether there is nothing more to do here.
func (w *reorgWatch) decide(ctx context.Context, network string, p *watched) bool {
	logger := w.logger.With(zap.String("payment", ledger.ID(p.key)), zap.String("network", network))
	row, err := w.ledger.Get(ctx, p.key)
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
	proof, err := w.seek(ctx, network, request)
	switch {
	case err != nil:
		return false // nobody could tell
	case proof.Evidence == facilitator.Moved:
		return w.found(ctx, network, p, row, ledger.Change{Transaction: proof.Transaction}, proof.Block, logger)
	}
	if !p.told {
		p.told = true
		w.tell(row, logger)
	}
	if row.State != ledger.Delivered && !ledger.Held(row, w.now()) { // who delivers is not stopped
		return w.unsettle(ctx, row, logger)
	}
	if row.State == ledger.Delivered && row.Reason != ledger.ReasonReverted {
		if err := w.amend(ctx, row, ledger.Change{Reason: ledger.ReasonReverted}); err != nil {
			logger.Error("recording that a payment was taken back", zap.Error(err))
			return false
		}
		row.Reason = ledger.ReasonReverted
	}
	if proof.Evidence == facilitator.Void {
		return true
	}
	return w.askAgain(ctx, network, p, row, request, logger)
}

// tell says that a payment was taken back; its payer pays first from now on.
func (w *reorgWatch) tell(row ledger.Payment, logger *zap.Logger) {
	metrics.CountReorganised(metrics.Reverted)
	w.admission.Distrusted.Add(row.Payer, w.now())
	w.admission.Trusted.Remove(row.Payer)
	logger.Error("a reorganisation of the chain has taken back a payment that was settled, and the chain does not show it in another block",
		zap.String("transaction", row.Transaction), zap.String("state", string(row.State)), zap.String("payer", row.Payer),
		zap.String("asset", row.Asset), zap.String("amount", row.Amount))
}

// askAgain asks the facilitator once more for the money of a payment whose goods are gone,
// while the authorization is good. It reports what decide does.
func (w *reorgWatch) askAgain(ctx context.Context, network string, p *watched, row ledger.Payment, request facilitator.Request, logger *zap.Logger) bool {
	named, known := w.facilitator(p.facilitator)
	over := !row.ValidBefore.IsZero() && !w.now().Before(row.ValidBefore)
	if over || !known || ctx.Err() != nil {
		return false // it may be on its way
	}
	s, _ := ask(context.WithoutCancel(ctx), []facilitator.Named{named}, request)
	metrics.CountSettlement(s.Outcome)
	if s.Outcome != facilitator.Settled || s.Block == (facilitator.Block{}) {
		// Nobody's word counts here: the next look tells whether it is true.
		logger.Warn("a payment that was taken back was asked for again", zap.Stringer("outcome", s.Outcome), zap.String("reason", s.Reason), zap.String("detail", s.Detail))
		return false
	}
	return w.found(ctx, network, p, row, ledger.Change{Transaction: s.Transaction, Facilitator: named.Name}, s.Block, logger)
}

// seek looks for a payment on the chain. The error is for when nobody could tell.
func (w *reorgWatch) seek(ctx context.Context, network string, r facilitator.Request) (facilitator.Proof, error) {
	err := errors.New("nobody can look at this network")
	var said facilitator.Proof
	for _, witness := range w.witnesses(network) {
		proof, failed := testify(ctx, witness, r, r.Since)
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
func (w *reorgWatch) found(ctx context.Context, network string, p *watched, row ledger.Payment, ch ledger.Change, b facilitator.Block, logger *zap.Logger) bool {
	if row.Reason == ledger.ReasonReverted || ch.Transaction != row.Transaction {
		if err := w.amend(ctx, row, ch); err != nil {
			logger.Error("recording the new transaction of a payment", zap.String("transaction", ch.Transaction), zap.Error(err))
			return false
		}
	}
	outcome := metrics.Moved
	if p.told {
		outcome = metrics.Restored
	}
	metrics.CountReorganised(outcome)
	logger.Info("a payment whose block was taken back is in another one", zap.String("transaction", ch.Transaction), zap.Uint64("block", b.Number))
	again := *p
	again.told = false
	w.watch.add(network, b, again, w.now(), w.logger)
	return true
}

// amend records what became of the money of a payment that stays where it is.
func (w *reorgWatch) amend(ctx context.Context, row ledger.Payment, ch ledger.Change) error {
	take := ledger.Delivered
	ch.To, ch.Reorganised = ledger.Delivered, true
	if row.State != ledger.Delivered {
		take, ch.To = ledger.Delivering, ledger.Settled
	}
	claim, err := w.ledger.Take(ctx, row.Key, take, ledger.LeaseFor)
	if err == nil {
		_, err = w.ledger.Move(ctx, claim, ch)
	}
	return err
}

// unsettle gives a payment whose goods are owed to the reconciler.
func (w *reorgWatch) unsettle(ctx context.Context, row ledger.Payment, logger *zap.Logger) bool {
	claim, err := w.ledger.Take(ctx, row.Key, ledger.Delivering, ledger.LeaseFor)
	if _, ok := errors.AsType[*ledger.TakenError](err); ok {
		return false // somebody came for the goods
	}
	for _, to := range []ledger.State{ledger.Settling, ledger.Unknown} {
		if err == nil {
			_, err = w.ledger.Move(ctx, claim, ledger.Change{To: to, Reorganised: true})
		}
	}
	if err != nil {
		logger.Error("recording that a payment was taken back", zap.Error(err))
	}
	return err == nil
}
