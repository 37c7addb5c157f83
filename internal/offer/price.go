package offer

import "github.com/caddy-paywall/caddy-paywall/facilitator"

// Price is one price of the list. Lines that say the same share one.
type Price struct {
	Settle string // when the money moves: "", first or on_success
	Upto   bool   // what is charged, the upstream says
	Charge []int  // the statuses that are charged; empty: 2xx, and 3xx that leaves the site

	offers [2]*Offers // by whether the money moves first
}

// NewPrice returns a price that can be paid in some ways, through some facilitators of a
// set. The texts are what the payer reads about the goods, and their media type.
func NewPrice(options []*Option, backends []*facilitator.Member, set *facilitator.Set, description, mimeType string) *Price {
	p := new(Price)
	for i := range p.offers {
		p.offers[i] = &Offers{
			options: options, backends: backends, facilitators: set,
			first: i == 1, Description: description, MimeType: mimeType,
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
