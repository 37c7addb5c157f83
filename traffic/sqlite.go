package traffic

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/shopspring/decimal"
	_ "modernc.org/sqlite" // the driver

	"github.com/caddy-paywall/caddy-paywall/internal/access"
)

// FileBeside is the file of the counts for a ledger in a file: `traffic` in place of
// `payments`, or with `-traffic` behind its name. It is a file of its own, so that counting
// neither waits for the money nor can harm it.
func FileBeside(ledger string) string {
	dir, name := filepath.Split(ledger)
	base, ext := strings.TrimSuffix(name, filepath.Ext(name)), filepath.Ext(name)
	if base == "payments" {
		return filepath.Join(dir, "traffic"+ext)
	}
	return filepath.Join(dir, base+"-traffic"+ext)
}

// SQLite keeps counts in a file. It is opened when it is first used, and again after a
// failure.
type SQLite struct {
	path string
	read bool

	mu     sync.Mutex
	db     *sql.DB
	closed bool

	adding sync.Mutex
	pruned time.Time // the latest hour in which old ones were removed
}

// NewSQLite makes a store in a file, which need not be there yet.
func NewSQLite(path string) *SQLite { return &SQLite{path: path} }

// OpenSQLite opens the file of a gateway that may be running, to read it.
func OpenSQLite(path string) (*SQLite, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("opening the counts at %s: %w", path, access.Explain(path, err))
	}
	s := &SQLite{path: path, read: true}
	return s, s.Open(context.Background())
}

const (
	// application marks our files, and version says how they are laid out.
	application = 0x78347472 // "x4tr"
	version     = 1
)

const layout = `
	CREATE TABLE %s (
		hour INTEGER NOT NULL, site TEXT NOT NULL, line TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, proof TEXT NOT NULL, unit TEXT NOT NULL,
		asked INTEGER NOT NULL, observed INTEGER NOT NULL, challenged INTEGER NOT NULL, paid INTEGER NOT NULL, delivered INTEGER NOT NULL,
		worth TEXT NOT NULL, earned TEXT NOT NULL,
		PRIMARY KEY (hour, site, line, kind, name, proof, unit)
	) WITHOUT ROWID, STRICT;`

// columns are those of both tables, the key first.
const (
	keyColumns = "hour, site, line, kind, name, proof, unit"
	columns    = keyColumns + ", asked, observed, challenged, paid, delivered, worth, earned"
)

// Open opens the file, as the first call would.
func (s *SQLite) Open(ctx context.Context) error {
	_, err := s.open(ctx)
	return err
}

func (s *SQLite) open(ctx context.Context) (*sql.DB, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if s.db != nil {
		return s.db, nil
	}
	mode := "rwc"
	if s.read {
		mode = "ro"
	} else if err := makeFile(s.path); err != nil {
		return nil, fmt.Errorf("making the file of the counts: %w", access.Explain(s.path, err))
	}
	source := "file:" + (&url.URL{Path: s.path}).EscapedPath() + "?mode=" + mode + "&_pragma=busy_timeout(5000)"
	if !s.read {
		source += "&_pragma=journal_mode(wal)&_pragma=synchronous(normal)&_txlock=immediate"
	}
	db, err := sql.Open("sqlite", source)
	if err != nil {
		return nil, fmt.Errorf("opening the counts at %s: %w", s.path, err)
	}
	db.SetMaxOpenConns(1)
	if err := s.prepare(ctx, db); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the counts at %s: %w", s.path, access.Explain(s.path, err)), db.Close())
	}
	s.db = db
	return db, nil
}

// makeFile makes an empty file that is nobody else's to read, if there is none.
func makeFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the operator says where
	if err != nil {
		return err
	}
	return file.Close()
}

// prepare makes the tables, or makes sure that they are ours.
func (s *SQLite) prepare(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var id, v, found int
	for query, into := range map[string]*int{"PRAGMA application_id": &id, "PRAGMA user_version": &v, "SELECT count(*) FROM sqlite_schema": &found} {
		if err := tx.QueryRowContext(ctx, query).Scan(into); err != nil {
			return err
		}
	}
	switch {
	case id == application && v == version:
		return nil
	case id == application:
		return fmt.Errorf("it has layout %d, and this build knows %d: use the build that wrote it, or move the file away", v, version)
	case found > 0:
		return errors.New("it is another program's file")
	case s.read:
		return errors.New("nothing was counted yet")
	}
	script := fmt.Sprintf(layout+layout+"PRAGMA application_id = %d; PRAGMA user_version = %d;", "hours", "days", application, version)
	if _, err := tx.ExecContext(ctx, script); err != nil {
		return err
	}
	return tx.Commit()
}

// Add implements Store.
func (s *SQLite) Add(ctx context.Context, rows []Row) error {
	s.adding.Lock()
	defer s.adding.Unlock()
	db, err := s.open(ctx)
	if err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("adding counts: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	for _, table := range tables {
		if err := addTo(ctx, tx, table.name, rows, table.length); err != nil {
			return fmt.Errorf("adding counts: %w", err)
		}
	}
	now := rows[0].Hour
	if s.pruned.Before(now) {
		if _, err := tx.ExecContext(ctx, "DELETE FROM hours WHERE hour < ?", now.Add(-keepHours).Unix()); err != nil {
			return fmt.Errorf("removing old hours: %w", err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("adding counts: %w", err)
	}
	s.pruned = now
	return nil
}

// addTo adds rows to a table. Decimals are added here, as SQLite has none.
func addTo(ctx context.Context, tx *sql.Tx, table string, rows []Row, length time.Duration) error {
	look, err := tx.PrepareContext(ctx, "SELECT worth, earned FROM "+table+" WHERE ("+keyColumns+") = (?, ?, ?, ?, ?, ?, ?)") //nolint:gosec // names of ours
	if err != nil {
		return err
	}
	defer look.Close()                 //nolint:errcheck // the transaction ends
	put, err := tx.PrepareContext(ctx, //nolint:gosec // names of ours
		"INSERT INTO "+table+" ("+columns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"+
			" ON CONFLICT DO UPDATE SET asked = asked + excluded.asked, observed = observed + excluded.observed, challenged = challenged + excluded.challenged,"+
			" paid = paid + excluded.paid, delivered = delivered + excluded.delivered, worth = excluded.worth, earned = excluded.earned")
	if err != nil {
		return err
	}
	defer put.Close() //nolint:errcheck // the transaction ends
	for _, row := range rows {
		key := []any{row.Hour.Truncate(length).Unix(), row.Site, row.Line, row.Kind, row.Name, row.Proof, row.Unit}
		var worth, earned decimal.Decimal
		if err := look.QueryRowContext(ctx, key...).Scan(&worth, &earned); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		sums := []any{row.Asked, row.Observed, row.Challenged, row.Paid, row.Delivered, row.Worth.Add(worth).String(), row.Earned.Add(earned).String()}
		if _, err := put.ExecContext(ctx, append(key, sums...)...); err != nil {
			return err
		}
	}
	return nil
}

// Rows implements Reader.
func (s *SQLite) Rows(ctx context.Context, q Query) iter.Seq2[Row, error] {
	return partByPart(q, func(part span) (cursor, func(), error) {
		db, err := s.open(ctx)
		if err != nil {
			return nil, nil, err
		}
		until := int64(1) << 60
		if !part.until.IsZero() {
			until = part.until.Unix()
		}
		rows, err := db.QueryContext(ctx, "SELECT "+columns+" FROM "+part.table+" WHERE hour >= ? AND hour < ? ORDER BY "+keyColumns, part.since.Unix(), until) //nolint:gosec // names of ours
		if err != nil {
			return nil, nil, fmt.Errorf("reading the counts: %w", err)
		}
		return rows, func() { _ = rows.Close() }, nil
	})
}

// Close implements io.Closer.
func (s *SQLite) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.db == nil {
		return nil
	}
	err := s.db.Close()
	s.db = nil
	return err
}

// Interface guards
var (
	_ Store  = (*SQLite)(nil)
	_ Reader = (*SQLite)(nil)
)
