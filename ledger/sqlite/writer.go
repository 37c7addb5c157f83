package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
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
	company = 2 * time.Millisecond
	// tryAgain is how often a file that could not be written is tried again.
	tryAgain = 500 * time.Millisecond
	// stallsAfter is how long a transaction may take before new payments are refused
	// instead of queued.
	stallsAfter = 3 * time.Second
)

// The ends of a transaction.
const beginWrite, commitWrite = "BEGIN IMMEDIATE", "COMMIT"

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
	row     *row
	changes int            // of the row, with the move
	before  ledger.Payment // the row was
	// undone: it has not happened. abandoned: nobody waits any more, and whoever did was
	// told that it may have. Of the two, one.
	undone, abandoned bool
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

// record makes a change of a row in memory, and gives it to the writer. Under l.mu.
func (l *Ledger) record(r *row, p ledger.Payment) {
	l.rows.set(r, p)
	r.changes++
	l.fill(r)
	signal(l.written)
}

// fill lets the next transaction write a row. Under l.mu.
func (l *Ledger) fill(r *row) {
	if !r.unwritten {
		r.unwritten = true
		l.filling.rows = append(l.filling.rows, r)
	}
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
	looks := time.NewTicker(lookEvery)
	defer looks.Stop()
	for {
		select {
		case <-l.quit:
			return
		case <-l.awaited:
			l.waitForCompany()
		case <-l.written:
			select {
			case <-l.quit:
				return
			case <-l.awaited:
				l.waitForCompany()
			case <-time.After(writeWithin):
			}
		case <-chores.C:
			l.chores()
		case <-looks.C:
			l.look()
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

// look looks whether the files are where they were.
func (l *Ledger) look() {
	if err := l.files.inPlace(); err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.failed(newBatch(), err, true)
	}
}

func (l *Ledger) waitForCompany() {
	if l.shared.Load() {
		time.Sleep(company)
	}
}

// commit writes what is to be written, in one transaction.
func (l *Ledger) commit() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	hash := l.options.Load().HashQueries
	l.mu.Lock()
	b, failing := l.filling, l.failure != nil
	l.filling = newBatch()
	l.shared.Store(len(b.waits) > 1)
	versions := make([]version, len(b.rows))
	for i, r := range b.rows {
		r.unwritten, r.writing = false, true
		versions[i] = version{stored{id: r.id, payment: r.payment}, r}
	}
	l.mu.Unlock()
	if len(versions) == 0 && !failing {
		close(b.done)
		return nil
	}
	for i := range versions {
		v := &versions[i]
		key := digestOf(v.payment.Key)
		v.hash, v.keptUntil = key[:], keptUntil(v.payment)
		if hash && !v.payment.State.Open() {
			v.payment.URL = l.file.hashQuery(v.payment.URL)
		}
	}
	l.busy.Store(time.Now().UnixNano())
	sent, err := l.write(versions, failing)
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
	for i, r := range b.rows {
		r.inFile, r.before, r.writing = versions[i].payment, nil, false
		l.rows.rest(r)
	}
	close(b.done)
	return nil
}

// write writes versions of rows in one transaction. sent says that COMMIT was sent: if
// there is an error then, nobody knows whether it was committed. try makes it write
// something even if there is nothing to write.
func (l *Ledger) write(versions []version, try bool) (sent bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		if err != nil { // what state the connection is in, nobody need know
			_ = l.writer.close() // which rolls back
			l.writer = nil
		}
	}()
	if err := l.files.inPlace(); err != nil {
		return false, err
	}
	if l.writer == nil {
		if l.writer, err = connectWriter(l.path); err != nil {
			return false, err
		}
	}
	if err := l.fault("begin"); err != nil {
		return false, err
	}
	if _, err := l.writer.exec(beginWrite); err != nil {
		return false, err
	}
	if try {
		if _, err := l.writer.exec("INSERT OR REPLACE INTO meta VALUES ('tried', randomblob(8))"); err != nil {
			return false, err
		}
	}
	for _, anew := range []bool{false, true} { // what is new goes into the pages that others leave
		for i := range versions {
			if v := &versions[i]; (v.row.inFile.Key == "") == anew {
				if err := l.writer.put(v); err != nil {
					return false, err
				}
			}
		}
	}
	l.changes += int64(len(versions))
	if _, err := l.writer.exec("INSERT OR REPLACE INTO meta VALUES ('changes', ?)", binary.LittleEndian.AppendUint64(nil, uint64(l.changes))); err != nil { //nolint:gosec // its bits
		return false, err
	}
	if err := l.fault("write"); err != nil {
		return false, err
	}
	sent = true //nolint:wastedassign // for the panic of what follows
	if _, err := l.writer.exec(commitWrite); err != nil {
		return true, err
	}
	if err := l.files.inPlace(); err != nil { // what is in a file that was removed, is not on disk
		return true, err
	}
	_ = l.mark(false) // the one before says less, and nothing that is not so
	return true, l.fault("committed")
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
	l.filling = newBatch()
	waits := later.waits
	if nothing {
		waits = slices.Concat(b.waits, later.waits)
	}
	for _, w := range slices.Backward(waits) {
		l.undo(w)
	}
	rows := slices.Concat(b.rows, later.rows)
	for _, r := range b.rows {
		r.writing = false
		if !nothing {
			r.inFile = ledger.Payment{}
		}
	}
	for _, r := range rows {
		r.unwritten = false
	}
	for _, r := range rows {
		if r.payment.State != ledger.Claimed { // else it was undone
			l.fill(r)
		}
	}
	for _, b := range []*batch{b, later} {
		b.err = err
		close(b.done)
	}
}

// undo takes a move back that is not on disk, unless the row has changed since.
func (l *Ledger) undo(w *wait) {
	r := w.row
	if w.abandoned || r.gone || r.changes != w.changes {
		return
	}
	w.undone = true
	p := w.before
	p.Lease = r.payment.Lease // it may have been renewed
	l.rows.set(r, p)
	r.changes--
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
func (l *Ledger) asWriter(do func(*connection) error) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.files.inPlace(); err != nil {
		return err
	}
	if l.writer == nil {
		return errors.New("the file cannot be written now")
	}
	l.busy.Store(time.Now().UnixNano())
	defer l.busy.Store(0)
	return do(l.writer)
}
