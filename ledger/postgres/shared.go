package postgres

import "github.com/caddy-paywall/caddy-paywall/ledger"

// HeldHere says whether a payment is held by a call to this ledger, and not by
// another gateway, which may be dead until the lease ends. A payment whose
// holder is done is held no more only after the database has it so.
func (l *Ledger) HeldHere(key ledger.Key) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.held.rows[key]
	return ok
}
