package evm

import (
	"context"
	"errors"
	"math"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	// maxInFlight bounds how many payments of one account are on their way at
	// once. Nodes hold only some tens of transactions of one account.
	maxInFlight = 32
	// setAsideFor is how long an account that has no gas, or is stuck, is passed
	// over while others are not. Afterwards a payment finds out whether it still is.
	setAsideFor = time.Minute
)

// places are the places of payments on our accounts. Who comes first is served
// first.
type places struct {
	mu      sync.Mutex // guards what follows, and funds of all accounts
	waiting []*waiter
}

// funds is what decides which account sends a payment.
type funds struct {
	taken   int       // places
	balance *big.Int  // as it was last seen; nil if that is not known, or long ago
	away    time.Time // until when it is passed over
}

// waiter is somebody who waits for a place on one of some accounts.
type waiter struct {
	among []*account
	given chan *account
}

// errBusy is for a payment that did not get its turn.
var errBusy = errors.New("too many payments are on their way; none of this one was sent")

// enter takes a place on one of the accounts, and waits for it if need be; leave
// gives it back.
func (s *places) enter(ctx context.Context, among []*account) (*account, error) {
	s.mu.Lock()
	if a := leastBusy(among, maxInFlight); a != nil {
		a.taken++
		s.mu.Unlock()
		return a, nil
	}
	w := &waiter{among: among, given: make(chan *account, 1)}
	s.waiting = append(s.waiting, w)
	s.mu.Unlock()
	select {
	case a := <-w.given:
		return a, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.waiting = slices.DeleteFunc(s.waiting, func(other *waiter) bool { return other == w })
	s.mu.Unlock()
	select {
	case a := <-w.given: // in the same moment
		s.leave(a)
	default:
	}
	return nil, errBusy
}

// likely returns the account that would be given a place now, or next.
func (s *places) likely(among []*account) *account {
	s.mu.Lock()
	defer s.mu.Unlock()
	return leastBusy(among, math.MaxInt)
}

// leave gives a place back, to who has waited longest for it.
func (s *places) leave(a *account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, w := range s.waiting {
		if slices.Contains(w.among, a) {
			s.waiting = slices.Delete(s.waiting, i, i+1)
			w.given <- a
			return
		}
	}
	a.taken--
}

// leastBusy returns the account with the fewest payments on their way, of several
// the one with the most coin, so that they are used up alike. Those with as many
// as most are left out.
func leastBusy(among []*account, most int) (best *account) {
	for _, a := range among {
		if a.taken < most && (best == nil || a.taken < best.taken || a.taken == best.taken && richer(a, best)) {
			best = a
		}
	}
	return best
}

// richer puts the unknown first, so that it becomes known.
func richer(a, b *account) bool {
	return b.balance != nil && (a.balance == nil || a.balance.Cmp(b.balance) > 0)
}

// inUse picks the accounts that are not set aside.
func (s *places) inUse(accounts []*account, now time.Time) []*account {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(accounts), func(a *account) bool { return now.Before(a.away) })
}

// setAside has an account passed over for a while.
func (s *places) setAside(a *account, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.away, a.balance = now.Add(setAsideFor), nil
}

// bringBack ends that.
func (s *places) bringBack(a *account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.away = time.Time{}
}

// sawBalance takes note of what an account has.
func (s *places) sawBalance(a *account, balance *big.Int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.balance = balance
}

// senders returns the accounts that may send a payment: of upto the one that the
// payer named, else all that are not set aside, or all if they all are.
func (c *chain) senders(p *payment) ([]*account, error) {
	if w, ok := p.way.(*permit2); ok && p.upto() {
		a := c.accountOf(w.permit.Facilitator)
		if a == nil {
			return nil, refuse(x402.CodeUptoFacilitator, "names another facilitator")
		}
		return []*account{a}, nil
	}
	if list := c.shared.places.inUse(c.accounts, c.now()); len(list) > 0 {
		return list, nil
	}
	return c.accounts, nil
}

// enter gives a payment a place on one of the accounts, which is to send it.
func (c *chain) enter(ctx context.Context, p *payment, among []*account) error {
	a, err := c.shared.places.enter(ctx, among)
	if err != nil {
		return err
	}
	p.account, p.placed = a, true
	return nil
}

// leave gives back the place of a payment, if it has one.
func (c *chain) leave(p *payment) {
	if p.placed {
		p.placed = false
		c.shared.places.leave(p.account)
	}
}

// others picks the accounts that are not set aside, and not this one.
func (c *chain) others(among []*account, than *account) []*account {
	return slices.DeleteFunc(c.shared.places.inUse(among, c.now()), func(a *account) bool { return a == than })
}

// accountOf returns our account with an address; nil if we have none.
func (c *chain) accountOf(address common.Address) *account {
	for _, a := range c.accounts {
		if a.key.address == address {
			return a
		}
	}
	return nil
}

// unfitError is why one of our accounts cannot send now what another could.
// Nothing was sent.
type unfitError struct{ error }

func (e *unfitError) Unwrap() error { return e.error }

func isUnfit(err error) bool {
	_, ok := errors.AsType[*unfitError](err)
	return ok
}

// unfit sets an account aside.
func (c *chain) unfit(a *account, err error) error {
	c.shared.places.setAside(a, c.now())
	return &unfitError{err}
}

// noGas tells the operator that an account cannot pay any more.
func (c *chain) noGas(a *account, fields ...zap.Field) {
	if len(c.others(c.accounts, a)) == 0 {
		c.notices.of(a).error("the account that pays the gas has too little, so nothing can be settled: send it some of the chain's own coin", fields...)
		return
	}
	c.notices.of(a).warn("one of the accounts that pay the gas has too little and is passed over, and upto payments that name it are not settled: send it some of the chain's own coin", fields...)
}
