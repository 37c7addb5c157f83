package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

const (
	pruneEvery = 30 * time.Second
	// pruneStep is how many rows one transaction removes at most: few enough that
	// nobody notices.
	pruneStep  = 500
	pruneBreak = 20 * time.Millisecond
	// maxRefused is how many refused payments stay, for those who ask why. They
	// cost nobody anything: no flood of them may fill the disk.
	maxRefused = 10_000
	// staleClaim is for how long an abandoned claim stays, in case its holder
	// comes back.
	staleClaim = time.Minute
	forever    = 250 * 365 * 24 * time.Hour
)

// pruneAlways forgets what is of no more use, in the database and here, until the ledger is closed. It begins with
// the first claim, so that who only reads removes nothing.
func (l *Ledger) pruneAlways() {
	timer := time.NewTicker(pruneEvery)
	defer timer.Stop()
	for {
		select {
		case <-l.quit:
			return
		case <-timer.C:
		}
		l.live()
		if err := l.prune(l.quit); err != nil {
			l.logger.Warn("pruning the ledger", zap.String("error", plain(err)))
		}
	}
}

const clock = `(SELECT coalesce($1::timestamptz, clock_timestamp()) AS now) c`

// What may go, all of it by ledger.Forgettable. Payments whose goods have not
// arrived stay for ever: a database has room, and their payers may come back.
const (
	// No money was asked for, and the holder is gone.
	staleClaims = `SELECT p.id FROM ` + clock + `, paywall_payments p
		WHERE p.stage = 0 AND p.state = 'claimed' AND p.lease <= c.now - $2::interval`
	oldFinished = `SELECT p.id FROM ` + clock + `, paywall_payments p
		WHERE p.stage = 1 AND coalesce(p.keep, p.created) <= c.now - $2::interval`
	oldRefused = `SELECT p.id FROM ` + clock + `, paywall_payments p
		WHERE p.stage = 2 AND (p.created < c.now - $2::interval OR p.created <= (
			SELECT created FROM paywall_payments WHERE stage = 2 ORDER BY created DESC, id DESC OFFSET $4 LIMIT 1))`
)

// removing makes the statement that removes a step of what a selection finds.
// Rows that somebody is changing are left for another time.
func removing(selection string) string {
	return `DELETE FROM paywall_payments WHERE id = ANY(ARRAY(` + selection + ` LIMIT $3 FOR UPDATE OF p SKIP LOCKED))`
}

// shedding takes out of rows what serves nobody any more, by ledger.Shed.
const shedding = `UPDATE paywall_payments SET request = NULL, answer = NULL
	WHERE id = ANY(ARRAY(SELECT p.id FROM ` + clock + `, paywall_payments p
		WHERE p.stage = 0 AND p.state IN ('settled', 'delivering') AND (p.request IS NOT NULL OR p.answer IS NOT NULL)
			AND coalesce(p.fetch_by, p.keep, p.created) <= c.now AND (p.lease IS NULL OR p.lease <= c.now)
		LIMIT $2 FOR UPDATE OF p SKIP LOCKED))`

// prune removes what may go, in small steps, until stop.
func (l *Ledger) prune(stop <-chan struct{}) error {
	keep := time.Duration(l.keepFinished.Load())
	if keep < 0 {
		keep = forever
	}
	for _, what := range []struct {
		sql  string
		args []any
	}{
		{shedding, []any{pruneStep}},
		{removing(staleClaims), []any{staleClaim, pruneStep}},
		{removing(oldFinished), []any{keep, pruneStep}},
		{removing(oldRefused), []any{keep, pruneStep, maxRefused}},
	} {
		for changed := int64(pruneStep); changed == pruneStep; {
			var err error
			if changed, err = l.pruneStep(what.sql, what.args); err != nil {
				return err
			}
			select {
			case <-stop:
				return nil
			case <-time.After(pruneBreak):
			}
		}
	}
	return nil
}

// pruneStep removes or sheds some rows, unless another gateway is at it.
func (l *Ledger) pruneStep(sql string, args []any) (changed int64, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
	defer cancel()
	conn, err := l.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var mine bool
		if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1)`, int64(lockPruning)).Scan(&mine); err != nil || !mine {
			return err
		}
		if _, err := tx.Exec(ctx, `SELECT set_config('synchronous_commit', 'off', true)`); err != nil {
			return err
		}
		done, err := tx.Exec(ctx, sql, append([]any{l.clockNow()}, args...)...)
		changed = done.RowsAffected()
		return err
	})
	return changed, err
}

// clockNow is the time for clock: none is that of the database.
func (l *Ledger) clockNow() instant {
	if l.now == nil {
		return instant{&time.Time{}}
	}
	now := l.now().Truncate(time.Microsecond)
	return instant{&now}
}
