package offer

import (
	"errors"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/caddy-paywall/caddy-paywall/pricing/money"
	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// maxCandidates is how many tokens of a network a payment is tried against that does
// not name its own.
const maxCandidates = 8

// Candidates are what a version 1 payment may have been signed for, by network: the
// distinct tokens that the prices accept.
type Candidates map[string][]x402.Requirement

// Add adds the tokens of a price.
func (c Candidates) Add(options []*Option) {
	for _, o := range options {
		if o.sponsoring() != "" {
			continue // Permit2, which version 1 does not know
		}
		r, ok := o.with(nil, false)
		known := slices.ContainsFunc(c[r.Network], func(k x402.Requirement) bool { return k.Asset == r.Asset && string(k.Extra) == string(r.Extra) })
		if ok && !known && len(c[r.Network]) < maxCandidates {
			c[r.Network] = append(c[r.Network], r)
		}
	}
}

// For finds the requirement that a payment was made for which fits nothing that is
// offered now. It is good for finding the payment in the ledger, and for nothing
// else: it may have moved money before the config changed.
func (c Candidates) For(p *x402.Payment) (x402.Requirement, error) {
	if p.Version == x402.V2 {
		return p.Chosen()
	}
	// Version 1 does not name the asset, but the signature is for one.
	candidates := c[p.Network]
	if a, ok := money.FindAsset(p.Network, "usdc"); ok {
		extra, err := json.Marshal(map[string]string{"name": a.Name, "version": a.Version})
		if err == nil {
			candidates = append(slices.Clip(candidates), x402.Requirement{Scheme: p.Scheme, Network: p.Network, Asset: a.Address, Extra: extra})
		}
	}
	for _, r := range candidates {
		if a, err := p.Authorization(r); err == nil {
			if own, err := eip712.SignedByPayer(a, r); err == nil && own {
				return r, nil
			}
		}
	}
	if len(candidates) > 0 {
		return candidates[0], nil
	}
	return x402.Requirement{}, errors.New("nothing is known on this network")
}
