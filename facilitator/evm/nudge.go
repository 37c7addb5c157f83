package evm

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"go.uber.org/zap"
)

// stuck returns the flight that holds up all others, if it has waited for long.
func (s *sender) stuck(now time.Time) *flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.flights) == 0 {
		return nil
	}
	lowest := s.flights[0]
	for _, fl := range s.flights {
		if fl.number < lowest.number {
			lowest = fl
		}
	}
	if !lowest.waits(stuckAfter, now) || lowest.isHeldBack(now) {
		return nil
	}
	return lowest
}

// untoldPause is between two attempts to announce what is to be sent in place of a
// transaction.
const untoldPause = 5 * time.Second

// errUntold is for a replacement that is not sent because it cannot be announced: a process
// that starts anew would know only the transaction before, not find it, and send a second one.
var errUntold = errors.New("it cannot be announced")

// holdBack makes a flight wait whose replacement could not be sent. The attempt does not count
// among its bumps.
func (fl *flight) holdBack(until time.Time) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.heldBack = until
	fl.bumps--
}

// isHeldBack reports whether a flight is not to be sent again yet.
func (fl *flight) isHeldBack(now time.Time) bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return now.Before(fl.heldBack)
}

// waits reports whether the newest transaction of a flight has waited for so long.
func (fl *flight) waits(long time.Duration, now time.Time) bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return now.Sub(fl.sentAt) >= long
}

// nudge looks after what waits: what the nodes have dropped, and the flight that holds up all
// others, which is sent once more, for a higher fee. Whoever waits for a receipt calls it,
// whosever flights they are: their own callers may have given up. It does nothing most of the
// time.
func (s *sender) nudge(ctx context.Context, c *settler) {
	lowest := s.stuck(c.now())
	if lowest == nil && !s.isUnheard(c.now()) {
		return
	}
	if lowest != nil {
		c.shared.queue.setAside(lowest.by, c.now())
	}
	select {
	case s.taken <- struct{}{}:
		defer func() { <-s.taken }()
		s.push(ctx, c)
	default: // somebody is sending; later
	}
}

// push is nudge for a caller who has the turn.
func (s *sender) push(ctx context.Context, c *settler) {
	s.remind(ctx, c)
	lowest := s.stuck(c.now())
	if lowest == nil {
		return
	}
	c.shared.queue.setAside(lowest.by, c.now())
	mined, fees, err := c.accountNow(ctx, lowest.by)
	if err != nil {
		return
	}
	c.reached(ctx, lowest.by, mined)
	fl := s.stuck(c.now())
	if fl == nil {
		return
	}
	if fl.number > mined {
		if !fl.waits(fillAfter, c.now()) || c.startOver(ctx, fl, mined, fees) {
			return
		}
		fl = s.fill(fl.by, mined, fees.legacy)
		c.Notices.Of(fl.by.key.address).Warn("a number before ours, which this process did not use, is in no block, and is used up by a transaction that does nothing: is the key used elsewhere?",
			zap.Uint64("number", fl.number))
	} else {
		c.Notices.Of(fl.by.key.address).Warn("a transaction waits for too long and is sent again for a higher fee",
			zap.Uint64("number", fl.number), zap.String("transaction", fl.newest()))
	}
	why := c.hopeless(ctx, fl, fees)
	var a answer
	if why == "" {
		a, err = c.resend(ctx, fl, fees, false)
	} else {
		a, err = c.useUp(ctx, fl, fees, why)
	}
	switch {
	case errors.Is(err, errUntold) && !fl.waits(fillAfter, c.now()):
		c.Notices.Of(fl.by.key.address).Warn("a transaction waits, and is not sent again for a higher fee because the ledger does not take that down",
			zap.Uint64("number", fl.number), zap.Error(err))
		return
	case why == "" && (a == turnedAway || a == refusedByCall):
		// No node takes the transaction any more, for example because the authorization has
		// ended, or the ledger does not take down what would be sent. The number must be used
		// up all the same; a transaction that does only that moves no money, so it needs no
		// announcement.
		a, err = c.resend(ctx, fl, fees, true)
	}
	if a != taken {
		c.Notices.Of(fl.by.key.address).Error("a transaction is stuck, and this account settles nothing before it is in a block: does the account have enough of the chain's own coin?",
			zap.Uint64("number", fl.number), zap.Error(err))
	}
}

// fill begins a flight that does nothing but use up a number: what an earlier process
// sent with it is too cheap, or is gone. It is replaced like every other that waits
// for too long.
func (s *sender) fill(by *account, number uint64, legacy bool) *flight {
	fl := &flight{by: by, number: number, to: by.key.address, gas: fillGas, fees: fees{legacy: legacy, tip: new(big.Int), feeCap: new(big.Int)}}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flights = append(s.flights, fl)
	return fl
}

// resend sends a flight again for higher fees. With filling it sends a transaction in its
// place that only uses up the number. The error is errUntold, and nothing was sent, if those
// whose payments are in it cannot be told before.
func (c *settler) resend(ctx context.Context, fl *flight, now fees, filling bool) (answer, error) {
	fl.mu.Lock()
	offer, tx := fl.fees.bumped(now.of(len(fl.data))), fl.raw
	most := int64(maxBump)
	if filling {
		most++ // it has to take the place of what was sent
	}
	if offer.above(now, most) && !fl.abandoned { // an abandoned one behind a gap costs nothing
		offer = fl.fees // a node that wants more for it would not take it for anything
	}
	fl.bumps++
	before := fl.hashes.newest()
	fl.mu.Unlock()
	again := flight{by: fl.by, number: fl.number, to: fl.to, data: fl.data, gas: fl.gas, value: fl.value, shared: fl.shared}
	if filling {
		again.to, again.data, again.gas, again.value, again.shared = fl.by.key.address, nil, fillGas, nil, 0
	}
	if !offer.excessive(again.gas) {
		if !filling {
			_ = c.setAside(fl, offer, true) // there is room for it anyhow
		}
		var err error
		if tx, err = c.transaction(&again, offer); err != nil {
			return unclear, err
		}
	}
	if tx == nil {
		return turnedAway, errors.New("the gas price is beyond all reason")
	}
	another := !filling && tx.Hash().Hex() != before
	if another {
		if err := fl.announce(tx.Hash().Hex()); err != nil {
			fl.holdBack(c.now().Add(untoldPause))
			return turnedAway, fmt.Errorf("%w: %w", errUntold, err)
		}
	}
	fl.sending(tx, offer, c.now(), filling)
	a, err := c.broadcast(ctx, tx)
	if another && a != taken && a != unclear {
		fl.stays(before)
	}
	if a == numberTaken {
		a = taken // by another transaction of the flight, or by one that is in a block
	}
	return a, err
}

// stays is called when no node has taken a replacement: the transaction before is still the
// one that counts, so it is announced again.
func (fl *flight) stays(before string) {
	hash := common.HexToHash(before)
	fl.mu.Lock()
	if i := slices.Index(fl.hashes, hash); i >= 0 {
		fl.hashes = append(slices.Delete(fl.hashes, i, i+1), hash)
	}
	fl.mu.Unlock()
	_ = fl.announce(before) // at worst it is sent a second time after a restart
}
