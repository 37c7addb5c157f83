package sqlite

import (
	"crypto/rand"
	"crypto/sha256"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

const (
	// applicationID tells SQLite's own tools, and us, whose file it is: "payw". The
	// files of versions before the first release have none.
	applicationID = 0x70617977
	// schemaVersion is the user_version of the file. What is released is never
	// changed, only added to.
	schemaVersion = 3
)

// columns are those of payments: what a move changes, what it can change and nearly never
// does, for their indexes are large, and what stays. Instants are Unix time in
// nanoseconds, NULL for none.
//
// The id is when the payment was claimed, and one more than the one before if that is not
// later: it is the order of claims even where the clock goes back, never less than
// created, and a payment that is claimed anew has a new one. hash is the payment's public
// ID. kept_until is from when on nobody can fetch the payment any more; it is NULL where
// nothing is kept, or may be needed for ever. kept_sum is the checksum of the signed
// request and the kept answer, and sum that of all other columns: SQLite has none, and
// takes what a bad disk has made of a number for the number.
var columns = []string{
	"state TEXT NOT NULL", "doubt INTEGER NOT NULL", "amount TEXT NOT NULL", "body TEXT NOT NULL", "facilitator TEXT NOT NULL",
	"transaction_id TEXT NOT NULL", "reason TEXT NOT NULL", "status INTEGER NOT NULL", "runs INTEGER NOT NULL", "ended INTEGER NOT NULL",
	"updated INTEGER NOT NULL", "kept_until INTEGER", "kept_sum INTEGER NOT NULL", "sum INTEGER NOT NULL",
	"payer TEXT NOT NULL", "url TEXT NOT NULL",
	"id INTEGER PRIMARY KEY", "hash BLOB NOT NULL UNIQUE", "key TEXT NOT NULL",
	"scheme TEXT NOT NULL", "network TEXT NOT NULL", "asset TEXT NOT NULL", "pay_to TEXT NOT NULL", "method TEXT NOT NULL",
	"host TEXT NOT NULL", "line TEXT NOT NULL", "client TEXT NOT NULL", "identifier TEXT NOT NULL", "effects INTEGER NOT NULL",
	"created INTEGER NOT NULL", "valid_before INTEGER", "fetch_by INTEGER", "keep INTEGER",
}

// How many columns a move changes, with and without the rare ones.
const (
	moving = 14
	rarely = 16
	// sumAt is where the checksum stands among the columns, and hashAt the hash.
	sumAt  = 13
	idAt   = 16
	hashAt = 17
)

// fields are where the values of the columns are, to be read or written.
func (s *stored) fields() []any {
	p := &s.payment
	return []any{
		(*string)(&p.State), &p.Doubt, &p.Amount, &p.Body, &p.Facilitator,
		&p.Transaction, &p.Reason, &p.Status, &p.Runs, &p.Ended,
		instant{&p.Updated},
		instant{&s.keptUntil},
		&s.keptSum, &s.sum,
		&p.Payer, &p.URL,
		&s.id, &s.hash, (*string)(&p.Key),
		&p.Scheme, &p.Network, &p.Asset, &p.PayTo, &p.Method,
		&p.Host, &p.Line, &p.Client, &p.Identifier, &p.Effects,
		instant{&p.Created},
		instant{&p.ValidBefore},
		instant{&p.FetchBy},
		instant{&p.Keep},
	}
}

// schema makes an empty database.
//
// What is to leave no trace, the signed request and the kept answer, is in a table of
// its own, behind lead, as many zeros as SQLite keeps of a row among others, and so in
// pages of its own, which SQLite overwrites when they are free. A row's first page it
// shares with others, and whenever SQLite moves rows from one such page to another, their
// bytes may stay behind in the first, secure_delete or not. head is the beginning of the
// answer, which tells nothing and is read without the rest.
var schema = "CREATE TABLE payments (\n\t" + strings.Join(columns, ",\n\t") + `
) STRICT;
CREATE INDEX payments_identifier ON payments (identifier) WHERE identifier <> '';
-- Most rows are delivered. No gate asks for them but by hash or identifier, and each
-- index costs every sale a page.
CREATE INDEX payments_state ON payments (state) WHERE state <> 'delivered';
CREATE INDEX payments_payer ON payments (payer) WHERE state <> 'delivered';
CREATE INDEX payments_kept ON payments (kept_until) WHERE kept_until IS NOT NULL;
CREATE TABLE kept (
	id      INTEGER PRIMARY KEY NOT NULL,
	head    BLOB,
	lead    BLOB NOT NULL,
	request BLOB,
	answer  BLOB
) STRICT, WITHOUT ROWID;
CREATE TABLE networks (network TEXT PRIMARY KEY NOT NULL, genesis TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) STRICT, WITHOUT ROWID;` +
	fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d;", applicationID, schemaVersion)

var (
	names       = columnNames()
	selectRow   = selecting("kept.request, kept.answer")
	selectBrief = selecting("NULL, kept.head") // what stands before the lead
	insertRow   = "INSERT OR REPLACE INTO payments (" + strings.Join(names, ", ") + ") VALUES (?" + strings.Repeat(", ?", len(names)-1) + ")"
	updateRow   = updating(moving)
	updateMore  = updating(rarely)
)

const (
	// SQLite keeps at most 1,002 bytes of a row among others in a table without rowid.
	insertKept = "INSERT OR REPLACE INTO kept (id, head, lead, request, answer) VALUES (?, ?, zeroblob(1003), ?, ?)"
	deleteKept = "DELETE FROM kept WHERE id = ?"
)

func columnNames() (all []string) {
	for _, c := range columns {
		name, _, _ := strings.Cut(c, " ")
		all = append(all, name)
	}
	return all
}

func selecting(kept string) string {
	return "SELECT payments." + strings.Join(names, ", payments.") + ", " + kept + " FROM payments LEFT JOIN kept ON kept.id = payments.id"
}

func updating(n int) string {
	return "UPDATE payments SET " + strings.Join(names[:n], " = ?, ") + " = ? WHERE id = ?"
}

// create makes the tables in an empty database.
func create(c *connection) error {
	var salt [32]byte
	_, _ = rand.Read(salt[:]) // never fails
	for _, step := range []struct {
		text string
		args []any
	}{{beginWrite, nil}, {schema, nil}, {"INSERT INTO meta VALUES ('salt', ?)", []any{binary.LittleEndian.AppendUint64(salt[:], crc64.Checksum(salt[:], crcs))}}, {commitWrite, nil}} {
		if _, err := c.exec(step.text, step.args...); err != nil {
			return err
		}
	}
	return nil
}

// digest is the hash of a key, by which a row is found; see ledger.ID.
type digest [16]byte

func digestOf(key ledger.Key) digest {
	sum := sha256.Sum256([]byte(key))
	return digest(sum[:len(digest{})])
}

// stored is a row of the file.
type stored struct {
	id        int64
	hash      []byte
	payment   ledger.Payment
	keptUntil time.Time

	// The checksums; see columns.
	keptSum, sum int64
}

// scan reads a row that selectRow selects, or selectBrief.
func scan(values []driver.Value, brief bool) (s stored, err error) {
	p := &s.payment
	if err := read(values, append(s.fields(), &p.Request, &p.Answer)...); err != nil {
		return stored{}, err
	}
	hash := digestOf(p.Key)
	if string(hash[:]) != string(s.hash) || sumOf(values[:len(columns)]) != s.sum || !brief && sumOfKept(*p) != s.keptSum {
		return stored{}, fmt.Errorf("%w: the row of payment %x is not what was written", errDamaged, s.hash)
	}
	p.ID = ledger.ID(p.Key)
	return s, nil
}

// seal sets the checksums of a row that is to be written.
func (s *stored) seal() {
	s.keptSum = sumOfKept(s.payment)
	fields := s.fields()
	values := make([]driver.Value, len(fields))
	for i, f := range fields {
		values[i] = value(f)
	}
	s.sum = sumOf(values)
}

// crcs is the table of the checksums. They are against bad disks, not against people.
var crcs = crc64.MakeTable(crc64.ECMA)

// sumOf is the checksum of a row's columns, but for the one that has it.
func sumOf(values []driver.Value) int64 {
	var b []byte
	for i, v := range values {
		if i == sumAt {
			continue
		}
		if yes, ok := v.(bool); ok { // it comes back as a number
			v = int64(0)
			if yes {
				v = int64(1)
			}
		}
		switch v := v.(type) {
		case int64:
			b = binary.LittleEndian.AppendUint64(append(b, 'i'), uint64(v)) //nolint:gosec // its bits
		case string:
			b = append(binary.LittleEndian.AppendUint64(append(b, 's'), uint64(len(v))), v...)
		case []byte:
			b = append(binary.LittleEndian.AppendUint64(append(b, 'b'), uint64(len(v))), v...)
		default:
			b = append(b, '0')
		}
	}
	return int64(crc64.Checksum(b, crcs)) //nolint:gosec // its bits
}

// sumOfKept is the checksum of what stands in the table kept, 0 of nothing.
func sumOfKept(p ledger.Payment) int64 {
	if len(p.Request)+len(p.Answer) == 0 {
		return 0
	}
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(p.Request)))
	return int64(crc64.Update(crc64.Update(crc64.Checksum(b, crcs), crcs, p.Request), crcs, p.Answer)) //nolint:gosec // its bits
}

// keptUntil is when the request and the answer may go, in a file that knows no
// leases; see ledger.ShedAt.
func keptUntil(p ledger.Payment) time.Time {
	p.Lease = time.Time{}
	at, _ := ledger.ShedAt(p)
	return at
}

// instant is a time in a column.
type instant struct{ *time.Time }

// nanos is its value: NULL for the zero one. What is further away than 64 bits reach
// (1678 to 2262) comes as near as they do.
func (i instant) nanos() any {
	if i.IsZero() {
		return nil
	}
	return nanos(*i.Time)
}

func nanos(t time.Time) int64 {
	const least, most = -1 << 63, 1<<63 - 1
	switch {
	case t.Before(time.Unix(0, least)):
		return least
	case t.After(time.Unix(0, most)):
		return most
	}
	return t.UnixNano()
}

var (
	errDamaged = errors.New("the file is damaged")
	// errOther is for a file that this version cannot go on with.
	errOther = errors.New("the file is not a ledger of this version")
)

// damaged says of SQLite's word for a damaged file what a person can do.
func damaged(err error) error {
	code := 0
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		code = e.Code()
	}
	less := code & 0xff // without what says more of it
	if less == lib.SQLITE_CORRUPT || less == lib.SQLITE_NOTADB || code == lib.SQLITE_IOERR_SHORT_READ {
		return fmt.Errorf("%w (%w): see `caddy paywall payments verify`, and restore a backup; payments made since then must be looked up on the chain", errDamaged, err)
	}
	return err
}

// check looks at what is at path, changes nothing, and reports whether there is
// nothing yet.
//
// m is what the lock file says was there.
func check(path string, m mark) (empty bool, err error) {
	if _, err := os.Stat(path); err != nil { //nolint:gosec // the operator says where
		return false, err
	}
	beside, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return false, err
	}
	for _, e := range beside {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+".log-") { // a journal, which versions before had
			return false, refuse(path)
		}
	}
	c, err := connect(path, "ro")
	if err != nil {
		return false, err
	}
	defer func() { _ = c.close() }()
	var id, version, tables int
	_, err = c.one("SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema) FROM pragma_application_id, pragma_user_version", nil,
		&id, &version, &tables)
	switch {
	case err != nil:
		return false, err
	case id == 0 && version == 0 && tables == 0:
		return true, nil
	case m.version == schemaVersion && (id != applicationID || version != schemaVersion):
		return false, fmt.Errorf("%w: %s is not the ledger that was there, or its first page is damaged; %s", errDamaged, path, remedy)
	case id != applicationID || version < schemaVersion:
		return false, refuse(path)
	case version > schemaVersion:
		return false, fmt.Errorf("%w: it is of version %d, and this program writes version %d; use the program that wrote it, or another file", errOther, version, schemaVersion)
	}
	return false, nil
}

// refuse refuses a file that is not ours, or of before the first release.
func refuse(path string) error {
	return fmt.Errorf("%w, but of one before it or of another program: move all of %s* to another place, and the ledger starts anew; what the old one says is owed or in doubt, look up with the program that wrote it", errOther, path)
}
