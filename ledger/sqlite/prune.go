package sqlite

import (
	"context"
	"errors"
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
		if r.gone || r.token == "" {
			r.queued = false
			continue
		}
		if p := r.payment; ledger.Shed(&p, now) {
			l.record(r, p)
		}
		switch {
		case ledger.Held(r.payment, now):
			t.holders = append(t.holders, r)
		case r.payment.State == ledger.Claimed:
			r.queued, r.token = false, ""
			t.letGo(r)
		case force:
			r.queued = false
			p := r.payment
			p.Lease = time.Time{}
			t.set(r, p)
			t.rest(r)
		default:
			t.holders = append(t.holders, r)
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
	if err := errors.Join(l.shed(ctx), l.prune(ctx), l.tidy(ctx)); err != nil {
		l.logger.Error("cleaning up the ledger; it is tried again", zap.String("file", l.path), zap.Error(err))
	}
}

// shed sheds the rows in the file whose time has come. It is a change like others, and
// goes the same way; what is in memory, sweep sheds.
func (l *Ledger) shed(ctx context.Context) error {
	for at := (cursor{}); ; {
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
func (l *Ledger) shedSome(ctx context.Context, at *cursor) (n int, err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	due, err := l.file.due(ctx, l.now(), at)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range due {
		if p := s.payment; l.rows.all[p.Key] == nil && ledger.Shed(&p, l.now()) {
			l.record(l.rows.recall(s), p)
		}
	}
	return len(due), err
}

// due returns the next rows that can be shed now.
func (d *database) due(ctx context.Context, now time.Time, at *cursor) (rows []stored, err error) {
	err = d.query(ctx, selectRow+selectDue, []any{at.created, at.id, required(now), lockedRows}, func(s stored) {
		rows = append(rows, s)
		until, _ := keptUntil(s.payment).(int64)
		*at = cursor{true, until, s.id}
	})
	return rows, err
}

const selectDue = ` WHERE payments.kept_until IS NOT NULL AND (payments.kept_until, payments.id) > (?1, ?2) AND payments.kept_until <= ?3
	ORDER BY payments.kept_until, payments.id LIMIT ?4`

// prune removes finished payments that are older than they are kept, and those that
// were free for long.
func (l *Ledger) prune(ctx context.Context) error {
	for _, state := range []ledger.State{ledger.Refused, ledger.Released} {
		if err := l.remove(ctx, pruneFree, state, state, maxFree, pruneAtOnce); err != nil {
			return err
		}
	}
	keep := l.options.Load().KeepFinished
	if keep < 0 {
		return nil
	}
	now := l.now()
	return l.remove(ctx, pruneRows, required(now.Add(-keep)), required(now), pruneAtOnce)
}

// remove removes rows, a few in each transaction, with what waits to be written in
// between.
func (l *Ledger) remove(ctx context.Context, query string, args ...any) error {
	for {
		var n int64
		err := l.asWriter(func(s *store) error {
			result, err := s.conn.ExecContext(ctx, query, args...)
			if err == nil {
				n, err = result.RowsAffected()
			}
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

// Free and delivered rows keep nothing in the table kept.
const (
	pruneRows = `DELETE FROM payments WHERE id IN (
	SELECT id FROM payments
	WHERE created < ? AND state IN ('delivered', 'refused', 'released') AND coalesce(keep, 0) <= ?
	ORDER BY created LIMIT ?)`
	pruneFree = `DELETE FROM payments WHERE id IN (
	SELECT id FROM payments
	WHERE state = ? AND state <> 'delivered' AND created <= (
		SELECT created FROM payments WHERE state = ? AND state <> 'delivered' ORDER BY created DESC LIMIT 1 OFFSET ?)
	ORDER BY created LIMIT ?)`
)

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
func (l *Ledger) tidy(ctx context.Context) error {
	return l.asWriter(func(s *store) error {
		_, err := s.checkpoint(ctx)
		return err
	})
}

// checkpoint empties the write-ahead log, if it can. It waits a moment for those who
// read: longer than a query takes, and shorter than payers notice.
func (s *store) checkpoint(ctx context.Context) (done bool, err error) {
	if _, err := s.conn.ExecContext(ctx, "PRAGMA busy_timeout = 200"); err != nil {
		return false, err
	}
	var busy, pages, moved int
	err = s.conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &moved)
	_, restored := s.conn.ExecContext(context.WithoutCancel(ctx), "PRAGMA busy_timeout = 10000")
	return busy == 0, errors.Join(err, restored)
}
