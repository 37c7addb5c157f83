package paywall

import (
	"sync"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

const (
	// rememberFor is how long the gate remembers at least how a payer fared,
	// unless too many others come; it forgets after twice as long.
	rememberFor = time.Hour
	// rememberMost is how many payers a set remembers at most, twice.
	rememberMost = 1 << 13
)

var (
	// defaulters are payers whose settlement was refused after the upstream had
	// run for them: they signed what then could not be settled. Next time they
	// pay first.
	defaulters = &payers{}
	// customers are payers whose money has moved and none of whose payments was
	// refused since. What they bring is not on trial.
	customers = &payers{}
)

// payers is a set of payers that forgets, in bounded memory. It keeps two
// generations, and drops the older one when the younger is full or old.
// Forgetting is harmless: it is the process's memory of manners and not of money.
type payers struct {
	mu             sync.Mutex
	younger, older map[string]struct{}
	since          time.Time // of the younger generation
}

// add remembers a payer, spelled as package x402 does; "" is nobody.
func (s *payers) add(payer string, now time.Time) {
	if payer == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.age(now)
	if s.younger == nil || len(s.younger) >= rememberMost {
		s.older, s.younger, s.since = s.younger, make(map[string]struct{}), now
	}
	s.younger[payer] = struct{}{}
}

// remove forgets a payer.
func (s *payers) remove(payer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.younger, payer)
	delete(s.older, payer)
}

// has says whether a payer is remembered.
func (s *payers) has(payer string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.age(now)
	_, young := s.younger[payer]
	_, old := s.older[payer]
	return young || old
}

// age drops what is too old.
func (s *payers) age(now time.Time) {
	switch old := now.Sub(s.since); {
	case s.younger == nil, old < rememberFor:
	case old < 2*rememberFor:
		s.older, s.younger, s.since = s.younger, make(map[string]struct{}), now
	default:
		s.older, s.younger, s.since = nil, make(map[string]struct{}), now
	}
}

// remember learns from a settlement how the payer fares. A refusal after doubt
// proves nothing.
func (p *purchase) remember(o facilitator.Outcome) {
	switch row := p.held.Payment; {
	case o == facilitator.Settled && p.proven && !nothingDue(p.request):
		customers.add(p.auth.Payer, p.h.now())
	case o == facilitator.Refused && !row.Doubt:
		customers.remove(p.auth.Payer)
		if p.status != 0 { // the upstream has run
			defaulters.add(p.auth.Payer, p.h.now())
		}
	}
}
