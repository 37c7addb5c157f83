package admission

import (
	"sync"
	"time"
)

const (
	// RememberFor is how long the gate remembers at least how a payer fared,
	// unless too many others come; it forgets after twice as long.
	RememberFor = time.Hour
	// rememberMost is how many payers a memory holds at most, twice.
	rememberMost = 1 << 13
)

// Recent remembers something of payers, in bounded space. It keeps two generations,
// and drops the older one when the younger is full or old. To forget is harmless:
// no money is remembered here.
type Recent[T any] struct {
	mu             sync.Mutex
	younger, older map[string]T
	since          time.Time // of the younger generation
}

// Put remembers something of a payer, spelled as package x402 does; "" is nobody.
func (r *Recent[T]) Put(payer string, what T, now time.Time) {
	r.Update(payer, now, func(t *T) { *t = what })
}

// Update changes what is remembered of a payer, which is the zero value at first.
func (r *Recent[T]) Update(payer string, now time.Time, change func(*T)) {
	if payer == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.age(now)
	what, ok := r.younger[payer]
	if !ok {
		what = r.older[payer]
		if r.younger == nil || len(r.younger) >= rememberMost {
			r.older, r.younger, r.since = r.younger, make(map[string]T), now
		}
	}
	change(&what)
	r.younger[payer] = what
}

// Get returns what is remembered of a payer.
func (r *Recent[T]) Get(payer string, now time.Time) (what T, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.age(now)
	if what, ok = r.younger[payer]; !ok {
		what, ok = r.older[payer]
	}
	return what, ok
}

// Remove forgets a payer.
func (r *Recent[T]) Remove(payer string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.younger, payer)
	delete(r.older, payer)
}

// age drops what is too old.
func (r *Recent[T]) age(now time.Time) {
	switch old := now.Sub(r.since); {
	case r.younger == nil, old < RememberFor:
	case old < 2*RememberFor:
		r.older, r.younger, r.since = r.younger, make(map[string]T), now
	default:
		r.older, r.younger, r.since = nil, make(map[string]T), now
	}
}

// Payers is a set of payers that forgets.
type Payers struct{ Recent[struct{}] }

// Add adds a payer, for RememberFor from now on.
func (p *Payers) Add(payer string, now time.Time) { p.Put(payer, struct{}{}, now) }

// Has says whether a payer is in the set.
func (p *Payers) Has(payer string, now time.Time) bool {
	_, ok := p.Get(payer, now)
	return ok
}

// Upstreams work for nothing where their answer costs nothing, or where the payer
// leaves before it comes. A payer may have some of both; then he pays first.
const (
	// maxUncharged is how much a payer may have since he was charged last.
	maxUncharged = 50
	// CostOfHangUp is what leaving before the answer counts for, where an answer
	// that costs nothing counts for one.
	CostOfHangUp = 10
	// freeHangUps is how often a payer may leave before the answer that he has paid
	// for, and come again at once. After that he waits, twice as long each time.
	freeHangUps = 3
	// freeFetches is the same for fetching what the upstream then does not give.
	freeFetches = maxUncharged
	longestWait = time.Minute
	// outageFor is how long outages count as one.
	outageFor = time.Hour
)

// tab is what a payer has had without being charged.
type tab struct {
	uncharged int
	outage    time.Time // when he was last here in one
	hangUps   int       // on what was paid for
	fetches   int       // of what was paid for, that gave nothing
	next      time.Time // no fetching of what is owed before
	why       Reason
}

// wait makes a payer wait who has done something so often more than he may.
func (t *tab) wait(over int, why Reason, now time.Time) {
	if over > 0 {
		t.next, t.why = now.Add(min(time.Second<<min(over, 20), longestWait)), why
	}
}

// AddUncharged writes an upstream's work down that nobody is charged for.
func (c *Control) AddUncharged(payer string, cost int, now time.Time) {
	over := false
	c.tabs.Update(payer, now, func(t *tab) {
		t.uncharged += cost
		if over = t.uncharged >= maxUncharged; over {
			t.uncharged = 0
		}
	})
	if over {
		c.Distrusted.Add(payer, now)
	}
}

// AddOutage writes down that an upstream has run for a payer, since a time, and that there
// was nobody then to charge him. That is not his doing: what was under way when it
// happened first, and all that happens within an hour of it, counts once together, or
// others who cause it could take his standing away. What it costs who finds a way to cause
// it himself is that he closes the facilitator to himself as well.
func (c *Control) AddOutage(payer string, since time.Time, cost int, now time.Time) {
	known := false
	c.tabs.Update(payer, now, func(t *tab) {
		if known = !since.After(t.outage) || now.Sub(t.outage) < outageFor; !known {
			t.outage = now
		}
	})
	if !known {
		c.AddUncharged(payer, cost, now)
	}
}

// Charged writes down that a payer's money has moved: what he had for nothing is forgotten,
// and one time that he left before an answer.
func (c *Control) Charged(payer string, now time.Time) {
	if _, known := c.tabs.Get(payer, now); !known {
		return
	}
	c.tabs.Update(payer, now, func(t *tab) {
		t.uncharged, t.fetches, t.hangUps = 0, 0, max(0, t.hangUps-1)
		if t.why == tooManyFetches {
			t.next = time.Time{}
		}
	})
}

// AddHangUp writes down that a payer has left before an answer that he had paid for.
func (c *Control) AddHangUp(payer string, now time.Time) {
	c.tabs.Update(payer, now, func(t *tab) {
		t.hangUps++
		t.wait(t.hangUps-freeHangUps+1, tooManyHangUps, now)
	})
}

// AddFetch writes down that the upstream has run for what a payer had paid for, and gave
// nothing that counts.
func (c *Control) AddFetch(payer string, now time.Time) {
	c.tabs.Update(payer, now, func(t *tab) {
		t.fetches++
		t.wait(t.fetches-freeFetches+1, tooManyFetches, now)
	})
}

// WaitToFetch is how long a payer waits before he can fetch what is owed to him, and why.
func (c *Control) WaitToFetch(payer string, now time.Time) (wait time.Duration, why Reason) {
	t, _ := c.tabs.Get(payer, now)
	return max(0, t.next.Sub(now)), t.why
}
