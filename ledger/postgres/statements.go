package postgres

import (
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// The statements of a batch. Each changes or reads any number of rows, whose
// values come as arrays, one for each column. Of each statement $1 is the time,
// or null for that of the database.
//
// The values come in the order of the ids: two batches that want the same rows
// wait for each other and do not block each other for ever.

const clock = `(SELECT coalesce($1::timestamptz, clock_timestamp()) AS now) c`

// selected are the columns of a record; see scan.
var selected = selecting("p.request, p.answer")

// selectedBriefly are the same without what is large; see ledger.Filter.
var selectedBriefly = selecting(fmt.Sprintf("NULL::bytea, substring(p.answer FROM 1 FOR %d)", ledger.BriefAnswer))

func selecting(kept string) string {
	return "p.revision, p.token, p.created, p.updated, p.lease, p.valid_before, p.keep, p.fetch_by, " +
		"p.status, p.runs, p.ended, p.doubt, p.effects, p.url, " + kept +
		eachText(", p.%s", func(text) bool { return true })
}

var selectRows = `SELECT p.id, ` + selected + `, c.now FROM ` + clock + `, paywall_payments p WHERE p.id = ANY($2)`

var insertRows = `INSERT INTO paywall_payments (id, revision, token, created, updated, lease,
	valid_before, keep, fetch_by, status, runs, ended, doubt, effects, url, request, answer` + eachText(", %s", anyText) + `)
SELECT v.id, v.revision, v.token, c.now, c.now, c.now + v.lease * interval '1 microsecond',
	v.valid_before, v.keep, v.fetch_by, v.status, v.runs, v.ended, v.doubt, v.effects, v.url, v.request, v.answer` + eachText(", v.%s", anyText) + `
FROM ` + clock + `, unnest($2::uuid[], $3::bigint[], $4::uuid[], $5::bigint[],
	$6::timestamptz[], $7::timestamptz[], $8::timestamptz[], $9::bigint[], $10::bigint[], $11::bigint[],
	$12::boolean[], $13::boolean[], $14::bytea[], $15::bytea[], $16::bytea[]` + params(17, anyText) + `)
	AS v(id, revision, token, lease, valid_before, keep, fetch_by, status, runs, ended, doubt, effects, url, request, answer` + eachText(", %s", anyText) + `)
ON CONFLICT (id) DO NOTHING
RETURNING id, created, lease`

// A null request or answer means that it stays, if it is not to go; a null URL
// stays.
var updateRows = fmt.Sprintf(`UPDATE paywall_payments p SET
	revision = v.revision, token = v.token, status = v.status, runs = v.runs, ended = v.ended, doubt = v.doubt,
	updated = CASE WHEN v.touched THEN c.now ELSE p.updated END,
	lease = CASE v.hold
		WHEN %d THEN p.lease
		WHEN %d THEN c.now + v.lease * interval '1 microsecond'
		WHEN %d THEN greatest(p.lease, c.now + v.lease * interval '1 microsecond')
		END,
	request = CASE WHEN v.same_request THEN p.request ELSE v.request END,
	answer = CASE WHEN v.same_answer THEN p.answer ELSE v.answer END,
	url = coalesce(v.url, p.url)%s
FROM %s, unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::uuid[], $6::bigint[], $7::bigint[], $8::bigint[], $9::boolean[],
	$10::boolean[], $11::smallint[], $12::bigint[], $13::smallint[],
	$14::boolean[], $15::bytea[], $16::boolean[], $17::bytea[], $18::bytea[]%s)
	AS v(id, old_revision, revision, token, status, runs, ended, doubt,
	touched, hold, lease, need, same_request, request, same_answer, answer, url%s)
WHERE p.id = v.id AND p.revision = v.old_revision AND %s
RETURNING p.id, p.updated, p.lease, c.now`,
	holdStays, holdStarts, holdGrows, eachText(", %[1]s = v.%[1]s", changing),
	clock, params(19, changing), eachText(", %s", changing), needed)

var removeRows = `DELETE FROM paywall_payments p
USING ` + clock + `, unnest($2::uuid[], $3::bigint[], $4::smallint[]) AS v(id, old_revision, need)
WHERE p.id = v.id AND p.revision = v.old_revision AND ` + needed + `
RETURNING p.id, c.now`

var needed = fmt.Sprintf(`CASE v.need
	WHEN %d THEN p.lease > c.now
	WHEN %d THEN p.lease IS NULL OR p.lease <= c.now
	ELSE true END`, leaseRuns, nobodyHolds)

func anyText(text) bool    { return true }
func changing(t text) bool { return t.changes }

func eachText(format string, which func(text) bool) string {
	var b strings.Builder
	for _, t := range texts {
		if which(t) {
			fmt.Fprintf(&b, format, t.column)
		}
	}
	return b.String()
}

// params are the parameters of the texts, from number first on.
func params(first int, which func(text) bool) string {
	var b strings.Builder
	for _, t := range texts {
		if which(t) {
			fmt.Fprintf(&b, ", $%d::text[]", first)
			first++
		}
	}
	return b.String()
}

// array is one column of values.
type array[T any] = pgtype.FlatArray[T]

// column makes an array of a value of each write.
func column[T any](writes []*line, value func(*write) T) array[T] {
	a := make(array[T], len(writes))
	for i, n := range writes {
		a[i] = value(&n.write)
	}
	return a
}

func idColumn(lines []*line) array[pgtype.UUID] {
	a := make(array[pgtype.UUID], len(lines))
	for i, n := range lines {
		a[i] = pgtype.UUID{Bytes: n.id, Valid: true}
	}
	return a
}

func textColumns(args []any, writes []*line, which func(text) bool) []any {
	for _, t := range texts {
		if which(t) {
			args = append(args, column(writes, func(w *write) string { return *t.of(&w.next.payment) }))
		}
	}
	return args
}

func insertArgs(now pgtype.Timestamptz, writes []*line) []any {
	return textColumns([]any{
		now,
		idColumn(writes),
		column(writes, func(w *write) int64 { return w.next.revision }),
		column(writes, (*write).token),
		column(writes, func(w *write) int64 { return w.lease }),
		column(writes, func(w *write) pgtype.Timestamptz { return timestamp(w.next.payment.ValidBefore) }),
		column(writes, func(w *write) pgtype.Timestamptz { return timestamp(w.next.payment.Keep) }),
		column(writes, func(w *write) pgtype.Timestamptz { return timestamp(w.next.payment.FetchBy) }),
		column(writes, func(w *write) int64 { return int64(w.next.payment.Status) }),
		column(writes, func(w *write) int64 { return int64(w.next.payment.Runs) }),
		column(writes, func(w *write) int64 { return int64(w.next.payment.Ended) }),
		column(writes, func(w *write) bool { return w.next.payment.Doubt }),
		column(writes, func(w *write) bool { return w.next.payment.Effects }),
		column(writes, func(w *write) []byte { return append([]byte{}, w.next.payment.URL...) }),
		column(writes, func(w *write) []byte { return some(w.next.payment.Request) }),
		column(writes, func(w *write) []byte { return some(w.next.payment.Answer) }),
	}, writes, anyText)
}

func updateArgs(now pgtype.Timestamptz, url func(*write) []byte, writes []*line) []any {
	return textColumns([]any{
		now,
		idColumn(writes),
		column(writes, func(w *write) int64 { return w.old.revision }),
		column(writes, func(w *write) int64 { return w.next.revision }),
		column(writes, (*write).token),
		column(writes, func(w *write) int64 { return int64(w.next.payment.Status) }),
		column(writes, func(w *write) int64 { return int64(w.next.payment.Runs) }),
		column(writes, func(w *write) int64 { return int64(w.next.payment.Ended) }),
		column(writes, func(w *write) bool { return w.next.payment.Doubt }),
		column(writes, func(w *write) bool { return w.touched }),
		column(writes, func(w *write) int16 { return int16(w.hold) }),
		column(writes, func(w *write) int64 { return w.lease }),
		column(writes, func(w *write) int16 { return int16(w.need) }),
		column(writes, (*write).sameRequest),
		column(writes, func(w *write) []byte {
			if w.sameRequest() {
				return nil
			}
			return some(w.next.payment.Request)
		}),
		column(writes, (*write).sameAnswer),
		column(writes, func(w *write) []byte {
			if w.sameAnswer() {
				return nil
			}
			return some(w.next.payment.Answer)
		}),
		column(writes, url),
	}, writes, changing)
}

func removeArgs(now pgtype.Timestamptz, writes []*line) []any {
	return []any{
		now,
		idColumn(writes),
		column(writes, func(w *write) int64 { return w.old.revision }),
		column(writes, func(w *write) int16 { return int16(w.need) }),
	}
}

func (w *write) token() pgtype.UUID {
	id, ok := uuid(string(w.next.token))
	return pgtype.UUID{Bytes: id, Valid: ok}
}

// The request is the largest part of a row, and stays in most changes: the
// rules then hand on the same slice.
func (w *write) sameRequest() bool { return same(w.old.payment.Request, w.next.payment.Request) }
func (w *write) sameAnswer() bool  { return same(w.old.payment.Answer, w.next.payment.Answer) }

func same(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// some is nil for nothing.
func some(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// clockNow is the time for $1.
func (l *Ledger) clockNow() pgtype.Timestamptz {
	if l.now == nil {
		return pgtype.Timestamptz{}
	}
	return timestamp(l.now().Truncate(time.Microsecond))
}
