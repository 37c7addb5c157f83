package evm

import (
	"math/big"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// usualGas is the most that one settlement uses as a rule. max_fee is compared with what
	// that much gas costs.
	usualGas = 100_000
	// dearTimes is how many times the usual price of the last hours is too much, where the
	// config says no max_fee.
	dearTimes = 10
	// priceEvery is the time between two prices that are remembered, priceCount how many are
	// remembered, and priceLeast how many it takes to tell what is usual.
	priceEvery, priceCount, priceLeast = time.Minute, 4 * 60, 10
	// dearWait is what payers are told to wait.
	dearWait = time.Minute
	// otherTipLife is how long the tip of a second node counts.
	otherTipLife = 5 * time.Minute
)

// ceiling knows what gas costs as a rule, so that a node that is wrong or lies, or a
// spike, does not make us pay more than what is sold brings in.
type ceiling struct {
	mu     sync.Mutex
	prices []*big.Int // of usualGas, newest last
	last   time.Time
	tip    *big.Int // of a node other than the one that is asked
	tipAt  time.Time
}

// saw takes note of what a settlement costs.
func (c *ceiling) saw(f fees, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.last) < priceEvery {
		return
	}
	c.last = now
	c.prices = append(c.prices, f.usual())
	if len(c.prices) > priceCount {
		c.prices = slices.Delete(c.prices, 0, len(c.prices)-priceCount)
	}
}

// usual is the median of the prices of the last hours; nil while they are few.
func (c *ceiling) usual() *big.Int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.prices) < priceLeast {
		return nil
	}
	sorted := slices.SortedFunc(slices.Values(c.prices), (*big.Int).Cmp)
	return sorted[len(sorted)/2]
}

// sawOther takes note of the tip that a second node names.
func (c *ceiling) sawOther(tip *big.Int, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tip, c.tipAt = tip, now
}

// smallerTip is the smaller one of a tip and of what a second node named.
func (c *ceiling) smallerTip(tip *big.Int, now time.Time) *big.Int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if tip == nil || c.tip == nil || now.Sub(c.tipAt) > otherTipLife || tip.Cmp(c.tip) < 0 {
		return tip
	}
	return c.tip
}

// tooDear reports whether a settlement costs more than it may.
func (c *settler) tooDear(f fees) bool {
	if f.excessive(transferGas) {
		return true
	}
	cost := f.usual()
	if c.maxFee != nil {
		return cost.Cmp(c.maxFee) > 0
	}
	usual := c.ceiling.usual()
	if usual == nil {
		return false
	}
	return cost.Cmp(new(big.Int).Mul(usual, big.NewInt(dearTimes))) > 0
}

// tellDear tells the operator that nothing is settled because gas costs too much.
func (c *settler) tellDear(f fees) {
	c.Notices.Error("gas costs more than a settlement may cost, so nothing is offered and nothing settled: wait, or allow more with max_fee",
		zap.Stringer("cost", f.usual()))
}
