package sqlite

import (
	"context"
	"iter"

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
		hashed := l.file.hashQuery(f.URL)
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			yield(ledger.Payment{}, errClosed)
			return
		}
		rows, alone := l.rows.rows(f, hashed)
		if len(rows) == 0 && alone { // as nearly always when a gate asks
			l.mu.Unlock()
			return
		}
		inMemory := make(map[digest]bool, len(rows))
		for _, r := range rows {
			inMemory[r.row.hash] = true
		}
		last := l.lastID
		l.mu.Unlock()

		sources := []*source{{next: l.memoryPages(f, hashed, rows)}}
		if !alone {
			sources = append(sources, l.file.sources(f, last, inMemory)...)
		}
		merge(ctx, sources, f.Limit, yield)
	}
}

// sources are what the file has of a filter, but for some rows.
func (d *database) sources(f ledger.Filter, last int64, but map[digest]bool) (all []*source) {
	for _, state := range split(f) {
		var at cursor
		all = append(all, &source{next: func(ctx context.Context) (page []ledger.Payment, more bool, err error) {
			rows, more, err := d.page(ctx, f, state, last, &at)
			for _, s := range rows {
				if !but[s.hash] {
					page = append(page, s.payment)
				}
			}
			return page, more, err
		}})
	}
	return all
}

// memoryPages returns copies of the rows that the filter selects, in parts, each
// from a time under the lock.
func (l *Ledger) memoryPages(f ledger.Filter, hashed string, rows []listed) func(context.Context) ([]ledger.Payment, bool, error) {
	return func(context.Context) (page []ledger.Payment, more bool, err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		n := min(len(rows), lockedRows)
		for _, r := range rows[:n] {
			// A claim that was let go, or that another replaced, is not there any more.
			p := r.row.payment
			if (r.row.id != 0 || !r.row.gone) && p.Created.Equal(r.created) && matches(f, hashed, p) {
				page = append(page, f.Copy(p))
			}
		}
		rows = rows[n:]
		return page, len(rows) > 0, nil
	}
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
