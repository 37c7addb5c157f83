package sqlite

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

const (
	// choresEvery is how often the writer cleans up, in memory too.
	choresEvery = time.Minute
	// lockedRows is how many rows are looked at under one lock: few enough that a
	// request does not notice.
	lockedRows = 128
	// pruneAtOnce is how many rows are removed in one transaction.
	pruneAtOnce = 500
	// maxFree is how many refused payments stay, and how many released ones. They cost
	// nobody anything: no flood of them may fill the disk.
	maxFree = 10_000
)

// makeRoom says whether one more row fits. If none does, it looks at some, wherever the map
// begins, whether their holders are gone. Under l.mu.
func (l *Ledger) makeRoom(now time.Time) bool {
	left := lockedRows
	for _, r := range l.rows.all {
		if len(l.rows.all) < l.max || left == 0 {
			break
		}
		l.sweep(r, now, true)
		left--
	}
	return len(l.rows.all) < l.max
}

// sweep looks at a row. A claim whose holder is gone goes, and what serves nobody any more
// is shed (see ledger.Shed). Another row stays, for its holder is heard until another
// takes over; with force it goes to the file alone, and then he is not. Under l.mu.
func (l *Ledger) sweep(r *row, now time.Time, force bool) {
	if r.gone || r.token == "" || ledger.Held(r.payment, now) {
		return
	}
	p := r.payment
	if ledger.Shed(&p, now) {
		l.record(r, p)
	}
	switch {
	case p.State == ledger.Claimed:
		l.rows.letGo(r)
	case force:
		p.Lease = time.Time{}
		l.rows.set(r, p)
		l.rows.rest(r)
	}
}

// chores cleans up: in memory, and in the file.
func (l *Ledger) chores() {
	l.mu.Lock()
	rows := slices.Collect(maps.Values(l.rows.all))
	l.mu.Unlock()
	for some := range slices.Chunk(rows, lockedRows) {
		l.mu.Lock()
		for _, r := range some {
			l.sweep(r, l.now(), false)
		}
		l.mu.Unlock()
	}
	if err := errors.Join(l.shed(context.Background()), l.prune(), l.tidy()); err != nil {
		l.logger.Error("cleaning up the ledger; it is tried again", zap.String("file", l.path), zap.Error(err))
	}
}

// shed sheds the rows in the file whose time has come. It is a change like others, and
// goes the same way; what is in memory, sweep sheds.
func (l *Ledger) shed(ctx context.Context) error {
	for {
		n, err := l.shedSome(ctx)
		if err == nil {
			err = l.commit()
		}
		if err != nil || n == 0 || l.isClosing() {
			return err
		}
	}
}

const selectDue = " WHERE payments.kept_until IS NOT NULL AND payments.kept_until <= ? ORDER BY payments.kept_until LIMIT ?"

// shedSome sheds some rows of the file. Nothing is committed between what it reads and
// what it makes of that.
func (l *Ledger) shedSome(ctx context.Context) (n int, err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	due, err := l.file.rows(ctx, selectRow+selectDue, nanos(l.now()), lockedRows)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range due {
		if p := s.payment; l.rows.all[p.Key] == nil && ledger.Shed(&p, l.now()) {
			l.record(l.rows.recall(s), p)
			n++
		}
	}
	return n, err
}

// Free and delivered rows keep nothing in the table kept.
const (
	// An id is never less than created.
	pruneOld = `DELETE FROM payments WHERE id IN (
	SELECT id FROM payments WHERE id < ? AND state IN ('delivered', 'refused', 'released') AND coalesce(keep, 0) <= ? ORDER BY id LIMIT ?)`
	pruneFree = `DELETE FROM payments WHERE id IN (
	SELECT id FROM payments WHERE state = ? AND state <> 'delivered' ORDER BY id DESC LIMIT ? OFFSET ?)`
)

// prune removes finished payments that are older than they are kept, and of those that
// are free all but the latest.
func (l *Ledger) prune() error {
	if err := l.pruneFree(maxFree); err != nil {
		return err
	}
	keep := l.options.Load().KeepFinished
	if keep < 0 {
		return nil
	}
	now := l.now()
	return l.remove(pruneOld, nanos(now.Add(-keep)), nanos(now), pruneAtOnce)
}

func (l *Ledger) pruneFree(most int) error {
	return errors.Join(
		l.remove(pruneFree, string(ledger.Refused), pruneAtOnce, most),
		l.remove(pruneFree, string(ledger.Released), pruneAtOnce, most))
}

// remove removes rows, a few in each transaction, with what waits to be written in
// between.
func (l *Ledger) remove(text string, args ...any) error {
	for {
		var n int64
		err := l.asWriter(func(c *connection) (err error) {
			n, err = c.exec(text, args...)
			return err
		})
		l.mu.Lock()
		l.commits++
		l.mu.Unlock()
		if err != nil || n < pruneAtOnce || l.isClosing() {
			return err
		}
		if err := l.commit(); err != nil {
			return err
		}
	}
}

// isClosing says whether Close waits: what is not cleaned up yet can wait for the next
// process.
func (l *Ledger) isClosing() bool {
	select {
	case <-l.quit:
		return true
	default:
		return false
	}
}

// tidy brings what is in the write-ahead log into the database, and empties the log:
// what was deleted, and overwritten in the database, would stay readable there. Where
// somebody reads for long, it is done another time.
func (l *Ledger) tidy() error {
	return l.asWriter(func(c *connection) error {
		_, err := c.checkpoint()
		return err
	})
}
