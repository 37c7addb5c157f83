// Package sqlite is a ledger in a file: the default one. It is for one gateway,
// which keeps what happened to each payment through crashes, power failures and
// restarts; anybody may read the file meanwhile.
//
// # How it is built
//
// The file is an SQLite database in WAL mode with synchronous=FULL, so that what is
// committed is on disk. One goroutine writes it. All who wait share its next
// transaction: a move to settling returns when it is committed, and what comes after
// settling joins the transaction that comes next, within milliseconds. What is committed
// is what everybody sees who reads the file.
//
// In memory is only what the file does not have: claims, for a payment that was not
// verified may not take room on the disk; leases and tokens, so that after a restart
// nobody holds anything; and the changes that are on their way to the file. A payment
// that nobody holds is in the file alone, whatever is owed for it.
//
// # Files
//
//	payments.db              the database
//	payments.db-wal, -shm    belong to it, while it is open and after a crash
//	payments.db.lock         locked while a process writes; see mark
package sqlite

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/internal/access"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// DefaultKeepFinished is how long finished payments stay for accounting, unless
// told otherwise: a year and a month to close it.
const DefaultKeepFinished = 400 * 24 * time.Hour

// DefaultMax is how many payments are in memory at most, unless told otherwise:
// those under way.
const DefaultMax = 1_000_000

// Options are the options of a ledger; the zero value is good.
type Options struct {
	// KeepFinished is how long finished payments stay; 0 means
	// DefaultKeepFinished, and less than 0 for ever. None goes before its Keep.
	KeepFinished time.Duration
	// HashQueries replaces the query of the URL of a finished payment by a keyed
	// hash of it; see Filter.URL in List.
	HashQueries bool
	// Max is how many payments are in memory at most; 0 means DefaultMax.
	Max int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Random is where tokens come from; nil means crypto/rand. It must be safe
	// to read from several goroutines.
	Random io.Reader
	// Logger gets what happens in the background; nil means nobody.
	Logger *zap.Logger

	// These are for tests. choresEvery is how often the writer cleans up, fault is what
	// goes wrong at a point of a transaction.
	choresEvery time.Duration
	fault       func(at string) error

	// existing: this process had the ledger open before, so it is not new.
	existing bool
}

// Ledger is a ledger.Ledger in a file. It is made by Open.
type Ledger struct {
	path    string
	now     func() time.Time
	random  io.Reader
	logger  *zap.Logger
	max     int
	options atomic.Pointer[Options]
	fault   func(at string) error

	lock   *os.File
	file   *database    // for looks at one payment: one connection, for each transaction voids its cache
	lists  *database    // for List, so that no look waits for a long one
	shared atomic.Bool  // several waited for the latest transaction
	busy   atomic.Int64 // since when a transaction is under way, in Unix nanoseconds; or 0

	// writing is held while the file is written. It comes before mu.
	writing sync.Mutex
	writer  *connection // nil after a failure, until the file is opened again
	files   held
	changes int64 // how many changes the file has had at most; see mark

	// mu guards what is in memory. An operation holds it for about a microsecond.
	mu      sync.Mutex
	closed  bool
	rows    table
	filling *batch // of the next transaction
	failure error  // why the file cannot be written
	damage  error  // what a look at the whole file has found
	commits uint64 // how often the file has changed
	lastID  int64  // of the latest claim

	awaited, written chan struct{} // there is something to write, with and without somebody who waits
	quit, ended      chan struct{}
	checked          chan struct{} // the look at the whole file is over
}

// Open opens the ledger at path and makes it if it is not there. Only one
// process can have it open; readers use OpenReader.
func Open(path string, o Options) (_ *Ledger, err error) {
	l := &Ledger{
		now: o.Now, random: o.Random, logger: o.Logger, max: o.Max, fault: o.fault,
		rows: newTable(), filling: newBatch(),
		awaited: make(chan struct{}, 1), written: make(chan struct{}, 1),
		quit: make(chan struct{}), ended: make(chan struct{}), checked: make(chan struct{}),
	}
	if l.now == nil {
		l.now = time.Now
	}
	if l.random == nil {
		l.random = rand.Reader
	}
	if l.logger == nil {
		l.logger = zap.NewNop()
	}
	if l.max <= 0 {
		l.max = DefaultMax
	}
	if l.fault == nil {
		l.fault = func(string) error { return nil }
	}
	l.SetOptions(o)
	if l.path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil { //nolint:gosec // the configured file
		return nil, access.Explain(l.path, err)
	}
	if l.lock, err = takeLock(l.path); err != nil {
		return nil, access.Explain(l.path, err)
	}
	if err := l.open(o.existing); err != nil {
		close(l.quit)
		return nil, errors.Join(fmt.Errorf("opening the ledger %s: %w", l.path, access.Explain(l.path, err)), l.closeFiles())
	}
	go l.run()
	return l, nil
}

// open opens the file, and learns from it what memory has to know. What is refused is not
// changed.
func (l *Ledger) open(existing bool) error {
	begun := time.Now()
	m, marked := readMark(l.lock)
	if err := l.makeFile(existing || marked); err != nil {
		return err
	}
	empty, err := check(l.path, m)
	if err != nil {
		return err
	}
	switch {
	case empty && (existing || marked):
		return missingDatabase(l.path, l.path+".lock")
	case empty:
		close(l.checked)
		l.logger.Warn("a new ledger, which knows of no payment; if there was one before, stop and put it back", zap.String("file", l.path))
	default:
		if err := l.examine(m); err != nil {
			return err
		}
	}
	if l.writer, err = connectWriter(l.path); err != nil {
		return err
	}
	if empty {
		if err := create(l.writer); err != nil {
			return err
		}
	}
	if l.file, err = openDatabase(l.path, "rw", "query_only(ON)"); err != nil {
		return err
	}
	if l.lists, err = openDatabase(l.path, "rw", "query_only(ON)"); err != nil {
		return err
	}
	if l.files, err = openFiles(l.path); err != nil {
		return err
	}
	if l.changes, err = l.file.changes(); err != nil {
		return err
	}
	if err := l.mark(empty); err != nil {
		return err
	}
	if l.lastID, err = l.file.lastID(); err != nil {
		return err
	}
	open := 0
	if err := l.file.open(func(p ledger.Purchase) {
		open++
		*l.rows.restingAt(p)++
	}); err != nil {
		return err
	}
	l.logger.Info("ledger open", zap.String("file", l.path), zap.Int("open", open), zap.Duration("took", time.Since(begun)))
	return nil
}

// makeFile makes the file, if there is none and never was. SQLite gives the files beside
// it its mode.
func (l *Ledger) makeFile(existing bool) error {
	if info, err := os.Stat(l.path); errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		if trace := traces(l.path, existing); trace != "" {
			return missingDatabase(l.path, trace)
		}
	}
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, fileMode) //nolint:gosec // the configured file
	if err != nil {
		return err
	}
	return f.Close()
}

// mark says in the lock file how many changes the database has.
func (l *Ledger) mark(sync bool) error {
	err := mark{schemaVersion, l.changes}.write(l.lock)
	if err == nil && sync {
		err = errors.Join(l.lock.Sync(), syncDir(filepath.Dir(l.path)))
	}
	return err
}

// examineWithin is how long the look at the whole file may hold up a start: some 400,000
// payments. For a larger one it goes on meanwhile.
const examineWithin = 5 * time.Second

// examine looks at the whole file, unless that takes long: then the ledger is opened, and
// closed for everybody if damage is found.
func (l *Ledger) examine(m mark) error {
	d, err := openDatabase(l.path, "ro")
	if err != nil {
		return err
	}
	changes, err := d.changes()
	if err == nil && changes < m.changes {
		err = fmt.Errorf("%w: it lacks the latest %d changes to payments, so %[3]s-wal was removed, cut or damaged, or %[3]s is an older copy: put the right files back; if they are lost, or the copy is a backup that you have restored, remove %[3]s.lock, start again, and look payments made since then up on the chain", errDamaged, m.changes-changes, l.path)
	}
	if err != nil {
		return errors.Join(err, d.close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	found := make(chan error, 1)
	go func() {
		r, err := d.verify(ctx)
		found <- errors.Join(err, r.Err(), d.close())
	}()
	select {
	case err := <-found:
		cancel()
		close(l.checked)
		return err
	case <-time.After(examineWithin):
	}
	l.logger.Warn("the ledger is large, and is looked through while it is in use", zap.String("file", l.path))
	go func() {
		defer close(l.checked)
		defer cancel()
		select {
		case <-l.quit:
			cancel()
			<-found //nolint:errcheck // nobody asks any more
		case err := <-found:
			if err != nil {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.damage = err
				l.logger.Error("the ledger is damaged; payments are refused", zap.String("file", l.path), zap.Error(err))
			}
		}
	}()
	return nil
}

// SetOptions changes KeepFinished and HashQueries.
func (l *Ledger) SetOptions(o Options) {
	if o.KeepFinished == 0 {
		o.KeepFinished = DefaultKeepFinished
	}
	if o.choresEvery <= 0 {
		o.choresEvery = choresEvery
	}
	l.options.Store(&o)
}

// Close writes what is to be written and closes the file; if that fails, what is lost
// is in the error. Calls that come later, or that are under way, get
// ledger.ErrUnavailable.
func (l *Ledger) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	close(l.quit)
	<-l.ended
	<-l.checked
	err := l.commit()
	if err != nil {
		err = fmt.Errorf("the last changes of %d payments are not in the file: %w", len(l.filling.rows), err)
	}
	return errors.Join(err, l.closeFiles())
}

func (l *Ledger) closeFiles() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	var errs []error
	for _, d := range []*database{l.file, l.lists} {
		if d != nil {
			errs = append(errs, d.close())
		}
	}
	errs = append(errs, l.writer.close()) // the last to close tidies up
	l.writer = nil
	return errors.Join(append(errs, l.lock.Close())...)
}

// Holders returns how many requests hold a payment now.
func (l *Ledger) Holders() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, n := l.now(), 0
	for _, r := range l.rows.all {
		if ledger.Held(r.payment, now) {
			n++
		}
	}
	return n
}
