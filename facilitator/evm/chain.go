package evm

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/rpc"
	"go.uber.org/zap"
)

const (
	// maxBehind is how old the last block may be: what an older one says of
	// nonces and balances is history.
	maxBehind = 30 * time.Second
	// maxAhead is how far our clock may lag behind the chain's.
	maxAhead = 30 * time.Second
	// warnAhead is the lag of our clock that the log mentions.
	warnAhead = 5 * time.Second
	// codeCached is how long an asset is known to be a contract. Contracts do
	// not vanish; the official facilitators ask again as often.
	codeCached = 15 * time.Minute
)

// chain is one network that we settle on, or only look at: then it has no
// accounts.
type chain struct {
	name, caip2   string
	id            uint64
	confirmations uint64
	quorum        int // how many nodes must say that a payment has moved; below 2, one is enough
	// development: it may have made its last block long ago, see isDevelopment.
	development bool
	// l1InGas: see the list of such chains.
	l1InGas bool

	nodes   []*node
	current atomic.Uint32 // index of the node that answered last
	// accounts pay the gas, in the order of the config: payers of upto are asked to
	// name the first.
	accounts []*account
	shared   *shared
	notices  *notices
	users    *users // of its facilitator; nil if it is only looked at
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

	blocks     rhythm
	refreshing sync.Mutex
	ceiling    ceiling
	lastFees   atomic.Pointer[fees]
	published  atomic.Pointer[big.Int] // see fees

	now   func() time.Time
	sleep func(context.Context, time.Duration) error
}

// maxBlockTime bounds what is learned of the time between blocks: there are chains
// that make none while nobody needs one.
const maxBlockTime = 15 * time.Second

// rhythm learns how much time there is between blocks.
type rhythm struct {
	mu      sync.Mutex
	since   *head
	last    *head
	between time.Duration
}

// next is what the number and the time of the next block will be, at the earliest.
func (r *rhythm) next() (number uint64, unix int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		return 0, 0
	}
	return uint64(*r.last.Number) + 1, r.last.unix() + max(int64(r.between/time.Second), 1)
}

// latest is the number of the last block that was seen; 0 if none was.
func (r *rhythm) latest() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		return 0
	}
	return uint64(*r.last.Number)
}

// saw takes note of a block.
func (r *rhythm) saw(h *head) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = h
	if r.since == nil || *h.Number < *r.since.Number || h.unix() < r.since.unix() {
		r.since = h
		return
	}
	if n := uint64(*h.Number - *r.since.Number); n >= 8 {
		between := time.Duration(h.unix()-r.since.unix()) * time.Second
		r.between, r.since = min(between/time.Duration(n), maxBlockTime), h // #nosec G115 -- a number of blocks
	}
}

// leastLife is how long a payment must still be good to be sent: two blocks.
func (c *chain) leastLife() time.Duration {
	c.blocks.mu.Lock()
	defer c.blocks.mu.Unlock()
	if c.development {
		return minLife // it makes its blocks when somebody wants one
	}
	return max(minLife, 2*c.blocks.between)
}

// head is what we read of a block.
type head struct {
	Number  *hexutil.Uint64 `json:"number"`
	Hash    common.Hash     `json:"hash"`
	Time    *hexutil.Uint64 `json:"timestamp"`
	BaseFee *hexutil.Big    `json:"baseFeePerGas"`
}

// calls is a batch under construction.
type calls []rpc.BatchElem

func (c *calls) add(result any, method string, args ...any) {
	*c = append(*c, rpc.BatchElem{Method: method, Args: args, Result: result})
}

// ask makes a batch at the node that answered last, and at the others in turn
// until one gives an answer. build makes the calls anew for each of them; judge
// says whether the answers are of any use, and if not the next node is asked.
func (c *chain) ask(ctx context.Context, build func() calls, judge func(calls) error) error {
	var errs []error
	first := c.current.Load()
	for i := range c.nodes {
		at := (int(first) + i) % len(c.nodes)
		n := c.nodes[at]
		batch := build()
		err := n.batch(ctx, batch)
		if err == nil {
			if err = judge(batch); err == nil {
				c.current.Store(uint32(at)) // #nosec G115 -- there are at most maxRPC
				return nil
			}
			if _, done := errors.AsType[*nodeError](err); !done {
				err = n.clean(err)
			}
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// every returns the first error of a call that must succeed.
func every(batch calls) error {
	for i := range batch {
		if err := batch[i].Error; err != nil {
			return fmt.Errorf("%s: %w", batch[i].Method, err)
		}
	}
	return nil
}

// wrongChainError is for a node that is not on the chain that it should be on.
type wrongChainError struct{ want, got uint64 }

func (e *wrongChainError) Error() string {
	return fmt.Sprintf("the node is on chain %d, and %d was configured", e.got, e.want)
}

// checkNode compares a node's chain id and last block with what is expected.
func (c *chain) checkNode(id hexutil.Uint64, h *head) error {
	if uint64(id) != c.id {
		err := &wrongChainError{want: c.id, got: uint64(id)}
		c.notices.error("a node is on another chain: correct its rpc URL, or the name of the network",
			zap.Uint64("configured", c.id), zap.Uint64("found", uint64(id)))
		return err
	}
	if h == nil || h.Number == nil || h.Time == nil {
		return errors.New("the node has no last block")
	}
	c.blocks.saw(h)
	ahead := time.Unix(int64(*h.Time), 0).Sub(c.now()) // #nosec G115 -- a hostile time only makes the difference large
	switch {
	case ahead > warnAhead && (ahead <= maxAhead || c.development):
		c.notices.warn("the clock of this machine is behind the chain's: synchronise it (NTP)", zap.Duration("by", ahead))
		return nil
	case c.development:
		return nil
	case ahead > maxAhead:
		c.notices.error("the clock of this machine is behind the chain's, so no payment is judged: synchronise it (NTP)", zap.Duration("by", ahead))
		return fmt.Errorf("our clock is %s behind the chain's", ahead.Round(time.Second))
	case -ahead > maxBehind:
		c.notices.error("the last block of a node is old, so it is not asked: let the node catch up, or use another; if all of them are like this, synchronise the clock of this machine (NTP)",
			zap.Duration("by", -ahead), zap.Uint64("block", uint64(*h.Number)))
		return fmt.Errorf("its last block is %s old", (-ahead).Round(time.Second))
	}
	return nil
}

func (c *chain) isContract(asset common.Address) bool { return c.seen(&c.contracts, asset) }

// seen reports whether something was found out about a contract not long ago.
func (c *chain) seen(list *sync.Map, contract common.Address) bool {
	at, ok := list.Load(contract)
	return ok && c.now().Sub(at.(time.Time)) < codeCached
}
