package evm

import (
	"sync"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// maxLately bounds what one half of a memory holds.
const maxLately = 1 << 14

// lately is a bounded memory of what was seen: at least the latest maxLately of it,
// and at most twice as many. What is seen again is as good as new. Its zero value
// remembers nothing yet.
type lately[K comparable] struct {
	mu         sync.Mutex
	young, old map[K]struct{}
}

// saw remembers k. When the young half is full, the old one is forgotten at once,
// which costs less than to know the age of each.
func (l *lately[K]) saw(k K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.young[k]; ok {
		return
	}
	if l.young == nil || len(l.young) >= maxLately {
		l.young, l.old = make(map[K]struct{}), l.young
	}
	delete(l.old, k)
	l.young[k] = struct{}{}
}

// has reports whether k is remembered.
func (l *lately[K]) has(k K) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, young := l.young[k]
	_, old := l.old[k]
	return young || old
}

// forget ends that.
func (l *lately[K]) forget(k K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.young, k)
	delete(l.old, k)
}

// sawOutcome takes note of a payer who has paid, and returns the settlement as it is.
// What was given to him before is paid for then.
func (c *chain) sawOutcome(p *payment, s facilitator.Settlement) facilitator.Settlement {
	if s.Outcome == facilitator.Settled && !p.value.IsZero() {
		c.shared.paid.saw(p.from)
		c.shared.approvals.unpaid.forget(gift{p.from, p.token})
	}
	return s
}
