package paywall

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

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
	options      []*option // of which the requirements were made
	settlers     [][]facilitator.Named
	extensions   jsontext.Value // that it declares
	template     *x402.Template
	snapshots    []*x402.Supported // what it was made from, to see when it is stale
	chains       uint64            // the same
}

var (
	errNoSettler  = errors.New("no facilitator of this price can settle any of the accepted tokens")
	errWrongChain = errors.New("the networks of this price are closed, since nodes are on other chains than the ledger's payments")
)

// tariff makes the offers of one price line for one time of settlement.
type tariff struct {
	options     []*option
	backends    []*facilitator.Member
	all         *facilitator.Set
	first       bool
	description string
	mimeType    string

	mu  sync.Mutex // of building
	now atomic.Pointer[offer]
	dim atomic.Pointer[dimmed] // see shown
}

// current returns the offer as the facilitators are known now.
func (t *tariff) current() (*offer, error) {
	o := t.now.Load()
	if o == nil || !t.fresh(o) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if o = t.now.Load(); o == nil || !t.fresh(o) {
			var err error
			if o, err = t.build(nil); err != nil {
				return nil, err
			}
			t.now.Store(o)
		}
	}
	if len(o.requirements) == 0 {
		for _, option := range t.options {
			if t.all.Closed(option.requirement.Network) {
				return nil, errWrongChain
			}
		}
		return nil, errNoSettler
	}
	return o, nil
}

func (t *tariff) fresh(o *offer) bool {
	if o.chains != t.all.Changes() {
		return false
	}
	for i, b := range t.backends {
		if b.Source.Snapshot() != o.snapshots[i] {
			return false
		}
	}
	return true
}

// build makes an offer. Each option goes to the facilitators that support it,
// in the operator's order; of several only those count that need the same
// requirement as the first. Those for which skip says so are left out.
func (t *tariff) build(skip func(backend, option int) bool) (*offer, error) {
	o := &offer{chains: t.all.Changes()}
	for _, b := range t.backends {
		o.snapshots = append(o.snapshots, b.Source.Snapshot())
	}
	var extensions []string
	for j, option := range t.options {
		if t.all.Closed(option.requirement.Network) {
			continue
		}
		var requirement x402.Requirement
		var settlers []facilitator.Named
		for i, b := range t.backends {
			kind, known := kindFor(option, o.snapshots[i])
			if known && kind == nil || skip != nil && skip(i, j) {
				continue
			}
			r, ok := option.with(kind, t.first)
			if !ok || len(settlers) > 0 && string(r.Extra) != string(requirement.Extra) {
				continue
			}
			if name := option.sponsoring(); len(settlers) == 0 && known && slices.Contains(o.snapshots[i].Extensions, name) {
				extensions = append(extensions, name)
			}
			requirement = r
			settlers = append(settlers, b.Named)
		}
		if len(settlers) > 0 {
			o.requirements = append(o.requirements, requirement)
			o.options = append(o.options, option)
			o.settlers = append(o.settlers, settlers)
		}
	}
	if len(o.requirements) == 0 {
		return o, nil
	}
	o.extensions = x402.DeclareExtensions(extensions...)
	var err error
	o.template, err = x402.NewTemplate(o.requirements, t.description, t.mimeType, o.extensions)
	return o, err
}
