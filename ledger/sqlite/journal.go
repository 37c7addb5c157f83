package sqlite

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// commitWindow is how long a record that somebody waits for may wait itself
	// for the records of others, so that they share one sync. A sync costs more
	// than all the rest; in a gate at work it comes back by a multiple.
	commitWindow = 2 * time.Millisecond
	// writeWithin is when records that nobody waits for are given to the system,
	// which keeps them when this process dies.
	writeWithin = 2 * time.Millisecond
	// syncWithin is when they are on disk, which keeps them when the power fails.
	syncWithin = 100 * time.Millisecond
)

// batch is the records that go to the disk together.
type batch struct {
	frames []byte
	ends   []int  // of each frame
	first  uint64 // the number of the first frame
	// waiters is how many wait for the sync of this batch.
	waiters int
	pending []*pendingMove
	drops   bool // the segment ends with it

	// done is closed when the batch is on disk or has failed.
	done chan struct{}
	err  error
	// clean: none of it is on disk, now or after a crash.
	clean bool
}

// journal is an append-only file that several goroutines share: what they append
// while the disk is busy goes to it in one piece. It is in segments, which are
// removed when the database has what is in them.
//
// A journal that fails stays failed until it is begun anew: what a disk has of
// a write that failed, nobody knows.
type journal struct {
	segments *segments
	// company says how many are on their way to a record to wait for.
	company func() int64
	// failed is called once when the journal fails, with the batches that did.
	failed func(error, ...*batch)

	kick chan struct{} // there is something to do
	all  chan struct{} // nobody is on the way any more
	quit chan struct{}
	gone chan struct{}

	mu    sync.Mutex
	batch *batch // is filled
	next  uint64 // the number of the next record
	err   error  // why it has failed
	held  bool   // it is begun anew, and nothing else may be written
	drops bool   // the segment is to be ended
	spare *batch // was used, and is empty

	// Of the writing goroutine alone.
	unsynced time.Time     // since when something is written and not synced
	gap      time.Duration // the usual time between two records to wait for
	waited   time.Time     // the latest commit with waiters

	synced atomic.Uint64 // the number up to which all is on disk
	busy   atomic.Int64  // since when the disk is at it, in Unix nanoseconds; or 0
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

// newJournal begins a journal at record number next.
func newJournal(s *segments, next uint64) *journal {
	j := &journal{
		segments: s, next: next, batch: newBatch(),
		company: func() int64 { return 0 },
		failed:  func(error, ...*batch) {},
		kick:    make(chan struct{}, 1), all: make(chan struct{}, 1),
		quit: make(chan struct{}), gone: make(chan struct{}),
		gap: time.Second,
	}
	j.synced.Store(next - 1)
	return j
}

// add appends the record that encode appends. When wait is not nil, somebody
// waits for the batch. A journal that has failed counts the record and drops it.
func (j *journal) add(encode func([]byte) []byte, wait *pendingMove) (number uint64, b *batch) {
	j.mu.Lock()
	number = j.next
	j.next++
	if j.err != nil {
		j.mu.Unlock()
		return number, nil
	}
	b = j.batch
	if len(b.ends) == 0 {
		b.first = number
	}
	b.frames = encode(openFrame(b.frames))
	b.ends = append(b.ends, len(b.frames))
	wake := len(b.ends) == 1
	if wait != nil {
		b.waiters++
		b.pending = append(b.pending, wait)
		wake = wake || b.waiters == 1
	}
	j.mu.Unlock()
	if wake {
		signal(j.kick)
	}
	if wait != nil && j.company() == 0 {
		signal(j.all)
	}
	return number, b
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run writes until close.
func (j *journal) run() {
	defer close(j.gone)
	for {
		b, quit := j.collect()
		if b != nil {
			if err := j.commit(b); err != nil {
				j.fail(err, b)
			}
		}
		if quit {
			return
		}
	}
}

// collect returns the next batch when its time has come; it may be empty, when
// it is time for a sync.
func (j *journal) collect() (b *batch, quit bool) {
	for !quit {
		records, waiters, drops := j.filled()
		switch {
		case drops:
			return j.take(), false
		case waiters > 0:
			j.awaitCompany()
			return j.take(), false
		case records > 0:
			if kicked, q := j.sleep(writeWithin); !kicked || q {
				return j.take(), q
			}
		case !j.unsynced.IsZero():
			if left := syncWithin - time.Since(j.unsynced); left <= 0 {
				return j.take(), false
			} else if _, quit = j.sleep(left); quit {
				return j.take(), true
			}
		default:
			_, quit = j.sleep(0)
		}
	}
	return j.take(), true
}

func (j *journal) filled() (records, waiters int, drops bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.held || j.err != nil {
		return 0, 0, false
	}
	return len(j.batch.ends), j.batch.waiters, j.drops
}

// sleep waits to be kicked, for d at most, or without end if d is 0.
func (j *journal) sleep(d time.Duration) (kicked, quit bool) {
	var over <-chan time.Time
	if d > 0 {
		over = time.After(d)
	}
	select {
	case <-j.kick:
		return true, false
	case <-j.quit:
		return false, true
	case <-over:
		return false, false
	}
}

// awaitCompany waits until all have come who are on their way, if they have come
// often enough lately that it is worth it. Somebody who is alone does not wait.
func (j *journal) awaitCompany() {
	if j.gap > commitWindow/2 || j.company() == 0 {
		return
	}
	select {
	case <-j.all: // an old signal
	default:
	}
	if j.company() == 0 {
		return
	}
	select {
	case <-j.all:
	case <-j.quit:
	case <-time.After(commitWindow):
	}
}

// take takes the batch that is filled and leaves another.
func (j *journal) take() *batch {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil || j.held {
		return nil
	}
	b := j.batch
	b.drops, j.drops = j.drops, false
	j.batch = newBatch()
	if j.spare != nil {
		j.batch.frames, j.batch.ends = j.spare.frames[:0], j.spare.ends[:0]
		j.spare = nil
	}
	return b
}

// commit brings a batch to the disk.
func (j *journal) commit(b *batch) error {
	j.busy.Store(time.Now().UnixNano())
	defer j.busy.Store(0)
	if len(b.ends) > 0 {
		if err := j.segments.write(b, j.synced.Load()); err != nil {
			return err
		}
		if j.unsynced.IsZero() {
			j.unsynced = time.Now()
		}
	}
	if b.waiters > 0 || !j.unsynced.IsZero() && time.Since(j.unsynced) >= syncWithin {
		if err := j.segments.sync(); err != nil {
			return err
		}
		j.synced.Store(j.segments.written)
		j.unsynced = time.Time{}
	}
	if b.drops {
		if err := j.segments.drop(); err != nil {
			return err
		}
		j.synced.Store(j.segments.written)
		j.unsynced = time.Time{}
	}
	if b.waiters > 0 {
		now := time.Now()
		gap := min(now.Sub(j.waited)/time.Duration(b.waiters), time.Second)
		j.gap += (gap - j.gap) / 4
		j.waited = now
	}
	close(b.done)
	const keepSpare = 1 << 20
	if cap(b.frames) <= keepSpare {
		j.mu.Lock()
		j.spare = &batch{frames: b.frames, ends: b.ends}
		j.mu.Unlock()
	}
	return nil
}

// fail ends the batch, and the one that was filled meanwhile, with an error.
func (j *journal) fail(err error, b *batch) {
	var dirty *uncleanError
	b.err, b.clean = err, !errors.As(err, &dirty)
	j.mu.Lock()
	j.err = err
	later := j.batch
	later.err, later.clean = err, true
	j.batch = newBatch()
	j.unsynced = time.Time{}
	j.mu.Unlock()
	j.failed(err, b, later)
	close(b.done)
	close(later.done)
}

// failure returns why the journal has failed, or nil.
func (j *journal) failure() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.held {
		return errHeld
	}
	return j.err
}

var errHeld = errors.New("the journal is begun anew")

// beginAnew lets a failed journal take records again, which wait for endAnew.
// The returned batch is for what endAnew writes first.
func (j *journal) beginAnew() *batch {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.err, j.held = nil, true
	j.batch = newBatch()
	b := newBatch()
	b.first = j.next
	return b
}

// addAnew appends to the batch of beginAnew, before anything else is added.
func (j *journal) addAnew(b *batch, encode func([]byte) []byte) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	b.frames = encode(openFrame(b.frames))
	b.ends = append(b.ends, len(b.frames))
	j.next++
	return j.next - 1
}

// endAnew writes the batch into a segment of its own, from which the journal
// goes on, or has failed again.
func (j *journal) endAnew(b *batch) error {
	err := j.segments.anew(b)
	j.mu.Lock()
	j.held, j.err = false, err
	if err != nil {
		j.batch = newBatch()
	} else {
		j.synced.Store(j.segments.written)
	}
	j.mu.Unlock()
	signal(j.kick)
	return err
}

// stalled returns for how long the disk has been at one piece of work.
func (j *journal) stalled() time.Duration {
	since := j.busy.Load()
	if since == 0 {
		return 0
	}
	return time.Duration(time.Now().UnixNano() - since)
}

// last returns the number of the latest record.
func (j *journal) last() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next - 1
}

// drop lets the journal begin a new segment, so that the present one can be
// removed.
func (j *journal) drop() {
	j.mu.Lock()
	j.drops = true
	j.mu.Unlock()
	signal(j.kick)
}

// close writes what is there and ends.
func (j *journal) close() error {
	close(j.quit)
	<-j.gone
	err := j.failure()
	if err == nil {
		err = j.segments.sync()
	}
	return errors.Join(err, j.segments.close())
}
