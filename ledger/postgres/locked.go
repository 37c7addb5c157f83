package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"
)

// Somebody else may sit on a row, or on the whole table, for as long as he likes: an
// operator who has forgotten a transaction, a migration, VACUUM FULL. A row that is locked
// holds up its own call and nobody else's, and a table everybody, for a while: then they
// are told no, of which nothing is in doubt, and the log says who it was.

const (
	// lockWait is how long a statement waits for the locks of others, also one that is only
	// prepared. Those of other gateways last for a commit.
	lockWait = 50 * time.Millisecond
	// lockPatience is how long a call waits for its row in all, and a batch for the table.
	lockPatience = 1500 * time.Millisecond
	// lockPause is how long a call waits at first until it tries again, then longer, and
	// maxLockPause how long at most.
	lockPause    = 20 * time.Millisecond
	maxLockPause = 200 * time.Millisecond
	// stuckFor is how long a row goes its own way that was locked.
	stuckFor = 10 * time.Second
	// callReserve is what a call must have left of its time when it begins to wait for a
	// lock: who is told that it may have happened is in doubt.
	callReserve = 500 * time.Millisecond

	// blockerWait is how long a transaction waits of which is asked who is in its way, and
	// blockerEvery how often that is asked.
	blockerWait  = 300 * time.Millisecond
	blockerEvery = 10 * time.Second
)

// patience is how long a call may wait for locks from now on.
func (c *call) patience() time.Duration {
	if c.due.IsZero() {
		return lockPatience
	}
	return min(lockPatience, time.Until(c.due)-callReserve)
}

// locked says whether a transaction has ended because another one has locked something.
func locked(err error) bool { return changedNothing(err) && code(err, "55P03") }

// setAside lets the calls of a batch go their own way whose rows are locked, and returns
// the others. It waits for the table, for a while.
func (l *Ledger) setAside(batch []*call, durable bool) (free []*call, err error) {
	names, patience := make(map[string]bool), lockPatience
	for _, c := range batch {
		names[c.id], patience = true, min(patience, c.patience())
	}
	if len(names) == 1 {
		l.goAlone(batch, durable)
		return nil, nil
	}
	stuck, err := l.lockedRows(names, max(patience, lockWait))
	if err != nil {
		return batch, unsent{err}
	}
	for _, c := range batch {
		if stuck[c.id] {
			l.goAlone([]*call{c}, durable)
		} else {
			free = append(free, c)
		}
	}
	return free, nil
}

// lockedRows returns which rows others have locked. It does not see one that another
// transaction is about to insert.
func (l *Ledger) lockedRows(names map[string]bool, patience time.Duration) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
	defer cancel()
	conn, err := l.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	stuck, all := maps.Clone(names), make([]string, 0, len(names))
	for name := range names {
		all = append(all, name)
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT set_config('lock_timeout', $1, true)", milliseconds(patience)); err != nil {
			return err
		}
		pid := conn.Conn().PgConn().PID()
		asking := time.AfterFunc(lockWait, func() {
			if l.mayTellBlocker() {
				l.askBlocker(pid)
			}
		})
		_, err := tx.Exec(ctx, "LOCK TABLE paywall_payments IN ROW EXCLUSIVE MODE")
		asking.Stop()
		if err != nil {
			return fmt.Errorf("another transaction has locked the table of payments: %w", err)
		}
		// Those that are there, and those that are free.
		for _, look := range []struct {
			sql   string
			stuck bool
		}{
			{"SELECT id FROM paywall_payments WHERE id = ANY($1::text[]::uuid[])", true},
			{"SELECT id FROM paywall_payments WHERE id = ANY($1::text[]::uuid[]) FOR UPDATE SKIP LOCKED", false},
		} {
			if look.stuck {
				clear(stuck)
			}
			rows, err := tx.Query(ctx, look.sql, all)
			if err != nil {
				return err
			}
			var name string
			if _, err := pgx.ForEachRow(rows, []any{id{&name}}, func() error {
				if look.stuck {
					stuck[name] = true
				} else {
					delete(stuck, name)
				}
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		l.learn(err)
	}
	return stuck, err
}

// goAlone writes calls without others, each in a transaction of its own.
func (l *Ledger) goAlone(calls []*call, durable bool) {
	for _, c := range calls {
		go l.writeAlone(c, durable)
	}
}

// writeAlone writes a call whose row somebody may have locked: again and again for a
// while, so that it takes no connection from the others meanwhile.
func (l *Ledger) writeAlone(c *call, durable bool) {
	end := time.Now().Add(c.patience())
	patience := time.NewTimer(time.Until(end))
	defer patience.Stop()
	watched := false
	var err error
	for pause := lockPause; ; pause = min(2*pause, maxLockPause) {
		select {
		case l.alone <- struct{}{}:
		case <-patience.C:
			c.fail(stuckError(err))
			return
		}
		var left []*call
		left, err = l.write([]*call{c}, try{durable: durable, watched: watched})
		<-l.alone
		l.noteStuck(c.id, locked(err))
		switch {
		case err == nil && len(left) == 0:
			return
		case err == nil:
			err = errBusy
		case !locked(err) && !transient(err):
			c.fail(err)
			return
		}
		if time.Now().Add(pause).After(end) {
			c.fail(stuckError(err))
			return
		}
		watched = locked(err) && l.mayTellBlocker()
		time.Sleep(pause)
	}
}

// stuckError says why a call was not made whose row others have, or whose turn has not come.
func stuckError(err error) error {
	if err == nil {
		err = errors.New("another transaction had locked the payment a moment ago")
	} else if locked(err) {
		err = fmt.Errorf("another transaction has locked the payment: %w", err)
	}
	return unsent{err}
}

// noteStuck notes that a row is locked, or is no more.
func (l *Ledger) noteStuck(id string, is bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if is {
		l.stuck[id] = time.Now().Add(stuckFor)
	} else {
		delete(l.stuck, id)
	}
}

// isStuck says whether a row was locked a moment ago.
func (l *Ledger) isStuck(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.stuck[id])
}

// mayTellBlocker says whether it is time to ask who is in our way.
func (l *Ledger) mayTellBlocker() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.blamed) < blockerEvery {
		return false
	}
	l.blamed = time.Now()
	return true
}

// blockers are the transactions that a backend waits for in the end, and not those that
// wait themselves, or have only just begun. How old another user's is, not everybody may see.
const blockers = `WITH RECURSIVE b AS (
	SELECT unnest(pg_blocking_pids($1)) AS pid UNION SELECT unnest(pg_blocking_pids(b.pid)) FROM b)
SELECT b.pid, coalesce(a.usename, ''), coalesce(a.application_name, ''), coalesce(a.state, ''),
	coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::bigint
FROM b LEFT JOIN pg_stat_activity a ON a.pid = b.pid
WHERE cardinality(pg_blocking_pids(b.pid)) = 0 AND coalesce(clock_timestamp() - a.xact_start > '0.1 s', true) ORDER BY a.xact_start LIMIT 3`

// watch lets what comes next over a connection wait for longer, and tells the log for whom.
func (l *Ledger) watch(ctx context.Context, conn *pgxpool.Conn) (done func()) {
	_, _ = conn.Exec(ctx, "SET lock_timeout = "+milliseconds(blockerWait))
	go l.askBlocker(conn.Conn().PgConn().PID()) //nolint:gosec // the log is told, however the call ends
	return func() { _, _ = conn.Exec(ctx, "RESET lock_timeout") }
}

// askBlocker asks who is in the way of a backend, over a connection of its own: those of
// the pool may all be waiting.
func (l *Ledger) askBlocker(waiting uint32) {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, l.config.ConnConfig.Copy())
	if err != nil {
		return // the next one asks
	}
	defer func() { _ = conn.Close(ctx) }()
	for begun := time.Now(); time.Since(begun) < blockerWait; time.Sleep(lockPause) {
		rows, err := conn.Query(ctx, blockers, int32(waiting)) //nolint:gosec // a process
		if err != nil {
			return
		}
		var pid int32
		var user, application, state string
		var seconds int64
		found, err := pgx.ForEachRow(rows, []any{&pid, &user, &application, &state, &seconds}, func() error {
			l.logger.Error("a transaction in the database holds up payments: who comes for them is told to come back. "+
				"If it is forgotten, end it: SELECT pg_terminate_backend(pid)",
				zap.Int32("pid", pid), zap.String("user", user), zap.String("application", application), zap.String("state", state),
				zap.Duration("open_for", time.Duration(seconds)*time.Second))
			return nil
		})
		if err != nil || found.RowsAffected() > 0 {
			return
		}
	}
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
