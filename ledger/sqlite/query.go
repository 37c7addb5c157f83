package sqlite

import (
	"context"
	"database/sql"
	"slices"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// pageRows is how many rows a query of List returns.
const pageRows = 256

// stored is a row of the database.
type stored struct {
	key     digest
	version uint64
	payment ledger.Payment
}

// cursor is a place in a sequence of rows: after one of them.
type cursor struct {
	begun          bool
	created, rowid int64
}

// split returns the states by which a filter is read, in one sequence each, or
// the empty one if that is one sequence: so that each can be read along an
// index.
func split(f ledger.Filter) []ledger.State {
	states := statesOf(f)
	if len(states) == 0 || f.Payer != "" || f.Identifier != "" || slices.Contains(states, ledger.Delivered) {
		return []ledger.State{""}
	}
	return states
}

// page returns the next rows of a sequence, and whether there may be more.
func (d *database) page(ctx context.Context, f ledger.Filter, state ledger.State, from *cursor) (page []stored, more bool, err error) {
	q := d.selects(f, state)
	if from.begun {
		q.where("(created, rowid) > (?, ?)", from.created, from.rowid)
	}
	rows, err := d.query(ctx, q.text(), q.args)
	if err != nil {
		return nil, false, err
	}
	err = each(rows, func(r *scanned, p ledger.Payment) {
		page = append(page, stored{padded(r.hash), r.version, p})
		*from = cursor{true, r.created, r.rowid}
	})
	return page, len(page) == pageRows, err
}

// query is a query of rows.
type query struct {
	terms []string
	args  []any
}

func (q *query) where(term string, args ...any) {
	q.terms = append(q.terms, term)
	q.args = append(q.args, args...)
}

func (q *query) text() string {
	text := selectRow
	if len(q.terms) > 0 {
		text += " WHERE " + strings.Join(q.terms, " AND ")
	}
	return text + " ORDER BY created, rowid LIMIT 256"
}

// selects is the query for what the filter selects.
func (d *database) selects(f ledger.Filter, state ledger.State) *query {
	q := &query{}
	switch {
	case state != "":
		// The second term is that of the index.
		q.where("state = ? AND state <> 'delivered'", state)
	case len(f.States) > 0:
		states := statesOf(f)
		args := make([]any, len(states))
		for i, s := range states {
			args[i] = s
		}
		// The plus keeps the index of states away: it does not have all.
		q.where("+state IN (?"+strings.Repeat(", ?", len(args)-1)+")", args...)
	}
	if f.Identifier != "" {
		q.where("identifier = ? AND identifier <> ''", f.Identifier)
	}
	if f.Payer != "" {
		column := "payer"
		if f.Identifier != "" {
			column = "+payer" // an identifier has fewer rows
		}
		q.where(column+" = ?", f.Payer)
	}
	if f.Method != "" {
		q.where("method = ?", f.Method)
	}
	if f.Host != "" {
		q.where("host = ?", f.Host)
	}
	if f.URL != "" {
		q.where("url IN (?, ?)", []byte(f.URL), []byte(d.hashQuery(f.URL)))
	}
	if !f.Since.IsZero() {
		q.where("created >= ?", required(f.Since))
	}
	if !f.Until.IsZero() {
		q.where("created < ?", required(f.Until))
	}
	return q
}

// each calls f with each row, and closes them.
func each(rows *sql.Rows, f func(*scanned, ledger.Payment)) error {
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var r scanned
		if err := rows.Scan(r.into()...); err != nil {
			return err
		}
		p, err := r.payment()
		if err != nil {
			return err
		}
		f(&r, p)
	}
	return rows.Err()
}

// hashQuery is the URL as finished payments may have it.
func (d *database) hashQuery(url string) string { return ledger.HashQuery(d.salt, url) }
