package paywall

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// backend is a facilitator as the price list uses it.
type backend struct {
	facilitator.Named
	source *facilitator.Source
}

// kindFor finds what a facilitator can do with the option. known is false
// while nothing has been heard of the facilitator. Only version 2 counts: some
// facilitators list version 1 for networks that they do not serve.
func kindFor(o *option, s *x402.Supported) (kind *x402.Kind, known bool) {
	if s == nil {
		return nil, false
	}
	for i, k := range s.Kinds {
		if k.X402Version == x402.V2 && k.Scheme == o.requirement.Scheme && k.Network == o.requirement.Network {
			return &s.Kinds[i], true
		}
	}
	return nil, true
}

// offer is what one request costs now: requirements in the operator's order,
// each with the facilitators that can settle it, and the encoded challenge.
type offer struct {
	requirements []x402.Requirement
	settlers     [][]facilitator.Named
	template     *x402.Template
	snapshots    []*x402.Supported // what it was made from, to see when it is stale
	until        time.Time         // for an earlier offer: when it ends
}

var errNoSettler = errors.New("no facilitator of this price can settle any of the accepted tokens")

// tariff makes the offers of one price line for one time of settlement.
type tariff struct {
	options     []*option
	backends    []backend
	first       bool
	description string
	mimeType    string

	mu      sync.Mutex
	now     atomic.Pointer[offer]
	earlier []*offer // still payable; guarded by mu
}

// current returns the offer as the facilitators are known now.
func (t *tariff) current(now time.Time) (*offer, error) {
	if o := t.now.Load(); o != nil && t.fresh(o) {
		if len(o.requirements) == 0 {
			return nil, errNoSettler
		}
		return o, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	last := t.now.Load()
	if last == nil || !t.fresh(last) {
		o, err := t.build()
		if err != nil {
			return nil, err
		}
		if last != nil && len(last.requirements) > 0 {
			// Who was challenged with the last offer may still pay it.
			last = &offer{requirements: last.requirements, settlers: last.settlers, until: now.Add(maxTimeout)}
			t.earlier = append(slices.DeleteFunc(t.earlier, func(o *offer) bool { return now.After(o.until) }), last)
		}
		t.now.Store(o)
	}
	o := t.now.Load()
	if len(o.requirements) == 0 {
		return nil, errNoSettler
	}
	return o, nil
}

func (t *tariff) fresh(o *offer) bool {
	for i, b := range t.backends {
		if b.source.Snapshot() != o.snapshots[i] {
			return false
		}
	}
	return true
}

// build makes an offer. Each option goes to the facilitators that support it,
// in the operator's order; of several only those count that need the same
// requirement as the first.
func (t *tariff) build() (*offer, error) {
	o := &offer{}
	for _, b := range t.backends {
		o.snapshots = append(o.snapshots, b.source.Snapshot())
	}
	for _, option := range t.options {
		var requirement x402.Requirement
		var settlers []facilitator.Named
		for i, b := range t.backends {
			kind, known := kindFor(option, o.snapshots[i])
			if known && kind == nil {
				continue
			}
			r, ok := option.with(kind, t.first)
			if !ok || len(settlers) > 0 && string(r.Extra) != string(requirement.Extra) {
				continue
			}
			requirement = r
			settlers = append(settlers, b.Named)
		}
		if len(settlers) > 0 {
			o.requirements = append(o.requirements, requirement)
			o.settlers = append(o.settlers, settlers)
		}
	}
	if len(o.requirements) == 0 {
		return o, nil
	}
	var err error
	o.template, err = x402.NewTemplate(o.requirements, t.description, t.mimeType, x402.PaymentIdentifier)
	return o, err
}

// match finds what a payment pays for, among the current offer and the earlier
// ones that are still payable.
func (t *tariff) match(current *offer, p *x402.Payment, now time.Time) (x402.Requirement, []facilitator.Named, error) {
	i, err := x402.Match(p, current.requirements)
	if err == nil {
		return current.requirements[i], current.settlers[i], nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range t.earlier {
		if now.After(o.until) {
			continue
		}
		if i, e := x402.Match(p, o.requirements); e == nil {
			return o.requirements[i], o.settlers[i], nil
		}
	}
	return x402.Requirement{}, nil, err
}
