package paywall

import (
	"net/http"
	"sync"
)

// Bounds on what is under way at once. They are of the process and not of a
// config, since claims outlive a reload. An honest agent that keeps a hundred
// requests running with one wallet does not come near them.
const (
	// maxUnsettled is how many payments may be claimed and not yet settled. Each
	// of them may hold a request to the upstream and one to a facilitator.
	maxUnsettled = 4096
	// maxUnsettledOfPayer is how many of them may be of one payer, whose balance
	// may be good for one.
	maxUnsettledOfPayer = 256
	// maxUnsettledOfNetwork is how many of them may come from one client network
	// without a signature that proves the payer to us.
	maxUnsettledOfNetwork = 1024
)

// crowd counts the payments that are claimed and not yet settled, in all and by
// who brings them.
type crowd struct {
	mu       sync.Mutex
	all      int
	of       map[bearer]int
	most     int
	mostOf   int // of a payer
	mostFrom int // from a network
}

var unsettled = &crowd{of: map[bearer]int{}, most: maxUnsettled, mostOf: maxUnsettledOfPayer, mostFrom: maxUnsettledOfNetwork}

// bearer is for whom a payment counts: its payer where the signature proves one,
// else the client's network, so that nobody uses up what is another's.
type bearer struct {
	payer   string // an address as package x402 spells it, or ""
	network string // "" with a payer
}

func (p *purchase) bearer() bearer {
	if p.proven {
		return bearer{payer: p.auth.Payer}
	}
	return bearer{network: p.held.Payment.Client}
}

// full says whether one more would be too many, and of what.
func (c *crowd) full(b bearer) *refusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refusal(b)
}

func (c *crowd) refusal(b bearer) *refusal {
	most := c.mostOf
	if b.payer == "" {
		most = c.mostFrom
	}
	switch {
	case c.of[b] >= most:
		return &refusal{status: http.StatusTooManyRequests, code: codeTooManyOfPayer, retryAfter: 1}
	case c.all >= c.most:
		return &refusal{status: http.StatusServiceUnavailable, code: codeTooMany, retryAfter: 2}
	}
	return nil
}

// enter takes a seat, which must be left.
func (c *crowd) enter(b bearer) (*seat, *refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if refused := c.refusal(b); refused != nil {
		return nil, refused
	}
	c.all++
	c.of[b]++
	return &seat{crowd: c, bearer: b}, nil
}

// count is how many seats are taken.
func (c *crowd) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all
}

// seat is one place in a crowd.
type seat struct {
	crowd  *crowd
	bearer bearer
	left   sync.Once
}

// leave gives the seat back; nil and what was left already have none.
func (s *seat) leave() {
	if s == nil {
		return
	}
	s.left.Do(func() {
		c := s.crowd
		c.mu.Lock()
		defer c.mu.Unlock()
		c.all--
		if c.of[s.bearer]--; c.of[s.bearer] <= 0 {
			delete(c.of, s.bearer)
		}
	})
}
