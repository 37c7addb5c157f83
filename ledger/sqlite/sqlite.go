// Package sqlite is a ledger in a file: the default one. It is for one gateway,
// which keeps what happened to each payment through crashes, power failures and
// restarts; anybody may read the file meanwhile.
//
// # How it is built
//
// What is under way is in memory. Every change from settling on goes to a
// journal, an append-only file that many requests share: those who wait for the
// disk wait for the same sync. A move to settling waits for it; what comes after
// is given to the system within milliseconds and is on disk within a tenth of a
// second. The SQLite database follows behind by seconds and in large
// transactions, with the latest version of each row; a piece of the journal is
// removed when the database has all of it. At start the journal is read into
// memory again.
//
// Claims are in memory alone, for a payment that was not verified may not take
// room on the disk, and so are the leases and tokens: after a restart nobody
// holds anything. Finished payments leave memory when the database has them.
//
// # Files
//
//	payments.db           the database; -wal and -shm beside it are SQLite's
//	payments.db.lock      locked while a process writes
//	payments.db.log-*     the segments of the journal
package sqlite

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// DefaultKeepFinished is how long finished payments stay for accounting, unless
// told otherwise: a year and a month to close it.
const DefaultKeepFinished = 400 * 24 * time.Hour

// DefaultMax is how many payments are in memory at most, unless told otherwise:
// those under way, and those for which the goods are still owed.
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

	// These are for tests.
	disk    disk
	segment int64
	still   bool // nothing goes on in the background but the journal
}

// Ledger is a ledger.Ledger in a file. It is made by Open.
type Ledger struct {
	path    string
	now     func() time.Time
	random  io.Reader
	logger  *zap.Logger
	max     int
	options atomic.Pointer[Options]

	lock    *lock
	disk    disk
	segment int64 // the size of one
	db      *database
	journal *journal
	filter  *filter
	claimed atomic.Int64 // claims that are not settling yet

	// One lock for what is in memory. An operation holds it for about a
	// microsecond. It comes before the lock of the journal.
	mu     sync.Mutex
	closed bool
	rows   table
	// complete is up to which record the database has all, as of the latest copying.
	complete uint64

	copying sync.Mutex    // one copies, or begins the journal anew
	behind  atomic.Int64  // rows.queued
	hurry   chan struct{} // the database is far behind
	quit    chan struct{}
	workers sync.WaitGroup
}

var _ ledger.Ledger = (*Ledger)(nil)

// Open opens the ledger at path and makes it if it is not there. Only one
// process can have it open; readers use OpenReader.
func Open(path string, o Options) (_ *Ledger, err error) {
	l := &Ledger{
		now: o.Now, random: o.Random, logger: o.Logger, max: o.Max, disk: o.disk,
		quit: make(chan struct{}), hurry: make(chan struct{}, 1),
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
	if l.disk == nil {
		l.disk = osDisk{}
	}
	if l.segment = o.segment; l.segment == 0 {
		l.segment = segmentSize
	}
	l.SetOptions(o)
	if l.path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil { //nolint:gosec // the configured file
		return nil, err
	}
	if l.lock, err = takeLock(l.path); err != nil {
		return nil, err
	}
	if l.db, err = openDatabase(l.path); err == nil {
		err = l.load(context.Background())
	}
	if err != nil {
		if l.db != nil {
			err = errors.Join(err, l.db.close())
		}
		return nil, errors.Join(fmt.Errorf("opening the ledger %s: %w", l.path, err), l.lock.release())
	}
	l.start()
	return l, nil
}

// start starts what goes on in the background.
func (l *Ledger) start() {
	l.journal.company = l.claimed.Load
	l.journal.failed = l.journalFailed
	go l.journal.run()
	if !l.options.Load().still {
		l.workers.Go(l.follow)
	}
	l.workers.Go(l.fillFilter)
}

// SetOptions changes KeepFinished and HashQueries.
func (l *Ledger) SetOptions(o Options) {
	if o.KeepFinished == 0 {
		o.KeepFinished = DefaultKeepFinished
	}
	l.options.Store(&o)
}

// Close brings everything into the database and closes it. Calls that come
// later, or that are under way, get ledger.ErrUnavailable.
func (l *Ledger) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	close(l.quit)
	l.workers.Wait()
	err := l.journal.close()
	if copied := l.copyRows(true); copied != nil {
		err = errors.Join(err, copied) // the journal stays, and has it
	} else {
		err = errors.Join(err, l.journal.segments.removeAll())
	}
	return errors.Join(err, l.db.close(), l.lock.release())
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
