package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// fileMode: the files have signatures of payers in them, and are nobody else's
// business.
const fileMode = 0o600

// database reads the file, for the ledger and for readers in other processes.
type database struct {
	read   *sql.DB
	has    *sql.Stmt
	byHash *sql.Stmt
	salt   []byte

	mu       sync.Mutex
	prepared map[string]*sql.Stmt // queries of List, by their text
}

const (
	// readConnections is how many calls can look into the file at once. What the
	// system has in its cache it answers in microseconds.
	readConnections = 4
	// preparedMax is how many queries are kept: a gate asks the same few for ever.
	preparedMax = 64
)

// openDatabase opens the database at path, which is one of this version, for
// reading.
func openDatabase(ctx context.Context, path, mode string) (_ *database, err error) {
	pragmas := []string{"busy_timeout(10000)", "cache_size(-4000)"}
	if mode != "ro" {
		pragmas = append(pragmas, "query_only(ON)")
	}
	d := &database{prepared: make(map[string]*sql.Stmt)}
	if d.read, err = sql.Open("sqlite", dataSource(path, mode, pragmas...)); err != nil {
		return nil, err
	}
	d.read.SetMaxOpenConns(readConnections)
	d.read.SetMaxIdleConns(readConnections)
	err = d.read.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = ?", metaSalt).Scan(&d.salt)
	if err == nil {
		d.has, err = d.read.PrepareContext(ctx, "SELECT id FROM payments WHERE hash = ?")
	}
	if err == nil {
		d.byHash, err = d.read.PrepareContext(ctx, selectRow+" WHERE payments.hash = ?")
	}
	if err != nil {
		return nil, errors.Join(damaged(err), d.close())
	}
	return d, nil
}

// dataSource names a database for the driver, with pragmas for each connection.
func dataSource(path, mode string, pragmas ...string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/...
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"_pragma": pragmas, "mode": {mode}}.Encode()}
	return u.String()
}

var errDamaged = errors.New("the file is damaged")

// damaged says of SQLite's word for a damaged file what a person can do.
func damaged(err error) error {
	code := 0
	if e, ok := errors.AsType[*driver.Error](err); ok {
		code = e.Code() & 0xff // without what says more of it
	}
	if code == lib.SQLITE_CORRUPT || code == lib.SQLITE_NOTADB {
		return fmt.Errorf("%w (%w): restore a backup; payments made since then must be looked up on the chain", errDamaged, err)
	}
	return err
}

// get returns the row with the hash; its id is 0 if there is none.
func (d *database) get(ctx context.Context, hash *digest) (stored, error) {
	// Nearly all that are claimed are new, and this costs a third of reading a row.
	var s stored
	err := d.has.QueryRowContext(ctx, hash[:]).Scan(&s.id)
	if err == nil {
		s, err = scan(d.byHash.QueryRowContext(ctx, hash[:]))
	}
	if errors.Is(err, sql.ErrNoRows) {
		return stored{}, nil
	}
	return s, damaged(err)
}

// query calls f with each row that a query selects, which is all of its text.
func (d *database) query(ctx context.Context, text string, args []any, f func(stored)) error {
	d.mu.Lock()
	stmt := d.prepared[text]
	if stmt == nil && len(d.prepared) < preparedMax {
		var err error
		if stmt, err = d.read.PrepareContext(ctx, text); err != nil {
			d.mu.Unlock()
			return damaged(err)
		}
		d.prepared[text] = stmt
	}
	d.mu.Unlock()
	query := d.read.QueryContext
	if stmt != nil {
		query = func(ctx context.Context, _ string, args ...any) (*sql.Rows, error) {
			return stmt.QueryContext(ctx, args...)
		}
	}
	rows, err := query(ctx, text, args...)
	if err != nil {
		return damaged(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		s, err := scan(rows)
		if err != nil {
			return damaged(err)
		}
		f(s)
	}
	return damaged(rows.Err())
}

// hashQuery is the URL as finished payments may have it.
func (d *database) hashQuery(url string) string { return ledger.HashQuery(d.salt, url) }

func (d *database) close() error {
	var errs []error
	d.mu.Lock()
	statements := slices.AppendSeq([]*sql.Stmt{d.has, d.byHash}, maps.Values(d.prepared))
	d.mu.Unlock()
	for _, s := range statements {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(append(errs, d.read.Close())...)
}
