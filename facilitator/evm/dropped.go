package evm

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

const (
	// remindAfter is how long after a transaction was sent the nodes are asked whether they
	// have it, and how often that is asked.
	remindAfter = 6 * time.Second
	// showWithin bounds how long one node may think about that: others wait to send.
	showWithin = 2 * time.Second
	// simulatedAtOnce is how many transactions are simulated in one round trip.
	simulatedAtOnce = 10
	// maxBumps is how often a transaction is sent again for a higher fee.
	maxBumps = 5
)

// Why a transaction is not sent again, if that is up to its payers.
const (
	whyReverts = "it would be reverted now"
	whyDropped = "the nodes drop it, and keep others after it"
)

// remind looks for transactions that no node shows, for a caller who has the turn. Nodes that
// are restarted forget some, and nodes with protection against reverts drop what would be
// reverted, without a word; all after it wait then. What is hopeless is used up at once, all
// of it together, since a block takes what comes after it only then. The rest is sent once
// more, as it is, since nothing is wrong with it. What is dropped even so, while what comes
// after it is kept, is used up as well: its payer may have the money back whenever we look.
func (s *sender) remind(ctx context.Context, c *settler) {
	waiting := s.unheard(c.now())
	gone := c.notShown(ctx, waiting)
	if len(gone) == 0 {
		return
	}
	last := uint64(0) // of those that are shown
	for _, fl := range waiting {
		if !slices.Contains(gone, fl) {
			last = max(last, fl.number)
		}
	}
	by := gone[0].by
	mined, fees, err := c.accountNow(ctx, by)
	if err != nil {
		return
	}
	c.reached(ctx, by, mined)
	counted := mined
	if s.hasRivals(c.now()) {
		counted = max(counted, c.pendingOf(ctx, by)) // a number may be of theirs, which is not to be replaced
	}
	gone = slices.DeleteFunc(gone, func(fl *flight) bool { return fl.number < counted })
	why := c.outlook(ctx, gone, fees)
	var used []*flight
	for _, fl := range gone {
		again, filling := fl.howSent()
		if why[fl] == "" && again && fl.number < last && len(fl.data) > 0 {
			why[fl] = whyDropped
		}
		if why[fl] != "" && !filling {
			used = append(used, fl)
		}
	}
	// What would be reverted may be in a block by now, and be reverted for that.
	used = c.notShown(ctx, used)
	for _, fl := range gone {
		switch {
		case slices.Contains(used, fl):
			_, _ = c.useUp(ctx, fl, fees, why[fl]) // what becomes of it, the next look tells
		case fl.known:
			fl.sendAgain(ctx, c)
		}
	}
}

// useUp sends a transaction that does nothing in the place of one that is not sent again.
func (c *settler) useUp(ctx context.Context, fl *flight, now fees, why string) (answer, error) {
	c.Notices.Of(fl.by.key.address).Warn("a transaction is not sent again, and its number is used up by one that does nothing",
		zap.Uint64("number", fl.number), zap.String("transaction", fl.newest()), zap.String("reason", why))
	a, err := c.resend(ctx, fl, now, true)
	if a == taken && (why == whyReverts || why == whyDropped) {
		fl.mu.Lock()
		fl.blamed = true
		fl.mu.Unlock()
	}
	return a, err
}

// isBlamed reports whether it was up to its payers that a flight was not sent again.
func (fl *flight) isBlamed() bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return fl.blamed
}

// blame counts a payment whose number was used up against its payer, as one that was
// reverted, if that was up to the payer: others have waited for it. Somebody else may have
// sent the payment meanwhile; then the payer has paid, and the caller must not call blame.
func (c *settler) blame(p *payment, rec *record) {
	if rec.place != nil && rec.flight.isBlamed() {
		rec.counted.Do(func() { c.shared.standings.reverted(c.now(), chain.AddressTopic(p.From), rec.code) })
	}
}

// blameAll is blame for the payments of a flight whose callers have gone.
func (c *settler) blameAll(ctx context.Context, fl *flight) {
	if !fl.isBlamed() {
		return
	}
	for _, p := range fl.payments {
		rec := c.shared.payments.sentAs(p)
		if rec == nil || rec.flight != fl {
			continue
		}
		s, err := c.findUse(ctx, p, rec.since)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil, s.Outcome != facilitator.Settled:
			c.blame(p, rec)
		}
	}
}

// sendAgain sends the newest transaction of a flight once more, as it is.
func (fl *flight) sendAgain(ctx context.Context, c *settler) {
	fl.mu.Lock()
	tx := fl.raw
	fl.mu.Unlock()
	if tx == nil {
		return
	}
	a, _ := c.broadcast(ctx, tx) // what becomes of it, the receipt tells
	fl.mu.Lock()
	fl.again = a == taken
	fl.mu.Unlock()
}

// howSent reports whether a node has taken the newest transaction a second time, and whether
// that does nothing but use up the number.
func (fl *flight) howSent() (again, filling bool) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return fl.again, fl.filling
}

// isUnheard reports whether a flight waits for some time, and nobody has asked about them
// lately.
func (s *sender) isUnheard(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unheardOf(now)
}

func (s *sender) unheardOf(now time.Time) bool {
	return now.Sub(s.reminded) >= remindAfter && slices.ContainsFunc(s.flights, func(fl *flight) bool { return fl.waits(remindAfter, now) })
}

// unheard returns the flights by number if isUnheard, for the caller to ask about them.
func (s *sender) unheard(now time.Time) []*flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.unheardOf(now) {
		return nil
	}
	s.reminded = now
	list := slices.Clone(s.flights)
	slices.SortFunc(list, func(a, b *flight) int { return cmp.Compare(a.number, b.number) })
	return list
}

// notShown returns those of some flights of which no node shows a transaction, in its pool or
// in a block; none if no node answers. Nodes that were silent a moment ago are not asked.
func (c *settler) notShown(ctx context.Context, list []*flight) []*flight {
	answered := false
	for _, n := range c.listening() {
		if len(list) == 0 {
			break
		}
		shown, err := showing(ctx, n, list)
		if err != nil {
			continue
		}
		answered = true
		list = slices.DeleteFunc(slices.Clone(list), func(fl *flight) bool { return shown[fl] })
	}
	if !answered {
		return nil
	}
	return list
}

// showing asks one node which of some flights it shows.
func showing(ctx context.Context, n *chain.Node, list []*flight) (shown map[*flight]bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, showWithin)
	defer cancel()
	var b chain.Batch
	var of []*flight
	for _, fl := range list {
		for _, hash := range fl.all() {
			of = append(of, fl)
			b.Add(new(*chain.Transaction), "eth_getTransactionByHash", hash)
		}
	}
	if err = n.Ask(ctx, b); err == nil {
		err = b.Err()
	}
	if err != nil {
		return nil, err
	}
	shown = make(map[*flight]bool)
	for i, call := range b {
		if tx := *call.Result.(**chain.Transaction); tx != nil && tx.Hash == call.Args[0].(common.Hash) {
			shown[of[i]] = true
		}
	}
	return shown, nil
}

// all are the transactions of a flight and its twins, also those that only use up the number.
func (fl *flight) all() (list hashes) {
	s := &fl.by.sender
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range fl.withTwins() {
		one.mu.Lock()
		list = append(append(list, one.hashes...), one.fillers...)
		one.mu.Unlock()
	}
	return list
}

// hopeless says why a transaction that waits is not to be sent again; "" if it is.
// A node that takes transactions and drops those that would be reverted would have
// us pay ever more for one that never gets into a block.
func (c *settler) hopeless(ctx context.Context, fl *flight, now fees) string {
	return c.outlook(ctx, []*flight{fl}, now)[fl]
}

// outlook is hopeless for some.
func (c *settler) outlook(ctx context.Context, list []*flight, now fees) (why map[*flight]string) {
	why = make(map[*flight]string)
	var open []*flight
	for _, fl := range list {
		fl.mu.Lock()
		filling, bumps, ends := fl.filling, fl.bumps, fl.ends
		fl.mu.Unlock()
		switch {
		case filling:
			why[fl] = "it was given up before"
		case len(fl.data) == 0: // coin for somebody, or a number that is used up
		case bumps >= maxBumps:
			why[fl] = "no block took it for higher fees either"
		case !c.now().Before(ends):
			why[fl] = "what it settles is not good any more"
		case fl.shared > 0 && fl.trial == nil: // of an earlier process: there is nothing to simulate
		default:
			open = append(open, fl)
		}
	}
	for some := range slices.Chunk(open, simulatedAtOnce) {
		for _, fl := range c.reverting(ctx, some, now) {
			why[fl] = whyReverts
		}
	}
	return why
}

// reverting returns those of some flights that would be reverted now; none if no node says.
func (c *settler) reverting(ctx context.Context, some []*flight, now fees) (list []*flight) {
	results := make([]hexutil.Bytes, len(some))
	refused := make([]bool, len(some))
	err := c.Ask(ctx, func() chain.Batch {
		var b chain.Batch
		for i, fl := range some {
			results[i] = nil
			call := fl.simulated()
			if !now.legacy {
				call["maxFeePerGas"], call["maxPriorityFeePerGas"] = (*hexutil.Big)(now.feeCap), (*hexutil.Big)(now.tip)
			}
			b.Add(&results[i], "eth_call", call, "latest")
		}
		return b
	}, func(b chain.Batch) error {
		for i := range b {
			if refused[i] = chain.Reverted(b[i].Error); refused[i] {
				b[i].Error = nil
			}
		}
		return b.Err()
	})
	if err != nil {
		return nil
	}
	for i, fl := range some {
		if refused[i] || fl.shared > 0 && !slices.Contains(results[i], 1) {
			list = append(list, fl)
		}
	}
	return list
}
