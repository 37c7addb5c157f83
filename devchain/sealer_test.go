package devchain

import (
	"errors"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
)

// ahead is by how many seconds the chain's clock is ahead of ours.
func (w *world) ahead() int64 { return int64(w.head().Time) - time.Now().Unix() }

// One block a second, whatever comes: the chain's clock is never ahead, or
// authorizations would expire before their time.
func TestClockAfterManyTransactions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Options{BlockEvery: time.Second})
	from := w.Accounts()[1]
	begin, started := w.head().Number.Uint64(), time.Now()
	var txs []*types.Transaction
	for i := range 50 {
		txs = append(txs, w.sendNonce(from, uint64(i), &w.Accounts()[2].Address, nil))
		time.Sleep(50 * time.Millisecond)
	}
	for _, tx := range txs {
		w.mined(tx)
	}
	if got := w.ahead(); got > 0 || got < -staleAfter {
		t.Errorf("the chain is %d s ahead", got)
	}
	took := time.Since(started)
	if blocks := w.head().Number.Uint64() - begin; blocks > uint64(took.Seconds())+2 {
		t.Errorf("%d blocks in %s", blocks, took)
	}
}

// A chain that seals faster than its clock goes runs ahead, but not far.
func TestFastChainDoesNotRunAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Options{BlockEvery: time.Millisecond})
	from, next := w.Accounts()[1], uint64(0)
	one := func() int64 {
		w.mined(w.sendNonce(from, next, &w.Accounts()[2].Address, nil))
		next++
		return w.ahead()
	}
	for deadline := time.Now().Add(30 * time.Second); one() < maxAhead-1; {
		if time.Now().After(deadline) {
			t.Fatal("the chain does not run ahead: the test shows nothing")
		}
	}
	for range 3 {
		if got := one(); got > maxAhead {
			t.Fatalf("the chain is %d s ahead", got)
		}
	}
}

// All that waits goes into a block, or into the next.
func TestManyPendingTransactions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Options{BlockEvery: time.Second})
	var payments []*types.Transaction
	for i := range 100 {
		payer := w.Accounts()[1+i%5]
		a := w.authorize(payer.Address, payer)
		payments = append(payments, w.sendNonce(w.Accounts()[0], uint64(i), &Dollar, a.split(w)))
	}
	blocks := map[uint64]int{}
	for i, tx := range payments {
		r := w.mined(tx)
		if r.Status != types.ReceiptStatusSuccessful {
			t.Errorf("payment %d was reverted", i)
		}
		blocks[r.BlockNumber.Uint64()]++
	}
	if len(blocks) > 5 {
		t.Errorf("100 payments in %d blocks: %v", len(blocks), blocks)
	}
	if pending, err := w.client.PendingTransactionCount(t.Context()); err != nil || pending != 0 {
		t.Errorf("%d still wait (%v)", pending, err)
	}
}

// Many at once, each waiting for its own receipt, as requests do: each is in the
// next block, or at worst in the one after it.
func TestNobodyWaitsForLong(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Options{BlockEvery: 200 * time.Millisecond})
	var wg sync.WaitGroup
	for _, from := range w.Accounts() {
		wg.Go(func() {
			for i := range uint64(3) {
				tx := w.sendNonce(from, i, &Dollar, w.pack("approve", Permit2, big.NewInt(1)))
				sent := w.head().Number.Uint64()
				if got := w.mined(tx).BlockNumber.Uint64(); got > sent+2 {
					t.Errorf("sent at block %d, in block %d", sent, got)
				}
			}
		})
	}
	wg.Wait()
}

// A chain that nobody uses stands still; one that somebody looks at is up to date.
func TestChainIsDatedWhenLookedAt(t *testing.T) {
	t.Parallel()
	var passed atomic.Int64 // a clock that goes when it is told to
	start := time.Now()
	w := newWorld(t, Options{Now: func() time.Time { return start.Add(time.Duration(passed.Load())) }})
	before := w.head()
	if _, err := w.client.BlockNumber(t.Context()); err != nil || w.head().Hash() != before.Hash() {
		t.Errorf("a block for nothing (%v)", err)
	}
	passed.Store(int64(time.Hour))
	if w.head().Hash() != before.Hash() {
		t.Error("a block for nobody")
	}
	// Valid since a minute, in a chain whose last block is an hour old.
	payer := w.Accounts()[1]
	now := start.Add(time.Hour).Unix()
	a := w.authorize(payer.Address, payer)
	a.validAfter, a.validBefore = big.NewInt(now-60), big.NewInt(now+60)
	w.refused(a.split(w), "FiatTokenV2: invalid signature") // and not: not yet valid
	if got := int64(w.head().Time); got != now {
		t.Errorf("the head is dated %d, now is %d", got, now)
	}
}

// Looking at a stale chain while payments come in: both want a block, and neither
// must keep the other from it (or from the pool, which serves one at a time).
func TestLookersAndPayersAtOnce(t *testing.T) {
	t.Parallel()
	var skew atomic.Int64
	w := newWorld(t, Options{
		BlockEvery: time.Millisecond,
		Now:        func() time.Time { return time.Now().Add(time.Duration(skew.Load())) },
	})
	done := make(chan struct{})
	var lookers sync.WaitGroup
	for range 4 {
		lookers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					skew.Add(int64(staleAfter * time.Second))
					if _, err := w.client.BlockNumber(t.Context()); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for i := range uint64(40) {
		w.mined(w.sendNonce(w.Accounts()[1], i, &w.Accounts()[2].Address, nil))
	}
	close(done)
	lookers.Wait()
}

// A clock that was set back must not let the chain run ahead of it without end,
// nor stop it within what it may be ahead.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	var back atomic.Int64
	w := newWorld(t, Options{Now: func() time.Time { return time.Now().Add(-time.Duration(back.Load())) }})
	back.Store(int64(5 * time.Second))
	if err := w.Mint(soon(t), common.Address{1}, big.NewInt(1)); err != nil {
		t.Fatal(err)
	}
	back.Store(int64(time.Hour))
	if wait := w.sealer.untilNext(); wait < 50*time.Minute || wait > time.Hour {
		t.Errorf("an hour ahead of the clock, the next block comes in %s", wait)
	}
	w.sealer.mu.Lock()
	defer w.sealer.mu.Unlock()
	w.sealer.last = time.Time{} // so that only the clock is in the way
	if err := w.sealer.seal(); !errors.Is(err, errTooSoon) {
		t.Errorf("a block an hour ahead of the clock: %v", err)
	}
}

// A transaction whose nonce leaves a gap waits for the one that fills it, without
// blocks being made for it.
func TestGapInNonces(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Options{})
	from, to := w.Accounts()[1], w.Accounts()[2].Address
	begin := w.head().Number.Uint64()
	second := w.sendNonce(from, 1, &to, nil)
	time.Sleep(200 * time.Millisecond)
	if n := w.head().Number.Uint64() - begin; n != 0 {
		t.Errorf("%d blocks for a transaction that cannot run", n)
	}
	first := w.sendNonce(from, 0, &to, nil)
	w.mined(first)
	w.mined(second)
}
