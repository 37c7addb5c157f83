package sqlite

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"strings"

	"modernc.org/sqlite"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// fileMode: the files have signatures of payers in them, and are nobody else's
// business.
const fileMode = 0o600

// patience is how long a connection waits for another one.
const patience = "busy_timeout(10000)"

// dataSource names a database for the driver, with pragmas for each connection.
func dataSource(path, mode string, pragmas ...string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/...
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"_pragma": pragmas, "mode": {mode}}.Encode()}
	return u.String()
}

// connection is one connection to the file, for one goroutine at a time. It speaks to the
// driver itself: what package sql does for each statement would be a fifth of the work.
type connection struct {
	driver     driver.Conn
	statements map[string]statement // by their text
	args       []driver.NamedValue
}

// statement is a statement of the driver.
type statement interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

func connect(path string, pragmas ...string) (*connection, error) {
	c, err := (&sqlite.Driver{}).Open(dataSource(path, "rw", append(pragmas, patience)...))
	if err != nil {
		return nil, err
	}
	return &connection{driver: c, statements: make(map[string]statement)}, nil
}

// connectWriter is the connection that writes.
func connectWriter(path string) (*connection, error) {
	return connect(path,
		"journal_mode(WAL)",
		// What is committed is on disk: a payment before its money is asked for.
		"synchronous(FULL)",
		// What was deleted, signatures and queries, is overwritten.
		"secure_delete(ON)",
		// 16 MB, for the pages of the indexes are written again with each checkpoint.
		"wal_autocheckpoint(4000)", "journal_size_limit(67108864)", "cache_size(-16000)")
}

// statement prepares a statement, once.
func (c *connection) statement(text string, args []any) (statement, error) {
	c.args = c.args[:0]
	for i, a := range args {
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: value(a)})
	}
	s := c.statements[text]
	if s == nil {
		prepared, err := c.driver.Prepare(text)
		if err != nil {
			return nil, err
		}
		s = prepared.(statement) // the driver's
		c.statements[text] = s
	}
	return s, nil
}

// value is what the driver takes for an argument, or for a field of a row.
func value(a any) driver.Value {
	switch a := a.(type) {
	case int:
		return int64(a)
	case *string:
		return *a
	case *int:
		return int64(*a)
	case *int64:
		return *a
	case *bool:
		return *a
	case *[]byte:
		return *a
	case instant:
		return a.nanos()
	}
	return a
}

// exec executes a statement, and says how many rows it changed. No context ends it: the
// driver starts a goroutine for one that can end, which costs more than most statements.
func (c *connection) exec(text string, args ...any) (int64, error) {
	s, err := c.statement(text, args)
	if err != nil {
		return 0, err
	}
	result, err := s.ExecContext(context.Background(), c.args)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// first returns the values of the first row of a query, or nil.
func (c *connection) first(text string, args ...any) (values []driver.Value, err error) {
	s, err := c.statement(text, args)
	if err != nil {
		return nil, err
	}
	rows, err := s.QueryContext(context.Background(), c.args)
	if err != nil {
		return nil, err
	}
	values = make([]driver.Value, len(rows.Columns()))
	if err = rows.Next(values); errors.Is(err, io.EOF) {
		values, err = nil, nil
	}
	return values, errors.Join(err, rows.Close())
}

func (c *connection) close() error {
	if c == nil {
		return nil
	}
	var errs []error
	for _, s := range c.statements {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.driver.Close())...)
}

// version is what the file is to have of a row. Its inFile only the writer changes.
type version struct {
	stored
	row *row
}

// put writes a version of a row.
func (c *connection) put(v *version) error {
	p, was := &v.payment, &v.row.inFile
	done := int64(0)
	var err error
	fields := v.fields()
	if was.Key != "" {
		text, n := updateRow, moving
		if p.Payer != was.Payer || p.URL != was.URL {
			text, n = updateMore, rarely
		}
		if done, err = c.exec(text, append(fields[:n:n], v.id)...); err != nil {
			return err
		}
	}
	if done == 0 { // it is new, or was removed; see prune
		if _, err := c.exec(insertRow, fields...); err != nil {
			return err
		}
	}
	switch {
	case was.Key != "" && bytes.Equal(p.Request, was.Request) && bytes.Equal(p.Answer, was.Answer):
	case len(p.Request)+len(p.Answer) > 0:
		_, err = c.exec(insertKept, v.id, optional(p.Answer[:min(len(p.Answer), ledger.BriefAnswer)]), optional(p.Request), optional(p.Answer))
	default: // also of a row that may be there, for nobody knows whether it was committed
		_, err = c.exec(deleteKept, v.id)
	}
	return err
}

func optional(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

// remember records the first block of a network, or returns the one on record.
func (c *connection) remember(network, genesis string) (known string, err error) {
	if _, err := c.exec("INSERT OR IGNORE INTO networks VALUES (?, ?)", network, genesis); err != nil {
		return "", err
	}
	found, err := c.first("SELECT genesis FROM networks WHERE network = ?", network)
	if err == nil && found == nil {
		err = fmt.Errorf("%w: the network is not there", errDamaged)
	}
	if err != nil {
		return "", err
	}
	known, _ = found[0].(string)
	return known, nil
}

// checkpoint empties the write-ahead log, if it can. It waits a moment for those who
// read: longer than a query takes, and shorter than payers notice.
func (c *connection) checkpoint() (done bool, err error) {
	if _, err := c.exec("PRAGMA busy_timeout = 200"); err != nil {
		return false, err
	}
	busy, err := c.first("PRAGMA wal_checkpoint(TRUNCATE)")
	_, restored := c.exec("PRAGMA busy_timeout = 10000")
	return err == nil && busy != nil && busy[0] == int64(0), errors.Join(err, restored)
}
