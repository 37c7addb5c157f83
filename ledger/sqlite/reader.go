package sqlite

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// Reader reads a ledger that another process may be writing. What it returns is
// what the files have: everything up to some milliseconds ago, for a change that
// nobody waits for is in the writer's memory first. It never goes back: a later
// call sees all that an earlier one saw.
type Reader struct {
	path string
	db   *database
	disk disk
}

// OpenReader opens the ledger at path for reading.
func OpenReader(path string) (*Reader, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	db, err := readDatabase(path)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger %s: %w", path, err)
	}
	return &Reader{path, db, osDisk{}}, nil
}

// Close closes the reader.
func (r *Reader) Close() error { return r.db.close() }

// journal returns what the database does not have yet.
func (r *Reader) journal(ctx context.Context) (map[digest]*found, error) {
	// While it is read, the writer may begin a segment or remove one.
	const tries = 20
	for try := 1; ; try++ {
		j := &replay{disk: r.disk, db: r.db, rows: make(map[digest]*found)}
		err := j.journal(ctx, r.path)
		if err == nil {
			err = j.reconcile(ctx)
		}
		if err == nil {
			return j.rows, nil
		}
		if try == tries || ctx.Err() != nil {
			return nil, err
		}
		time.Sleep(time.Duration(try) * time.Millisecond)
	}
}

// Get returns one payment, or ledger.ErrNotFound.
func (r *Reader) Get(ctx context.Context, key ledger.Key) (ledger.Payment, error) {
	name := digestOf(key)
	rows, err := r.journal(ctx)
	if err != nil {
		return ledger.Payment{}, err
	}
	if f := rows[name]; f != nil {
		return f.payment, nil
	}
	return r.db.get(ctx, &name)
}

// Begins returns the payments whose ID begins so, at most a few of many.
func (r *Reader) Begins(ctx context.Context, id string) ([]ledger.Payment, error) {
	from, to, ok := between(id)
	if !ok {
		return nil, nil
	}
	rows, err := r.journal(ctx)
	if err != nil {
		return nil, err
	}
	var all []ledger.Payment
	for key, f := range rows {
		if bytes.Compare(from, key[:]) <= 0 && bytes.Compare(key[:], to) <= 0 {
			all = append(all, f.payment)
		}
	}
	result, err := r.db.read.QueryContext(ctx, selectBegins, from, to)
	if err == nil {
		err = each(result, func(s *scanned, p ledger.Payment) {
			if rows[padded(s.hash)] == nil {
				all = append(all, p)
			}
		})
	}
	return all, err
}

var selectBegins = selectRow + " WHERE hash >= ? AND hash <= ? LIMIT 100"

// between returns the first and the last digest of all whose ID begins so.
func between(id string) (from, to []byte, ok bool) {
	if len(id) > len(digest{}) { // two digits a byte, of its first half
		return nil, nil, false
	}
	const all = 2 * len(digest{})
	from, err := hex.DecodeString(id + strings.Repeat("0", all-len(id)))
	if err != nil {
		return nil, nil, false
	}
	to, err = hex.DecodeString(id + strings.Repeat("f", all-len(id)))
	return from, to, err == nil
}

// List returns the payments that the filter selects, oldest first; see
// ledger.Ledger.
func (r *Reader) List(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Payment, error] {
	return func(yield func(ledger.Payment, error) bool) {
		rows, err := r.journal(ctx)
		if err != nil {
			yield(ledger.Payment{}, err)
			return
		}
		hashed := f
		hashed.URL = r.db.hashQuery(f.URL)
		var fresh []ledger.Payment
		for _, row := range rows {
			if f.Match(row.payment) || f.URL != hashed.URL && hashed.Match(row.payment) {
				fresh = append(fresh, row.payment)
			}
		}
		slices.SortFunc(fresh, func(a, b ledger.Payment) int { return a.Created.Compare(b.Created) })
		sources := []*source{{page: fresh, over: true}}
		for _, state := range split(f) {
			var at cursor
			sources = append(sources, &source{next: func(ctx context.Context) (page []ledger.Payment, more bool, err error) {
				all, more, err := r.db.page(ctx, f, state, &at)
				for _, row := range all {
					if rows[row.key] == nil {
						page = append(page, row.payment)
					}
				}
				return page, more, err
			}})
		}
		merge(ctx, sources, f.Limit, yield)
	}
}

// Backup writes a copy of the ledger to a new file, with all that the journal
// has, while the ledger is in use. To restore it, stop the gate, remove the old
// files, and put the copy in the place of the database.
func (r *Reader) Backup(ctx context.Context, to string) (err error) {
	to, err = filepath.Abs(to)
	if err != nil {
		return err
	}
	// What is copied from the journal to the database meanwhile is in both.
	rows, err := r.journal(ctx)
	if err != nil {
		return err
	}
	// SQLite writes into an empty file, which has the right mode.
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode) //nolint:gosec // the caller's file
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if _, err := r.db.read.ExecContext(ctx, "VACUUM INTO ?", to); err != nil {
		return fmt.Errorf("writing the backup: %w", err)
	}
	backup, err := openDatabase(to)
	if err != nil {
		return err
	}
	items := make([]copyOf, 0, len(rows))
	for key, row := range rows {
		items = append(items, copyOf{nil, key, row.version, &row.payment})
	}
	return errors.Join(backup.store(ctx, items, false), backup.close())
}
