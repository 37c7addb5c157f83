package postgres

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// row is a row of the database and what calls make of it.
type row struct {
	payment ledger.Payment // without a key: there is none
	token   ledger.Token
	version uint32 // the number of the transaction that wrote it

	was     ledger.Payment // what the database has, if it is changed
	changed bool
	anew    bool // all of it may have changed
	guessed bool // and not read
	missed  bool // it was not as it was read or guessed
}

// columns are those of paywall_payments, and their types: the ID, what calls change, and
// what is there for the life of a claim.
var columns = strings.Fields(`id uuid
	token uuid  state text  doubt boolean  payer text  amount text  facilitator text  transaction text  reason text  body text
	status bigint  runs bigint  ended bigint  updated timestamptz  lease timestamptz  url bytea
	request bytea  answer bytea
	key text  scheme text  network text  asset text  pay_to text  method text  host text  line text  client text  identifier text
	effects boolean  created timestamptz  valid_before timestamptz  keep timestamptz  fetch_by timestamptz`)

// How many columns come before the large ones, how many before those that stay, and how
// many there are.
const (
	large = 16
	fixed = 18
	all   = 33
)

// fields are the values of the columns, to be read or written.
func (r *row) fields() []any {
	p := &r.payment
	return []any{
		id{&p.ID},
		id{(*string)(&r.token)},
		(*string)(&p.State), &p.Doubt, &p.Payer, &p.Amount, &p.Facilitator, &p.Transaction, &p.Reason, &p.Body,
		&p.Status, &p.Runs, &p.Ended,
		instant{&p.Updated},
		instant{&p.Lease},
		raw{&p.URL},
		&p.Request, &p.Answer,
		(*string)(&p.Key), &p.Scheme, &p.Network, &p.Asset, &p.PayTo, &p.Method, &p.Host, &p.Line, &p.Client, &p.Identifier, &p.Effects,
		instant{&p.Created},
		instant{&p.ValidBefore},
		instant{&p.Keep},
		instant{&p.FetchBy},
	}
}

var (
	selectRows = "SELECT " + each("%[2]s", 0, all) + ", xmin FROM paywall_payments"
	// selectBrief is the same without what is large; see ledger.Filter.
	selectBrief = fmt.Sprintf("SELECT %s, NULL::bytea, substring(answer FROM 1 FOR %d), %s, xmin FROM paywall_payments",
		each("%[2]s", 0, large), ledger.BriefAnswer, each("%[2]s", fixed, all))
	selectByID = selectRows + " WHERE id = ANY($1::text[]::uuid[])"
)

// write is how rows are changed, by a statement for any number of them: their versions
// and the values of their first columns come as arrays. It returns the IDs of the rows
// that were as they were read, and their new versions.
type write struct {
	sql     string
	columns int
}

var writes = [...]write{
	insert: {"INSERT INTO paywall_payments (" + each("%[2]s", 0, all) + ") SELECT " + each("%[2]s", 0, all) + " FROM " + values(all) +
		" ON CONFLICT (id) DO NOTHING RETURNING id, xmin", all},
	// What is large is written only when it changes.
	update:     updating(large),
	updateKept: updating(fixed),
	replace:    updating(all),
	remove:     {"DELETE FROM paywall_payments p USING " + values(1) + unchanged, 1},
}

const (
	insert = iota
	update
	updateKept
	replace // all of it
	remove
)

const unchanged = " WHERE p.id = v.id AND p.xmin = v.version RETURNING p.id, p.xmin"

func updating(n int) write {
	return write{"UPDATE paywall_payments p SET " + each("%[2]s = v.%[2]s", 1, n) + " FROM " + values(n) + unchanged, n}
}

// values is a table of what comes in arrays for the first n columns.
func values(n int) string {
	return fmt.Sprintf("unnest(%s, $%d::xid[]) AS v(%s, version)", each("$%[1]d::%[3]s[]", 0, n), n+1, each("%[2]s", 0, n))
}

// each writes something for each of some columns, of its number, name and type.
func each(format string, from, to int) string {
	texts := make([]string, 0, to-from)
	for i := from; i < to; i++ {
		texts = append(texts, fmt.Sprintf(format, i+1, columns[2*i], columns[2*i+1]))
	}
	return strings.Join(texts, ", ")
}

// arrays are the values of rows for a write.
func (w write) arrays(rows []*row) []any {
	arrays := make([]array, w.columns+1)
	for _, r := range rows {
		for i, v := range append(r.fields()[:w.columns], &r.version) {
			arrays[i] = append(arrays[i], v)
		}
	}
	args := make([]any, len(arrays))
	for i := range args {
		args[i] = arrays[i]
	}
	return args
}

// array is an array of values of one type.
type array []any

// Dimensions implements pgtype.ArrayGetter.
func (a array) Dimensions() []pgtype.ArrayDimension {
	return []pgtype.ArrayDimension{{Length: int32(len(a)), LowerBound: 1}} //nolint:gosec // a batch
}

// Index implements pgtype.ArrayGetter.
func (a array) Index(i int) any { return a[i] }

// IndexType implements pgtype.ArrayGetter.
func (a array) IndexType() any { return a[0] }

// scanAll reads all rows of an answer.
func scanAll(rows pgx.Rows, each func(*row)) error {
	for rows.Next() {
		r := &row{}
		if err := rows.Scan(append(r.fields(), &r.version)...); err != nil {
			return err
		}
		each(r)
	}
	return rows.Err()
}

// id is 32 hexadecimal digits in a column of UUIDs; none is NULL.
type id struct{ digits *string }

// ScanUUID implements pgtype.UUIDScanner.
func (i id) ScanUUID(v pgtype.UUID) error {
	*i.digits = ""
	if v.Valid {
		*i.digits = hex.EncodeToString(v.Bytes[:])
	}
	return nil
}

// UUIDValue implements pgtype.UUIDValuer.
func (i id) UUIDValue() (v pgtype.UUID, err error) {
	if *i.digits != "" {
		_, err = hex.Decode(v.Bytes[:], []byte(*i.digits))
		v.Valid = err == nil
	}
	return v, err
}

// instant is a time; the zero one is NULL.
type instant struct{ *time.Time }

// ScanTimestamptz implements pgtype.TimestamptzScanner.
func (i instant) ScanTimestamptz(v pgtype.Timestamptz) error {
	*i.Time = time.Time{}
	if v.Valid {
		*i.Time = v.Time.UTC()
	}
	return nil
}

// TimestamptzValue implements pgtype.TimestamptzValuer.
func (i instant) TimestamptzValue() (pgtype.Timestamptz, error) {
	return pgtype.Timestamptz{Time: *i.Time, Valid: !i.IsZero()}, nil
}

// raw is a string of any bytes.
type raw struct{ text *string }

// ScanBytes implements pgtype.BytesScanner.
func (r raw) ScanBytes(v []byte) error {
	*r.text = string(v)
	return nil
}

// BytesValue implements pgtype.BytesValuer.
func (r raw) BytesValue() ([]byte, error) { return append([]byte{}, *r.text...), nil }

// clean makes of the row what the database will give back. What it does not take would
// spoil the batch for others.
func (r *row) clean() {
	for _, f := range r.fields() {
		switch f := f.(type) {
		case *string:
			*f = clean(*f)
		case instant:
			*f.Time = storableTime(*f.Time)
		case *[]byte:
			if len(*f) == 0 {
				*f = nil
			}
		}
	}
}

// clean makes a string that PostgreSQL takes as text.
func clean(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	const unknown = "\uFFFD"
	return strings.ReplaceAll(strings.ToValidUTF8(s, unknown), "\x00", unknown)
}

// storableTime rounds up to what the database can tell apart, and into the years
// that it knows. Rounding down could forget a payment before its time.
func storableTime(t time.Time) time.Time {
	switch {
	case t.IsZero():
		return t
	case t.Year() > 9999:
		return time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	case t.Year() < 1:
		return time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC)
	}
	if short := t.Truncate(time.Microsecond); short.Before(t) {
		return short.Add(time.Microsecond)
	}
	return t
}
