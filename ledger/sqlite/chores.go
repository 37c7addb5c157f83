package sqlite

import (
	"context"
	"errors"
	"math"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

const (
	// choresEvery is how often the writer cleans up.
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

// makeRoom looks at the holders of a few rows, so that those that are gone become fewer
// with every claim, and says whether one more row fits. Under l.mu.
func (l *Ledger) makeRoom(now time.Time) bool {
	l.sweep(now, 2, false)
	if len(l.rows.all) >= l.max {
		l.sweep(now, 100, true)
	}
	return len(l.rows.all) < l.max
}

// sweep looks at the next n rows that somebody holds, or did. Claims whose holder is
// gone go, and what serves nobody any more is shed (see ledger.Shed). Other rows stay,
// for their holder is heard until another takes over; with force they go to the file
// alone, and then it is not. Under l.mu.
func (l *Ledger) sweep(now time.Time, n int, force bool) {
	t := &l.rows
	for range min(n, len(t.holders)) {
		r := t.holders[0]
		t.holders[0] = nil
		t.holders = t.holders[1:]
		if r.queued = false; r.gone || r.token == "" {
			continue
		}
		if p := r.payment; ledger.Shed(&p, now) {
			l.record(r, p)
		}
		switch held := ledger.Held(r.payment, now); {
		case !held && r.payment.State == ledger.Claimed:
			t.letGo(r)
		case !held && force:
			p := r.payment
			p.Lease = time.Time{}
			t.set(r, p)
			t.rest(r)
		default:
			t.hold(r, r.token)
		}
	}
}

// chores cleans up: in memory, and in the file.
func (l *Ledger) chores() {
	ctx := context.Background()
	l.mu.Lock()
	left := len(l.rows.holders)
	l.mu.Unlock()
	for ; left > 0; left -= lockedRows {
		l.mu.Lock()
		l.sweep(l.now(), lockedRows, false)
		l.mu.Unlock()
	}
	if err := errors.Join(l.shed(ctx), l.prune(), l.tidy()); err != nil {
		l.logger.Error("cleaning up the ledger; it is tried again", zap.String("file", l.path), zap.Error(err))
	}
}

// due is a place in the sequence of the rows that can be shed, after one of them.
type due struct{ until, id int64 }

const selectDue = ` WHERE payments.kept_until IS NOT NULL AND (payments.kept_until, payments.id) > (?1, ?2) AND payments.kept_until <= ?3
	ORDER BY payments.kept_until, payments.id LIMIT ?4`

// shed sheds the rows in the file whose time has come. It is a change like others, and
// goes the same way; what is in memory, sweep sheds.
func (l *Ledger) shed(ctx context.Context) error {
	for at := (due{math.MinInt64, math.MinInt64}); ; {
		n, err := l.shedSome(ctx, &at)
		if err == nil {
			err = l.commit()
		}
		if err != nil || n < lockedRows || l.isClosing() {
			return err
		}
	}
}

// shedSome sheds the next rows of the file. Nothing is committed between what it reads
// and what it makes of that.
func (l *Ledger) shedSome(ctx context.Context, at *due) (n int, err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	rows, err := l.file.rows(ctx, selectRow+selectDue, at.until, at.id, nanos(l.now()), lockedRows)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range rows {
		*at = due{nanos(s.keptUntil), s.id}
		if p := s.payment; l.rows.all[p.Key] == nil && ledger.Shed(&p, l.now()) {
			l.record(l.rows.recall(s), p)
		}
	}
	return len(rows), err
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
