package sqlite

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// pageRows is how many rows a query of List returns.
const pageRows = 256

// cursor is a place in a sequence of rows: after one of them.
type cursor struct {
	begun       bool
	created, id int64
}

// split returns the states by which a filter is read, in one sequence each, or
// the empty one if that is one sequence: so that each can be read along an
// index.
func split(f ledger.Filter) []ledger.State {
	states := statesOf(f)
	if len(f.States) > 0 && len(states) == 0 {
		return nil
	}
	if len(states) == 0 || f.Payer != "" || f.Identifier != "" || slices.Contains(states, ledger.Delivered) {
		return []ledger.State{""}
	}
	return states
}

// page returns the next rows of a sequence, of those with an id up to last, and whether
// there may be more.
func (d *database) page(ctx context.Context, f ledger.Filter, state ledger.State, last int64, from *cursor) (page []stored, more bool, err error) {
	q := d.selects(f, state)
	// A payment that is claimed while the List goes on gets another id.
	q.where("payments.id <= ?", last)
	if from.begun {
		q.where("(payments.created, payments.id) > (?, ?)", from.created, from.id)
	}
	columns := selectRow
	if f.Brief {
		columns = selectBrief
	}
	err = d.query(ctx, columns+q.text(), q.args, func(s stored) {
		page = append(page, s)
		*from = cursor{true, required(s.payment.Created), s.id}
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
	text := ""
	if len(q.terms) > 0 {
		text += " WHERE " + strings.Join(q.terms, " AND ")
	}
	return text + " ORDER BY payments.created, payments.id LIMIT " + strconv.Itoa(pageRows)
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

// statesOf returns the states that the filter selects, once each. No row of the file is
// claimed.
func statesOf(f ledger.Filter) []ledger.State {
	states := slices.DeleteFunc(slices.Clone(f.States), func(s ledger.State) bool { return s == ledger.Claimed })
	slices.Sort(states)
	return slices.Compact(states)
}

// lastID returns the largest id that a row has, or 0.
func (d *database) lastID(ctx context.Context) (id int64, err error) {
	err = d.read.QueryRowContext(ctx, "SELECT coalesce(max(id), 0) FROM payments").Scan(&id)
	return id, damaged(err)
}

// selectOpen reads along the index of states, which has few rows.
const selectOpen = `SELECT payer, method, host, url FROM payments
	WHERE state IN ('settling', 'settled', 'delivering', 'unknown') AND state <> 'delivered'`

// open calls f for each row that is open, with what was bought.
func (d *database) open(ctx context.Context, f func(ledger.Purchase)) error {
	rows, err := d.read.QueryContext(ctx, selectOpen)
	if err != nil {
		return damaged(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var p ledger.Purchase
		var url []byte
		if err := rows.Scan(&p.Payer, &p.Method, &p.Host, &url); err != nil {
			return err
		}
		p.URL = string(url)
		f(p)
	}
	return damaged(rows.Err())
}
