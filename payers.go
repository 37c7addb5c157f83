package paywall

import (
	"cmp"
	"sync"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	// rememberFor is how long the gate remembers at least how a payer fared,
	// unless too many others come; it forgets after twice as long.
	rememberFor = time.Hour
	// rememberMost is how many payers a memory holds at most, twice.
	rememberMost = 1 << 13
)

var (
	// distrusted are payers who pay first for a while: their settlement was refused
	// after the upstream had run for them, or they had too much for nothing.
	distrusted = &payers{}
	// trusted are payers whose money has moved lately.
	trusted = &payers{}
	// tabs are what payers have had of upstreams without being charged.
	tabs = &recent[tab]{}
)

// recent remembers something of payers, in bounded space. It keeps two generations,
// and drops the older one when the younger is full or old. To forget is harmless:
// no money is remembered here.
type recent[T any] struct {
	mu             sync.Mutex
	younger, older map[string]T
	since          time.Time // of the younger generation
}

// put remembers something of a payer, spelled as package x402 does; "" is nobody.
func (s *recent[T]) put(payer string, what T, now time.Time) {
	s.update(payer, now, func(t *T) { *t = what })
}

// update changes what is remembered of a payer, which is the zero value at first.
func (s *recent[T]) update(payer string, now time.Time, change func(*T)) {
	if payer == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.age(now)
	what, ok := s.younger[payer]
	if !ok {
		what = s.older[payer]
		if s.younger == nil || len(s.younger) >= rememberMost {
			s.older, s.younger, s.since = s.younger, make(map[string]T), now
		}
	}
	change(&what)
	s.younger[payer] = what
}

// get returns what is remembered of a payer.
func (s *recent[T]) get(payer string, now time.Time) (what T, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.age(now)
	if what, ok = s.younger[payer]; !ok {
		what, ok = s.older[payer]
	}
	return what, ok
}

// remove forgets a payer.
func (s *recent[T]) remove(payer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.younger, payer)
	delete(s.older, payer)
}

// age drops what is too old.
func (s *recent[T]) age(now time.Time) {
	switch old := now.Sub(s.since); {
	case s.younger == nil, old < rememberFor:
	case old < 2*rememberFor:
		s.older, s.younger, s.since = s.younger, make(map[string]T), now
	default:
		s.older, s.younger, s.since = nil, make(map[string]T), now
	}
}

// payers is a set of payers that forgets.
type payers struct{ recent[struct{}] }

func (s *payers) add(payer string, now time.Time) { s.put(payer, struct{}{}, now) }

func (s *payers) has(payer string, now time.Time) bool {
	_, ok := s.get(payer, now)
	return ok
}

// Upstreams work for nothing where their answer costs nothing, or where the payer
// leaves before it comes. A payer may have some of both; then he pays first.
const (
	// maxUncharged is how much a payer may have since he was charged last.
	maxUncharged = 50
	// costOfHangUp is what leaving before the answer counts for, where an answer
	// that costs nothing counts for one.
	costOfHangUp = 10
	// freeHangUps is how often a payer may leave before the answer that he has paid
	// for, and come again at once. After that he waits, twice as long each time.
	freeHangUps = 3
	// freeFetches is the same for fetching what the upstream then does not give.
	freeFetches = maxUncharged
	longestWait = time.Minute
)

// tab is what a payer has had without being charged.
type tab struct {
	uncharged int
	hangUps   int       // on what was paid for
	fetches   int       // of what was paid for, that gave nothing
	next      time.Time // no fetching of what is owed before
	why       x402.Code
}

// addUncharged writes an upstream's work down that nobody is charged for.
func addUncharged(payer string, cost int, now time.Time) {
	over := false
	tabs.update(payer, now, func(t *tab) {
		t.uncharged += cost
		if over = t.uncharged >= maxUncharged; over {
			t.uncharged = 0
		}
	})
	if over {
		distrusted.add(payer, now)
	}
}

// addHangUp writes down that a payer has left before an answer that he had paid for.
func addHangUp(payer string, now time.Time) {
	tabs.update(payer, now, func(t *tab) {
		t.hangUps++
		t.wait(t.hangUps-freeHangUps+1, codeTooManyHangUps, now)
	})
}

// addFetch writes down that the upstream has run for what a payer had paid for, and gave
// nothing that counts.
func addFetch(payer string, now time.Time) {
	tabs.update(payer, now, func(t *tab) {
		t.fetches++
		t.wait(t.fetches-freeFetches+1, codeTooManyFetches, now)
	})
}

// wait makes a payer wait who has done something so often more than he may.
func (t *tab) wait(over int, why x402.Code, now time.Time) {
	if over > 0 {
		t.next, t.why = now.Add(min(time.Second<<min(over, 20), longestWait)), why
	}
}

// waitToFetch is how long a payer waits before he can fetch what is owed to him, and why.
func waitToFetch(payer string, now time.Time) (wait time.Duration, why x402.Code) {
	t, _ := tabs.get(payer, now)
	return max(0, t.next.Sub(now)), t.why
}

// tabFor names the tab of a payment: its payer's, or its own where nobody knows him.
func (p *purchase) tabFor(row ledger.Payment) string {
	return cmp.Or(p.auth.Payer, row.Payer, string(row.Key))
}

// customer is a payer as a settlement leaves its mark on him, which may end when nobody
// waits for it any more.
type customer struct {
	payer  string // "" is nobody
	wallet string // his name as one whose signature is proven, or else the wallet here
	tab    string
	ran    bool // the upstream has run for him
	free   bool // nothing is due
	doubt  bool // it is not the first time that the money is asked for
	try    *try
	now    func() time.Time
}

func (p *purchase) customer() customer {
	c := customer{
		payer: p.auth.Payer, wallet: p.auth.Payer, tab: p.tabFor(p.held.Payment), ran: p.status != 0,
		free: nothingDue(p.request), doubt: p.held.Payment.Doubt, try: p.try, now: p.h.now,
	}
	if !p.proven {
		c.wallet = p.walletHere()
	}
	return c
}

// remember learns from a settlement how the payer fares. A refusal after doubt
// proves nothing.
func (c customer) remember(o facilitator.Outcome) {
	switch {
	case o == facilitator.Settled && !c.free:
		c.try.giveBack()
		tabs.remove(c.payer)
		trusted.add(c.wallet, c.now())
	case o == facilitator.Refused && !c.doubt:
		trusted.remove(c.payer)
		if c.ran {
			distrusted.add(c.payer, c.now())
		}
	case o == facilitator.Unsent && c.ran:
		addUncharged(c.tab, costOfHangUp, c.now())
	}
}
