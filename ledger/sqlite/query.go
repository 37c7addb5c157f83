package sqlite

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// pageRows is how many rows a query of List returns.
const pageRows = 256

// sources are the rows of the database that the filter selects, as one or more
// sequences of which each can be read along an index. skip says which to leave
// out.
func (d *database) sources(f ledger.Filter, skip func(*scanned) bool) []*source {
	states := statesOf(f)
	split := len(states) > 0 && f.Payer == "" && f.Identifier == "" && !slices.Contains(states, ledger.Delivered)
	if !split {
		return []*source{d.source(f, "", skip)}
	}
	var all []*source
	for _, s := range states {
		all = append(all, d.source(f, s, skip))
	}
	return all
}

// source is one such sequence, along the index of states if a state is given.
func (d *database) source(f ledger.Filter, state ledger.State, skip func(*scanned) bool) *source {
	var createdAfter, rowAfter int64
	begun := false
	return &source{next: func(ctx context.Context) (page []ledger.Payment, more bool, err error) {
		q := d.query(f, state)
		if begun {
			q.where("(created, rowid) > (?, ?)", createdAfter, rowAfter)
		}
		rows, err := d.read.QueryContext(ctx, q.text(), q.args...)
		if err != nil {
			return nil, false, err
		}
		n := 0
		err = each(rows, func(r *scanned, p ledger.Payment) {
			n++
			begun, createdAfter, rowAfter = true, r.created, r.rowid
			if !skip(r) {
				page = append(page, p)
			}
		})
		return page, n == pageRows, err
	}}
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

func (d *database) query(f ledger.Filter, state ledger.State) *query {
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

// hashQuery is the URL with a keyed hash in place of its query, so that equal
// ones can be told and none can be guessed without the database.
func (d *database) hashQuery(url string) string {
	path, query, ok := strings.Cut(url, "?")
	if !ok || query == "" {
		return url
	}
	mac := hmac.New(sha256.New, d.salt)
	mac.Write([]byte(query))
	return path + "?sha256=" + hex.EncodeToString(mac.Sum(nil)[:16])
}
