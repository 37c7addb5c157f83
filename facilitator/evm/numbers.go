package evm

import (
	"context"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// A node that says a number of ours that is too high makes a gap, and all transactions after a
// gap wait. So a single node is not believed about a number that is far ahead of what we know.
const (
	// maxNumbersAhead is how far ahead of what we know the next number may be at all: several
	// gateways with our keys may each have as many transactions on their way as we.
	maxNumbersAhead = 8 * maxInFlight
	// numbersApart is how far apart two nodes may be about a key that other gateways use, too.
	// So far ahead a single node is believed about such a key.
	numbersApart = maxInFlight
)

// numbersAgain asks for the numbers of an account once more: another node if there is
// one, else the same.
func (c *settler) numbersAgain(ctx context.Context, a *account) (mined, pending uint64, ok bool) {
	for _, n := range c.InTurn(1) {
		var latest, next hexutil.Uint64
		var b chain.Batch
		b.Add(&latest, "eth_getTransactionCount", a.key.address, "latest")
		b.Add(&next, "eth_getTransactionCount", a.key.address, "pending")
		// A node that counts more transactions in blocks than in blocks and pool together
		// contradicts itself.
		if n.Ask(ctx, b) == nil && b.Err() == nil && latest <= next {
			return uint64(latest), uint64(next), true
		}
	}
	return 0, 0, false
}

// reached takes note of how many numbers of an account are in blocks, as a node says.
func (c *settler) reached(ctx context.Context, a *account, mined uint64) {
	if a.sender.isBeyond(mined) {
		again, _, ok := c.numbersAgain(ctx, a)
		if !ok {
			return
		}
		mined = min(mined, again)
	}
	a.sender.prune(mined, c.now())
}

// isBeyond reports whether a number of transactions in blocks would mean that somebody
// else has sent many, while some of ours are on their way.
func (s *sender) isBeyond(mined uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.flights) > 0 && mined > s.next+numbersApart
}

// believable is the next number of an account as a node says, or what we know if the node is
// far off: all payments would wait until the numbers before it were used up. The first number
// of a process is asked for twice, because nothing is known yet.
func (c *settler) believable(ctx context.Context, a *account, pending, mined uint64) uint64 {
	a.sender.mu.Lock()
	known, apart := a.sender.next, uint64(numbersApart)
	a.sender.mu.Unlock()
	if known > 0 && !a.sender.hasRivals(c.now()) {
		apart = 0 // who would have taken a number?
	}
	if pending == 0 || known > 0 && pending <= known+apart {
		return pending
	}
	again, next, ok := c.numbersAgain(ctx, a)
	if !ok {
		again, next = mined, pending
	}
	known = max(known, min(mined, again))
	if pending <= next+apart && pending <= known+maxNumbersAhead {
		return pending
	}
	if far := pending > next+numbersApart || pending > known+maxNumbersAhead; far { // else one of them lags
		c.Notices.Error("a node says a transaction number that is far ahead of all that is on its way, and is not believed: check the node",
			zap.Uint64("says", pending), zap.Uint64("known", known))
	}
	if next <= known+maxNumbersAhead {
		known = max(known, next)
	}
	return known
}

// numberAfter is the number to try after a node has said that one is used. The same number is
// tried once more only if two nodes find it free: skipping it whenever one wrong node refuses
// would leave a gap each time, to be filled by a transaction that does nothing.
func (c *settler) numberAfter(ctx context.Context, a *account, number, mined uint64) uint64 {
	next := c.believable(ctx, a, c.pendingOf(ctx, a), mined)
	if next > number {
		return next
	}
	if _, again, ok := c.numbersAgain(ctx, a); next > 0 && ok && again <= number {
		return number
	}
	return number + 1
}

// isAround reports whether a node still has one of the transactions of a flight, in its pool
// or in a block; also if no node answers. The flight is not lost then, whatever is said of its
// number.
func (c *settler) isAround(ctx context.Context, fl *flight) bool {
	fl.mu.Lock()
	list, abandoned := slices.Clone(fl.hashes), fl.abandoned
	fl.mu.Unlock()
	if abandoned {
		return false
	}
	silent := true
	for _, n := range c.Nodes {
		found := make([]*chain.Transaction, len(list))
		var b chain.Batch
		for i, h := range list {
			b.Add(&found[i], "eth_getTransactionByHash", h)
		}
		if n.Ask(ctx, b) != nil || b.Err() != nil {
			continue
		}
		silent = false
		for i, tx := range found {
			if tx != nil && tx.Hash == list[i] {
				return true
			}
		}
	}
	return silent
}

// givenUp returns the newest transaction of a flight that was given up, see startOver.
func (fl *flight) givenUp() (hash common.Hash, given bool) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if !fl.abandoned || len(fl.hashes) == 0 {
		return common.Hash{}, false
	}
	return fl.hashes[len(fl.hashes)-1], true
}

// startOver gives up transactions of ours that wait behind a gap of numbers too large to be
// filled with one transaction each. Each is replaced by one that does nothing, so that it
// moves no money should the chain reach its number one day. The payments are settled anew when
// they are asked for, with numbers after the last one in a block. It reports false if there is
// no such gap. The caller has the turn.
func (c *settler) startOver(ctx context.Context, lowest *flight, mined uint64, now fees) bool {
	if lowest.number <= mined+numbersApart {
		return false
	}
	_, next, ok := c.numbersAgain(ctx, lowest.by)
	if !ok || lowest.number <= max(mined, next)+numbersApart {
		return false
	}
	c.Notices.Of(lowest.by.key.address).Error("transactions wait behind numbers that nobody has used, because a node said a wrong number: they are given up, and what they were to settle is settled anew: check the nodes",
		zap.Uint64("number", lowest.number), zap.Uint64("next", max(mined, next)))
	s := &lowest.by.sender
	s.mu.Lock()
	all, end := slices.Clone(s.flights), s.next
	for _, fl := range all {
		for _, one := range fl.withTwins() {
			one.mu.Lock()
			one.abandoned = true
			one.mu.Unlock()
		}
	}
	s.mu.Unlock()
	for _, fl := range all {
		_, _ = c.resend(ctx, fl, now, true) // if no node takes it, it can still be reverted at worst
	}
	s.prune(end, c.now())
	s.wasLost()
	return true
}

// audit reads the cost of transactions that are in blocks and whose receipts nobody has seen,
// because the callers who waited have gone. Without it what was set aside for them would stay
// so.
func (c *settler) audit(ctx context.Context, a *account) {
	if !a.sender.auditing.TryLock() {
		return // somebody is at it
	}
	defer a.sender.auditing.Unlock()
	a.sender.mu.Lock()
	a.sender.unread = slices.DeleteFunc(a.sender.unread, (*flight).isRead)
	list := slices.Clone(a.sender.unread)
	a.sender.mu.Unlock()
	for _, fl := range list {
		c.readCost(ctx, fl)
		if fl.isRead() {
			c.blameAll(ctx, fl)
		}
	}
}

// readCost reads what a transaction has cost, from whichever node has the receipt. One node
// may lack it, or answer with something else, for as long as it likes.
func (c *settler) readCost(ctx context.Context, fl *flight) {
	if !c.readReceipt(ctx, fl) && ctx.Err() == nil { // else nobody was asked
		c.concludeUnseen(fl)
	}
}

// readReceipt is readCost as far as a node has the receipt. One of a transaction that only
// uses up the number tells that all the payments have cost that for nothing.
func (c *settler) readReceipt(ctx context.Context, fl *flight) bool {
	sent, fillers := fl.mayCount()
	for _, n := range c.InTurn(0) {
		found := make([]*chain.Receipt, len(sent))
		var b chain.Batch
		for i, h := range sent {
			b.Add(&found[i], "eth_getTransactionReceipt", h)
		}
		if n.Ask(ctx, b) != nil {
			continue
		}
		for i, r := range found {
			if b[i].Error == nil && r != nil && r.Transaction == sent[i] && r.Block != nil && r.Status != nil {
				if i >= len(sent)-fillers {
					r.Logs = nil // it does nothing, whatever the node says
				}
				c.conclude(fl, r)
				return true
			}
		}
	}
	return false
}

// mayCount lists the transactions of a flight, one of which is in a block or may be. The last
// ones only use up the number.
func (fl *flight) mayCount() (list hashes, fillers int) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return slices.Concat(fl.hashes, fl.fillers), len(fl.fillers)
}

// concludeUnseen ends what is set aside for a transaction whose number is in a block for
// some time, while no node has a receipt of it. If it was replaced by one that does
// nothing, that has cost something; else all of it may have been lost.
func (c *settler) concludeUnseen(fl *flight) {
	fl.mu.Lock()
	late, replaced := c.now().Sub(fl.passedAt) >= settlementWait, fl.filling
	fl.mu.Unlock()
	if !late || !fl.concludes() {
		return
	}
	for _, p := range fl.places {
		switch {
		case p == nil:
		case replaced:
			c.unused(fl, p.held)
		default:
			p.held.lose()
		}
	}
	c.shared.queue.wake()
}

// unused ends what is set aside for a payment that no transaction in a block was for. If
// its number was used up by one of ours that does nothing, the payment has cost its part of
// that: who has us send what is then dropped would burn this without end otherwise. Nobody
// has seen the receipt, so it counts for its gas limit.
func (c *settler) unused(fl *flight, h *held) {
	fl.mu.Lock()
	filling, f := fl.filling, fl.fees
	fl.mu.Unlock()
	if !filling {
		h.end(nil)
		return
	}
	h.end(c.mayCostEach(max(1, len(fl.places)), fillGas, f))
}
