package postgres

import (
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// minSweep is from how many claims on abandoned ones matter.
const minSweep = 1024

// holders are the claims that were given out here.
type holders struct {
	rows map[ledger.Key]holder
	// sweepAt is the number of claims at which the abandoned ones are cleared away.
	sweepAt int
}

type holder struct {
	token ledger.Token
	// until is when the lease is over by the clock of this machine, about.
	until time.Time
}

// noteHolder learns from a call that the database has, and from the token of the row then.
func (l *Ledger) noteHolder(c *call, token ledger.Token, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case c.err == nil && token == c.token:
		l.holders.put(c.key, holder{token, time.Now().Add(c.row.Lease.Sub(now))})
	case token != c.token && l.holders.rows[c.key].token == c.token: // the caller was the holder
		delete(l.holders.rows, c.key)
	}
}

func (h *holders) put(key ledger.Key, one holder) {
	h.rows[key] = one
	if len(h.rows) < h.sweepAt {
		return
	}
	now := time.Now()
	for key, one := range h.rows {
		if now.After(one.until) {
			delete(h.rows, key)
		}
	}
	h.sweepAt = max(minSweep, 2*len(h.rows))
}

// live says whether a lease runs that was given out here.
func (h *holders) live() bool {
	now := time.Now()
	for _, one := range h.rows {
		if now.Before(one.until) {
			return true
		}
	}
	return false
}

// HeldHere says whether a payment is held by a call to this ledger, and not by
// another gateway, which may be dead until the lease ends. A payment whose
// holder is done is held no more only after the database has it so.
func (l *Ledger) HeldHere(key ledger.Key) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.holders.rows[key].until)
}
