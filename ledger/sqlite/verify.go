package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
)

// Report is what Verify has found.
type Report struct {
	// Payments is how many could be read and are as they were written.
	Payments int
	// Unreadable are the IDs of those that are not, as far as they can be read.
	Unreadable []string
	// Missing are the IDs of those that the index has and the table does not.
	Missing []string
	// Says is what SQLite says of the file; it is empty if that is whole.
	Says []string

	// broken: the table or the index of payments could not be read to its end, so there
	// may be more that are missing.
	broken bool
}

// maxSays is how many sentences of SQLite are kept.
const maxSays = 20

// Err says what is damaged, or nil.
func (r Report) Err() error {
	if len(r.Unreadable)+len(r.Missing)+len(r.Says) == 0 {
		return nil
	}
	says := ""
	if len(r.Says) > 0 {
		says = ", and SQLite says: " + r.Says[0]
	}
	return fmt.Errorf("%w: %d payments are whole, %d unreadable and %d missing%s; %s", errDamaged, r.Payments, len(r.Unreadable), len(r.Missing), says, remedy)
}

// remedy is what a person can do about a damaged file.
const remedy = "stop the gateway and try `caddy paywall payments backup`: if that makes a copy, nothing is lost, and it goes in the place of the ledger; " +
	"else restore a backup from before, and look payments made since then up on the chain"

// selectIndex reads the index alone.
const selectIndex = "SELECT hash, id FROM payments INDEXED BY sqlite_autoindex_payments_1 WHERE hash >= x''"

// verify looks at everything in the file: SQLite's structure, that the indexes have what
// the table has, and the checksum of each row. What SQLite alone looks at when it reads a
// row would not do: where the index has lost a payment, it seems to be a new one.
func (d *database) verify(ctx context.Context) (r Report, err error) {
	say := func(err error) error {
		if !errors.Is(err, errDamaged) {
			return err
		}
		r.Says, r.broken = append(r.Says, err.Error()), true
		return nil
	}
	err = say(d.query(ctx, fmt.Sprintf("PRAGMA integrity_check(%d)", maxSays), nil, func(values []driver.Value) error {
		if text := fmt.Sprint(values[0]); text != "ok" {
			r.Says = append(r.Says, strings.TrimSpace(text))
		}
		return nil
	}))
	if err != nil {
		return r, err
	}
	r.broken = false                                 // what SQLite says of other parts does not matter for it
	seen, ids := map[string]bool{}, map[int64]bool{} // where something is wrong, to name what is missing
	err = say(d.query(ctx, selectRow+" ORDER BY payments.id", nil, func(values []driver.Value) error {
		hash, _ := values[hashAt].([]byte)
		if len(r.Says) > 0 {
			seen[string(hash)] = true
			id, _ := values[idAt].(int64)
			ids[id] = true
		}
		if _, err := scan(values, false); err != nil {
			r.Unreadable = append(r.Unreadable, fmt.Sprintf("%x", hash))
			return nil //nolint:nilerr // the others are looked at too
		}
		r.Payments++
		return nil
	}))
	if err != nil || len(r.Says) == 0 {
		return r, err
	}
	err = say(d.query(ctx, selectIndex, nil, func(values []driver.Value) error {
		hash, _ := values[0].([]byte)
		if id, _ := values[1].(int64); !seen[string(hash)] && !ids[id] {
			r.Missing = append(r.Missing, fmt.Sprintf("%x", hash))
		}
		return nil
	}))
	return r, err
}

// all says whether every payment could be read.
func (r Report) all() bool { return !r.broken && len(r.Unreadable)+len(r.Missing) == 0 }

// Verify looks at everything in the ledger, which another process may be writing.
func (r *Reader) Verify(ctx context.Context) (Report, error) { return r.file.verify(ctx) }
