package paywall

import (
	"hash/maphash"
	"net/http"
	"sync"
	"time"
)

// A signature costs nobody anything, and each one that we cannot judge ourselves
// costs a facilitator a call: a fresh key with an empty wallet signs correctly.
// So payments of payers who have not paid lately are on trial. Each client
// network has so many tries; one that is found good, or that nobody could judge,
// gives its try back.
const (
	triesPerSecond = 20
	triesAtOnce    = 200
	comesBack      = time.Second / triesPerSecond // one try
)

// trials holds the tries of all client networks. Their number is fixed; two
// networks that fall together share, and who they are cannot be chosen.
type trials struct {
	seed    maphash.Seed
	buckets [1 << 12]bucket
}

// onTrial is of the process: a reload gives nobody new tries.
var onTrial = &trials{seed: maphash.MakeSeed()}

func (t *trials) of(network string) *bucket {
	return &t.buckets[maphash.String(t.seed, network)%uint64(len(t.buckets))]
}

// bucket is what a network has left. The zero value is full.
type bucket struct {
	mu   sync.Mutex
	owed time.Duration // until all tries are back
	at   time.Time
}

// left says whether there is a try left.
func (b *bucket) left(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.room(now)
}

// take takes a try, if there is one.
func (b *bucket) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.room(now) {
		return false
	}
	b.owed += comesBack
	return true
}

func (b *bucket) room(now time.Time) bool {
	if passed := now.Sub(b.at); passed > 0 {
		b.owed, b.at = max(0, b.owed-passed), now
	}
	return b.owed+comesBack <= triesAtOnce*comesBack
}

// giveBack returns a try; nil has none.
func (b *bucket) giveBack() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.owed = max(0, b.owed-comesBack)
}

// mayTry says, before the ledger is asked to hold a payment, whether a
// facilitator would be asked about it at all.
func (p *purchase) mayTry(now time.Time) *refusal {
	if refused := unsettled.full(p.bearer()); refused != nil {
		return refused
	}
	if !p.isCustomer(now) && !onTrial.of(p.held.Payment.Client).left(now) {
		return tooManyTries()
	}
	if p.stranger && p.h.app.strangers.Tokens() < 1 {
		return tooManyStrangers()
	}
	return nil
}

// try takes the seat of a payment that was claimed and, if it is on trial, the
// try. What was taken is given back in letGo and acquit.
func (p *purchase) try(now time.Time) (refused *refusal) {
	if p.seat, refused = unsettled.enter(p.bearer()); refused != nil {
		return refused
	}
	if p.isCustomer(now) {
		return nil
	}
	b := onTrial.of(p.held.Payment.Client)
	if !b.take(now) {
		return tooManyTries()
	}
	p.trial = b
	return nil
}

// acquit ends the trial of a payment that was not found bad.
func (p *purchase) acquit() {
	p.trial.giveBack()
	p.trial = nil
}

func (p *purchase) isCustomer(now time.Time) bool {
	return p.proven && customers.has(p.auth.Payer, now)
}

func tooManyTries() *refusal {
	return &refusal{status: http.StatusTooManyRequests, code: codeTooManyTries, retryAfter: 1}
}

func tooManyStrangers() *refusal {
	return &refusal{status: http.StatusServiceUnavailable, code: codeBusy, retryAfter: 1}
}
