package facilitator

import (
	"context"
	"fmt"
	"maps"
	"math/big"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/pricing/money"
)

const (
	// emptyWait is how long a payer is told to wait for an operator to fill up an
	// account.
	emptyWait = 30 * time.Second
	// watchAgain is the pause before the watch of a facilitator that panicked begins
	// anew.
	watchAgain = time.Minute
	// costNoticeEvery is how often the log repeats that a price is below its cost.
	costNoticeEvery = time.Hour
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
	// CostMicros is Cost in millionths of a US dollar, nil if the operator has not said
	// what a coin is worth.
	CostMicros *big.Int
}

// Sale is a price that somebody asks for.
type Sale struct {
	// Line says where it stands.
	Line string
	// Micros is what it is in millionths of a US dollar.
	Micros *big.Int
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

// BelowCost says of each network (CAIP-2) on which it is known whether the cheapest price
// is below what its settlement costs.
func (b *Breaker) BelowCost() map[string]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	below := make(map[string]bool, len(b.cheapest))
	for network, sale := range b.cheapest {
		if cost := b.funds[network].CostMicros; cost != nil {
			below[network] = cost.Cmp(sale.Micros) > 0
		}
	}
	return below
}

// sells replaces the cheapest price of each network (CAIP-2).
func (b *Breaker) sells(cheapest map[string]Sale) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cheapest, b.toldCost = maps.Clone(cheapest), make(map[string]time.Time)
}

// saw takes note of what a facilitator has on a network. This, and nothing that a
// payer does, closes and opens a scheme whose accounts are empty. It returns the cheapest
// price if the operator is to be told that it is below its cost, which is so once an hour.
func (b *Breaker) saw(network string, f Funds, now time.Time) (below *Sale) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.funds == nil {
		b.funds = make(map[string]Funds)
	}
	b.funds[network] = f
	sale, known := b.cheapest[network]
	if !known || f.CostMicros == nil || f.CostMicros.Cmp(sale.Micros) <= 0 || now.Sub(b.toldCost[network]) < costNoticeEvery {
		return nil
	}
	b.toldCost[network] = now
	return &sale
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
		if err := b.watchOnce(ctx, f, logger.With(zap.String("facilitator", n.Name))); err == nil {
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
func (b *Breaker) watchOnce(ctx context.Context, f Funded, logger *zap.Logger) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("watching funds: %w", panicked(p))
		}
	}()
	f.WatchFunds(ctx, func(network string, funds Funds) {
		if sale := b.saw(network, funds, time.Now()); sale != nil {
			logger.Warn("a price is below what its settlement costs: raise it, or accept it on a network where gas costs less",
				zap.String("network", network), zap.String("line", sale.Line),
				zap.String("price", dollars(sale.Micros)), zap.String("cost", dollars(funds.CostMicros)))
		}
	})
	return nil
}

// dollars writes millionths of a US dollar for people.
func dollars(micros *big.Int) string { return "$" + money.FormatAtomic(micros.String(), 6) }
