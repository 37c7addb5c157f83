package evm

import (
	"context"
	"fmt"
	"math"
	"math/big"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/params"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/pricing/money"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	// fundsEvery is how often the accounts are looked at while they have plenty, and fundsSoon
	// while one has little or nothing: so long an operator who fills it up waits.
	fundsEvery, fundsSoon = 30 * time.Second, 10 * time.Second
	// fundsPause is between two looks, however many payments ask for one.
	fundsPause = time.Second
	// fundsTimeout bounds one look.
	fundsTimeout = 10 * time.Second
	// fewSettlements is what the log warns of.
	fewSettlements = 100
)

// WatchFunds implements facilitator.Funded. A payment that finds little in an account has the
// accounts looked at at once, so that the next payer is not asked to sign in vain.
func (f *Facilitator) WatchFunds(ctx context.Context, saw func(network string, funds facilitator.Funds)) {
	var wg sync.WaitGroup
	for _, c := range f.chains {
		wg.Go(func() { f.watchFunds(ctx, c, saw) })
	}
	wg.Wait()
}

func (f *Facilitator) watchFunds(ctx context.Context, c *settler, saw func(string, facilitator.Funds)) {
	var last facilitator.Funds
	for {
		every := fundsSoon
		funds, err := f.funds(ctx, c)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			c.Notices.Logger.Debug("it cannot be told what the accounts that pay the gas have", zap.Error(err))
		default:
			c.tellFunds(last, funds)
			saw(c.CAIP2, funds)
			if last = funds; !hasFew(funds) {
				every = fundsEvery
			}
		}
		again := time.NewTimer(every)
		select {
		case <-ctx.Done():
		case <-again.C:
		case <-c.spent:
			_ = facilitator.Sleep(ctx, fundsPause)
		}
		again.Stop()
	}
}

// funds looks at what the accounts of a chain have. An error means that it is not
// known.
func (f *Facilitator) funds(ctx context.Context, c *settler) (funds facilitator.Funds, err error) {
	defer f.looking.Enter()()
	// The caller's own protection does not reach into the goroutines of WatchFunds.
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, fundsTimeout)
	defer cancel()
	return c.funds(ctx)
}

// funds asks for the balances, and for the price. What our transactions on their way
// can still cost is spent already.
func (c *settler) funds(ctx context.Context) (facilitator.Funds, error) {
	var now prices
	gone := c.shared.unended(c.accounts)
	balances, mined := make([]*hexutil.Big, len(c.accounts)), make([]hexutil.Uint64, len(c.accounts))
	minedOfGone := make([]hexutil.Uint64, len(gone))
	err := c.Ask(ctx, func() chain.Batch {
		clear(balances)
		var b chain.Batch
		for i, a := range c.accounts {
			b.Add(&balances[i], "eth_getBalance", a.key.address, "latest")
			b.Add(&mined[i], "eth_getTransactionCount", a.key.address, "latest")
		}
		for i, a := range gone {
			b.Add(&minedOfGone[i], "eth_getTransactionCount", a.key.address, "latest")
		}
		now.ask(&b)
		return b
	}, func(b chain.Batch) error { return now.judge(c, b) })
	if err != nil {
		return facilitator.Funds{}, err
	}
	for i, a := range gone {
		c.reached(ctx, a, uint64(minedOfGone[i]))
		a.sender.nudge(ctx, c)
		c.audit(ctx, a)
	}
	c.askOtherTip(ctx)
	price := now.fees(c)
	funds := facilitator.Funds{Cost: price.usual(), Lost: c.lostToday(), CostMicros: c.micros(price.usual())}
	able := 0
	for i, a := range c.accounts {
		c.reached(ctx, a, uint64(mined[i]))
		c.audit(ctx, a)
		balance := toBig(balances[i])
		if balance == nil {
			return facilitator.Funds{}, fmt.Errorf("the node has no balance of %s", a.key.address)
		}
		n := c.settlements(new(big.Int).Sub(balance, a.sender.committed()), price)
		if n > 0 {
			able++
		}
		funds.Accounts = append(funds.Accounts, facilitator.Account{Address: a.key.address.Hex(), Balance: balance, Settlements: n})
	}
	if able == 0 {
		funds.Empty = append(funds.Empty, x402.SchemeExact)
	}
	// Offers of upto name the first account, and no other can settle them.
	if funds.Accounts[0].Settlements == 0 {
		funds.Empty = append(funds.Empty, x402.SchemeUpto)
	}
	return funds, nil
}

// parseDollars reads an amount like `$3000`, in millionths of a dollar.
func parseDollars(s string) (*big.Int, error) {
	price, err := money.ParseMoney(s)
	if err != nil {
		return nil, err
	}
	if price.Symbol != "" {
		return nil, fmt.Errorf("%q: write dollars, like $3000", s)
	}
	atomic, err := price.Atomic(6)
	if err != nil {
		return nil, err
	}
	n, ok := new(big.Int).SetString(atomic, 10)
	if !ok {
		return nil, fmt.Errorf("%q is no amount", s)
	}
	return n, nil
}

// micros is what an amount of the chain's smallest unit is worth in millionths of a
// dollar, rounded up; nil if nobody has said what a coin is worth.
func (c *settler) micros(wei *big.Int) *big.Int {
	if c.coinMicros == nil {
		return nil
	}
	worth, rest := new(big.Int).QuoRem(new(big.Int).Mul(wei, c.coinMicros), big.NewInt(params.Ether), new(big.Int))
	if rest.Sign() > 0 {
		worth.Add(worth, common.Big1)
	}
	return worth
}

// lostToday is what was lost today, in the chain's smallest unit.
func (c *settler) lostToday() *big.Int {
	lost := c.losses().today(c.now())
	if c.gasBudget == nil {
		lost.Mul(lost, c.price())
	}
	return lost
}

// askOtherTip asks a second node for the tip that it would give: one node alone
// could have us pay what it likes.
func (c *settler) askOtherTip(ctx context.Context) {
	if len(c.Nodes) < 2 {
		return
	}
	other := c.InTurn(1)[0]
	var tip *hexutil.Big
	if other.Call(ctx, &tip, "eth_maxPriorityFeePerGas") == nil && tip != nil {
		c.ceiling.sawOther(toBig(tip), c.now())
	}
}

// settlements is how many settlements so much coin pays for; none while they are too dear.
func (c *settler) settlements(left *big.Int, f fees) int64 {
	one := f.total(transferGas)
	switch {
	case left.Sign() <= 0 || c.tooDear(f):
		return 0
	case one.Sign() == 0:
		return math.MaxInt32 // they cost nothing
	}
	n := new(big.Int).Quo(left, one)
	if !n.IsInt64() {
		return math.MaxInt32
	}
	return min(n.Int64(), math.MaxInt32)
}

// spending tells the watch that an account has little left, if it has.
func (c *settler) spending(left *big.Int, f fees) {
	if c.settlements(left, f) >= fewSettlements {
		return
	}
	select {
	case c.spent <- struct{}{}:
	default: // it knows
	}
}

func hasFew(funds facilitator.Funds) bool {
	for _, a := range funds.Accounts {
		if a.Settlements < fewSettlements {
			return true
		}
	}
	return false
}

// tellFunds logs what an operator has to do, and has the senders pass over the
// accounts that have nothing, or no longer.
func (c *settler) tellFunds(before, now facilitator.Funds) {
	if last := c.lastFees.Load(); last != nil && c.tooDear(*last) {
		c.tellDear(*last) // coin would not help
		return
	}
	for i, a := range c.accounts {
		n := now.Accounts[i]
		notices := c.Notices.Of(a.key.address)
		fields := []zap.Field{zap.Stringer("balance", n.Balance), zap.Int64("settlements", n.Settlements)}
		switch {
		case n.Settlements == 0:
			c.shared.queue.setAside(a, c.now())
			notices.Hourly(notices.Logger.Error, "an account that pays the gas cannot pay for one settlement; what only it can settle is not offered until somebody sends it some of the chain's own coin", fields...)
		case n.Settlements < fewSettlements:
			notices.Hourly(notices.Logger.Warn, "an account that pays the gas has little left: send it some of the chain's own coin before it is empty", fields...)
		}
		if before.Accounts != nil && before.Accounts[i].Settlements == 0 && n.Settlements > 0 {
			c.shared.queue.bringBack(a)
			notices.Logger.Info("an account that pays the gas is filled up, and settles again", fields...)
		}
	}
}
