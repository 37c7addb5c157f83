package postgres

import (
	"maps"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// holder is who got a claim here.
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
		l.holders[c.key] = holder{token, time.Now().Add(c.row.Lease.Sub(now))}
	case token != c.token && l.holders[c.key].token == c.token: // the caller was the holder
		delete(l.holders, c.key)
	}
}

// live forgets the claims that nobody has ended, and says whether there are others.
func (l *Ledger) live() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
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
