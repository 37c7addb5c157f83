package paywall

import (
	"net/http"
	"sync"
	"time"
)

// Bounds on what is under way at once. They are of the process and not of a
// config, since claims outlive a reload. An honest agent that keeps a hundred
// requests running with one wallet does not come near them.
const (
	// maxUnsettled is how many payments may be claimed and not yet settled. Each
	// of them may hold a request to the upstream and one to a facilitator.
	maxUnsettled = 4096
	// keptForTrusted is how many of them only payers may hold who have paid lately:
	// wallets are free, so whoever has many could hold all others.
	keptForTrusted = 1024
	// maxUnsettledOfPayer is how many of them may be of one payer, whose balance
	// may be good for one.
	maxUnsettledOfPayer = 256
	// maxUnsettledOfNetwork is how many of them may come from one client network,
	// and as many again of payers there who have paid lately.
	maxUnsettledOfNetwork = 1024
	// holdWithin is how long a payment may be claimed without being settled: who
	// holds it for longer has an upstream that does not answer.
	holdWithin = maxTimeout
)

// slots counts the payments that are claimed and not yet settled, in all and by
// who brings them.
type slots struct {
	mu       sync.Mutex
	all      int
	others   int // of payers who are not trusted
	of       map[limitKey]int
	most     int
	kept     int // of most, for trusted payers
	mostOf   int // of a payer
	mostFrom int // from a network
}

var unsettled = &slots{
	of: map[limitKey]int{}, most: maxUnsettled, kept: keptForTrusted, mostOf: maxUnsettledOfPayer, mostFrom: maxUnsettledOfNetwork,
}

// limitKey is for whom a payment counts: the client's network, and the payer where
// the signature proves one, so that nobody uses up what is another's.
type limitKey struct {
	payer   string // an address as package x402 spells it, or ""
	network string
	trusted bool
}

func (p *purchase) limitKey(now time.Time) limitKey {
	key := limitKey{network: p.site, trusted: p.isTrusted(now) || p.isKnownWallet(now)}
	if p.proven {
		key.payer = p.auth.Payer
	}
	return key
}

// shares are the two counts that a payment adds to.
func (k limitKey) shares() (payer, network limitKey) {
	return limitKey{payer: k.payer}, limitKey{network: k.network, trusted: k.trusted}
}

// full says whether one more would be too many, and of what.
func (c *slots) full(k limitKey) *refusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refusal(k)
}

func (c *slots) refusal(k limitKey) *refusal {
	payer, network := k.shares()
	switch {
	case k.payer != "" && c.of[payer] >= c.mostOf, c.of[network] >= c.mostFrom:
		return &refusal{status: http.StatusTooManyRequests, code: codeTooManyOfPayer, retryAfter: 1}
	case c.all >= c.most, !k.trusted && c.others >= c.most-c.kept:
		return &refusal{status: http.StatusServiceUnavailable, code: codeBusy, retryAfter: 2}
	}
	return nil
}

// enter takes a slot, which must be left.
func (c *slots) enter(k limitKey) (*slot, *refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if refused := c.refusal(k); refused != nil {
		return nil, refused
	}
	c.add(k, 1)
	return &slot{in: c, key: k}, nil
}

func (c *slots) add(k limitKey, n int) {
	c.all += n
	if !k.trusted {
		c.others += n
	}
	payer, network := k.shares()
	for _, share := range []limitKey{payer, network} {
		if c.of[share] += n; c.of[share] <= 0 {
			delete(c.of, share)
		}
	}
}

// count is how many slots are taken.
func (c *slots) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all
}

// slot is one place among the payments in flight.
type slot struct {
	in   *slots
	key  limitKey
	left sync.Once
}

// leave gives the slot back; nil and what was left already have none.
func (s *slot) leave() {
	if s == nil {
		return
	}
	s.left.Do(func() {
		s.in.mu.Lock()
		defer s.in.mu.Unlock()
		s.in.add(s.key, -1)
	})
}
