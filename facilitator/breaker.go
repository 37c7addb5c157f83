package facilitator

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// breakAfter is how many calls in a row must end without an answer before
	// a facilitator is left alone.
	breakAfter = 3
	// firstProbe and lastProbe bound the pause before it is probed.
	firstProbe = 250 * time.Millisecond
	lastProbe  = 3 * time.Second
	// probeTimeout bounds one probe.
	probeTimeout = 3 * time.Second
	// suspectFor is how long the failures of those who opened it while the facilitator
	// was well count for nothing.
	suspectFor = 10 * time.Minute
	// maxSuspects bounds how many of them are remembered.
	maxSuspects = 4096
)

// Breaker notices that a facilitator gives no answers about the payments of a
// network, so that nobody signs a payment that could not be verified, and nobody
// waits for a time-out. While it is open for a network the facilitator is not
// asked about that network's payments; a probe of /supported closes it.
//
// Only the lack of an answer counts: no connection, a time-out, 429, 5xx, a
// redirect, a panic. A no is an answer. So is what cannot be understood, because a payer can
// provoke that. A nil Breaker never opens, and the zero value is closed.
//
// Since a payer may know what a facilitator cannot stand, a failure counts once for
// each payer until somebody gets an answer, or for each client network where nobody can
// read who pays; that no connection was made counts each time. Where an open breaker's first probe is answered the facilitator was well: the
// payers and the client networks for whom it failed count for nothing for a while
// (suspectFor), so that nobody can open it again and again.
//
// It also keeps payers away from a facilitator whose accounts are empty, see
// Funded.
//
// It may be shared by several configs, and used from many goroutines.
type Breaker struct {
	mu       sync.Mutex
	circuits map[string]*circuit  // by network: those that have failed
	changed  chan struct{}        // closed when one opens; made on demand
	funds    map[string]Funds     // by network, of a facilitator that is Funded
	cheapest map[string]Sale      // by network, of the config that runs
	toldCost map[string]time.Time // when the operator was told that it is below its cost
}

// circuit is a Breaker for one network.
type circuit struct {
	payers   []string             // about whom it has failed, since the last answer; or from where
	sources  []string             // them and the client networks that they came from
	suspects map[string]time.Time // until when the failures of a payer or client network count for nothing
	failed   int                  // calls without an answer, in a row
	opened   int                  // how often it opened, or a probe failed, since the last answer
	probes   int                  // that failed since it opened
	open     bool                 // the facilitator is left alone
	until    time.Time            // no probe before
}

// Open reports whether the facilitator is left alone with the payments of a
// network (CAIP-2) and scheme, and for how long a payer should wait: until the next
// probe, at least a second, or for somebody to fill up an account.
func (b *Breaker) Open(network, scheme string, now time.Time) (wait time.Duration, open bool) {
	if b == nil {
		return 0, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isEmpty(network, scheme) {
		return emptyWait, true
	}
	c := b.circuits[network]
	if c == nil || !c.open {
		return 0, false
	}
	return min(max(c.until.Sub(now), time.Second), MaxRetryAfter), true
}

// silent reports whether it is open since the facilitator gives no answers.
func (b *Breaker) silent(network string) bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.circuits[network]
	return c != nil && c.open
}

// isEmpty is empty for one who holds mu.
func (b *Breaker) isEmpty(network, scheme string) bool {
	return slices.Contains(b.funds[network].Empty, scheme)
}

// Networks returns for how many networks it is open, for one scheme at least.
func (b *Breaker) Networks() (open int) {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.circuits {
		if c.open {
			open++
		}
	}
	for network, f := range b.funds {
		if c := b.circuits[network]; len(f.Empty) > 0 && (c == nil || !c.open) {
			open++
		}
	}
	return open
}

// Watch probes the facilitator while the breaker is open, and watches what it has to
// pay for settlements with, until ctx ends.
func (b *Breaker) Watch(ctx context.Context, n Named, logger *zap.Logger) {
	go b.watchFunds(ctx, n, logger)
	for {
		next, changed := b.next()
		if next.IsZero() {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
			continue
		}
		if Sleep(ctx, time.Until(next)) != nil {
			return
		}
		try, cancel := context.WithTimeout(ctx, probeTimeout)
		_, err := supportedOne(try, n)
		cancel()
		if ctx.Err() != nil {
			return
		}
		b.probed(err, time.Now())
		if err == nil {
			logger.Info("facilitator answers a probe, and is asked again", zap.String("facilitator", n.Name))
		}
	}
}

// next returns when to probe next, or zero and what is closed when that changes.
func (b *Breaker) next() (at time.Time, changed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.circuits {
		if c.open && (at.IsZero() || c.until.Before(at)) {
			at = c.until
		}
	}
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	return at, b.changed
}

// probed learns from a probe. After a good one the facilitator is asked again,
// and one more failure opens at once: some that answer /supported can do nothing
// else.
func (b *Breaker) probed(err error, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.circuits {
		switch {
		case !c.open || c.until.After(now):
		case err != nil:
			c.probes++
			c.putOff(now, retryAfter(err))
		default:
			if c.probes == 0 {
				c.suspect(now)
			}
			c.open, c.failed, c.probes = false, breakAfter-1, 0
			c.payers, c.sources = nil, nil
		}
	}
}

// suspect remembers for whom it failed.
func (c *circuit) suspect(now time.Time) {
	for name, until := range c.suspects {
		if now.After(until) || len(c.suspects) > maxSuspects {
			delete(c.suspects, name)
		}
	}
	if c.suspects == nil {
		c.suspects = make(map[string]time.Time)
	}
	for _, name := range c.sources {
		c.suspects[name] = now.Add(suspectFor)
	}
}

// verified learns from a call of Verify.
func (b *Breaker) verified(r Request, err error, now time.Time) {
	e, ok := errors.AsType[*Error](err)
	switch {
	case errors.Is(err, ErrNotAsked):
	case hasMoved(err):
		b.noAnswer(r.Requirement.Network, now, 0)
	case err == nil, ok && e.Code != CodeUnavailable && e.Code != CodeTimeout:
		b.answered(r.Requirement.Network)
	case NoConnection(err) || b.counts(r, now):
		b.noAnswer(r.Requirement.Network, now, retryAfter(err))
	}
}

// hasMoved says whether the facilitator has answered with a redirect.
func hasMoved(err error) bool {
	_, ok := errors.AsType[*MovedError](err)
	return ok
}

// NoConnection says whether the facilitator was not reached, which no payment can cause.
func NoConnection(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial"
}

// counts notes that the facilitator gave no answer about a payment, and says whether
// that counts.
func (b *Breaker) counts(r Request, now time.Time) bool {
	who := r.Payer
	if who == "" {
		who = r.From // of some chains the payment alone does not say who pays
	}
	if b == nil || who == "" {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.circuit(r.Requirement.Network)
	if slices.Contains(c.payers, who) || now.Before(c.suspects[who]) || now.Before(c.suspects[r.From]) {
		return false
	}
	if !c.open && len(c.payers) < breakAfter {
		c.payers = append(c.payers, who)
		if c.sources = append(c.sources, who); r.From != "" && r.From != who {
			c.sources = append(c.sources, r.From)
		}
	}
	return true
}

// circuit returns the one for a network, for one who holds mu.
func (b *Breaker) circuit(network string) *circuit {
	c := b.circuits[network]
	if c == nil {
		c = &circuit{}
		if b.circuits == nil {
			b.circuits = make(map[string]*circuit)
		}
		b.circuits[network] = c
	}
	return c
}

// settled learns from a call of Settle. Unknown says nothing: it may be the chain
// that takes its time.
func (b *Breaker) settled(r Request, o Outcome, now time.Time) {
	switch o {
	case Settled, Refused:
		b.answered(r.Requirement.Network)
	case Unsent:
		if b.counts(r, now) {
			b.noAnswer(r.Requirement.Network, now, 0)
		}
	case Unknown:
	}
}

func (b *Breaker) answered(network string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.circuits[network]; c != nil && !c.open { // of a call from before it proves nothing
		b.circuits[network] = &circuit{suspects: c.suspects}
	}
}

// noAnswer counts a failure. after is how long the facilitator wants to be left
// alone.
func (b *Breaker) noAnswer(network string, now time.Time, after time.Duration) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.circuit(network)
	if c.open {
		return
	}
	if c.failed++; c.failed < breakAfter {
		return
	}
	c.open, c.probes = true, 0
	c.putOff(now, after)
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// putOff sets when the facilitator is probed.
func (c *circuit) putOff(now time.Time, after time.Duration) {
	c.until = now.Add(max(min(firstProbe<<min(c.opened, 10), lastProbe), after))
	c.opened++
}
