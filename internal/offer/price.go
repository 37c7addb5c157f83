package offer

import (
	"strings"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/pricing/money"
)

// Price is one price of the list. Lines that say the same share one.
type Price struct {
	Settle string // when the money moves: "", first or on_success
	Upto   bool   // what is charged, the upstream says
	Charge []int  // the statuses that are charged; empty: 2xx, and 3xx that leaves the site

	offers [2]*Offers // by whether the money moves first
}

// About is what the payer reads beside a price.
type About struct {
	Description string // of the goods
	MimeType    string // of the goods
	Help        string // where to ask
}

// NewPrice returns a price that can be paid in some ways, through some facilitators of a
// set.
func NewPrice(options []*Option, backends []*facilitator.Member, set *facilitator.Set, about About) *Price {
	p := new(Price)
	for i := range p.offers {
		p.offers[i] = &Offers{
			options: options, backends: backends, facilitators: set,
			first: i == 1, About: about,
		}
	}
	return p
}

// Offers makes the offers for requests whose money moves first, or on success.
func (p *Price) Offers(first bool) *Offers {
	if first {
		return p.offers[1]
	}
	return p.offers[0]
}

// Options are the ways to pay the price.
func (p *Price) Options() []*Option { return p.offers[0].options }

// Token is what is known of a token in which the price is asked for, or was once; nil if that
// is nothing.
func (p *Price) Token(network, asset string) *Option { return tokenOf(p.Options(), network, asset) }

// tokenOf finds a token among options, and else in the built-in table.
func tokenOf(options []*Option, network, asset string) *Option {
	of, ok := money.FindNetwork(network)
	if !ok {
		return nil
	}
	for _, o := range options {
		if o.Requirement.Network == network && strings.EqualFold(o.Requirement.Asset, asset) {
			return &Option{Network: of, Decimals: o.Decimals, Symbol: o.Symbol, PegUSD: o.PegUSD, Stock: o.Stock}
		}
	}
	known, ok := money.FindAsset(network, asset)
	if !ok {
		return nil
	}
	return &Option{Network: of, Decimals: known.Decimals, Symbol: known.Symbol, PegUSD: known.PegUSD, Stock: known.Default}
}
