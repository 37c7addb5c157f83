package postgres

import (
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// held has the rows whose holders got their claims here, as they were last
// written, so that their next change need not read them. It only saves time: a
// row that has changed since has another revision.
type held struct {
	rows map[ledger.Key]heldRow
	// sweepAt is the number of rows at which the abandoned ones are cleared away.
	sweepAt int
}

type heldRow struct {
	record
	// until is when the lease is over by the clock of this machine, about.
	until time.Time
}

// minSweep is from how many rows on abandoned ones matter.
const minSweep = 1024

func (h *held) find(key ledger.Key, token ledger.Token) (record, bool) {
	r, ok := h.rows[key]
	return r.record, ok && token != "" && r.token == token
}

// put keeps the row if somebody holds it.
func (h *held) put(key ledger.Key, r record) {
	if r.payment.Lease.IsZero() {
		h.drop(key)
		return
	}
	lease := r.payment.Lease.Sub(r.payment.Updated)
	h.rows[key] = heldRow{r, time.Now().Add(lease)}
	if len(h.rows) < h.sweepAt {
		return
	}
	now := time.Now()
	for key, r := range h.rows {
		if now.After(r.until) {
			delete(h.rows, key)
		}
	}
	h.sweepAt = max(minSweep, 2*len(h.rows))
}

func (h *held) drop(key ledger.Key) { delete(h.rows, key) }

// live says whether a lease runs that was given out here.
func (h *held) live() bool {
	now := time.Now()
	for _, r := range h.rows {
		if now.Before(r.until) {
			return true
		}
	}
	return false
}
