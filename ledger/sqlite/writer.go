package sqlite

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

const (
	// writeWithin is how long a change that nobody waits for may wait for others, so
	// that they share a transaction.
	writeWithin = 2 * time.Millisecond
	// company is how long a transaction that somebody waits for waits itself for others,
	// if the one before was shared: a transaction costs more than most that is in it. Who
	// is alone does not wait.
	company = time.Millisecond
	// tryAgain is how often a file that could not be written is tried again.
	tryAgain = 500 * time.Millisecond
	// stallsAfter is how long a transaction may take before new payments are refused
	// instead of queued.
	stallsAfter = 3 * time.Second
)

// batch is the changes that share a transaction. All but done is under l.mu.
type batch struct {
	rows  []*row
	waits []*wait
	// done is closed when the transaction is over.
	done chan struct{}
	err  error
}

// wait is a move to Settling that waits for its transaction.
type wait struct {
	row    *row
	batch  *batch
	change uint64 // the number of the move
	// What the row was before, and what was to be written of it.
	before struct {
		payment ledger.Payment
		id      int64
		change  uint64
		next    *version
	}
	// undone: it has not happened. abandoned: nobody waits any more, and whoever did was
	// told that it may have. Of the two, one.
	undone, abandoned bool
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

// record makes a change of a row in memory, and gives it to the writer. Under l.mu.
func (l *Ledger) record(r *row, p ledger.Payment) {
	old := r.payment
	l.rows.set(r, p)
	l.changes++
	r.change = l.changes
	v := &version{payment: p, hash: r.hash, again: r.again}
	if r.id == 0 {
		l.lastID++
		r.id = l.lastID
		v.anew, v.kept = true, len(p.Request)+len(p.Answer) > 0
	} else {
		v.kept = !bytes.Equal(old.Request, p.Request) || !bytes.Equal(old.Answer, p.Answer)
		v.payer = old.Payer != p.Payer
	}
	v.id = r.id
	if r.next == nil {
		l.filling.rows = append(l.filling.rows, r)
	}
	r.next = v.after(r.next)
	signal(l.written)
}

// after returns the version that is to be written in place of an earlier one, which was
// not.
func (v *version) after(earlier *version) *version {
	if earlier != nil && earlier.id == v.id {
		both := *v
		both.anew, both.kept, both.payer = v.anew || earlier.anew, v.kept || earlier.kept, v.payer || earlier.payer
		return &both
	}
	return v
}

// recordAwaited is record for somebody who waits for the transaction. Under l.mu.
func (l *Ledger) recordAwaited(r *row, p ledger.Payment) *wait {
	w := &wait{row: r, batch: l.filling}
	w.before.payment, w.before.id, w.before.change, w.before.next = r.payment, r.id, r.change, r.next
	l.record(r, p)
	w.change = r.change
	l.filling.waits = append(l.filling.waits, w)
	signal(l.awaited)
	return w
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run writes until the ledger is closed. It is the one writer of the file.
func (l *Ledger) run() {
	defer close(l.ended)
	chores := time.NewTicker(l.options.Load().choresEvery)
	defer chores.Stop()
	for {
		select {
		case <-l.quit:
			return
		case <-l.awaited:
			if l.shared.Load() {
				time.Sleep(company)
			}
		case <-l.written:
			select {
			case <-l.quit:
				return
			case <-l.awaited:
			case <-time.After(writeWithin):
			}
		case <-chores.C:
			l.chores()
		}
		for l.commit() != nil {
			select {
			case <-l.quit:
				return
			case <-time.After(tryAgain):
			}
		}
	}
}

// commit writes what is to be written, in one transaction.
func (l *Ledger) commit() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	b, failing := l.filling, l.failure != nil
	l.shared.Store(len(b.waits) > 1)
	l.filling = newBatch()
	versions := make([]*version, 0, len(b.rows))
	rows := b.rows[:0]
	for _, r := range b.rows {
		if r.next != nil { // else it was taken back
			r.current, r.next = r.next, nil
			rows, versions = append(rows, r), append(versions, r.current)
		}
	}
	b.rows = rows
	hash := l.options.Load().HashQueries
	l.mu.Unlock()
	if len(versions) == 0 && !failing {
		close(b.done)
		return nil
	}

	l.busy.Store(time.Now().UnixNano())
	sent, err := l.write(versions, failing, hash)
	l.busy.Store(0)

	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed(b, err, !sent)
		return err
	}
	if failing {
		l.failure = nil
		l.logger.Info("the ledger can be written again", zap.String("file", l.path), zap.Int("payments", len(versions)))
	}
	l.commits++
	for _, r := range b.rows {
		r.current = nil
		l.rows.rest(r)
	}
	close(b.done)
	return nil
}

// failed puts what could not be written back to the rest. If nothing of it is on disk,
// the moves to Settling have not happened, for those who still wait to hear so. Else
// their rows stay as they are, settling: their holders, who know whether money was asked
// for, can say so. Under l.mu.
func (l *Ledger) failed(b *batch, err error, nothing bool) {
	if l.failure == nil {
		l.logger.Error("the ledger cannot be written; payments are refused until it can", zap.String("file", l.path), zap.Error(err))
	}
	l.failure = err
	later := l.filling
	for _, w := range slices.Backward(later.waits) {
		w.undo(l, &w.row.next)
	}
	if nothing {
		for _, w := range slices.Backward(b.waits) {
			w.undo(l, &w.row.current)
		}
	}
	l.filling = newBatch()
	l.filling.rows = later.rows
	for _, r := range b.rows {
		v := r.current
		r.current = nil
		switch {
		case v == nil:
		case r.next == nil:
			r.next = v
			l.filling.rows = append(l.filling.rows, r)
		default:
			r.next = r.next.after(v)
		}
	}
	for _, b := range []*batch{b, later} {
		b.err = err
		close(b.done)
	}
}

// undo takes a move back that is not on disk, unless the row has changed since. place
// is where the row has what was to be written of the move.
func (w *wait) undo(l *Ledger, place **version) {
	r := w.row
	if w.abandoned || r.gone || r.change != w.change {
		return
	}
	w.undone = true
	p := w.before.payment
	p.Lease = r.payment.Lease // it may have been renewed
	l.rows.set(r, p)
	r.id, r.change, *place = w.before.id, w.before.change, w.before.next
}

// well says whether new payments can be taken.
func (l *Ledger) well() error {
	l.mu.Lock()
	err := l.failure
	l.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%w: the file cannot be written: %w", ledger.ErrUnavailable, err)
	}
	if since := l.busy.Load(); since != 0 {
		if d := time.Since(time.Unix(0, since)); d > stallsAfter {
			return fmt.Errorf("%w: the disk has not answered for %s", ledger.ErrUnavailable, d.Round(time.Second))
		}
	}
	return nil
}

// asWriter does something with the connection of the writer, between two transactions.
func (l *Ledger) asWriter(do func(*store) error) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.store == nil {
		return errors.New("the file cannot be written now")
	}
	l.busy.Store(time.Now().UnixNano())
	defer l.busy.Store(0)
	return do(l.store)
}
