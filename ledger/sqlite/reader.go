package sqlite

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"path/filepath"
	"strings"

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
	ctx := context.Background()
	empty, err := check(ctx, path)
	if err == nil && empty {
		err = fmt.Errorf("%w: it is empty", errOther)
	}
	var d *database
	if err == nil {
		d, err = openDatabase(ctx, path, "ro")
	}
	if err != nil {
		return nil, fmt.Errorf("opening the ledger %s: %w", path, err)
	}
	return &Reader{path, d}, nil
}

// Close closes the reader.
func (r *Reader) Close() error { return r.file.close() }

// Get returns one payment, or ledger.ErrNotFound.
func (r *Reader) Get(ctx context.Context, key ledger.Key) (ledger.Payment, error) {
	hash := digestOf(key)
	s, err := r.file.get(ctx, &hash)
	if err == nil && s.id == 0 {
		err = ledger.ErrNotFound
	}
	return s.payment, err
}

// Begins returns the payments whose ID begins so, at most a few of many.
func (r *Reader) Begins(ctx context.Context, id string) (all []ledger.Payment, err error) {
	from, to, ok := between(id)
	if !ok {
		return nil, nil
	}
	err = r.file.query(ctx, selectRow+selectBegins, []any{from, to}, func(s stored) { all = append(all, s.payment) })
	return all, err
}

const selectBegins = " WHERE payments.hash >= ? AND payments.hash <= ? LIMIT 100"

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
		last, err := r.file.lastID(ctx)
		if err != nil {
			yield(ledger.Payment{}, err)
			return
		}
		merge(ctx, r.file.sources(f, last, nil), f.Limit, yield)
	}
}
