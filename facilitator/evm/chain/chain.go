// Package chain looks at EVM chains through JSON-RPC nodes, and says what they tell: the
// last block, receipts, events, and whether a payment has moved money. It holds no key and
// signs nothing, so who only looks for payments in doubt (facilitator/remote) imports
// nothing that could spend. Package evm settles on what this package reads.
//
// The methods of nodes are those of https://github.com/ethereum/execution-apis. An error of
// a node names it by its host and never repeats the rest of its URL, which may be an API
// key.
package chain

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
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
)

// Chain is one EVM chain, as its nodes tell of it. New makes one. Who changes its members
// does so before the first call; after that it is safe for concurrent use.
type Chain struct {
	Name  string // as in `base`
	CAIP2 string // as in `eip155:8453`
	ID    uint64 // EIP-155

	// Confirmations is how many blocks must hold a transaction before it counts; 1 is the
	// block that the transaction is in.
	Confirmations uint64
	// Quorum is how many nodes must say that a payment has moved; below 2, one is enough.
	Quorum int
	// QuorumAbove is the amount in millionths of a US dollar from above which the Quorum is
	// needed; nil is of every payment, and so is a payment in a token that is not known to be
	// worth a dollar.
	QuorumAbove *big.Int
	// Development says that the chain has test money only and runs on this machine. It may
	// have made its last block long ago, and has no validators that make blocks final.
	Development bool

	Nodes   []*Node  // in the order of the config, at most MaxNodes
	Notices *Notices // for the operator

	current atomic.Uint32 // index of the node that answered last
	blocks  rhythm
	now     func() time.Time
}

// maxBlockTime bounds what is learned of the time between blocks: there are chains
// that make none while nobody needs one.
const maxBlockTime = 15 * time.Second

// rhythm learns how much time there is between blocks.
type rhythm struct {
	mu      sync.Mutex
	since   *Head
	last    *Head
	between time.Duration
}

// next returns the number and the time of the next block, at the earliest.
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
func (r *rhythm) saw(h *Head) {
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

// NextBlock returns the number of the next block and its time, in seconds since 1970, at the
// earliest that the blocks allow which nodes have shown; zeros if none has shown one.
func (c *Chain) NextBlock() (number uint64, unix int64) { return c.blocks.next() }

// LatestBlock returns the number of the last block that a node has shown; 0 if none has.
func (c *Chain) LatestBlock() uint64 { return c.blocks.latest() }

// BlockTime returns the usual time between two blocks, at most 15 seconds; 0 until enough
// blocks were seen.
func (c *Chain) BlockTime() time.Duration {
	c.blocks.mu.Lock()
	defer c.blocks.mu.Unlock()
	return c.blocks.between
}

// InTurn returns the nodes in the order in which they are to be asked. With after 0 the node
// that answered last comes first; with after 1 it comes last, for who wants a second opinion.
func (c *Chain) InTurn(after int) []*Node {
	first := (int(c.current.Load()) + after) % len(c.Nodes)
	return slices.Concat(c.Nodes[first:], c.Nodes[:first])
}

// Head is what we read of a block. What the node left out is nil.
type Head struct {
	Number  *hexutil.Uint64 `json:"number"`
	Hash    common.Hash     `json:"hash"`
	Time    *hexutil.Uint64 `json:"timestamp"`     // seconds since 1970
	BaseFee *hexutil.Big    `json:"baseFeePerGas"` // EIP-1559, in the chain's smallest unit for one gas
}

// Batch is calls that go to a node in one round trip.
type Batch []rpc.BatchElem

// Add adds a call. result is a pointer to where its answer goes.
func (b *Batch) Add(result any, method string, args ...any) {
	*b = append(*b, rpc.BatchElem{Method: method, Args: args, Result: result})
}

// Ask makes a batch at the node that answered last, and at the others in turn
// until one gives an answer. build makes the calls anew for each of them; judge
// says whether the answers are of any use, and if not the next node is asked. The error
// joins those of all nodes that were asked.
func (c *Chain) Ask(ctx context.Context, build func() Batch, judge func(Batch) error) error {
	var errs []error
	first := c.current.Load()
	for i := range c.Nodes {
		at := (int(first) + i) % len(c.Nodes)
		n := c.Nodes[at]
		batch := build()
		err := n.Ask(ctx, batch)
		if err == nil {
			if err = judge(batch); err == nil {
				c.current.Store(uint32(at)) // #nosec G115 -- there are at most MaxNodes
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

// Err returns the first error of a call. Who can do without an answer sets its Error to nil
// before.
func (b Batch) Err() error {
	for i := range b {
		if err := b[i].Error; err != nil {
			return fmt.Errorf("%s: %w", b[i].Method, err)
		}
	}
	return nil
}

// WrongChainError is for a node that is not on the chain that it should be on, by its
// eth_chainId.
type WrongChainError struct{ want, got uint64 }

func (e *WrongChainError) Error() string {
	return fmt.Sprintf("the node is on chain %d, and %d was configured", e.got, e.want)
}

// CheckNode compares a node's chain id and last block with what is expected. The error is a
// *WrongChainError, or says that the node has no block, that its last one is old, or that
// our clock is behind. The operator is told, too.
func (c *Chain) CheckNode(id hexutil.Uint64, h *Head) error {
	if uint64(id) != c.ID {
		err := &WrongChainError{want: c.ID, got: uint64(id)}
		c.Notices.Error("a node is on another chain: correct its rpc URL, or the name of the network",
			zap.Uint64("configured", c.ID), zap.Uint64("found", uint64(id)))
		return err
	}
	if h == nil || h.Number == nil || h.Time == nil {
		return errors.New("the node has no last block")
	}
	c.blocks.saw(h)
	ahead := time.Unix(int64(*h.Time), 0).Sub(c.now()) // #nosec G115 -- a hostile time only makes the difference large
	switch {
	case ahead > warnAhead && (ahead <= maxAhead || c.Development):
		c.Notices.Warn("the clock of this machine is behind the chain's: synchronise it (NTP)", zap.Duration("by", ahead))
		return nil
	case c.Development:
		return nil
	case ahead > maxAhead:
		c.Notices.Error("the clock of this machine is behind the chain's, so no payment is judged: synchronise it (NTP)", zap.Duration("by", ahead))
		return fmt.Errorf("our clock is %s behind the chain's", ahead.Round(time.Second))
	case -ahead > maxBehind:
		c.Notices.Error("the last block of a node is old, so it is not asked: let the node catch up, or use another; if all of them are like this, synchronise the clock of this machine (NTP)",
			zap.Duration("by", -ahead), zap.Uint64("block", uint64(*h.Number)))
		return fmt.Errorf("its last block is %s old", (-ahead).Round(time.Second))
	}
	return nil
}
