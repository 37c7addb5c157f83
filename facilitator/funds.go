package facilitator

import (
	"context"
	"fmt"
	"maps"
	"math/big"
	"time"

	"go.uber.org/zap"
)

const (
	// emptyWait is how long a payer is told to wait for an operator to fill up an
	// account.
	emptyWait = 30 * time.Second
	// watchAgain is the pause before the watch of a facilitator that panicked begins
	// anew.
	watchAgain = time.Minute
)

// Funded is implemented by facilitators that pay for settlements themselves, out of
// accounts that can run dry.
type Funded interface {
	// WatchFunds looks at the accounts again and again until ctx ends, and calls saw
	// with what they are good for. It calls saw for a network only when it knows: what
	// was said before holds until then.
	WatchFunds(ctx context.Context, saw func(network string, f Funds))
}

// Funds is what a facilitator has on one network to pay for settlements with.
type Funds struct {
	Accounts []Account
	// Empty are the schemes that cannot be settled, because no account that may
	// settle them has enough.
	Empty []string
	// Cost is what one settlement costs now, as a rule, and Lost what transactions cost
	// today that moved no money, both in the smallest unit of the chain's own coin.
	Cost, Lost *big.Int
}

// Account is one that pays for settlements.
type Account struct {
	Address string
	// Balance is in the smallest unit of the chain's own coin, of which 10^18 are one
	// coin.
	Balance *big.Int
	// Settlements is for how many more the account is good at the present price, with
	// everything that each of them may use at most.
	Settlements int64
}

// Funds returns what was seen last of each network (CAIP-2).
func (b *Breaker) Funds() map[string]Funds {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := make(map[string]Funds, len(b.funds))
	maps.Copy(seen, b.funds)
	return seen
}

// saw takes note of what a facilitator has on a network. This, and nothing that a
// payer does, closes and opens a scheme whose accounts are empty.
func (b *Breaker) saw(network string, f Funds) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.funds == nil {
		b.funds = make(map[string]Funds)
	}
	b.funds[network] = f
}

// empty reports whether the facilitator could not pay for a settlement.
func (b *Breaker) empty(network, scheme string) bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.isEmpty(network, scheme)
}

// watchFunds watches what a facilitator has, if it can say so, until ctx ends.
func (b *Breaker) watchFunds(ctx context.Context, n Named, logger *zap.Logger) {
	f, ok := n.Facilitator.(Funded)
	if !ok {
		return
	}
	for ctx.Err() == nil {
		if err := b.watchOnce(ctx, f); err == nil {
			return
		} else {
			logger.Error("facilitator cannot say what its accounts are good for", zap.String("facilitator", n.Name), zap.Error(err))
		}
		b.mu.Lock()
		b.funds = nil // nothing is known any more
		b.mu.Unlock()
		_ = Sleep(ctx, watchAgain)
	}
}

// watchOnce is WatchFunds of a facilitator, with a panic turned into an error.
func (b *Breaker) watchOnce(ctx context.Context, f Funded) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("watching funds: %w", panicked(p))
		}
	}()
	f.WatchFunds(ctx, b.saw)
	return nil
}
