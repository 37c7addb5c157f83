package settlement

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

const (
	// lookEvery is how often the reconciler looks for payments in doubt.
	lookEvery = time.Second
	// firstRepeat and lastRepeat bound the pause between two tries of a payment.
	firstRepeat = 2 * time.Second
	lastRepeat  = 5 * time.Minute
	// afterEnd is how long after the end of an authorization the facilitator is
	// still asked: a transaction may have been on its way.
	afterEnd = 10 * time.Minute
	// askChainWithin bounds one question about a chain.
	askChainWithin = 30 * time.Second
	// triedAtOnce is how many payments of one facilitator and network are asked
	// about at once, and triedInARow how many before new ones get their turn.
	triedAtOnce = 16
	triedInARow = 128
)

// reconciler finds out what became of payments whose settlement was asked for
// and whose answer is not known: after a crash, a lost connection, a facilitator
// that was silent. It repeats the identical request, which moves no second
// money, and looks at the chain where it can. One runs per process; of several
// that share a ledger, one takes each payment.
type reconciler struct {
	settler *Settler
	saw     func(doubts metrics.Count) // in its last round
	now     func() time.Time
	logger  *zap.Logger

	attempts map[ledger.Key]*attempts

	mu   sync.Mutex
	busy map[asked]bool
}

// asked is a facilitator and a network. A facilitator that gives no answers delays only its
// own payments.
type asked struct{ facilitator, network string }

// attempts is the history of one payment with this reconciler.
type attempts struct {
	count int
	next  time.Time
}

// run reconciles until ctx ends.
func (c *reconciler) run(ctx context.Context) {
	c.attempts, c.busy = make(map[ledger.Key]*attempts), make(map[asked]bool)
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	failing := false
	for {
		err := c.round(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			c.logger.Error("looking for payments in doubt", zap.Error(err))
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// round tries each payment in doubt whose time has come.
func (c *reconciler) round(ctx context.Context) error {
	var due []ledger.Payment
	seen := make(map[ledger.Key]bool)
	var doubts metrics.Count
	var failed error
	for row, err := range c.settler.Ledger.List(ctx, ledger.Filter{States: []ledger.State{ledger.Unknown, ledger.Settling}, Brief: true}) {
		if failed = err; err != nil {
			break // what it has said is good
		}
		seen[row.Key] = true
		if row.State == ledger.Unknown || row.Doubt || !ledger.Held(row, c.now()) {
			doubts.Add(row)
		}
		// What this process knows of it and could not record yet is better than an answer.
		if t := c.attempts[row.Key]; !ledger.Held(row, c.now()) && !c.settler.Unrecorded.Has(row.Key) && (t == nil || !c.now().Before(t.next)) {
			due = append(due, row)
		}
	}
	if failed == nil {
		c.saw(doubts)
		maps.DeleteFunc(c.attempts, func(key ledger.Key, _ *attempts) bool { return !seen[key] })
	}
	turns := make(map[asked][]turn)
	for _, row := range due {
		whom := asked{row.Facilitator, row.Network}
		// What another chain says of it is worth nothing.
		if c.settler.Facilitators.Closed(row.Network) || len(turns[whom]) == triedInARow || c.isBusy(whom) {
			continue
		}
		t := c.attempts[row.Key]
		if t == nil {
			t = &attempts{}
			c.attempts[row.Key] = t
		}
		// A payment that a person must look at costs nothing any more.
		pause := min(firstRepeat<<min(t.count, 20), lastRepeat)
		t.count++
		t.next = c.now().Add(pause)
		turns[whom] = append(turns[whom], turn{row, t.count})
	}
	for whom, list := range turns {
		c.setBusy(whom, true)
		go func() {
			defer c.setBusy(whom, false)
			c.tryAll(ctx, list)
		}()
	}
	return failed
}

// turn is a payment whose time has come, and how often it has.
type turn struct {
	row   ledger.Payment
	count int
}

// tryAll tries some payments, and returns when it knows about each.
func (c *reconciler) tryAll(ctx context.Context, list []turn) {
	var trying sync.WaitGroup
	defer trying.Wait()
	free := make(chan struct{}, triedAtOnce)
	for _, t := range list {
		free <- struct{}{}
		trying.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					c.logger.Error("asking about a payment in doubt", zap.String("payment", t.row.ID), zap.Any("panic", p), zap.Stack("stack"))
				}
				<-free
			}()
			if ctx.Err() == nil {
				c.try(ctx, t.row, t.count)
			}
		})
	}
}

func (c *reconciler) isBusy(whom asked) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.busy[whom]
}

func (c *reconciler) setBusy(whom asked, busy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if busy {
		c.busy[whom] = true
	} else {
		delete(c.busy, whom)
	}
}

// try asks once about one payment.
func (c *reconciler) try(ctx context.Context, row ledger.Payment, count int) {
	logger := c.logger.With(zap.String("payment", row.ID))
	row, err := c.settler.Ledger.Get(ctx, row.Key) // all of it
	if err != nil || row.State != ledger.Unknown && row.State != ledger.Settling {
		return // or somebody has found out meanwhile
	}
	var request facilitator.Request
	if err := json.Unmarshal(row.Request, &request); err != nil {
		c.once(logger, count, "a payment in doubt cannot be asked about: its request is unreadable", zap.Error(err))
		return
	}
	if NothingDue(request) {
		if claim, err := c.settler.Ledger.Take(ctx, row.Key, ledger.Settling, ledger.LeaseFor); err == nil {
			c.record(ctx, claim, ledger.Change{To: ledger.Settled}, logger)
		}
		return
	}
	request.Since = row.Created
	whole := request.Payment != nil
	named, known := c.settler.Facilitators.Get(row.Facilitator)
	witnesses := c.settler.Facilitators.Witnesses(row.Network)
	over := !row.ValidBefore.IsZero() && c.now().After(row.ValidBefore.Add(afterEnd))
	if !whole || (!known || over) && len(witnesses) == 0 {
		c.once(logger, count, "a payment stays in doubt: it can no longer be asked about, and there is no RPC to look at the chain",
			zap.String("network", row.Network), zap.String("facilitator", row.Facilitator), zap.String("payer", row.Payer))
		return
	}

	claim, err := c.settler.Ledger.Take(ctx, row.Key, ledger.Settling, Within+ledger.LeaseFor)
	if err != nil {
		return // a payer came back with it, or the ledger is gone
	}
	row = claim.Payment // which transaction was announced may have changed meanwhile
	change, block := lookFor(ctx, witnesses, request, row.Created)
	if change.To == ledger.Unknown && known && !over {
		change, block = c.askAgain(ctx, claim, named, request)
	}
	c.record(ctx, claim, change, logger)
	if change.To == ledger.Settled && change.Facilitator != "" {
		row.Facilitator = change.Facilitator
	}
	c.settler.watch(row, block)
}

// lookFor asks the chain what became of a payment, and in which block it is.
func lookFor(ctx context.Context, witnesses []facilitator.Witness, request facilitator.Request, since time.Time) (ledger.Change, facilitator.Block) {
	if proof, ok := look(ctx, witnesses, request, since); ok {
		switch proof.Evidence {
		case facilitator.Moved:
			return ledger.Change{To: ledger.Settled, Transaction: proof.Transaction}, proof.Block
		case facilitator.Void:
			return ledger.Change{To: ledger.Refused, Proven: true, Reason: proof.Reason}, facilitator.Block{}
		case facilitator.Open:
		}
	}
	return ledger.Change{To: ledger.Unknown}, facilitator.Block{}
}

// askAgain asks the facilitator for the money once more, in the same words. Only its yes
// decides: a no may be about what an earlier try has moved.
func (c *reconciler) askAgain(ctx context.Context, claim ledger.Claim, named facilitator.Named, request facilitator.Request) (ledger.Change, facilitator.Block) {
	request.Transaction, request.Announce = claim.Payment.Transaction, announce(c.settler.Ledger, claim)
	s, _ := ask(context.WithoutCancel(ctx), []facilitator.Named{named}, request)
	metrics.CountSettlement(s.Outcome)
	if s.Outcome != facilitator.Settled {
		return ledger.Change{To: ledger.Unknown, Transaction: s.Transaction, Reason: s.Reason}, facilitator.Block{}
	}
	return ledger.Change{
		To:          ledger.Settled,
		Transaction: s.Transaction,
		Facilitator: named.Name,
		Amount:      chargedOtherwise(claim.Payment, s),
	}, s.Block
}

// record writes what was found, and lets go.
func (c *reconciler) record(ctx context.Context, claim ledger.Claim, change ledger.Change, logger *zap.Logger) {
	set := func(claim ledger.Claim) (ledger.Payment, error) { return c.settler.Ledger.Move(ctx, claim, change) }
	row, err := set(claim)
	if err != nil && change.To == ledger.Settled { // which the facilitator may not say again
		inFlight.Go(func() {
			late, err := recordWithRetry(c.settler.Ledger, claim, afterLoss(true), set)
			if err == nil {
				late.Payment, err = letGo(c.settler.Ledger, late)
				c.settler.tellAdmission(late.Payment, change.To, c.now())
			}
			logger.Warn("a reconciled payment was recorded late", zap.String("transaction", change.Transaction), zap.Error(err))
		})
	}
	if err == nil {
		claim.Payment = row
		row, err = letGo(c.settler.Ledger, claim)
	}
	switch {
	case err != nil:
		logger.Error("recording a reconciled payment", zap.String("to", string(change.To)), zap.Error(err))
	case change.To != ledger.Unknown:
		c.settler.tellAdmission(row, change.To, c.now())
		metrics.CountPayment(metrics.Reconciled(change.To))
		logger.Info("a payment in doubt is decided", zap.String("outcome", string(change.To)),
			zap.String("payer", row.Payer), zap.String("transaction", row.Transaction), zap.String("network", row.Network),
			zap.String("asset", row.Asset), zap.String("amount", row.Amount))
	}
}

// tellAdmission tells how the payer of a payment fares of which nobody knew for a while.
func (s *Settler) tellAdmission(row ledger.Payment, to ledger.State, now time.Time) {
	switch {
	case to == ledger.Settled:
		s.Admission.Charged(cmp.Or(row.Payer, string(row.Key)), now)
	case to == ledger.Refused && row.Status != 0 && row.Payer != "": // the upstream has worked for nothing
		s.Admission.Distrusted.Add(row.Payer, now)
	}
}

// look asks the chain. The second result is false when nobody could tell.
func look(ctx context.Context, witnesses []facilitator.Witness, r facilitator.Request, since time.Time) (facilitator.Proof, bool) {
	for _, w := range witnesses {
		proof, err := testify(ctx, w, r, since)
		if err == nil && proof.Evidence != facilitator.Open {
			return proof, true
		}
	}
	return facilitator.Proof{}, false
}

// testify survives a witness's panics.
func testify(ctx context.Context, w facilitator.Witness, r facilitator.Request, since time.Time) (proof facilitator.Proof, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, askChainWithin)
	defer cancel()
	return w.Witness(ctx, r, since)
}

// once logs what will not change at the first try only.
func (c *reconciler) once(logger *zap.Logger, count int, text string, fields ...zap.Field) {
	if count == 1 {
		logger.Error(text, fields...)
	}
}

// Reconcile runs the reconciler of the config's ledger until ctx ends. It tells saw what
// is in doubt, in each round.
func (s *Settler) Reconcile(ctx context.Context, saw func(metrics.Count)) {
	c := &reconciler{settler: s, saw: saw, now: time.Now, logger: s.Logger.Named("reconciler")}
	c.run(ctx)
}
