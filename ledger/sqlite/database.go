package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	_ "modernc.org/sqlite" // the driver

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// database is the SQLite database: the queryable copy of what the journal says.
type database struct {
	// write has one connection; it is nil for a reader.
	write *sql.DB
	read  *sql.DB

	complete *sql.Stmt // of write
	byHash   *sql.Stmt // of read

	id   uint64
	salt []byte

	mu       sync.Mutex
	prepared map[string]*sql.Stmt // queries of List, by their text
}

// preparedMax is how many are kept: a gate asks the same few for ever.
const preparedMax = 64

// query runs a query of List.
func (d *database) query(ctx context.Context, text string, args []any) (*sql.Rows, error) {
	d.mu.Lock()
	stmt := d.prepared[text]
	if stmt == nil && len(d.prepared) < preparedMax {
		var err error
		if stmt, err = d.read.PrepareContext(ctx, text); err != nil {
			d.mu.Unlock()
			return nil, err
		}
		d.prepared[text] = stmt
	}
	d.mu.Unlock()
	if stmt == nil {
		return d.read.QueryContext(ctx, text, args...)
	}
	return stmt.QueryContext(ctx, args...)
}

// readConnections is how many calls can look into the database at once. A file
// in the cache of the system answers in microseconds.
const readConnections = 4

// openDatabase opens the database for writing and makes it if it is not there.
func openDatabase(path string) (_ *database, err error) {
	// SQLite gives the files beside it the mode of the first.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode) //nolint:gosec // the configured file
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	d := &database{prepared: make(map[string]*sql.Stmt)}
	d.write, err = sql.Open("sqlite", dataSource(path, "rw",
		// A commit is on disk: the journal may be removed then.
		"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(10000)",
		// What was deleted, signatures and queries, is overwritten.
		"secure_delete(ON)",
		// What a statement of several rows could have to take back.
		"temp_store(MEMORY)",
		// 64 MB, for the pages of the indexes are written again with each checkpoint.
		"wal_autocheckpoint(16000)", "journal_size_limit(67108864)", "cache_size(-16000)",
	)+"&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	d.write.SetMaxOpenConns(1)
	err = migrate(context.Background(), d.write)
	if err == nil {
		err = d.prepare(path, "rw")
	}
	if err == nil {
		d.complete, err = d.write.PrepareContext(context.Background(), completeMeta)
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// checkpoint brings what is in the write-ahead log into the database, and empties
// the log: what was deleted, and overwritten in the database, would stay readable
// there. It waits a moment for those who read, and says whether it could.
func (d *database) checkpoint(ctx context.Context) (done bool, err error) {
	conn, err := d.write.Conn(ctx)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	// Longer than a query takes, and shorter than a backup.
	if _, err := conn.ExecContext(ctx, "PRAGMA busy_timeout = 1000"); err != nil {
		return false, err
	}
	var busy, pages, moved int
	err = conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &moved)
	_, restored := conn.ExecContext(context.WithoutCancel(ctx), "PRAGMA busy_timeout = 10000")
	return busy == 0, errors.Join(err, restored)
}

// readDatabase opens the database for reading alone.
func readDatabase(path string) (*database, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	d := &database{prepared: make(map[string]*sql.Stmt)}
	if err := d.prepare(path, "ro"); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// prepare prepares what readers need.
func (d *database) prepare(path, mode string) (err error) {
	pragmas := []string{"busy_timeout(10000)", "cache_size(-4000)"}
	if mode != "ro" {
		pragmas = append(pragmas, "query_only(ON)")
	}
	d.read, err = sql.Open("sqlite", dataSource(path, mode, pragmas...))
	if err != nil {
		return err
	}
	d.read.SetMaxOpenConns(readConnections)
	d.read.SetMaxIdleConns(readConnections)
	ctx := context.Background()
	var version int
	if err := d.read.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version != len(migrations) {
		return fmt.Errorf("the database is of version %d, and this program of version %d", version, len(migrations))
	}
	id, err := d.meta(ctx, metaDatabase)
	if err == nil {
		d.salt, err = d.meta(ctx, metaSalt)
	}
	if err == nil {
		d.id = binary.BigEndian.Uint64(id)
		d.byHash, err = d.read.PrepareContext(ctx, selectRow+" WHERE hash = ?")
	}
	return err
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

func (d *database) meta(ctx context.Context, name string) (value []byte, err error) {
	err = d.read.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = ?", name).Scan(&value)
	if err == nil && len(value) < 8 {
		err = fmt.Errorf("the value of %s is damaged", name)
	}
	return value, err
}

func (d *database) number(ctx context.Context, name string) (uint64, error) {
	value, err := d.meta(ctx, name)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(value), nil
}

// get returns the row with the hash, or ledger.ErrNotFound.
func (d *database) get(ctx context.Context, hash *digest) (ledger.Payment, error) {
	p, _, err := d.getVersion(ctx, hash)
	return p, err
}

func (d *database) getVersion(ctx context.Context, hash *digest) (ledger.Payment, uint64, error) {
	var r scanned
	err := d.byHash.QueryRowContext(ctx, hash[:]).Scan(r.into()...)
	if errors.Is(err, sql.ErrNoRows) {
		err = ledger.ErrNotFound
	}
	if err != nil {
		return ledger.Payment{}, 0, err
	}
	p, err := r.payment()
	return p, r.version, err
}

func (d *database) close() error {
	var errs []error
	d.mu.Lock()
	statements := slices.AppendSeq([]*sql.Stmt{d.complete, d.byHash}, maps.Values(d.prepared))
	d.mu.Unlock()
	for _, s := range statements {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	for _, db := range []*sql.DB{d.read, d.write} { // the last to close tidies up
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}
