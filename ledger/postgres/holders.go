package postgres

import (
	"maps"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// holder is who got a claim here.
type holder struct {
	row // as it was last written, so that his next call need not read it
	// until is when the lease is over by the clock of this machine, about.
	until time.Time
}

// guess fills in the row of a call, if it is likely known: most payments are new, and most
// other calls come from those who hold one.
func (l *Ledger) guess(c *call, r *row) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, held := l.holders[c.key]
	if held = held && h.token == c.token; held {
		*r = h.row
	}
	r.guessed = c.anew || held
	return r.guessed
}

// noteHolder learns from a call that the database has, and from the row as it is then.
func (l *Ledger) noteHolder(c *call, r *row, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case c.err == nil && r.token == c.token:
		l.holders[c.key] = holder{row{payment: r.payment, token: r.token, version: r.version}, time.Now().Add(c.row.Lease.Sub(now))}
	case r.token != c.token && l.holders[c.key].token == c.token: // the caller was the holder
		delete(l.holders, c.key)
	}
}

// live forgets the claims that nobody has ended, and says whether there are others.
func (l *Ledger) live() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(l.stuck, func(_ string, until time.Time) bool { return now.After(until) })
	maps.DeleteFunc(l.holders, func(_ ledger.Key, h holder) bool { return now.After(h.until) })
	return len(l.holders) > 0
}

// HeldHere says whether a payment is held by a call to this ledger, and not by
// another gateway, which may be dead until the lease ends. A payment whose
// holder is done is held no more only after the database has it so.
func (l *Ledger) HeldHere(key ledger.Key) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.holders[key].until)
}
