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

	mu   sync.Mutex // guards last and the pool's Sync: one block at a time
	last time.Time  // when the last block was sealed, by the clock of the machine
}

// first seals an empty block and waits until go-ethereum has its index of
// transactions. Before that, which without a block is for ever, it answers the
// question for a transaction that it does not know with an error, and who polls
// for a receipt would give up.
func (s *sealer) first() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	genesis := s.eth.BlockChain().Genesis()
	if err := s.sealAt(int64(genesis.Time()) + 1); err != nil { //nolint:gosec // a date
		return err
	}
	s.last = time.Time{} // payments need not wait for it to age
	for range 5000 {
		if s.eth.BlockChain().TxIndexDone() {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return errors.New("the index of transactions does not come up")
}

// run seals until ctx ends.
func (s *sealer) run(ctx context.Context) {
	arrived := make(chan core.NewTxsEvent, 64)
	sub := s.eth.TxPool().SubscribeTransactions(arrived, true)
	defer sub.Unsubscribe()
	timer := time.NewTimer(0) // for what waited before we subscribed
	defer timer.Stop()
	set := true
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-sub.Err():
			if err != nil {
				s.logger.Error("no more blocks: the transaction pool has ended", zap.Error(err))
			}
			return
		case <-arrived:
			// A timer that is set stays: each new transaction would put the block off
			// otherwise.
			if !set {
				timer.Reset(max(s.untilNext(), min(gather, s.every)))
				set = true
			}
		case <-timer.C:
			// A block takes what the pool has sorted in and the base fee allows, which
			// is not always all.
			if set = s.sealPending(); set {
				timer.Reset(max(s.untilNext(), time.Millisecond))
			}
		}
	}
}

// sealPending seals a block if something waits, and reports whether something
// still does then.
func (s *sealer) sealPending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending() == 0 {
		return false
	}
	if err := s.seal(); err != nil && !errors.Is(err, errTooSoon) {
		s.logger.Error("sealing a block", zap.Error(err))
	}
	return s.pending() > 0
}

// pending counts the transactions that wait and could run. The pool sorts in the
// background, so it has to be told to finish first; of two who tell it so at the
// same time it forgets one, who then waits for ever. So s.mu must be held.
func (s *sealer) pending() int {
	if err := s.eth.TxPool().Sync(); err != nil {
		return 0 // it is closed, and nothing waits in it
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

// seal makes a block of all that waits, unless it is too soon. s.mu must be held.
func (s *sealer) seal() error {
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
// declares it final: nobody else seals here, so nothing is ever taken back. s.mu
// must be held.
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
