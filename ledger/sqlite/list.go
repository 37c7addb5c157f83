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
		inMemory := make(map[digest]bool, len(rows))
		for _, r := range rows {
			inMemory[r.key] = true
		}
		last := l.journal.last()
		l.mu.Unlock()

		sources := []*source{{next: l.memoryPages(f, rows)}}
		if !onlyOpen(f) {
			sources = append(sources, l.db.sources(f, func(r *scanned) bool {
				return r.version > last || inMemory[padded(r.hash)]
			})...)
		}
		merge(ctx, sources, f.Limit, yield)
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
