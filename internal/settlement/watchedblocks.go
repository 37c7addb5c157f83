package settlement

import (
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// A block that is not final can be taken back by a reorganisation, after its
// payments were believed and perhaps delivered. So the blocks of the latest
// payments are remembered for a while, and the chain is asked whether it still has
// them: a few times for each block, however many payments are in it. What a
// process remembers of them dies with it.

// mostWatched is how many payments are watched at most. Others are not.
const mostWatched = 10_000

// lookAfter are the times after a block's first settlement at which the chain is asked for
// it. After the last look it is forgotten. Payments of a block that is gone
// are looked after in the same pauses.
var lookAfter = [...]time.Duration{15 * time.Second, 45 * time.Second, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute}

const (
	// lookAgain is when, if it could not be told, and it does not count as a look.
	lookAgain = 15 * time.Second
	// watchFor is how long a payment is watched at most, whatever happens.
	watchFor = 30 * time.Minute
)

// Blocks remembers in which blocks the latest payments are.
type Blocks struct {
	mu     sync.Mutex
	blocks map[blockOf]*watchedBlock
	count  int             // payments in all blocks
	busy   map[string]bool // networks at whose blocks somebody looks
	full   bool            // and that was said
}

// NewBlocks makes one that watches nothing yet.
func NewBlocks() *Blocks {
	return &Blocks{blocks: make(map[blockOf]*watchedBlock), busy: make(map[string]bool)}
}

// blockOf is a block of a network.
type blockOf struct {
	network string
	facilitator.Block
}

// watchedBlock is a block with the payments in it that are watched.
type watchedBlock struct {
	payments []watched
	since    time.Time
	looks    int // so far; that at which it was found to be gone does not count
	next     time.Time
	// gone: the chain has taken it back, and the payments are what is left to do.
	gone bool
}

// watched is a payment in a block.
type watched struct {
	key         ledger.Key
	facilitator string
	request     []byte // as the ledger keeps it until the goods have arrived
	until       time.Time
	// told: that the chain does not have it any more was said.
	told bool
}

// add watches a payment, unless nobody has looked where it is.
func (b *Blocks) add(network string, in facilitator.Block, p watched, now time.Time, logger *zap.Logger) {
	if in == (facilitator.Block{}) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.count >= mostWatched {
		if !b.full {
			logger.Warn("too many payments at once: of some it is not watched whether a reorganisation takes them back; more confirmations would do instead",
				zap.Int("watched", b.count))
		}
		b.full = true
		return
	}
	if p.until.IsZero() {
		p.until = now.Add(watchFor)
	}
	at := blockOf{network, in}
	block := b.blocks[at]
	if block == nil {
		block = &watchedBlock{gone: true}
		b.blocks[at] = block
	}
	if block.gone { // and back, if it was there before
		block.gone, block.looks, block.since, block.next = false, 0, now, now.Add(lookAfter[0])
	}
	block.payments = append(block.payments, p)
	b.count++
}

// due returns the blocks whose time has come, by network, and marks these as busy.
func (b *Blocks) due(now time.Time) map[string][]blockOf {
	b.mu.Lock()
	defer b.mu.Unlock()
	var due map[string][]blockOf
	for at, block := range b.blocks {
		if now.Before(block.next) || b.busy[at.network] {
			continue
		}
		if due == nil {
			due = make(map[string][]blockOf)
		}
		due[at.network] = append(due[at.network], at)
	}
	for network := range due {
		b.busy[network] = true
	}
	return due
}

// rest ends what due began for a network.
func (b *Blocks) rest(network string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.busy, network)
}

// isGone says whether a block is known to be taken back.
func (b *Blocks) isGone(at blockOf) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	block := b.blocks[at]
	return block != nil && block.gone
}

// unclear puts a look off.
func (b *Blocks) unclear(at blockOf, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if block := b.blocks[at]; block != nil {
		block.next = now.Add(lookAgain)
		b.expire(at, block, now)
	}
}

// seen is for a block that the chain has.
func (b *Blocks) seen(at blockOf, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if block := b.blocks[at]; block != nil {
		b.looked(at, block, now)
	}
}

// takenBack is for a block that the chain does not have any more, and returns how
// many payments are in it.
func (b *Blocks) takenBack(at blockOf, now time.Time) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	block := b.blocks[at]
	if block == nil {
		return 0
	}
	block.gone, block.looks, block.since, block.next = true, -1, now, now
	return len(block.payments)
}

// lost returns the payments of a block that is gone, which still count.
func (b *Blocks) lost(at blockOf) []watched {
	b.mu.Lock()
	defer b.mu.Unlock()
	block := b.blocks[at]
	if block == nil {
		return nil
	}
	list := block.payments
	block.payments = nil
	return list
}

// left puts back those of the payments from lost of which it is not decided what
// became of them.
func (b *Blocks) left(at blockOf, taken int, undecided []watched, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	block := b.blocks[at]
	if block == nil {
		return
	}
	b.count -= taken - len(undecided)
	block.payments = append(undecided, block.payments...)
	if block.gone { // else it is back, and was not looked at since
		b.looked(at, block, now)
	}
}

// looked counts a look and sets the time of the next one, under the lock.
func (b *Blocks) looked(at blockOf, block *watchedBlock, now time.Time) {
	if block.looks++; block.looks >= len(lookAfter) {
		b.forget(at, block)
		return
	}
	block.next = block.since.Add(lookAfter[block.looks])
	b.expire(at, block, now)
}

// expire forgets the payments that were watched for long, under the lock.
func (b *Blocks) expire(at blockOf, block *watchedBlock, now time.Time) {
	before := len(block.payments)
	block.payments = slices.DeleteFunc(block.payments, func(p watched) bool { return !now.Before(p.until) })
	b.count -= before - len(block.payments)
	if len(block.payments) == 0 {
		b.forget(at, block)
	}
}

// forget forgets a block with all in it, under the lock.
func (b *Blocks) forget(at blockOf, block *watchedBlock) {
	b.count -= len(block.payments)
	delete(b.blocks, at)
	if b.count < mostWatched/2 {
		b.full = false
	}
}

// ForTest returns what only tests may do, so that they need not wait; it panics elsewhere.
func (b *Blocks) ForTest() BlocksForTest {
	if !testing.Testing() {
		panic("settlement: ForTest outside a test")
	}
	return BlocksForTest{b}
}

// BlocksForTest is Blocks in the hands of a test.
type BlocksForTest struct{ b *Blocks }

// LookNow makes it time for the next look at all blocks that are watched.
func (t BlocksForTest) LookNow() {
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	for _, b := range t.b.blocks {
		b.next = time.Time{}
	}
}
