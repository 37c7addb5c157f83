package sqlite

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

const (
	// healEvery is how often a journal that failed is tried again.
	healEvery = 500 * time.Millisecond
	// copyEvery is how often the database catches up: seldom, for what is written
	// in one transaction shares the pages of the indexes.
	copyEvery = 2 * time.Second
	// copyAfter is how long an open row waits for its end before it is copied:
	// most are finished by then, and are written once.
	copyAfter = 5 * time.Second
	// copyRowsMax is the size of a transaction.
	copyRowsMax = 20_000
	// manyDirty is when open rows do not wait, nor does the copying itself.
	manyDirty = 20_000
	// lockedRows is how many rows are looked at under one lock: few enough that a
	// request does not notice.
	lockedRows = 128

	pruneEvery = time.Minute
	// tidyEvery is how often the journal begins a new segment, so that the present one
	// is removed when the database has what is in it, and how often the log of the
	// database is emptied: with them go the signatures and queries that are in no row
	// any more.
	tidyEvery = time.Minute
)

// follow keeps the database up with the journal, and everything else that takes
// time.
func (l *Ledger) follow() {
	ctx, cancel := l.untilClosed()
	defer cancel()
	var failing bool
	copied, pruned, tidied := time.Now(), time.Time{}, time.Time{}
	for l.rest(failing) {
		err := l.beginAnew()
		if err == nil && time.Since(copied) < copyEvery && l.behind.Load() <= manyDirty {
			continue
		}
		if err == nil {
			err = l.copyRows(false)
			copied = time.Now()
		}
		if err == nil && time.Since(pruned) > pruneEvery {
			var more bool
			if more, err = l.prune(ctx); !more {
				pruned = time.Now()
			}
			if err == nil {
				err = l.shed(ctx)
			}
		}
		l.evictOld()
		if err == nil && time.Since(tidied) > tidyEvery {
			err = l.tidy(ctx)
			tidied = time.Now()
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil && !failing {
			l.logger.Error("the ledger's file cannot be written; it is tried again", zap.String("file", l.path), zap.Error(err))
		} else if err == nil && failing {
			l.logger.Info("the ledger's file can be written again", zap.String("file", l.path))
		}
		failing = err != nil
	}
}

// rest waits until there may be something to do, and reports false when the ledger
// is closed meanwhile. After a failure it does not hurry.
func (l *Ledger) rest(failing bool) bool {
	hurry := l.hurry
	if failing {
		hurry = nil
	}
	select {
	case <-l.quit:
		return false
	case <-time.After(healEvery):
	case <-hurry:
	}
	return true
}

// copyRows copies the rows whose time has come to the database: finished ones at
// once, which then leave memory. All go when force is set.
func (l *Ledger) copyRows(force bool) error {
	l.copying.Lock()
	defer l.copying.Unlock()
	l.mu.Lock()
	queue := l.rows.dirty
	l.rows.dirty = nil
	l.mu.Unlock()

	force = force || len(queue) > manyDirty
	var rest []*row
	var err error
	for len(queue) > 0 && err == nil {
		var items []copyOf
		for len(queue) > 0 && len(items) < copyRowsMax {
			n := min(lockedRows, len(queue))
			items, rest = l.ready(queue[:n], force, items, rest)
			clear(queue[:n]) // or a long queue keeps all its rows in memory to the end
			queue = queue[n:]
		}
		if err = l.db.store(context.Background(), items, l.options.Load().HashQueries); err == nil {
			rest = l.stored(items, rest)
			continue
		}
		for _, it := range items {
			rest = append(rest, it.row)
		}
	}
	rest = append(rest, queue...)

	l.mu.Lock()
	l.rows.dirty = append(rest, l.rows.dirty...)
	complete := l.journal.last()
	for _, r := range l.rows.dirty {
		if r.dirty {
			complete = min(complete, r.from-1)
		}
	}
	l.complete = complete
	l.mu.Unlock()
	if err != nil {
		return err
	}
	return l.release(complete)
}

// ready sorts out which rows of a part of the queue are copied now.
func (l *Ledger) ready(part []*row, force bool, items []copyOf, rest []*row) ([]copyOf, []*row) {
	l.mu.Lock()
	defer l.mu.Unlock()
	synced := l.journal.synced.Load()
	for _, r := range part {
		switch {
		case !r.dirty:
			l.unqueue(r)
		case r.awaited > synced && !l.closed,
			!force && r.payment.State.Open() && time.Since(r.since) < copyAfter:
			rest = append(rest, r)
		default:
			p := &r.payment // is final
			if !r.final() {
				now := *p
				p = &now
			}
			items = append(items, copyOf{r, r.key, r.version, p})
		}
	}
	return items, rest
}

// stored notes what the database has now. Finished rows leave memory.
func (l *Ledger) stored(items []copyOf, rest []*row) []*row {
	for len(items) > 0 {
		n := min(lockedRows, len(items))
		rest = l.storedPart(items[:n], rest)
		items = items[n:]
	}
	return rest
}

func (l *Ledger) storedPart(items []copyOf, rest []*row) []*row {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range items {
		r := items[i].row
		r.stored = true
		if r.version != items[i].version {
			r.from = items[i].version + 1
			rest = append(rest, r)
			continue
		}
		r.dirty, r.awaited = false, 0
		l.unqueue(r)
		present := l.rows.all[r.payment.Key]
		switch {
		case present == r && r.final():
			l.filter.add(&r.key)
			l.rows.remove(r)
			l.rows.evicted++
		case present != r: // it was free, and is claimed again
			l.filter.add(&r.key)
			l.rows.evicted++
			if present != nil {
				present.stored = true
			}
		default:
			l.rows.rests(r)
		}
	}
	return rest
}

// release removes what the journal has up to a record that the database has, and
// all before it.
func (l *Ledger) release(complete uint64) error {
	if !l.journal.segments.releasable(complete) {
		return nil
	}
	if _, err := l.db.complete.ExecContext(context.Background(), metaComplete, metaNumber(complete)); err != nil {
		return err
	}
	return l.journal.segments.release(complete)
}

// maxFree is how many refused payments stay, and how many released ones. They cost
// nobody anything: no flood of them may fill the disk.
const maxFree = 10_000

// prune removes some finished payments that are older than they are kept, and
// those that were free for long, and says whether there may be more.
func (l *Ledger) prune(ctx context.Context) (more bool, err error) {
	complete, err := l.noteComplete(ctx)
	if err != nil {
		return false, err
	}
	for _, state := range []ledger.State{ledger.Refused, ledger.Released} {
		full, err := l.pruneStep(ctx, pruneFree, state, complete, state, maxFree, pruneAtOnce)
		if err != nil {
			return false, err
		}
		more = more || full
	}
	keep := l.options.Load().KeepFinished
	if keep < 0 {
		return more, nil
	}
	now := l.now()
	full, err := l.pruneStep(ctx, pruneRows, required(now.Add(-keep)), required(now), complete, pruneAtOnce)
	return more || full, err
}

// noteComplete stores up to which record the database has all: nothing up to there
// is missed when it is removed.
func (l *Ledger) noteComplete(ctx context.Context) (complete uint64, err error) {
	l.mu.Lock()
	complete = l.complete
	l.mu.Unlock()
	_, err = l.db.complete.ExecContext(ctx, metaComplete, metaNumber(complete))
	return complete, err
}

// pruneAtOnce is how many rows are removed in one transaction.
const pruneAtOnce = 500

// pruneStep removes some rows, and says whether it was as many as it may be.
func (l *Ledger) pruneStep(ctx context.Context, query string, args ...any) (full bool, err error) {
	result, err := l.db.write.ExecContext(ctx, query, args...)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n == pruneAtOnce, err
}

// What is removed has no record that the journal may have and the database not.
const (
	pruneRows = `DELETE FROM payments WHERE rowid IN (
	SELECT rowid FROM payments
	WHERE created < ? AND state IN ('delivered', 'refused', 'released') AND coalesce(keep, 0) <= ? AND version <= ?
	ORDER BY created LIMIT ?)`
	pruneFree = `DELETE FROM payments WHERE rowid IN (
	SELECT rowid FROM payments
	WHERE state = ? AND state <> 'delivered' AND version <= ? AND created <= (
		SELECT created FROM payments WHERE state = ? AND state <> 'delivered' ORDER BY created DESC LIMIT 1 OFFSET ?)
	ORDER BY created LIMIT ?)`
)
