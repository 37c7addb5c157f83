package paywall

import (
	"hash/maphash"
	"net/http"
	"sync"
	"time"
)

// A signature costs nobody anything, and each one that we cannot judge ourselves
// costs a facilitator a call: a fresh key with an empty wallet signs correctly. So
// each payment takes a try before anybody is asked about it, and the try comes back
// only when money has moved. The tries are those of the client's network, or of a
// payer who has paid lately and has proven that it is he.
const (
	triesPerSecond = 20
	triesAtOnce    = 200
	// What may be a contract wallet's signature costs more: it is proven only by
	// asking. Each network has a share, and all together have a bound.
	strangersPerSecond    = 10
	strangersAtOnce       = 50
	allStrangersPerSecond = 100
	allStrangersAtOnce    = 500
	// What was bought before costs a look into the ledger, whether it fits or not.
	looksPerSecond = 20
	looksAtOnce    = 200
)

// These are of the process: a reload gives nobody new tries.
var (
	networkTries   = newTries(triesPerSecond, triesAtOnce)
	payerTries     = newTries(triesPerSecond, triesAtOnce)
	strangerTries  = newTries(strangersPerSecond, strangersAtOnce)
	strangersInAll = newTries(allStrangersPerSecond, allStrangersAtOnce)
	networkLooks   = newTries(looksPerSecond, looksAtOnce)
)

// tries are token buckets by name. Their number is fixed; two names that fall
// together share, and who they are cannot be chosen.
type tries struct {
	seed    maphash.Seed
	every   time.Duration // until one try is back
	atOnce  int
	buckets [1 << 12]bucket
}

func newTries(perSecond, atOnce int) *tries {
	return &tries{seed: maphash.MakeSeed(), every: time.Second / time.Duration(perSecond), atOnce: atOnce}
}

// bucket is what a name has used. The zero value is full.
type bucket struct {
	mu   sync.Mutex
	owed time.Duration // until all tries are back
	at   time.Time
}

func (t *tries) of(name string) *bucket {
	return &t.buckets[maphash.String(t.seed, name)%uint64(len(t.buckets))]
}

// left says whether a name has a try left.
func (t *tries) left(name string, now time.Time) bool {
	b := t.of(name)
	b.mu.Lock()
	defer b.mu.Unlock()
	return t.room(b, now)
}

// take takes a try of a name; nil if there is none.
func (t *tries) take(name string, now time.Time) *try {
	b := t.of(name)
	b.mu.Lock()
	defer b.mu.Unlock()
	if !t.room(b, now) {
		return nil
	}
	b.owed += t.every
	return &try{of: t, from: b}
}

func (t *tries) room(b *bucket, now time.Time) bool {
	if passed := now.Sub(b.at); passed > 0 {
		b.owed, b.at = max(0, b.owed-passed), now
	}
	return b.owed+t.every <= time.Duration(t.atOnce)*t.every
}

// try is one that was taken.
type try struct {
	of   *tries
	from *bucket
}

// giveBack returns a try, once; nil has none.
func (t *try) giveBack() {
	if t == nil || t.from == nil {
		return
	}
	t.from.mu.Lock()
	defer t.from.mu.Unlock()
	t.from.owed = max(0, t.from.owed-t.of.every)
	t.from = nil
}

// whose are the tries that a purchase takes.
func (p *purchase) whose(now time.Time) (*tries, string) {
	if p.isTrusted(now) {
		return payerTries, p.auth.Payer
	}
	return networkTries, p.site
}

// mayTry says, before anybody is asked, whether a payment would be looked at.
func (p *purchase) mayTry(now time.Time) *refusal {
	if refused := unsettled.full(p.limitKey(now)); refused != nil {
		return p.limited(refused)
	}
	if t, name := p.whose(now); !t.left(name, now) {
		return p.limited(tooManyTries())
	}
	if p.unproven && !p.isKnownWallet(now) && (!strangerTries.left(p.site, now) || !strangersInAll.left("", now)) {
		return p.limited(tooManyStrangers())
	}
	return nil
}

// takeLook takes what it costs to look what became of a payment that fits nothing, or
// was used.
func (p *purchase) takeLook(now time.Time) *refusal {
	if !p.looked && networkLooks.take(p.site, now) == nil {
		return p.limited(tooManyTries())
	}
	p.looked = true
	return nil
}

// takeTry takes the try that a payment costs before the ledger or a facilitator is
// asked about it. It comes back when the money has moved.
func (p *purchase) takeTry(now time.Time) *refusal {
	if p.unproven {
		if refused := p.takeStrangerTry(now); refused != nil {
			return refused
		}
	}
	t, name := p.whose(now)
	if p.try = t.take(name, now); p.try == nil {
		return p.limited(tooManyTries())
	}
	return nil
}

// takeStrangerTry takes what a signature costs that only a facilitator can judge.
func (p *purchase) takeStrangerTry(now time.Time) *refusal {
	if p.isKnownWallet(now) {
		if strangerTries.take(p.walletHere(), now) == nil {
			return p.limited(tooManyStrangers())
		}
		return nil
	}
	if strangerTries.take(p.site, now) == nil || strangersInAll.take("", now) == nil {
		return p.limited(tooManyStrangers())
	}
	return nil
}

// walletHere names a contract wallet together with the network that it comes from: its
// address alone anybody can write.
func (p *purchase) walletHere() string { return p.client + " " + p.auth.Payer }

// isKnownWallet says whether a contract wallet has paid lately from this network.
func (p *purchase) isKnownWallet(now time.Time) bool {
	return p.unproven && trusted.has(p.walletHere(), now)
}

// limited marks a refusal as a bound's.
func (p *purchase) limited(refused *refusal) *refusal {
	p.outcome = "limited"
	return refused
}

// isTrusted says whether the payer has paid lately, and has signed this.
func (p *purchase) isTrusted(now time.Time) bool {
	return p.proven && trusted.has(p.auth.Payer, now)
}

func tooManyTries() *refusal {
	return &refusal{status: http.StatusTooManyRequests, code: codeTooManyTries, retryAfter: 1}
}

func tooManyStrangers() *refusal {
	return &refusal{status: http.StatusServiceUnavailable, code: codeTooManyStrangers, retryAfter: 1}
}
