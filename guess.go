package paywall

import (
	"errors"

	"github.com/go-json-experiment/json"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/eip712"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/pricing"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// guess finds the requirement that a payment was made for which fits nothing we
// offer now. It is good for finding the payment in the ledger, and for nothing
// else: it may have moved money before the config changed.
func (h *Handler) guess(p *x402.Payment) (x402.Requirement, error) {
	if p.Version == x402.V2 {
		return p.Chosen()
	}
	// Version 1 does not name the asset, but the signature is for one.
	var candidates []x402.Requirement
	for _, pr := range h.prices {
		for _, o := range pr.tariffs[0].options {
			if o.sponsoring() != "" {
				continue // Permit2, which version 1 does not know
			}
			if r, ok := o.with(nil, false); ok && r.Network == p.Network {
				candidates = append(candidates, r)
			}
		}
	}
	if a, ok := pricing.FindAsset(p.Network, "usdc"); ok {
		extra, err := json.Marshal(map[string]string{"name": a.Name, "version": a.Version})
		if err == nil {
			candidates = append(candidates, x402.Requirement{Scheme: p.Scheme, Network: p.Network, Asset: a.Address, Extra: extra})
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

// askAgain prepares to repeat a settlement whose outcome is not known: in the
// same words, to the one that was asked before, whatever is offered now.
func (p *purchase) askAgain(row ledger.Payment) bool {
	var stored facilitator.Request
	if json.Unmarshal(row.Request, &stored) != nil || stored.Payment == nil || p.h.app.closed(row.Network) {
		return false
	}
	p.request = stored
	if b, ok := p.h.app.backends[row.Facilitator]; ok {
		p.settlers = []facilitator.Named{b.Named}
	}
	return len(p.settlers) > 0
}
