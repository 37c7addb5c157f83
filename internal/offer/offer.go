// Package offer has what one price asks for now, and what was asked for lately: of what the
// operator accepts, what the facilitators can settle, as a challenge says it.
package offer

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// kindFor finds what a facilitator can do with the option. known is false
// while nothing has been heard of the facilitator, which nobody is asked to pay through
// then: see down. Only version 2 counts: some
// facilitators list version 1 for networks that they do not serve.
func kindFor(o *Option, s *x402.Supported) (kind *x402.Kind, known bool) {
	if s == nil {
		return nil, false
	}
	for i, k := range s.Kinds {
		if k.X402Version == x402.V2 && k.Scheme == o.Requirement.Scheme && k.Network == o.Requirement.Network {
			return &s.Kinds[i], true
		}
	}
	return nil, true
}

// Offer is what one request costs now: requirements in the operator's order,
// each with the facilitators that can settle it, and the encoded challenge.
type Offer struct {
	// Extensions are those that it declares.
	Extensions jsontext.Value
	// Template is the challenge without quotes.
	Template *x402.Template

	of           *Offers
	quoted       sync.Map // challenges with quotes, of the type *quoted, by line
	requirements []x402.Requirement
	options      []*Option // of which the requirements were made
	settlers     [][]facilitator.Named
	snapshots    []*x402.Supported // what it was made from, to see when it is stale
	chains       uint64            // and how often the set had said that networks are other chains
}

var (
	errNoSettler  = errors.New("no facilitator of this price can settle any of the accepted tokens")
	errWrongChain = errors.New("the networks of this price are closed, since nodes are on other chains than the ledger's payments")
)

// Offers makes the offers of one price, for one time of settlement.
type Offers struct {
	options      []*Option
	backends     []*facilitator.Member
	facilitators *facilitator.Set
	// first: the money moves before the upstream runs, and clients are told so.
	first bool
	About

	mu        sync.Mutex // of building
	now       atomic.Pointer[Offer]
	available atomic.Pointer[available] // see Shown
}

// Current returns the offer as the facilitators are known now.
func (o *Offers) Current() (*Offer, error) {
	offer := o.now.Load()
	if offer == nil || !o.fresh(offer) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if offer = o.now.Load(); offer == nil || !o.fresh(offer) {
			var err error
			if offer, err = o.build(nil); err != nil {
				return nil, err
			}
			o.now.Store(offer)
		}
	}
	if len(offer.requirements) == 0 {
		for _, option := range o.options {
			if o.facilitators.Closed(option.Requirement.Network) {
				return nil, errWrongChain
			}
		}
		return nil, errNoSettler
	}
	return offer, nil
}

func (o *Offers) fresh(offer *Offer) bool {
	if offer.chains != o.facilitators.Changes() {
		return false
	}
	for i, b := range o.backends {
		if b.Source.Snapshot() != offer.snapshots[i] {
			return false
		}
	}
	return true
}

// Size is how many bytes of header a challenge takes that offers everything.
func (o *Offers) Size() int {
	offer, err := o.build(nil)
	if err != nil || offer.Template == nil {
		return 0
	}
	var quotes Quotes
	quotes.use(nil)
	return len(offer.Challenge(&quotes, "x", time.Now()).Header("https://"+strings.Repeat("x", 100), ""))
}

// build makes an offer. Each option goes to the facilitators that support it,
// in the operator's order; of several only those count that need the same
// requirement as the first. Those for which skip says so are left out.
func (o *Offers) build(skip func(backend, option int) bool) (*Offer, error) {
	offer := &Offer{of: o, chains: o.facilitators.Changes()}
	for _, b := range o.backends {
		offer.snapshots = append(offer.snapshots, b.Source.Snapshot())
	}
	var extensions []string
	for j, option := range o.options {
		if o.facilitators.Closed(option.Requirement.Network) {
			continue
		}
		var requirement x402.Requirement
		var settlers []facilitator.Named
		for i, b := range o.backends {
			kind, known := kindFor(option, offer.snapshots[i])
			if known && kind == nil || skip != nil && skip(i, j) {
				continue
			}
			r, ok := option.with(kind, o.first)
			if !ok || len(settlers) > 0 && string(r.Extra) != string(requirement.Extra) {
				continue
			}
			if name := option.sponsoring(); len(settlers) == 0 && known && slices.Contains(offer.snapshots[i].Extensions, name) {
				extensions = append(extensions, name)
			}
			requirement = r
			settlers = append(settlers, b.Named)
		}
		if len(settlers) > 0 {
			offer.requirements = append(offer.requirements, requirement)
			offer.options = append(offer.options, option)
			offer.settlers = append(offer.settlers, settlers)
		}
	}
	if len(offer.requirements) == 0 {
		return offer, nil
	}
	offer.Extensions = x402.DeclareExtensions(extensions...)
	var err error
	if offer.Template, err = x402.NewTemplate(offer.requirements, o.Description, o.MimeType, offer.Extensions); err != nil {
		return offer, err
	}
	offer.Template = offer.Template.Say(offer.words())
	return offer, nil
}

// While a facilitator gives no answers, has not said what it can do, or has nothing to pay the
// gas with, nobody is asked to sign a payment that only it could settle.

// unheardWait is how long a payer is told to wait for a facilitator that has not said yet what it
// can do: it is asked as often.
const unheardWait = 3 * time.Second

// Await waits until one of the facilitators can be paid through, or all have been asked once,
// for some seconds after a start at most: who asks for a price just after a start is not
// turned away for that.
func (o *Offers) Await(ctx context.Context) {
	if o.isHeard() {
		return
	}
	for _, b := range o.backends {
		if b.Source.Await(ctx); o.isHeard() {
			return
		}
	}
}

// isHeard reports whether one of the facilitators has said what it can do.
func (o *Offers) isHeard() bool {
	return slices.ContainsFunc(o.backends, func(b *facilitator.Member) bool { return b.Source.Open() })
}

// available is an offer without what nobody can settle now.
type available struct {
	of    *Offer
	down  string // which backends are down for which options
	offer *Offer
}

var errAllDown = errors.New("all facilitators of this price give no answers, have not said yet what they can do, or have accounts that cannot pay the gas")

// Shown returns what a challenge says: the current offer, or of it what can be
// settled now. If that is nothing, it says how long to wait.
func (o *Offers) Shown(current *Offer, now time.Time) (offer *Offer, wait time.Duration, err error) {
	down, wait := o.down(now)
	if down == nil {
		return current, 0, nil
	}
	d := o.available.Load()
	if d == nil || d.of != current || d.down != string(down) {
		offer, err := o.build(func(backend, option int) bool { return down[backend*len(o.options)+option] == 1 })
		if err != nil {
			return nil, wait, err
		}
		d = &available{of: current, down: string(down), offer: offer}
		o.available.Store(d)
	}
	if len(d.offer.requirements) == 0 {
		return nil, wait, errAllDown
	}
	return d.offer, 0, nil
}

// down returns which backends are down for which options, nil if none is, and
// the shortest wait for one of them.
func (o *Offers) down(now time.Time) (down []byte, wait time.Duration) {
	for i, b := range o.backends {
		for j, option := range o.options {
			pause, open := b.Breaker.Open(option.Requirement.Network, option.Requirement.Scheme, now)
			if !b.Source.Open() {
				pause, open = max(pause, unheardWait), true
			}
			if !open {
				continue
			}
			if down == nil {
				down, wait = make([]byte, len(o.backends)*len(o.options)), pause
			}
			down[i*len(o.options)+j] = 1
			wait = min(wait, pause)
		}
	}
	return down, wait
}
