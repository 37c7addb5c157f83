package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// pageRows is how many rows a query of List returns.
const pageRows = 256

// database reads the file, for the ledger and for readers in other processes.
type database struct {
	*connection
	salt []byte // the key of the hashes of queries
}

// openDatabase opens the database at path, which is one of this version, for
// reading.
func openDatabase(path, mode string, pragmas ...string) (*database, error) {
	c, err := connect(path, mode, pragmas...)
	if err != nil {
		return nil, err
	}
	d := &database{connection: c}
	found, err := d.one("SELECT value FROM meta WHERE name = 'salt'", nil, &d.salt)
	if n := len(d.salt) - 8; err == nil && (!found || n < 0 || binary.LittleEndian.Uint64(d.salt[n:]) != crc64.Checksum(d.salt[:n], crcs)) {
		err = fmt.Errorf("%w: it has no salt, or not the one that was written; restore a backup", errDamaged)
	} else if err == nil {
		d.salt = d.salt[:n:n]
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// changes is how many changes the file has had; see mark.
func (d *database) changes() (int64, error) {
	var b []byte
	if found, err := d.one("SELECT value FROM meta WHERE name = 'changes'", nil, &b); err != nil || !found {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: its count of changes is %x; %s", errDamaged, b, remedy)
	}
	return int64(binary.LittleEndian.Uint64(b)), nil //nolint:gosec // its bits
}

// hashQuery is the URL as finished payments may have it.
func (d *database) hashQuery(url string) string { return ledger.HashQuery(d.salt, url) }

// rows returns the rows of payments that a query selects.
func (d *database) rows(ctx context.Context, text string, args ...any) (all []stored, err error) {
	err = d.query(ctx, text, args, func(values []driver.Value) error {
		s, err := scan(values, strings.HasPrefix(text, selectBrief))
		all = append(all, s)
		return err
	})
	return all, err
}

const selectHas = "SELECT 1 FROM payments WHERE hash = ?"

// get returns the row of a key; its id is 0 if there is none. Nearly all that are claimed
// are new, and to see that takes a fraction of the time that a row takes.
func (d *database) get(ctx context.Context, key ledger.Key) (stored, error) {
	hash := digestOf(key)
	if found, err := d.one(selectHas, []any{hash[:]}); err != nil || !found {
		return stored{}, err
	}
	all, err := d.rows(ctx, selectRow+" WHERE payments.hash = ?", hash[:])
	if err == nil && len(all) == 0 { // it was removed meanwhile, or the index alone has it
		var found bool
		if found, err = d.one(selectHas, []any{hash[:]}); err == nil && found {
			err = fmt.Errorf("%w: it has no row of payment %x; see `caddy paywall payments verify`", errDamaged, hash)
		}
	}
	if err != nil || len(all) == 0 {
		return stored{}, err
	}
	if all[0].payment.Key != key {
		return stored{}, errors.New("there is a payment of another key with this ID")
	}
	return all[0], nil
}

// lastID returns the largest id that a row has, or 0.
func (d *database) lastID() (id int64, err error) {
	_, err = d.one("SELECT coalesce(max(id), 0) FROM payments", nil, &id)
	return id, err
}

// selectOpen reads along the index of states, which has few rows.
const selectOpen = `SELECT payer, method, host, url FROM payments
	WHERE state IN ('settling', 'settled', 'delivering', 'unknown') AND state <> 'delivered'`

// open calls f for each row that is open, with what was bought.
func (d *database) open(f func(ledger.Purchase)) error {
	return d.query(context.Background(), selectOpen, nil, func(values []driver.Value) error {
		var p ledger.Purchase
		err := read(values, &p.Payer, &p.Method, &p.Host, &p.URL)
		f(p)
		return err
	})
}

// list yields the rows that the filter selects with an id up to last, oldest first, in
// pages. A payment that is claimed while it goes on gets a larger id.
func (d *database) list(ctx context.Context, f ledger.Filter, last int64) iter.Seq2[stored, error] {
	return d.pages(ctx, f, last, false)
}

// pages is list, or the same the other way round.
func (d *database) pages(ctx context.Context, f ledger.Filter, last int64, newestFirst bool) iter.Seq2[stored, error] {
	return func(yield func(stored, error) bool) {
		first, last := int64(math.MinInt64), last
		for more := true; more; {
			text, args := d.selects(f, first, last)
			if text == "" {
				return
			}
			if newestFirst {
				text += " DESC"
			}
			page, err := d.rows(ctx, text+" LIMIT "+strconv.Itoa(pageRows), args...)
			if err != nil {
				yield(stored{}, unavailable(ctx, err))
				return
			}
			for _, s := range page {
				if newestFirst {
					last = s.id - 1
				} else {
					first = s.id
				}
				if !yield(s, nil) {
					return
				}
			}
			more = len(page) == pageRows
		}
	}
}

// selects is the query for what the filter selects of the rows after one up to another, by
// their ids, or "" if that can only be nothing.
func (d *database) selects(f ledger.Filter, after, last int64) (text string, args []any) {
	columns := selectRow
	if f.Brief {
		columns = selectBrief
	}
	// No row of the file is claimed.
	states := slices.DeleteFunc(slices.Clone(f.States), func(s ledger.State) bool { return s == ledger.Claimed })
	slices.Sort(states)
	states = slices.Compact(states)
	if len(f.States) > 0 && len(states) == 0 {
		return "", nil
	}
	// The indexes of states and payers do not have the delivered ones.
	indexed := len(states) > 0 && !slices.Contains(states, ledger.Delivered)
	parts := [][]ledger.State{states}
	if indexed && f.Payer == "" && f.Identifier == "" { // each state along its index; SQLite merges them
		parts = slices.Collect(slices.Chunk(states, 1))
	}
	var selects []string
	for _, states := range parts {
		terms := []string{"payments.id > ? AND payments.id <= ?"}
		args = append(args, after, last)
		where := func(term string, with ...any) { terms, args = append(terms, term), append(args, with...) }
		// A plus keeps an index away that has more rows than another.
		state, payer := "+state", "+payer"
		if indexed {
			where("state <> 'delivered'")
			if f.Identifier == "" && f.Payer != "" {
				payer = "payer"
			} else if f.Identifier == "" {
				state = "state"
			}
		}
		if len(states) > 0 {
			where(state + " IN (?" + strings.Repeat(", ?", len(states)-1) + ")")
			for _, s := range states {
				args = append(args, string(s))
			}
		}
		if f.Identifier != "" {
			where("identifier = ? AND identifier <> ''", f.Identifier)
		}
		if f.Payer != "" {
			where(payer+" = ?", f.Payer)
		}
		if f.Method != "" {
			where("method = ?", f.Method)
		}
		if f.Host != "" {
			where("host = ?", f.Host)
		}
		if f.URL != "" {
			where("url IN (?, ?)", f.URL, d.hashQuery(f.URL))
		}
		if !f.Since.IsZero() { // an id is never less than created
			where("payments.id >= ? AND created >= ?", nanos(f.Since), nanos(f.Since))
		}
		if !f.Until.IsZero() {
			where("created < ?", nanos(f.Until))
		}
		selects = append(selects, columns+" WHERE "+strings.Join(terms, " AND "))
	}
	return strings.Join(selects, " UNION ALL ") + " ORDER BY payments.id", args
}

// List implements ledger.Ledger. What is claimed after it has begun is not in
// it. Filter.URL also finds what HashQueries has hashed.
func (l *Ledger) List(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Payment, error] {
	return func(yield func(ledger.Payment, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(ledger.Payment{}, err)
			return
		}
		l.mu.Lock()
		if err := l.usable(); err != nil {
			l.mu.Unlock()
			yield(ledger.Payment{}, err)
			return
		}
		hashed := l.file.hashQuery(f.URL)
		rows, alone := l.rows.find(f, hashed)
		last := l.lastID
		if alone && len(rows) == 0 { // as nearly always when a gate asks
			l.mu.Unlock()
			return
		}
		inMemory := make(map[ledger.Key]bool, len(rows))
		for _, r := range rows {
			inMemory[r.payment.Key] = true
		}
		l.mu.Unlock()
		left := f.Limit
		give := func(p ledger.Payment) bool {
			left--
			return yield(p, nil) && left != 0
		}
		giveUntil := func(id int64) bool { // the rows in memory before another
			for ; len(rows) > 0 && rows[0].id < id; rows = rows[1:] {
				if p, ok := l.selected(rows[0], f, hashed); ok && !give(p) {
					return false
				}
			}
			return true
		}
		if !alone {
			for s, err := range l.lists.list(ctx, f, last) {
				if err != nil {
					yield(ledger.Payment{}, err)
					return
				}
				if !inMemory[s.payment.Key] && (!giveUntil(s.id) || !give(s.payment)) {
					return
				}
			}
		}
		giveUntil(math.MaxInt64)
	}
}

// selected returns a copy of a row in memory, if the filter selects it as it is now.
func (l *Ledger) selected(r *row, f ledger.Filter, hashed string) (ledger.Payment, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := r.payment
	if r.gone && p.State == ledger.Claimed || !matches(f, hashed, p) { // gone: let go, or claimed anew
		return ledger.Payment{}, false
	}
	return f.Copy(p), true
}
