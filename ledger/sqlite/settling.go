package sqlite

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// pendingMove is a move to settling that waits for the disk.
type pendingMove struct {
	row    *row
	number uint64 // of its record
	batch  *batch
	// What the row was before.
	before  ledger.Payment
	version uint64
	dirty   bool

	// abandoned: nobody waits any more, and whoever did was told that it may have
	// happened. undone: it did not happen. Of the two, one.
	abandoned, undone bool
}

// settling moves the row to settling in memory and in the journal; the caller
// waits for the disk. All under l.mu.
func (l *Ledger) settling(r *row, p ledger.Payment) (*pendingMove, error) {
	if err := l.journal.failure(); err != nil {
		return nil, err
	}
	w := &pendingMove{row: r, before: r.payment, version: r.version, dirty: r.dirty}
	if r.payment.State == ledger.Claimed {
		l.claimed.Add(-1)
	}
	l.rows.change(r, p)
	w.number, w.batch = l.record(r, &w.before, w)
	r.awaited = w.number
	if w.batch == nil { // it has failed since
		l.undo(w)
		return nil, l.journal.failure()
	}
	return w, nil
}

// changed makes any other change of a row, in memory and in the journal. A claim
// that is let go leaves no trace: anybody can have made it, for nothing.
func (l *Ledger) changed(r *row, p ledger.Payment) {
	if r.payment.State == ledger.Claimed {
		l.claimed.Add(-1)
		l.rows.remove(r)
		return
	}
	old := r.payment
	l.rows.change(r, p)
	l.record(r, &old, nil)
}

// record writes the row's new version into the journal.
func (l *Ledger) record(r *row, old *ledger.Payment, wait *pendingMove) (uint64, *batch) {
	number, b := l.journal.add(func(b []byte) []byte {
		if r.version == 0 {
			return appendRow(b, &r.payment)
		}
		return appendChange(b, &r.key, old, &r.payment)
	}, wait)
	l.rows.soil(r, number)
	l.behind.Store(int64(l.rows.queued))
	if l.rows.queued > manyDirty {
		signal(l.hurry)
	}
	return number, b
}

// unqueue says that the database has a row, or need not have it.
func (l *Ledger) unqueue(r *row) {
	r.queued = false
	l.rows.queued--
	l.behind.Store(int64(l.rows.queued))
}

// abandon says that nobody waits for the move any more. It reports false when
// the outcome is known meanwhile.
func (l *Ledger) abandon(w *pendingMove) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-w.batch.done:
		return false
	default:
		w.abandoned = !w.undone
		return w.abandoned
	}
}

// undo takes a move back that is not on disk.
func (l *Ledger) undo(w *pendingMove) {
	r := w.row
	w.undone = true
	if r.version != w.number {
		return // another has taken the row over: it stays in doubt
	}
	l.rows.change(r, w.before)
	r.version, r.awaited = w.version, 0
	r.dirty = r.dirty && w.dirty
	if r.payment.State == ledger.Claimed {
		l.claimed.Add(1)
		l.rows.claims = append(l.rows.claims, r)
	}
}

// journalFailed is called when the journal could not be written. What is surely
// not on disk has not happened, if the one who asked for it still waits to hear
// so. What may be on disk stays as it is: the row is settling, and its holder,
// who knows whether money was asked for, can say so.
func (l *Ledger) journalFailed(err error, batches ...*batch) {
	l.logger.Error("the ledger cannot be written; payments are refused until it can", zap.String("file", l.path), zap.Error(err))
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range slices.Backward(batches) {
		if !b.clean {
			continue
		}
		for _, w := range slices.Backward(b.pending) {
			if !w.abandoned {
				l.undo(w)
			}
		}
	}
}

const (
	// stallsAfter is how long one write or sync may take before new payments are
	// refused instead of queued.
	stallsAfter = 3 * time.Second
	// maxBehind is how many rows the database may be behind.
	maxBehind = 200_000
	// slowFrom is from how many rows on new payments wait a little, each by slowEach
	// for every row more and by slowMost at most, so that a burst fills the disk and
	// not the memory.
	slowFrom = 30_000
	slowEach = 2 * time.Microsecond
	slowMost = 50 * time.Millisecond
)

// well says whether new payments can be taken.
func (l *Ledger) well() error {
	if err := l.journal.failure(); err != nil {
		return fmt.Errorf("%w: the journal cannot be written: %w", ledger.ErrUnavailable, err)
	}
	if d := l.journal.stalled(); d > stallsAfter {
		return fmt.Errorf("%w: the disk has not answered for %s", ledger.ErrUnavailable, d.Round(time.Second))
	}
	if n := l.behind.Load(); n > maxBehind {
		return fmt.Errorf("%w: the database is %d payments behind", ledger.ErrUnavailable, n)
	}
	return nil
}

// giveWay makes a new payment wait while the database is far behind.
func (l *Ledger) giveWay(ctx context.Context) {
	over := l.behind.Load() - slowFrom
	if over <= 0 {
		return
	}
	select {
	case <-time.After(min(time.Duration(over)*slowEach, slowMost)):
	case <-ctx.Done():
	case <-l.quit:
	}
}

// begunAnew lets the ledger go on after a failure of the journal: everything
// that the database does not have goes into a new segment, whatever the old ones
// have of it.
func (l *Ledger) beginAnew() error {
	l.copying.Lock() // so that all dirty rows are in their list
	defer l.copying.Unlock()
	l.mu.Lock()
	if l.journal.failure() == nil || l.closed {
		l.mu.Unlock()
		return nil
	}
	b := l.journal.beginAnew()
	for _, r := range l.rows.dirty {
		if r.dirty {
			r.version = l.journal.addAnew(b, func(to []byte) []byte { return appendRow(to, &r.payment) })
			r.from = r.version
		}
	}
	l.mu.Unlock()
	if err := l.journal.endAnew(b); err != nil {
		return err
	}
	l.logger.Info("the ledger can be written again", zap.String("file", l.path), zap.Int("payments", len(b.ends)))
	return nil
}
