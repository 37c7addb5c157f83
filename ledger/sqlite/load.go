package sqlite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// found is a row as it was left.
type found struct {
	payment ledger.Payment
	version uint64 // of its latest record
	from    uint64 // the first record that the database may not have
	stored  bool
}

// replay reads the journal over what the database has.
type replay struct {
	disk disk
	db   *database
	rows map[digest]*found
	// complete is the number up to which the database has all.
	complete uint64
	// next is the number of the record after the last one.
	next uint64
	// segments are those that were read, and empty those that were not begun.
	segments []closedSegment
	empty    []string
	number   uint64 // of the latest file
}

// journalPrefix is what the names of a ledger's segments begin with.
func journalPrefix(path string) string { return path + ".log-" }

// advice is for a person whose ledger does not open.
const advice = "; restore a backup, or move all files %s* to another place: the ledger then starts with what the database has, which is some seconds older, and payments of those seconds must be looked up on the chain"

// journal reads all segments that matter.
func (r *replay) journal(ctx context.Context, path string) error {
	err := r.read(ctx, path)
	if errors.Is(err, errDamaged) || errors.Is(err, errRecord) {
		return fmt.Errorf("%w"+advice, err, journalPrefix(path))
	}
	return err
}

func (r *replay) read(ctx context.Context, path string) error {
	prefix := journalPrefix(path)
	names, err := r.disk.Glob(prefix)
	if err != nil {
		return err
	}
	if r.complete, err = r.db.number(ctx, metaComplete); err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		n, err := strconv.ParseUint(name[len(prefix):], 16, 64)
		r.number = max(r.number, n)
		return err != nil
	})
	// What counts begins with the last segment before which nothing is missing
	// from the database.
	begin := -1
	for i, name := range names {
		head, err := r.disk.ReadHead(name, headerSize)
		if err != nil {
			return err
		}
		h, begun, ok := readHeader(head)
		switch {
		case !begun:
			r.empty = append(r.empty, name)
			names[i] = ""
		case ok && (h.flags&flagAnew != 0 || h.first <= r.complete+1):
			begin = i
		}
	}
	if begin < 0 {
		for _, name := range names {
			if name != "" {
				return fmt.Errorf("%w: the segment before %s is missing", errDamaged, filepath.Base(name))
			}
		}
		return nil
	}
	for i, name := range names {
		if name == "" {
			continue
		}
		if i < begin {
			r.segments = append(r.segments, closedSegment{name: name})
			continue
		}
		if err := r.segment(ctx, name, i > begin); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(name), err)
		}
	}
	return nil
}

// segment reads one segment.
func (r *replay) segment(ctx context.Context, name string, follows bool) error {
	b, err := r.disk.ReadFile(name)
	if err != nil {
		return err
	}
	h, _, ok := readHeader(b)
	switch {
	case !ok:
		return fmt.Errorf("%w: its header is unreadable", errDamaged)
	case h.database != r.db.id:
		return fmt.Errorf("%w: it belongs to another database", errDamaged)
	case follows && h.previous != r.next:
		return fmt.Errorf("%w: it follows record %d, and the one before it ends with %d", errDamaged, h.previous-1, r.next-1)
	}
	r.next, err = readFrames(b[headerSize:], h.first, func(number uint64, rec record) error {
		return r.record(ctx, number, rec)
	})
	r.segments = append(r.segments, closedSegment{name, r.next - 1})
	return err
}

func (r *replay) record(ctx context.Context, number uint64, rec record) error {
	f := r.rows[rec.key]
	if f == nil {
		f = &found{}
		r.rows[rec.key] = f
		if rec.row == nil {
			var err error
			f.payment, f.version, err = r.db.getVersion(ctx, &rec.key)
			if errors.Is(err, ledger.ErrNotFound) && number <= r.complete {
				delete(r.rows, rec.key) // it was removed since: see prune
				return nil
			}
			if errors.Is(err, ledger.ErrNotFound) {
				return fmt.Errorf("%w: it changes a payment that is not known", errDamaged)
			}
			if err != nil {
				return err
			}
			f.stored = true
		}
	}
	if number <= f.version {
		return nil
	}
	if f.from == 0 {
		f.from = number
	}
	f.version = number
	if rec.row != nil {
		f.payment = *rec.row
		return nil
	}
	return rec.apply(&f.payment)
}

// reconcile leaves out of the rows what the database has, in this version or a
// later one.
func (r *replay) reconcile(ctx context.Context) error {
	for key, f := range r.rows {
		if f.from == 0 && f.payment.State.Open() {
			continue
		}
		_, version, err := r.db.getVersion(ctx, &key)
		switch {
		case errors.Is(err, ledger.ErrNotFound):
		case err != nil:
			return err
		case version >= f.version:
			delete(r.rows, key)
		default:
			f.stored = true
		}
	}
	return nil
}

// load fills memory from the files and begins the journal.
func (l *Ledger) load(ctx context.Context) error {
	l.rows, l.filter = newTable(), &filter{}
	r := &replay{disk: l.disk, db: l.db, rows: make(map[digest]*found)}
	begin := time.Now()
	// The journal first: where the database is ahead of it, it is right.
	if err := r.journal(ctx, l.path); err != nil {
		return err
	}
	if err := r.reconcile(ctx); err != nil {
		return err
	}
	now := l.now()
	if err := l.db.open(ctx, func(p ledger.Payment, version uint64) {
		key := digestOf(p.Key)
		switch {
		case r.rows[key] != nil:
		case p.State == ledger.Settled && !now.Before(p.Keep):
			l.rows.left(&p)
		default:
			r.rows[key] = &found{payment: p, version: version, stored: true}
		}
	}); err != nil {
		return err
	}
	l.remember(r.rows)

	var next uint64
	for _, name := range []string{metaVersion, metaComplete} {
		n, err := l.db.number(ctx, name)
		if err != nil {
			return err
		}
		next = max(next, n+1)
	}
	next = max(next, r.next)
	if len(r.segments) == 0 {
		if _, err := l.db.complete.ExecContext(ctx, metaComplete, metaNumber(next-1)); err != nil {
			return err
		}
	}
	for _, name := range r.empty {
		if err := l.disk.Remove(name); err != nil {
			return err
		}
	}
	l.journal = newJournal(&segments{
		disk: l.disk, prefix: journalPrefix(l.path), database: l.db.id, size: l.segment,
		number: r.number, end: r.next, full: r.segments, written: next - 1,
	}, next)
	l.logger.Info("ledger open", zap.String("file", l.path), zap.Int("payments", len(r.rows)),
		zap.Int("segments", len(r.segments)), zap.Duration("took", time.Since(begin)))
	return nil
}

// remember puts rows into memory. Nobody holds them: those who did were
// in a process that is gone.
func (l *Ledger) remember(rows map[digest]*found) {
	keys := make([]digest, 0, len(rows))
	for key := range rows {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b digest) int {
		return cmp.Or(rows[a].payment.Created.Compare(rows[b].payment.Created), slices.Compare(a[:], b[:]))
	})
	for _, key := range keys {
		f := rows[key]
		f.payment.Lease = time.Time{}
		r := &row{payment: f.payment, key: key, stored: f.stored}
		l.rows.add(r)
		r.version = f.version
		if f.from != 0 {
			l.rows.soil(r, f.version)
			r.from = f.from
		}
		l.rows.rests(r)
	}
	l.behind.Store(int64(l.rows.queued))
}

// open calls f with all rows that are not finished.
func (d *database) open(ctx context.Context, f func(p ledger.Payment, version uint64)) error {
	for _, s := range ledger.States() {
		if !s.Open() {
			continue
		}
		rows, err := d.read.QueryContext(ctx, selectRow+" WHERE state = ? AND state <> 'delivered'", s)
		if err != nil {
			return err
		}
		err = each(rows, func(r *scanned, p ledger.Payment) { f(p, r.version) })
		if err != nil {
			return err
		}
	}
	return nil
}
