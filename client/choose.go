package client

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/pricing/money"
)

// prepare checks all offers of a challenge, chooses one, and makes the payment
// that would be signed for it. The request is the one that was refused.
func (c *Client) prepare(ch *Challenge, refused *http.Request) (*Payment, error) {
	for i := range ch.Offers {
		o := &ch.Offers[i]
		o.Number = i + 1
		if o.Obstacle == nil {
			o.Obstacle = o.check()
		}
		if o.Obstacle == nil {
			o.Obstacle = c.Key.mayPay(o, ch.URL)
		}
		if o.Obstacle == nil && c.rank(o) < 0 {
			o.Obstacle = errors.New("it is not among the networks and assets to pay with")
		}
		if o.Obstacle == nil {
			o.doubt(c.Limits)
		}
	}
	o := c.choose(ch.Offers)
	if o == nil {
		return nil, &ChallengeError{noOffer(ch.Offers)}
	}
	if ch.Elsewhere() { // said after choosing: it speaks against all offers alike
		o.addDoubt(OtherOrigin, "a redirect has led to %s, which asks for the price, and not to %s", origin(ch.URL), origin(ch.Asked))
	}
	return c.draft(ch, *o, refused)
}

// choose takes the best offer: one without doubts before one with, then in the
// order of our preferences, then one that needs no approval before one that
// does, then in the seller's order.
func (c *Client) choose(offers []Offer) *Offer {
	var best *Offer
	better := func(a, b *Offer) bool {
		if doubtful := len(b.Doubts) > 0; doubtful != (len(a.Doubts) > 0) {
			return doubtful
		}
		if a.permit2 != b.permit2 && c.rank(a) == c.rank(b) {
			return b.permit2
		}
		return c.rank(a) < c.rank(b)
	}
	for i := range offers {
		if o := &offers[i]; o.Obstacle == nil && (best == nil || better(o, best)) {
			best = o
		}
	}
	return best
}

// rank is the offer's place in our preferences, networks first; less than 0 if
// it is not among them.
func (c *Client) rank(o *Offer) int {
	network, asset := 0, 0
	if len(c.Networks) > 0 {
		network = slices.IndexFunc(c.Networks, func(s string) bool {
			n, ok := money.FindNetwork(s)
			return ok && n.CAIP2 == o.Network.CAIP2
		})
	}
	if len(c.Assets) > 0 {
		asset = slices.IndexFunc(c.Assets, func(s string) bool {
			if a, ok := parseAddress(s); ok {
				return a == o.token
			}
			return o.Known && strings.EqualFold(s, o.Asset.Symbol)
		})
	}
	if network < 0 || asset < 0 {
		return -1
	}
	return network*max(len(c.Assets), 1) + asset
}

// noOffer says what stands in the way of each offer.
func noOffer(offers []Offer) error {
	if len(offers) == 0 {
		return errors.New("it has no offers")
	}
	const most = 8
	var why []string
	for i, o := range offers {
		if i == most {
			why = append(why, fmt.Sprintf("and %d more", len(offers)-most))
			break
		}
		why = append(why, fmt.Sprintf("offer %d: %v", o.Number, o.Obstacle))
	}
	return errors.New(strings.Join(why, "; "))
}
