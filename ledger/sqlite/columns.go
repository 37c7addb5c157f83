package sqlite

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// columns are the columns of payments, in the order in which rows are written
// and read. When they are written, lead follows.
var columns = [...]string{
	"hash", "version", "key", "state", "doubt", "scheme", "network", "asset", "pay_to", "payer", "amount",
	"valid_before", "method", "host", "url", "client", "identifier", "body", "facilitator", "transaction_id", "reason",
	"status", "runs", "kept_request", "kept_answer", "created", "updated", "lease", "keep", "line", "effects", "ended", "fetch_by",
}

var (
	selectRow  = "SELECT rowid, " + strings.Join(columns[:], ", ") + " FROM payments"
	upsertRow  = upsertStatement(1)
	upsertRows = upsertStatement(rowsAtOnce)
)

// rowsAtOnce is how many rows a statement writes, when there are as many: half
// of the work is that of the statement.
const rowsAtOnce = 16

// leadSize is the size of a page, as SQLite makes them.
const leadSize = 4096

// leadOf is what keeps a request and an answer out of the first page of their row; see
// migrations.
func leadOf(p *ledger.Payment) any {
	if len(p.Request) == 0 && len(p.Answer) == 0 {
		return nil
	}
	return zeros[:leadSize]
}

// upsertStatement writes rows, each unless the table has a later version of it.
func upsertStatement(rows int) string {
	var set []string
	for _, c := range columns[1:] {
		set = append(set, c+" = excluded."+c)
	}
	set = append(set, "lead = excluded.lead")
	row := "(?" + strings.Repeat(", ?", len(columns)) + ")"
	return "INSERT INTO payments (" + strings.Join(columns[:], ", ") + ", lead) VALUES " + row + strings.Repeat(", "+row, rows-1) +
		" ON CONFLICT (hash) DO UPDATE SET " + strings.Join(set, ", ") + " WHERE excluded.version > payments.version"
}

// appendValues appends the values of the columns.
func appendValues(args []driver.NamedValue, hash *digest, version uint64, p *ledger.Payment, url string) []driver.NamedValue {
	for _, v := range [...]driver.Value{
		hash[:], int64(version), string(p.Key), string(p.State), p.Doubt, p.Scheme, p.Network, p.Asset, p.PayTo, p.Payer, p.Amount, //nolint:gosec // will not be so many
		nanos(p.ValidBefore), p.Method, p.Host, []byte(url), p.Client, p.Identifier, p.Body, p.Facilitator, p.Transaction, p.Reason,
		int64(p.Status), int64(p.Runs), optional(p.Request), optional(p.Answer),
		required(p.Created), required(p.Updated), nanos(p.Lease), nanos(p.Keep),
		p.Line, p.Effects, int64(p.Ended), nanos(p.FetchBy), leadOf(p),
	} {
		args = append(args, driver.NamedValue{Ordinal: len(args) + 1, Value: v})
	}
	return args
}

func optional(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

// required is for instants that are never zero.
func required(t time.Time) int64 {
	n, _ := nanos(t).(int64)
	return n
}

// nanos is the value of an instant: NULL for the zero one. What is further away
// than 64 bits reach (1678 to 2262) comes as near as they do.
func nanos(t time.Time) any {
	switch {
	case t.IsZero():
		return nil
	case t.Before(time.Unix(0, math.MinInt64)):
		return int64(math.MinInt64)
	case t.After(time.Unix(0, math.MaxInt64)):
		return int64(math.MaxInt64)
	}
	return t.UnixNano()
}

func instant(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.Unix(0, n.Int64).UTC()
}

// scanned is a row as it comes from the database.
type scanned struct {
	p                ledger.Payment
	rowid            int64
	hash, url        []byte
	version          uint64
	created, updated int64

	validBefore, lease, keep, fetchBy sql.NullInt64
}

func (r *scanned) into() []any {
	p := &r.p
	return []any{
		&r.rowid, &r.hash, &r.version, (*string)(&p.Key), (*string)(&p.State), &p.Doubt, &p.Scheme, &p.Network, &p.Asset, &p.PayTo, &p.Payer, &p.Amount,
		&r.validBefore, &p.Method, &p.Host, &r.url, &p.Client, &p.Identifier, &p.Body, &p.Facilitator, &p.Transaction, &p.Reason,
		&p.Status, &p.Runs, &p.Request, &p.Answer, &r.created, &r.updated, &r.lease, &r.keep,
		&p.Line, &p.Effects, &p.Ended, &r.fetchBy,
	}
}

func (r *scanned) payment() (ledger.Payment, error) {
	if digestOf(r.p.Key) != digest(padded(r.hash)) {
		return ledger.Payment{}, fmt.Errorf("row %d of the database is damaged: its hash is not that of its key", r.rowid)
	}
	p := r.p
	p.ID = ledger.ID(p.Key)
	p.URL = string(r.url)
	p.Created, p.Updated = time.Unix(0, r.created).UTC(), time.Unix(0, r.updated).UTC()
	p.ValidBefore, p.Lease, p.Keep = instant(r.validBefore), instant(r.lease), instant(r.keep)
	p.FetchBy = instant(r.fetchBy)
	return p, nil
}

// padded is a hash of any length as one of the right length, or none.
func padded(b []byte) (d [32]byte) {
	if len(b) == len(d) {
		copy(d[:], b)
	}
	return d
}
