package admission

import (
	"hash/maphash"
	"sync"
	"time"
)

// A signature costs nobody anything, and each one that we cannot judge ourselves
// costs a facilitator a call: a fresh key with an empty wallet signs correctly. So
// each payment takes a try before anybody is asked about it, and the try comes back
// only when money has moved. The tries are those of the client's network, or of a
// payer who has paid lately and has proven that it is he.
const (
	TriesPerSecond = 20
	TriesAtOnce    = 200
	// What may be a contract wallet's signature costs more: it is proven only by
	// asking. Each network has a share, and all together have a bound.
	StrangersPerSecond    = 10
	StrangersAtOnce       = 50
	allStrangersPerSecond = 100
	allStrangersAtOnce    = 500
	// What was bought before costs a look into the ledger, whether it fits or not.
	looksPerSecond = 20
	looksAtOnce    = 200
)

// Buckets are token buckets by name. No library has them with tokens that can be given back. Their number is fixed; two names that fall
// together share, and who they are cannot be chosen.
type Buckets struct {
	seed    maphash.Seed
	every   time.Duration // until one try is back
	atOnce  int
	buckets [1 << 12]bucket
}

func newBuckets(perSecond, atOnce int) *Buckets {
	return &Buckets{seed: maphash.MakeSeed(), every: time.Second / time.Duration(perSecond), atOnce: atOnce}
}

// bucket is what a name has used. The zero value is full.
type bucket struct {
	mu   sync.Mutex
	owed time.Duration // until all tries are back
	at   time.Time
}

func (b *Buckets) of(name string) *bucket {
	return &b.buckets[maphash.String(b.seed, name)%uint64(len(b.buckets))]
}

// Left says whether a name has a try left.
func (b *Buckets) Left(name string, now time.Time) bool {
	from := b.of(name)
	from.mu.Lock()
	defer from.mu.Unlock()
	return b.room(from, now)
}

// Take takes a try of a name; nil if there is none.
func (b *Buckets) Take(name string, now time.Time) *Token {
	from := b.of(name)
	from.mu.Lock()
	defer from.mu.Unlock()
	if !b.room(from, now) {
		return nil
	}
	from.owed += b.every
	return &Token{of: b, from: from}
}

func (b *Buckets) room(from *bucket, now time.Time) bool {
	if passed := now.Sub(from.at); passed > 0 {
		from.owed, from.at = max(0, from.owed-passed), now
	}
	return from.owed+b.every <= time.Duration(b.atOnce)*b.every
}

// Token is one that was taken.
type Token struct {
	of   *Buckets
	from *bucket
}

// Refund returns a token, once; nil has none.
func (t *Token) Refund() {
	if t == nil || t.from == nil {
		return
	}
	t.from.mu.Lock()
	defer t.from.mu.Unlock()
	t.from.owed = max(0, t.from.owed-t.of.every)
	t.from = nil
}
