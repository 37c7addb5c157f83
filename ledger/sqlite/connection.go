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
	"sync"
	"time"

	"modernc.org/sqlite"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// fileMode: the files have signatures of payers in them, and are nobody else's
// business.
const fileMode = 0o600

// dataSource names a database for the driver, with pragmas for each connection.
func dataSource(path, mode string, pragmas ...string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/...
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"_pragma": pragmas, "mode": {mode}}.Encode()}
	return u.String()
}

// connection is one connection to the file. It speaks to the driver itself: what package
// sql does for each statement would be a fifth of the work.
type connection struct {
	mu         sync.Mutex
	driver     driver.Conn          // nil when it is closed
	statements map[string]statement // by their text, of which there are few
	args       []driver.NamedValue
}

// statement is a statement of the driver.
type statement interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// connect connects to the file, in the mode "rw" or "ro".
func connect(path, mode string, pragmas ...string) (*connection, error) {
	c, err := (&sqlite.Driver{}).Open(dataSource(path, mode, append(pragmas, "busy_timeout(10000)")...))
	if err != nil {
		return nil, damaged(err)
	}
	return &connection{driver: c, statements: make(map[string]statement)}, nil
}

// connectWriter is the connection that writes.
func connectWriter(path string) (*connection, error) {
	return connect(path, "rw",
		"journal_mode(WAL)",
		// What is committed is on disk: a payment before its money is asked for.
		"synchronous(FULL)",
		// What was deleted, signatures and queries, is overwritten.
		"secure_delete(ON)",
		// 16 MB, for the pages of the indexes are written again with each checkpoint.
		"wal_autocheckpoint(4000)", "journal_size_limit(67108864)", "cache_size(-16000)")
}

// statement prepares a statement, once, and its arguments. Under c.mu.
func (c *connection) statement(text string, args []any) (statement, error) {
	if c.driver == nil {
		return nil, errClosed
	}
	c.args = c.args[:0]
	for i, a := range args {
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: value(a)})
	}
	s := c.statements[text]
	if s == nil {
		prepared, err := c.driver.Prepare(text)
		if err != nil {
			return nil, damaged(err)
		}
		s = prepared.(statement) // as all of the driver's are
		c.statements[text] = s
	}
	return s, nil
}

// exec executes a statement, and says how many rows it changed. No context ends it: the
// driver starts a goroutine for one that can end, which costs more than most statements.
func (c *connection) exec(text string, args ...any) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.statement(text, args)
	if err != nil {
		return 0, err
	}
	result, err := s.ExecContext(context.Background(), c.args)
	if err != nil {
		return 0, damaged(err)
	}
	return result.RowsAffected()
}

// query calls f with the values of each row that a query selects, which are good until it
// returns.
func (c *connection) query(ctx context.Context, text string, args []any, f func([]driver.Value) error) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.statement(text, args)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(ctx, c.args)
	if err != nil {
		return damaged(err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	values := make([]driver.Value, len(rows.Columns()))
	for {
		if err := rows.Next(values); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return damaged(err)
		}
		if err := f(values); err != nil {
			return err
		}
	}
}

// one reads the row that a query selects, and says whether there is one.
func (c *connection) one(text string, args []any, fields ...any) (found bool, err error) {
	err = c.query(context.Background(), text, args, func(values []driver.Value) error {
		found = true
		return read(values, fields...)
	})
	return found, err
}

func (c *connection) close() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, s := range c.statements {
		errs = append(errs, s.Close())
	}
	errs = append(errs, c.driver.Close())
	c.driver = nil
	return errors.Join(errs...)
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

// read sets fields to the values of a row.
func read(values []driver.Value, fields ...any) error {
	for i, f := range fields {
		n, ok := values[i].(int64)
		switch f := f.(type) {
		case *string:
			*f, ok = values[i].(string)
		case *[]byte:
			*f, _ = values[i].([]byte)
			ok = true
		case *int:
			*f = int(n)
		case *int64:
			*f = n
		case *bool:
			*f = n != 0
		case instant:
			if *f.Time = (time.Time{}); ok {
				*f.Time = time.Unix(0, n).UTC()
			}
			ok = true
		}
		if !ok {
			return fmt.Errorf("%w: it has a %T for a %T", errDamaged, values[i], f)
		}
	}
	return nil
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
	v.seal()
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
	_, err = c.one("SELECT genesis FROM networks WHERE network = ?", []any{network}, &known)
	return known, err
}

// checkpoint empties the write-ahead log, if it can. It waits a moment for those who
// read: longer than a query takes, and shorter than payers notice.
func (c *connection) checkpoint() (done bool, err error) {
	if _, err := c.exec("PRAGMA busy_timeout = 200"); err != nil {
		return false, err
	}
	var busy int
	_, err = c.one("PRAGMA wal_checkpoint(TRUNCATE)", nil, &busy)
	_, restored := c.exec("PRAGMA busy_timeout = 10000")
	return busy == 0, errors.Join(err, restored)
}
