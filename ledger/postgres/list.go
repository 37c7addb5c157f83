package postgres

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// page is how many rows List reads at once. Between pages it holds no connection:
// the loop may take its time, and call the ledger.
const page = 100

// List implements ledger.Ledger. Filter.URL also finds what HashQueries has hashed.
// It looks for a payer's open payments, and for
// an identifier, through an index; gateways do that with every sale.
func (l *Ledger) List(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Payment, error] {
	return func(yield func(ledger.Payment, error) bool) {
		left := f.Limit
		var at position
		for {
			size := page
			if f.Limit > 0 {
				size = min(page, left)
			}
			rows, err := l.page(ctx, f, &at, size)
			if err != nil {
				yield(ledger.Payment{}, err)
				return
			}
			for i := range rows {
				if err := ctx.Err(); err != nil {
					yield(ledger.Payment{}, err)
					return
				}
				if !yield(rows[i].payment, nil) {
					return
				}
			}
			left -= len(rows)
			if len(rows) < size || f.Limit > 0 && left <= 0 {
				return
			}
		}
	}
}

// Begins returns the payments whose ID begins so, at most a few of many.
func (l *Ledger) Begins(ctx context.Context, id string) ([]ledger.Payment, error) {
	q, ok := beginsQuery(id)
	if !ok {
		return nil, nil
	}
	if err := l.users.begin(); err != nil {
		return nil, err
	}
	defer l.users.end()
	rows, err := l.ask(ctx, q)
	var found []ledger.Payment
	for _, r := range rows {
		found = append(found, r.payment)
	}
	return found, err
}

// beginsQuery is the statement of Begins, if there can be such an ID.
func beginsQuery(id string) (question, bool) {
	const digits = 32
	if len(id) > digits {
		return question{}, false
	}
	from, ok := uuid(id + strings.Repeat("0", digits-len(id)))
	to, _ := uuid(id + strings.Repeat("f", digits-len(id)))
	return question{
		sql:  "SELECT " + selected + " FROM paywall_payments p WHERE p.id >= $1 AND p.id <= $2 ORDER BY p.id LIMIT $3",
		args: []any{pgtype.UUID{Bytes: from, Valid: true}, pgtype.UUID{Bytes: to, Valid: true}, page}, quick: true,
	}, ok
}

// position is where a List stands.
type position struct {
	created time.Time
	id      [16]byte
	// end is the age of the youngest row when the List began, so that it comes to
	// an end however much is sold meanwhile.
	end time.Time
}

// page reads the next rows.
func (l *Ledger) page(ctx context.Context, f ledger.Filter, at *position, size int) ([]record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := l.users.begin(); err != nil {
		return nil, err
	}
	defer l.users.end()
	hashed, err := l.hashedURL(ctx, f)
	if err != nil {
		return nil, err
	}
	q := listQuery(f, hashed, *at, size)
	rows, err := l.ask(ctx, q)
	if err != nil {
		return nil, err
	}
	if len(rows) < size {
		return rows, nil
	}
	last := rows[len(rows)-1].payment
	at.created = last.Created
	at.id, _ = uuid(last.ID)
	if at.end.IsZero() {
		at.end, err = l.youngest(ctx)
	}
	return rows, err
}

// question is a statement whose answer is rows of payments.
type question struct {
	sql  string
	args []any
	// quick: an index leads to few rows.
	quick bool
}

// listQuery writes the statement for a page. hashed is another spelling of the
// filter's URL, or "".
func listQuery(f ledger.Filter, hashed string, at position, size int) question {
	var where []string
	var args []any
	add := func(condition string, values ...any) {
		for _, v := range values {
			args = append(args, v)
			condition = strings.Replace(condition, "?", fmt.Sprint("$", len(args)), 1)
		}
		where = append(where, condition)
	}
	quick := false
	stage, known := stageOf(f.States)
	if known {
		add(fmt.Sprint("p.stage = ", stage)) // a constant: it chooses the index
	}
	if len(f.States) > 0 {
		states := make([]string, len(f.States))
		for i, s := range f.States {
			states[i] = clean(string(s))
		}
		add("p.state = ANY(?)", states)
	}
	switch {
	case f.Identifier != "":
		quick = true
		identifier := clean(f.Identifier)
		add("p.identifier <> '' AND left(p.identifier, 128) = left(?, 128) AND p.identifier = ?", identifier, identifier)
		if f.Payer != "" {
			add("p.payer = ?", clean(f.Payer)) // not by the index of payers: one may have bought a lot
		}
	case f.Payer != "":
		quick = known && stage == 0
		payer := clean(f.Payer)
		add("left(p.payer, 64) = left(?, 64) AND p.payer = ?", payer, payer)
	}
	if f.Method != "" {
		add("p.method = ?", clean(f.Method))
	}
	if f.Host != "" {
		add("p.host = ?", clean(f.Host))
	}
	switch {
	case f.URL == "":
	case hashed == "":
		add("p.url = ?", []byte(f.URL))
	default:
		add("p.url IN (?, ?)", []byte(f.URL), []byte(hashed))
	}
	if !f.Since.IsZero() {
		add("p.created >= ?", storableTime(f.Since))
	}
	if !f.Until.IsZero() {
		add("p.created < ?", storableTime(f.Until))
	}
	if !at.created.IsZero() {
		add("(p.created, p.id) > (?, ?)", at.created, pgtype.UUID{Bytes: at.id, Valid: true})
		add("p.created <= ?", at.end)
	}
	columns := selected
	if f.Brief {
		columns = selectedBriefly
	}
	sql := "SELECT " + columns + " FROM paywall_payments p"
	if len(where) > 0 {
		sql += " WHERE " + strings.Join(where, " AND ")
	}
	args = append(args, size)
	sql += fmt.Sprintf(" ORDER BY p.created, p.id LIMIT $%d", len(args))
	return question{sql: sql, args: args, quick: quick}
}

// stageOf returns the stage that the states have in common, by the table's
// definition of it.
func stageOf(states []ledger.State) (stage int, ok bool) {
	for i, s := range states {
		of := 0
		switch s {
		case ledger.Delivered:
			of = 1
		case ledger.Refused:
			of = 2
		default:
		}
		if i > 0 && of != stage {
			return 0, false
		}
		stage = of
	}
	return stage, len(states) > 0
}
