package sqlite

import (
	"slices"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// What was paid for and is not fetched is never forgotten, and there is no end to
// it. So it leaves memory when its Keep has passed, for nobody asks for it then but
// by its name, or before that where there is no other room. The database has it.

// owedSizeMost is how many bytes of requests and kept answers may stay in memory
// with what is owed.
const owedSizeMost = 64 << 20

// owedRow is a row and the size of what it has kept.
type owedRow struct {
	*row
	size int
}

// idle says whether a row is settled, nobody holds it, and the database has it.
func (r *row) idle() bool {
	return r.payment.State == ledger.Settled && r.payment.Lease.IsZero() && r.token == "" && !r.dirty && r.stored
}

// rests notes a row that may be idle now.
func (t *table) rests(r *row) {
	if r.idle() {
		size := len(r.payment.Request) + len(r.payment.Answer)
		t.owed = append(t.owed, owedRow{r, size})
		t.owedSize += size
	}
}

// evict takes up to n idle rows out of memory, the first of those that became so,
// and says how many it took. With force it does not wait for their Keep.
func (l *Ledger) evict(now time.Time, n int, force bool) (evicted int) {
	t := &l.rows
	for range min(n, len(t.owed)) {
		r := t.owed[0]
		if t.all[r.payment.Key] == r.row && r.idle() {
			if !force && t.owedSize <= owedSizeMost && now.Before(r.payment.Keep) {
				break
			}
			l.filter.add(&r.key)
			t.remove(r.row)
			t.left(&r.payment)
			evicted++
		}
		t.owedSize -= r.size
		t.owed[0] = owedRow{}
		t.owed = t.owed[1:]
	}
	return evicted
}

// left notes an open payment that is in the database alone.
func (t *table) left(p *ledger.Payment) {
	t.evicted++
	if p.Created.After(t.away) {
		t.away = p.Created
	}
}

// evictOld takes all out of memory whose time has come.
func (l *Ledger) evictOld() {
	for n := lockedRows; n == lockedRows; {
		l.mu.Lock()
		n = l.evict(l.now(), lockedRows, false)
		l.mu.Unlock()
	}
}

// inMemory says whether all rows that the filter selects are in memory.
func (t *table) inMemory(f ledger.Filter) bool {
	return onlyOpen(f) && (t.away.IsZero() || f.Since.After(t.away) || !slices.Contains(f.States, ledger.Settled))
}
