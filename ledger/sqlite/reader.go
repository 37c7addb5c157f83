package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/internal/access"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// Reader reads a ledger that another process may be writing: what is committed.
type Reader struct {
	path string
	file *database
}

// OpenReader opens the ledger at path for reading.
func OpenReader(path string) (*Reader, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	empty, err := check(path, mark{})
	if err == nil && empty {
		err = fmt.Errorf("%w: it is empty", errOther)
	}
	var d *database
	if err == nil {
		d, err = openDatabase(path, "ro")
	}
	if err != nil {
		return nil, fmt.Errorf("opening the ledger %s: %w", path, access.Explain(path, err))
	}
	return &Reader{path, d}, nil
}

// Close closes the reader.
func (r *Reader) Close() error { return r.file.close() }

// Get returns one payment, or ledger.ErrNotFound.
func (r *Reader) Get(ctx context.Context, key ledger.Key) (ledger.Payment, error) {
	s, err := r.file.get(ctx, key)
	if err == nil && s.id == 0 {
		err = ledger.ErrNotFound
	}
	return s.payment, err
}

const selectBegins = " WHERE payments.hash >= ? AND payments.hash <= ? LIMIT 100"

// Begins returns the payments whose ID begins so, at most a few of many.
func (r *Reader) Begins(ctx context.Context, id string) (all []ledger.Payment, err error) {
	left := 2*len(digest{}) - len(id) // two digits a byte
	if left < 0 {
		return nil, nil
	}
	from, err := hex.DecodeString(id + strings.Repeat("0", left))
	if err != nil {
		return nil, nil //nolint:nilerr // no ID begins so
	}
	to, _ := hex.DecodeString(id + strings.Repeat("f", left))
	rows, err := r.file.rows(ctx, selectRow+selectBegins, from, to)
	for _, s := range rows {
		all = append(all, s.payment)
	}
	return all, err
}

// List returns the payments that the filter selects, oldest first; see
// ledger.Ledger.
func (r *Reader) List(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Payment, error] {
	return r.list(ctx, f, false)
}

// Newest is List, newest first.
func (r *Reader) Newest(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Payment, error] {
	return r.list(ctx, f, true)
}

func (r *Reader) list(ctx context.Context, f ledger.Filter, newestFirst bool) iter.Seq2[ledger.Payment, error] {
	return func(yield func(ledger.Payment, error) bool) {
		last, err := r.file.lastID()
		if err != nil {
			yield(ledger.Payment{}, err)
			return
		}
		left := f.Limit
		for s, err := range r.file.pages(ctx, f, last, newestFirst) {
			left--
			if !yield(s.payment, err) || left == 0 {
				return
			}
		}
	}
}

// Backup writes a copy of the ledger to a new file, as it is at one moment, while the
// ledger may be in use. When it returns, the copy is on disk.
func (r *Reader) Backup(ctx context.Context, to string) (err error) {
	if to, err = filepath.Abs(to); err != nil {
		return err
	}
	if err := missing(to); err != nil {
		return err
	}
	// A half-written copy must not be taken for a whole one.
	part := to + ".part"
	if err := r.copyTo(ctx, part); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: another backup is under way, or was broken off; then remove that file", err)
	} else if err != nil {
		return errors.Join(err, os.Remove(part))
	}
	if err := missing(to); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	if err := os.Rename(part, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// copyTo writes a copy to a new file, and syncs it.
func (r *Reader) copyTo(ctx context.Context, name string) error {
	// SQLite writes into an empty file, which has the right mode.
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode) //nolint:gosec // the caller's file
	if err != nil {
		return err
	}
	if err = r.file.query(ctx, "VACUUM INTO ?", []any{name}, nil); errors.Is(err, errDamaged) { // it has no rows
		err = errors.Join(f.Truncate(0), r.rebuild(ctx, name, err))
	}
	if err != nil {
		err = fmt.Errorf("writing the backup: %w", err)
	} else {
		err = f.Sync()
	}
	// No file is open twice where SQLite has locks on it.
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return mend(ctx, name)
}

// rebuild copies row by row what SQLite does not copy, since an index is damaged or a page
// that nobody uses; but not where a payment would be missing.
func (r *Reader) rebuild(ctx context.Context, name string, because error) error {
	found, err := r.file.verify(ctx)
	if err != nil {
		return err
	}
	if !found.all() {
		return errors.Join(because, found.Err())
	}
	c, err := connect(name, "rw")
	if err != nil {
		return err
	}
	defer func() { _ = c.close() }()
	if err := create(c); err != nil {
		return err
	}
	if _, err := c.exec(beginWrite); err != nil {
		return err
	}
	for from, into := range map[string]string{
		"SELECT " + strings.Join(names, ", ") + " FROM payments NOT INDEXED": insertRow,
		"SELECT id, head, request, answer FROM kept":                         insertKept,
		"SELECT network, genesis FROM networks":                              "INSERT INTO networks VALUES (?, ?)",
		"SELECT name, value FROM meta":                                       "INSERT OR REPLACE INTO meta VALUES (?, ?)",
	} {
		if err := r.file.query(ctx, from, nil, func(values []driver.Value) error {
			args := make([]any, len(values))
			for i, v := range values {
				args[i] = v
			}
			_, err := c.exec(into, args...)
			return err
		}); err != nil {
			return err
		}
	}
	_, err = c.exec(commitWrite)
	return err
}

// mend looks through a copy: one of a damaged ledger would be found out when it is needed.
// What the indexes have can be made again from the table.
func mend(ctx context.Context, name string) error {
	d, err := openDatabase(name, "rw")
	if err != nil {
		return err
	}
	defer func() { _ = d.close() }()
	found, err := d.verify(ctx)
	if err != nil || found.Err() == nil {
		return err
	}
	if found.all() {
		if _, err := d.exec("REINDEX"); err != nil {
			return err
		}
		if found, err = d.verify(ctx); err != nil {
			return err
		}
	}
	if err := found.Err(); err != nil {
		return fmt.Errorf("the copy is not whole, as the ledger is not: %w", err)
	}
	return nil
}

// missing says whether a name is free.
func missing(name string) error {
	_, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%s: %w", name, fs.ErrExist)
	}
	return err
}
