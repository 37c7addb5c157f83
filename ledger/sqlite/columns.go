package sqlite

import (
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// digest is the hash of a key, by which a row is found.
type digest [sha256.Size]byte

func digestOf(key ledger.Key) digest { return sha256.Sum256([]byte(key)) }

// columns are the columns of payments, in the order in which rows are written and
// read.
var columns = [...]string{
	"id", "hash", "key", "state", "doubt", "scheme", "network", "asset", "pay_to", "payer", "amount",
	"valid_before", "method", "host", "url", "line", "client", "identifier", "effects", "body", "facilitator",
	"transaction_id", "reason", "status", "runs", "ended", "created", "updated", "fetch_by", "keep", "kept_until",
}

var (
	selectRow = selecting("kept.request, kept.answer")
	// selectBrief reads only what stands before the lead of what is kept; see schema.
	selectBrief = selecting("NULL, kept.head")
	insertRow   = "INSERT OR REPLACE INTO payments (" + strings.Join(columns[:], ", ") + ") VALUES (?" + strings.Repeat(", ?", len(columns)-1) + ")"
)

func selecting(kept string) string {
	return "SELECT payments." + strings.Join(columns[:], ", payments.") + ", " + kept + " FROM payments LEFT JOIN kept ON kept.id = payments.id"
}

const (
	// updateRow writes what a move can change, but for the payer, whose indexes are
	// large and who nearly never changes.
	updateRow = `UPDATE payments SET state = ?, doubt = ?, amount = ?, body = ?, facilitator = ?, transaction_id = ?, reason = ?,
	status = ?, runs = ?, ended = ?, updated = ?, kept_until = ? WHERE id = ?`
	updatePayer = "UPDATE payments SET payer = ?, url = ? WHERE id = ?"
	// The size of lead is that of a page, as SQLite makes them; see schema.
	insertKept = "INSERT OR REPLACE INTO kept (id, head, lead, request, answer) VALUES (?, ?, zeroblob(4096), ?, ?)"
	deleteKept = "DELETE FROM kept WHERE id = ?"
	// deleteLife removes what is kept of an earlier claim of the same key.
	deleteLife = "DELETE FROM kept WHERE id IN (SELECT id FROM payments WHERE hash = ?)"
)

// insertValues are the values of insertRow.
func insertValues(args []driver.NamedValue, v *version, url string) []driver.NamedValue {
	p := &v.payment
	return values(args,
		v.id, v.hash[:], string(p.Key), string(p.State), p.Doubt, p.Scheme, p.Network, p.Asset, p.PayTo, p.Payer, p.Amount,
		nanos(p.ValidBefore), p.Method, p.Host, []byte(url), p.Line, p.Client, p.Identifier, p.Effects, p.Body, p.Facilitator,
		p.Transaction, p.Reason, int64(p.Status), int64(p.Runs), int64(p.Ended), required(p.Created), required(p.Updated),
		nanos(p.FetchBy), nanos(p.Keep), keptUntil(*p))
}

// updateValues are the values of updateRow.
func updateValues(args []driver.NamedValue, v *version) []driver.NamedValue {
	p := &v.payment
	return values(args,
		string(p.State), p.Doubt, p.Amount, p.Body, p.Facilitator, p.Transaction, p.Reason,
		int64(p.Status), int64(p.Runs), int64(p.Ended), required(p.Updated), keptUntil(*p), v.id)
}

// values are arguments for the driver, in the space of args.
func values(args []driver.NamedValue, all ...driver.Value) []driver.NamedValue {
	args = args[:0]
	for i, v := range all {
		args = append(args, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	return args
}

// keptUntil is when the request and the answer may go, in a file that knows no
// leases; see ledger.ShedAt.
func keptUntil(p ledger.Payment) any {
	p.Lease = time.Time{}
	at, ok := ledger.ShedAt(p)
	if !ok {
		return nil
	}
	return required(at)
}

func optional(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

// required is for instants that are never NULL.
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

// stored is a row of the file.
type stored struct {
	id      int64
	hash    digest
	payment ledger.Payment
}

// scan reads the row at which rows stand.
func scan(rows interface{ Scan(into ...any) error }) (stored, error) {
	var p ledger.Payment
	var s stored
	var hash, url []byte
	var created, updated int64
	var validBefore, fetchBy, keep, keptUntil sql.NullInt64
	if err := rows.Scan(&s.id, &hash, (*string)(&p.Key), (*string)(&p.State), &p.Doubt, &p.Scheme, &p.Network, &p.Asset, &p.PayTo, &p.Payer, &p.Amount,
		&validBefore, &p.Method, &p.Host, &url, &p.Line, &p.Client, &p.Identifier, &p.Effects, &p.Body, &p.Facilitator,
		&p.Transaction, &p.Reason, &p.Status, &p.Runs, &p.Ended, &created, &updated, &fetchBy, &keep, &keptUntil,
		&p.Request, &p.Answer); err != nil {
		return s, err
	}
	if s.hash = digestOf(p.Key); string(s.hash[:]) != string(hash) {
		return s, fmt.Errorf("%w: the hash of row %d is not that of its key", errDamaged, s.id)
	}
	p.ID = ledger.ID(p.Key)
	p.URL = string(url)
	p.Created, p.Updated = time.Unix(0, created).UTC(), time.Unix(0, updated).UTC()
	p.ValidBefore, p.Keep, p.FetchBy = instant(validBefore), instant(keep), instant(fetchBy)
	s.payment = p
	return s, nil
}
