package evm

import (
	"context"
	"math/big"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// codeCached is how long an asset is known to be a contract. Contracts do
// not vanish; the official facilitators ask again as often.
const codeCached = 15 * time.Minute

// settler settles payments on one chain, with accounts of ours that pay the gas.
type settler struct {
	*chain.Chain

	// l1InGas: see the list of such chains.
	l1InGas bool
	// accounts pay the gas, in the order of the config: payers of upto are asked to
	// name the first.
	accounts []*account
	shared   *shared
	looking  *chain.Look // of its facilitator, whose connections stay open until all calls have ended
	// factories may be called for payers whose wallets do not exist yet.
	factories []common.Address
	// approvalBudget is what may be spent a day on the gas of payers' approvals, in
	// the chain's smallest unit; nil if nothing.
	approvalBudget *big.Int
	// gasBudget is what may be lost a day by transactions that move nothing, in the
	// chain's smallest unit; nil is the gas of defaultGasBudget at the market's price.
	gasBudget *big.Int
	// maxFee is what a settlement may cost, in the chain's smallest unit; nil is
	// dearTimes what is usual.
	maxFee *big.Int
	// coinMicros is what a coin is worth in millionths of a dollar, nil if nobody said.
	coinMicros *big.Int
	// noWallets: payers with code are not taken. walletGas is what their code may use.
	noWallets bool
	walletGas uint64
	// batch is how many payments go in one transaction, and batchWait how long the
	// first of them waits for others.
	batch     int
	batchWait time.Duration
	noBatch   atomic.Int64 // until then (Unix time) payments go alone
	// spent wakes the watch of funds.
	spent chan struct{}

	pairing   sync.Map // common.Address of an asset -> time.Time it was seen to write the events of a payment one after the other
	counting  sync.Map // common.Address of an asset -> time.Time it was seen to move what was paid
	lacking   sync.Map // common.Address of a proxy that is not on this chain -> true
	contracts sync.Map // common.Address of an asset or a proxy -> time.Time it was seen to have code
	silent    sync.Map // *node -> time.Time it was last silent to a transaction

	refreshing sync.Mutex
	ceiling    ceiling
	lastFees   atomic.Pointer[fees]
	published  atomic.Pointer[big.Int] // see fees

	now   func() time.Time
	sleep func(context.Context, time.Duration) error
}

// leastLife is how long a payment must still be good to be sent: two blocks.
func (c *settler) leastLife() time.Duration {
	if c.Development {
		return minLife // it makes its blocks when somebody wants one
	}
	return max(minLife, 2*c.BlockTime())
}

func (c *settler) isContract(asset common.Address) bool { return c.seen(&c.contracts, asset) }

// seen reports whether something was found out about a contract not long ago.
func (c *settler) seen(list *sync.Map, contract common.Address) bool {
	at, ok := list.Load(contract)
	return ok && c.now().Sub(at.(time.Time)) < codeCached
}
