package devchain

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/eth"
	"github.com/ethereum/go-ethereum/miner"
	"go.uber.org/zap"
)

const (
	// gather is how long the first transaction after a silence waits for others, so
	// that payments that arrive together share a block.
	gather = 20 * time.Millisecond
	// maxAhead is how far the chain's clock may be ahead of ours, in seconds. Blocks
	// are dated in whole seconds and no two alike, so a chain that seals faster than
	// once a second runs ahead. Payments are not settled with less than 20 seconds
	// left to live; this leaves them in time.
	maxAhead = 10
	// staleAfter is how old, in seconds, the newest block may be when somebody looks.
	staleAfter = 5
)

// errTooSoon is for a block that may not be sealed yet.
var errTooSoon = errors.New("the last block is too young")

// sealer turns waiting transactions into blocks.
//
// A block comes when something waits, and when somebody looks at a chain whose
// last block is old: calls are dated by the newest block, and an authorization
// that is valid since a minute ago must not look as if its time had yet to come.
// A chain that nobody uses stands still.
type sealer struct {
	eth    *eth.Ethereum
	now    func() time.Time
	every  time.Duration
	logger *zap.Logger

	mu   sync.Mutex // one block at a time; guards last
	last time.Time  // when the last block was sealed, by the clock of the machine
}

// run seals until ctx ends.
func (s *sealer) run(ctx context.Context) {
	arrived := make(chan core.NewTxsEvent, 64)
	sub := s.eth.TxPool().SubscribeTransactions(arrived, true)
	defer sub.Unsubscribe()
	timer := time.NewTimer(0) // what waited before we subscribed
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sub.Err():
			return
		case <-arrived:
			if wait := s.untilNext(); wait > gather {
				timer.Reset(wait)
			} else {
				timer.Reset(min(gather, s.every))
			}
			// Others that arrive meanwhile are in the pool, which is all that counts;
			// resetting the timer for each could put off a block for ever.
			if !s.wait(ctx, arrived, timer.C) {
				return
			}
			s.sealPending(timer)
		case <-timer.C:
			s.sealPending(timer)
		}
	}
}

// wait lets transactions arrive until the timer fires.
func (s *sealer) wait(ctx context.Context, arrived <-chan core.NewTxsEvent, fired <-chan time.Time) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-arrived:
		case <-fired:
			return true
		}
	}
}

// sealPending seals a block if something waits, and sets the timer if something
// still does then: a block takes what the pool has sorted in and the base fee
// allows, which is not always all.
func (s *sealer) sealPending(timer *time.Timer) {
	if s.pending() == 0 {
		return
	}
	if err := s.seal(); err != nil && !errors.Is(err, errTooSoon) {
		s.logger.Error("sealing a block", zap.Error(err))
	}
	if s.pending() > 0 {
		timer.Reset(max(s.untilNext(), time.Millisecond))
	}
}

func (s *sealer) pending() int {
	// The pool sorts in the background. An error means that it is closed, and then
	// nothing waits in it.
	if err := s.eth.TxPool().Sync(); err != nil {
		return 0
	}
	n, _ := s.eth.TxPool().Stats()
	return n
}

// untilNext is how long the next block has to wait.
func (s *sealer) untilNext() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	pace := s.every - time.Since(s.last)
	ahead := time.Unix(s.nextTime()-maxAhead, 0).Sub(s.now())
	return max(pace, ahead, 0)
}

// nextTime is the date of the next block: now, or one second after the last.
func (s *sealer) nextTime() int64 {
	return max(s.now().Unix(), int64(s.eth.BlockChain().CurrentBlock().Time)+1) //nolint:gosec // a date
}

// seal makes a block of all that waits, unless it is too soon.
func (s *sealer) seal() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.nextTime()
	if time.Since(s.last) < s.every || next > s.now().Unix()+maxAhead {
		return errTooSoon
	}
	return s.sealAt(next)
}

// freshen seals a block if the last one is stale.
func (s *sealer) freshen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.nextTime()
	if next-int64(s.eth.BlockChain().CurrentBlock().Time) < staleAfter { //nolint:gosec // a date
		return nil
	}
	return s.sealAt(next)
}

// sealAt builds a block of the pool's transactions, adds it to the chain, and
// declares it final: nobody else seals here, so nothing is ever taken back.
func (s *sealer) sealAt(date int64) error {
	if err := s.eth.TxPool().Sync(); err != nil {
		return fmt.Errorf("transaction pool: %w", err)
	}
	chain := s.eth.BlockChain()
	args := &miner.BuildPayloadArgs{
		Parent:      chain.CurrentBlock().Hash(),
		Timestamp:   uint64(date), //nolint:gosec // after 1970
		Withdrawals: types.Withdrawals{},
		BeaconRoot:  new(common.Hash),
	}
	if _, err := rand.Read(args.Random[:]); err != nil {
		return err
	}
	block, _, err := s.eth.Miner().BuildTestingPayload(args, nil, false, []byte(label))
	if err != nil {
		return fmt.Errorf("building: %w", err)
	}
	if _, err := chain.InsertBlockWithoutSetHead(context.Background(), block, false); err != nil {
		return fmt.Errorf("inserting: %w", err)
	}
	if _, err := chain.SetCanonical(block); err != nil {
		return fmt.Errorf("setting the head: %w", err)
	}
	chain.SetSafe(block.Header())
	chain.SetFinalized(block.Header())
	s.last = time.Now()
	return nil
}
