package evm

import (
	"context"
	"errors"
	"math/big"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	// setAsideFor is how long an account that has no gas, or is stuck, is passed
	// over while others are not. Afterwards a payment finds out whether it still is.
	setAsideFor = time.Minute
)

// funds is what decides which account sends a payment.
type funds struct {
	taken   [kinds]int // places
	balance *big.Int   // as it was last seen; nil if that is not known, or long ago
	away    time.Time  // until when it is passed over
}

// leastBusy returns the account with the fewest payments of a kind on their way. Among equals
// it is the one with the most coin, so that the accounts are used up alike. Accounts with as
// many payments as most are left out.
func leastBusy(among []*account, k kind, most int) (best *account) {
	for _, a := range among {
		n := a.taken[k]
		if n < most && (best == nil || n < best.taken[k] || n == best.taken[k] && richer(a, best)) {
			best = a
		}
	}
	return best
}

// richer sorts accounts whose balance is unknown first, so that it becomes known.
func richer(a, b *account) bool {
	return b.balance != nil && (a.balance == nil || a.balance.Cmp(b.balance) > 0)
}

// inUse picks the accounts that are not set aside.
func (q *queue) inUse(accounts []*account, now time.Time) []*account {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(accounts), func(a *account) bool { return now.Before(a.away) })
}

// setAside has an account passed over for a while.
func (q *queue) setAside(a *account, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	a.away, a.balance = now.Add(setAsideFor), nil
}

// bringBack ends what setAside began.
func (q *queue) bringBack(a *account) {
	q.mu.Lock()
	defer q.mu.Unlock()
	a.away = time.Time{}
}

// sawBalance takes note of what an account has.
func (q *queue) sawBalance(a *account, balance *big.Int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	a.balance = balance
}

// senders returns the accounts that may send a payment: of upto the one that the
// payer named, else all that are not set aside, or all if they all are.
func (c *settler) senders(p *payment) ([]*account, error) {
	if w, ok := p.way.(*permit2); ok && p.Upto() {
		a := c.accountOf(w.permit.Facilitator)
		if a == nil {
			return nil, refuse(x402.CodeUptoFacilitator, "names another facilitator")
		}
		return []*account{a}, nil
	}
	if list := c.shared.queue.inUse(c.accounts, c.now()); len(list) > 0 {
		return list, nil
	}
	return c.accounts, nil
}

// enter gives a payment a place on one of the accounts, which is to send it. last
// waits until nothing else of its payer is on its way.
func (c *settler) enter(ctx context.Context, p *payment, among []*account, last bool) error {
	if err := c.refusesRisk(p); err != nil {
		return err
	}
	w := wish{
		among: among, token: p.Token, value: p.Value, last: last, mayShare: c.mayShare(p), wallet: c.isFirstOfWallet(p),
		life: p.ends().Sub(c.now()) - c.leastLife(), refresh: c.refresh,
	}
	c.dress(&w, c.kindOf(p))
	w.hold = func() (*held, bool) {
		known, whose := c.shared.standings.paid(p.From) > 0, c.class(p)
		if whose == ofCustomers || whose == ofUnbacked {
			return c.losses().holdOf(p.From, c.risk(p), c.budget(), c.now())
		}
		return c.losses().hold(whose, known, c.risk(p), c.budget(), c.now())
	}
	place, err := c.shared.queue.enter(ctx, p.From, w)
	if err != nil {
		return err
	}
	p.account, p.place = place.account, place
	return nil
}

// dress makes a wish one for a place of some kind.
func (c *settler) dress(w *wish, k kind) {
	w.kind, w.most = k, maxInFlight
	if k == together {
		w.most = maxInFlight * c.batch
	}
}

// kindOf says what a payment needs a place in.
func (c *settler) kindOf(p *payment) kind {
	if c.shareable(p) {
		return together
	}
	return alone
}

// refresh looks at what is on its way from our accounts: the caller of a payment may have gone
// while its place is still taken. One caller looks at a time.
func (c *settler) refresh(ctx context.Context) {
	if !c.refreshing.TryLock() {
		return
	}
	defer c.refreshing.Unlock()
	for _, a := range c.accounts {
		if a.sender.busy() {
			if mined, _, err := c.accountNow(ctx, a); err == nil {
				c.reached(ctx, a, mined)
			}
			a.sender.nudge(ctx, c)
		}
		c.audit(ctx, a)
	}
}

// isFirstOfWallet reports whether the payer is known to have code, and has paid
// nothing here since a transaction was reverted.
func (c *settler) isFirstOfWallet(p *payment) bool {
	return p.signer != byKey && c.shared.standings.paid(p.From) == 0
}

// leave gives back the place of a payment that is not on its way, if it has one.
func (c *settler) leave(p *payment) {
	if p.place != nil {
		p.place.held.end(nil)
		p.place.landed()
	}
	p.place = nil
}

// others picks the accounts that are not set aside, and not this one.
func (c *settler) others(among []*account, than *account) []*account {
	return slices.DeleteFunc(c.shared.queue.inUse(among, c.now()), func(a *account) bool { return a == than })
}

// accountOf returns our account with an address; nil if we have none.
func (c *settler) accountOf(address common.Address) *account {
	for _, a := range c.accounts {
		if a.key.address == address {
			return a
		}
	}
	return nil
}

// unfitError says why one of our accounts cannot send now, while another could. Nothing was
// sent.
type unfitError struct{ error }

func (e *unfitError) Unwrap() error { return e.error }

func isUnfit(err error) bool {
	_, ok := errors.AsType[*unfitError](err)
	return ok
}

// unfit sets an account aside.
func (c *settler) unfit(a *account, err error) error {
	c.shared.queue.setAside(a, c.now())
	return &unfitError{err}
}

// noGas tells the operator that an account cannot pay any more.
func (c *settler) noGas(a *account, fields ...zap.Field) {
	if len(c.others(c.accounts, a)) == 0 {
		c.Notices.Of(a.key.address).Error("the account that pays the gas has too little, so nothing can be settled: send it some of the chain's own coin", fields...)
		return
	}
	c.Notices.Of(a.key.address).Warn("one of the accounts that pay the gas has too little and is passed over, and upto payments that name it are not settled: send it some of the chain's own coin", fields...)
}
