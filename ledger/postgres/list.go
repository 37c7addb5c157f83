package postgres

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

const (
	// page is how many rows List reads at once. Between pages it holds no connection:
	// the loop may take its time, and call the ledger.
	page = 100
	// slowTimeout is for questions that may have to read all rows.
	slowTimeout = time.Minute
)

// question is a statement whose answer is rows of payments.
type question struct {
	sql  string
	args []any
	// quick: an index leads to few rows.
	quick bool
}

// look is somebody who waits for the answer to a question. Quick ones share round trips:
// a gateway asks with every sale what the payer is owed.
type look struct {
	question
	found []ledger.Payment
	err   error
	done  chan struct{}
}

// ask returns the rows that a question selects.
func (l *Ledger) ask(ctx context.Context, q question) ([]ledger.Payment, error) {
	if err := l.begin(ctx); err != nil {
		return nil, err
	}
	k := &look{question: q, done: make(chan struct{})}
	if q.quick {
		l.looks.add(k)
	} else {
		l.answer(ctx, slowTimeout, []*look{k})
	}
	select {
	case <-k.done:
		return k.found, k.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ledger.ErrUnavailable, ctx.Err())
	}
}

// answer answers questions in one round trip, or two if that can help at once.
func (l *Ledger) answer(ctx context.Context, within time.Duration, batch []*look) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	begun := time.Now()
	err := l.tryAnswer(ctx, within, batch)
	if err != nil && transient(err) {
		err = l.tryAnswer(ctx, within, batch)
	}
	for locked(err) && time.Since(begun) < lockPatience { // the table: a row that is only read is free
		time.Sleep(lockPause)
		err = l.tryAnswer(ctx, within, batch)
	}
	for _, k := range batch {
		if err != nil {
			k.found, k.err = nil, unavailable(err)
		}
		close(k.done)
	}
}

func (l *Ledger) tryAnswer(ctx context.Context, within time.Duration, batch []*look) error {
	statements := &pgx.Batch{}
	if within > batchTimeout {
		statements.Queue("SELECT set_config('statement_timeout', $1, true)", strconv.FormatInt(within.Milliseconds(), 10))
	}
	for _, k := range batch {
		k.found = nil
		statements.Queue(k.sql, k.args...).Query(func(rows pgx.Rows) error {
			return scanAll(rows, func(r *row) { k.found = append(k.found, r.payment) })
		})
	}
	return l.send(ctx, statements)
}

// Get implements ledger.Ledger.
func (l *Ledger) Get(ctx context.Context, key ledger.Key) (ledger.Payment, error) {
	found, err := l.ask(ctx, getQuery(key))
	switch {
	case err != nil:
		return ledger.Payment{}, err
	case len(found) == 0 || found[0].Key != key:
		return ledger.Payment{}, ledger.ErrNotFound
	}
	return found[0], nil
}

func getQuery(key ledger.Key) question {
	name := ledger.ID(key)
	return question{sql: selectRows + " WHERE id = $1", args: []any{id{&name}}, quick: true}
}

// Begins returns the payments whose ID begins so, at most a few of many.
func (l *Ledger) Begins(ctx context.Context, id string) ([]ledger.Payment, error) {
	q, ok := beginsQuery(id)
	if !ok {
		return nil, nil
	}
	return l.ask(ctx, q)
}

// beginsQuery is the statement of Begins, if there can be such an ID.
func beginsQuery(begin string) (question, bool) {
	const digits = 32
	if len(begin) > digits || strings.Trim(begin, "0123456789abcdefABCDEF") != "" {
		return question{}, false
	}
	from, to := begin+strings.Repeat("0", digits-len(begin)), begin+strings.Repeat("f", digits-len(begin))
	return question{
		sql:  selectRows + " WHERE id >= $1 AND id <= $2 ORDER BY id LIMIT $3",
		args: []any{id{&from}, id{&to}, page}, quick: true,
	}, true
}

// List implements ledger.Ledger. Filter.URL also finds what HashQueries has hashed.
// It looks for a payer's open payments, and for an identifier, through an index;
// gateways do that with every sale.
func (l *Ledger) List(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Payment, error] {
	return l.pages(ctx, f, position{})
}

// Newest is List, newest first.
func (l *Ledger) Newest(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Payment, error] {
	return l.pages(ctx, f, position{newestFirst: true})
}

func (l *Ledger) pages(ctx context.Context, f ledger.Filter, begin position) iter.Seq2[ledger.Payment, error] {
	return func(yield func(ledger.Payment, error) bool) {
		if err := l.list(ctx, f, begin, func(p ledger.Payment) bool { return yield(p, nil) }); err != nil {
			yield(ledger.Payment{}, err)
		}
	}
}

func (l *Ledger) list(ctx context.Context, f ledger.Filter, at position, yield func(ledger.Payment) bool) error {
	if err := l.begin(ctx); err != nil {
		return err
	}
	opening, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := l.Open(opening); err != nil {
		return err
	}
	left := f.Limit
	for {
		size := page
		if f.Limit > 0 {
			size = min(page, left)
		}
		rows, err := l.ask(ctx, l.listQuery(f, at, size))
		if err != nil {
			return err
		}
		full := len(rows) == size
		if full && at.end.IsZero() && !at.newestFirst {
			youngest, err := l.ask(ctx, question{sql: selectRows + " ORDER BY created DESC, id DESC LIMIT 1", quick: true})
			if err != nil {
				return err
			}
			if len(youngest) > 0 {
				at.end = youngest[0].Created
			}
		}
		for _, p := range rows {
			at.created, at.id = p.Created, p.ID
			if err := ctx.Err(); err != nil {
				return err
			}
			if !yield(p) {
				return nil
			}
		}
		left -= len(rows)
		if !full || f.Limit > 0 && left <= 0 {
			return nil
		}
	}
}

// position is where a List stands.
type position struct {
	created time.Time
	id      string
	// end is the age of the youngest row when the List began, so that it comes to
	// an end however much is sold meanwhile.
	end time.Time
	// newestFirst is for a List the other way round, which comes to an end anyway.
	newestFirst bool
}

// listQuery writes the statement for a page. The ledger is open.
func (l *Ledger) listQuery(f ledger.Filter, at position, size int) question {
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
		add(fmt.Sprint("stage = ", stage)) // a constant: it chooses the index
	}
	if len(f.States) > 0 {
		states := make([]string, len(f.States))
		for i, s := range f.States {
			states[i] = clean(string(s))
		}
		add("state = ANY(?)", states)
	}
	payer, identifier := clean(f.Payer), clean(f.Identifier)
	switch {
	case identifier != "":
		quick = true
		add("identifier <> '' AND left(identifier, 128) = left(?, 128) AND identifier = ?", identifier, identifier)
		if payer != "" {
			add("payer = ?", payer) // not by the index of payers: one may have bought a lot
		}
	case payer != "":
		quick = known && stage == 0
		add("left(payer, 64) = left(?, 64) AND payer = ?", payer, payer)
	}
	if f.Method != "" {
		add("method = ?", clean(f.Method))
	}
	if f.Host != "" {
		add("host = ?", clean(f.Host))
	}
	if f.URL != "" {
		add("url = ANY(?)", [][]byte{[]byte(f.URL), []byte(ledger.HashQuery(*l.queryKey.Load(), f.URL))})
	}
	if !f.Since.IsZero() {
		add("created >= ?", storableTime(f.Since))
	}
	if !f.Until.IsZero() {
		add("created < ?", storableTime(f.Until))
	}
	order := "created, id"
	if at.newestFirst {
		order = "created DESC, id DESC"
	}
	switch {
	case at.created.IsZero():
	case at.newestFirst:
		add("(created, id) < (?, ?)", at.created, id{&at.id})
	default:
		add("(created, id) > (?, ?)", at.created, id{&at.id})
		add("created <= ?", at.end)
	}
	sql := selectRows
	if f.Brief {
		sql = selectBrief
	}
	if len(where) > 0 {
		sql += " WHERE " + strings.Join(where, " AND ")
	}
	args = append(args, size)
	sql += fmt.Sprintf(" ORDER BY %s LIMIT $%d", order, len(args))
	return question{sql: sql, args: args, quick: quick}
}

// stageOf returns the stage that the states have in common, by the table's
// definition of it.
func stageOf(states []ledger.State) (stage int, ok bool) {
	of := func(s ledger.State) int { return 1 + slices.Index([]ledger.State{ledger.Delivered, ledger.Refused}, s) }
	for _, s := range states {
		if stage = of(s); stage != of(states[0]) {
			return 0, false
		}
	}
	return stage, len(states) > 0
}
