package sqlite

import (
	"context"
	"iter"
	"slices"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// List implements ledger.Ledger. What is claimed after it has begun is not in
// it. Filter.URL also finds what HashQueries has hashed.
func (l *Ledger) List(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Payment, error] {
	return func(yield func(ledger.Payment, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(ledger.Payment{}, err)
			return
		}
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			yield(ledger.Payment{}, errClosed)
			return
		}
		rows := l.rows.find(f)
		inMemory := l.rows.inMemory(f)
		if len(rows) == 0 && inMemory { // as nearly always when a gate asks
			l.mu.Unlock()
			return
		}
		begun := beginning{listed: make(map[digest]bool, len(rows)), version: l.journal.last(), order: l.rows.order}
		for _, r := range rows {
			begun.listed[r.key] = true
		}
		l.mu.Unlock()

		sources := []*source{{next: l.memoryPages(f, rows)}}
		if !inMemory {
			for _, state := range split(f) {
				sources = append(sources, &source{next: l.databasePages(f, state, begun)})
			}
		}
		merge(ctx, sources, f.Limit, yield)
	}
}

// beginning is what was in memory when a List began.
type beginning struct {
	listed  map[digest]bool // rows that it has from memory
	version uint64          // the latest record
	order   uint64          // the latest claim
}

// databasePages returns the rows of the database that the filter selects and
// that are not in memory, where their latest version is.
func (l *Ledger) databasePages(f ledger.Filter, state ledger.State, begun beginning) func(context.Context) ([]ledger.Payment, bool, error) {
	var at cursor
	return func(ctx context.Context) (page []ledger.Payment, more bool, err error) {
		const tries = 10
		for try := range tries {
			l.mu.Lock()
			evicted := l.rows.evicted
			l.mu.Unlock()
			from := at
			rows, more, err := l.db.page(ctx, f, state, &from)
			if err != nil {
				return nil, false, err
			}
			l.mu.Lock()
			if l.rows.evicted != evicted && try < tries-1 {
				l.mu.Unlock()
				continue // what is not in memory now may have been so while we read
			}
			for _, row := range rows {
				present := l.rows.all[row.payment.Key]
				if begun.listed[row.key] || row.version > begun.version || present != nil && present.order <= begun.order {
					continue
				}
				page = append(page, row.payment)
			}
			l.mu.Unlock()
			at = from
			return page, more, nil
		}
		return page, false, nil
	}
}

// memoryPages returns copies of the rows that the filter selects, in parts, each
// from a time under the lock.
func (l *Ledger) memoryPages(f ledger.Filter, rows []*row) func(context.Context) ([]ledger.Payment, bool, error) {
	hashed := f
	hashed.URL = l.db.hashQuery(f.URL)
	return func(context.Context) (page []ledger.Payment, more bool, err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		n := min(len(rows), lockedRows)
		for _, r := range rows[:n] {
			if !r.gone(&l.rows) && (f.Match(r.payment) || f.URL != hashed.URL && hashed.Match(r.payment)) {
				page = append(page, copied(r.payment))
			}
		}
		rows = rows[n:]
		return page, len(rows) > 0, nil
	}
}

// gone says whether the row is a claim that was let go, or that another replaced.
func (r *row) gone(t *table) bool {
	return r.version == 0 && t.all[r.payment.Key] != r
}

// source is a sequence of payments, oldest first, that comes in pages.
type source struct {
	next func(context.Context) (page []ledger.Payment, more bool, err error)
	page []ledger.Payment
	over bool
}

// first returns the first payment that is left, or nil.
func (s *source) first(ctx context.Context) (*ledger.Payment, error) {
	for len(s.page) == 0 {
		if s.over {
			return nil, nil //nolint:nilnil // none is no error
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var more bool
		var err error
		if s.page, more, err = s.next(ctx); err != nil {
			return nil, err
		}
		s.over = !more
	}
	return &s.page[0], nil
}

// merge yields what several sources have, oldest first.
func merge(ctx context.Context, sources []*source, limit int, yield func(ledger.Payment, error) bool) {
	for n := 0; limit <= 0 || n < limit; n++ {
		var oldest *source
		for _, s := range sources {
			p, err := s.first(ctx)
			if err != nil {
				yield(ledger.Payment{}, unavailable(ctx, err))
				return
			}
			if p != nil && (oldest == nil || p.Created.Before(oldest.page[0].Created)) {
				oldest = s
			}
		}
		if oldest == nil {
			return
		}
		p := oldest.page[0]
		oldest.page = oldest.page[1:]
		if !yield(p, nil) {
			return
		}
	}
}

// statesOf returns the states that the filter selects, once each.
func statesOf(f ledger.Filter) []ledger.State {
	states := slices.Clone(f.States)
	slices.Sort(states)
	return slices.Compact(states)
}
