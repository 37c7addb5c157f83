package memory

import (
	"context"
	"iter"
	"slices"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// page is how many rows List looks at under one lock: few enough that a request
// does not notice a List over a million.
const page = 256

// byAge links all rows in the order in which they were claimed.
type byAge struct {
	first, last *row
	count       uint64
}

// ageLinks are a row's links in byAge. A row that was removed keeps its next, so
// that a List that stands on it finds the way on.
type ageLinks struct {
	prev, next *row
	// number counts the claims. It is not Created, which may go back with the
	// clock.
	number uint64
	gone   bool
}

func (a *byAge) push(r *row) {
	a.count++
	r.age = ageLinks{prev: a.last, number: a.count}
	if a.last == nil {
		a.first = r
	} else {
		a.last.age.next = r
	}
	a.last = r
}

func (a *byAge) remove(r *row) {
	prev, next := r.age.prev, r.age.next
	if prev == nil {
		a.first = next
	} else {
		prev.age.next = next
	}
	if next == nil {
		a.last = prev
	} else {
		next.age.prev = prev
	}
	r.age.prev, r.age.gone = nil, true
}

// index finds the rows that are not finished: the few that a gateway asks for with every
// payment (what has this payer under way for this request?) and a reconciler all the time.
type index map[ledger.Purchase]*row

// openLinks link the rows of one purchase that are not finished.
type openLinks struct {
	prev, next *row
}

func (x index) add(r *row) {
	if r.payment.State.Finished() {
		return
	}
	key := r.payment.Purchase()
	if next := x[key]; next != nil {
		r.open.next, next.open.prev = next, r
	}
	x[key] = r
}

// remove must come before a change of the row.
func (x index) remove(r *row) {
	if r.payment.State.Finished() {
		return
	}
	prev, next := r.open.prev, r.open.next
	if next != nil {
		next.open.prev = prev
	}
	switch key := r.payment.Purchase(); {
	case prev != nil:
		prev.open.next = next
	case next != nil:
		x[key] = next
	default:
		delete(x, key)
	}
	r.open = openLinks{}
}

// find returns the rows that are not finished and that the filter may select, oldest first.
func (x index) find(f ledger.Filter) []*row {
	var found []*row
	collect := func(r *row) {
		for ; r != nil; r = r.open.next {
			found = append(found, r)
		}
	}
	if key, ok := f.Purchase(); ok {
		collect(x[key])
	} else {
		for _, r := range x {
			collect(r)
		}
	}
	slices.SortFunc(found, func(a, b *row) int {
		if a.age.number < b.age.number {
			return -1
		}
		return 1
	})
	return found
}

// List implements ledger.Ledger. What is claimed after it has begun is not in it.
func (l *Ledger) List(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Payment, error] {
	return func(yield func(ledger.Payment, error) bool) {
		left := f.Limit
		for selected := range l.pages(f) {
			if err := ctx.Err(); err != nil {
				yield(ledger.Payment{}, err)
				return
			}
			for _, p := range selected {
				if !yield(p, nil) {
					return
				}
				if left--; left == 0 {
					return
				}
			}
		}
	}
}

// pages returns what the filter selects in parts, each from a time under the
// lock. The first may be empty, but comes.
func (l *Ledger) pages(f ledger.Filter) iter.Seq[[]ledger.Payment] {
	if f.Unfinished() {
		return l.openPages(f)
	}
	return l.allPages(f)
}

func (l *Ledger) openPages(f ledger.Filter) iter.Seq[[]ledger.Payment] {
	return func(yield func([]ledger.Payment) bool) {
		l.mu.Lock()
		found := l.open.find(f)
		l.mu.Unlock()
		if len(found) == 0 {
			yield(nil)
			return
		}
		for rows := range slices.Chunk(found, page) {
			var selected []ledger.Payment
			l.mu.Lock()
			for _, r := range rows {
				selected = r.selected(f, selected)
			}
			l.mu.Unlock()
			if !yield(selected) {
				return
			}
		}
	}
}

func (l *Ledger) allPages(f ledger.Filter) iter.Seq[[]ledger.Payment] {
	return func(yield func([]ledger.Payment) bool) {
		l.mu.Lock()
		r, end := l.all.first, l.all.count
		l.mu.Unlock()
		for {
			var selected []ledger.Payment
			l.mu.Lock()
			for range page {
				if r == nil || r.age.number > end {
					r = nil
					break
				}
				selected = r.selected(f, selected)
				r = r.age.next
			}
			l.mu.Unlock()
			if !yield(selected) || r == nil {
				return
			}
		}
	}
}

// selected adds a copy of the row to the selected ones if the filter selects it.
func (r *row) selected(f ledger.Filter, selected []ledger.Payment) []ledger.Payment {
	if r.age.gone || !f.Match(r.payment) {
		return selected
	}
	return append(selected, f.Copy(r.payment))
}
