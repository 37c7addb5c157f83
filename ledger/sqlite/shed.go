package sqlite

import (
	"context"
	"math"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// Requests and answers that serve nobody any more (see ledger.Shed) go out of their
// rows, which is a change like others: it is recorded, and copied to the database.
// The old ones are then in an older segment of the journal, in the log of the database
// and in pages of its file that are free. Of these, tidy removes the first two, and
// SQLite overwrites the third; see migrations.

// shedMost is how many changes may wait for the database when more rows are shed: it
// is less than makes anybody wait. What is left has time.
const shedMost = slowFrom / 2

// shed sheds the rows whose time has come.
func (l *Ledger) shed(ctx context.Context) error {
	at := shedCursor{due: math.MinInt64}
	for l.behind.Load() < shedMost {
		page, err := l.db.shedding(ctx, required(l.now()), &at)
		if err != nil {
			return err
		}
		for i := range page {
			if err := l.shedRow(ctx, &page[i]); err != nil {
				return err
			}
		}
		if len(page) < lockedRows {
			break
		}
	}
	return nil
}

// shedRow sheds a row, if it is still so that it can be.
func (l *Ledger) shedRow(ctx context.Context, found *dueRow) error {
	r, known, err := l.lookUp(ctx, found.name, &found.key)
	if err != nil {
		return err
	}
	defer l.mu.Unlock()
	p := known
	if !ledger.Shed(&p, l.now()) {
		return nil // in memory it is another one
	}
	if r == nil {
		r = l.recall(known, found.key)
		p.Lease = r.payment.Lease
	}
	l.changed(r, p)
	return nil
}

// dueRow names a row that can be shed.
type dueRow struct {
	name ledger.Key
	key  digest
}

// shedCursor is a place among the rows that can be shed: after one of them.
type shedCursor struct{ due, rowid int64 }

// selectShed uses the index of what is kept. Its terms are those of the index.
const selectShed = `SELECT coalesce(fetch_by, keep, 0), rowid, key, hash FROM payments INDEXED BY payments_kept
	WHERE lead IS NOT NULL AND state IN ('settled', 'delivering') AND coalesce(fetch_by, keep, 0) BETWEEN ?1 AND ?2
		AND (coalesce(fetch_by, keep, 0), rowid) > (?1, ?3)
	ORDER BY coalesce(fetch_by, keep, 0), rowid LIMIT ?4`

// shedding returns the next rows that can be shed now, by what the database has of them.
func (d *database) shedding(ctx context.Context, now int64, at *shedCursor) (page []dueRow, err error) {
	rows, err := d.read.QueryContext(ctx, selectShed, at.due, now, at.rowid, lockedRows)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var due dueRow
		var hash []byte
		if err := rows.Scan(&at.due, &at.rowid, (*string)(&due.name), &hash); err != nil {
			return nil, err
		}
		due.key = padded(hash)
		page = append(page, due)
	}
	return page, rows.Err()
}

// tidy removes what the files have and no row has any more.
func (l *Ledger) tidy(ctx context.Context) error {
	l.journal.drop()
	// Somebody may be reading for long. Then it is done another time.
	_, err := l.db.checkpoint(ctx)
	return err
}
