package purchase

import (
	"context"
	"net/http"
	"slices"

	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
)

// upstreamRequest is the request as the upstream may see it: without the
// payment.
func (p *Purchase) upstreamRequest(r *http.Request) (*http.Request, error) {
	delivery.WithoutPayment(r)
	if p.desk.UpstreamHeaders {
		secret, err := p.desk.Secret(r.Context(), p.hold.Claim)
		if err != nil {
			return nil, err
		}
		delivery.TellUpstream(r.Header, p.hold.Payment, secret)
	}
	return r, nil
}

// chargeable says whether an upstream's answer is charged for.
func (p *Purchase) chargeable(status int, header http.Header) bool {
	if charge := p.offered.Price.Charge; len(charge) > 0 && status != http.StatusSwitchingProtocols {
		// A range of the goods is goods.
		return slices.Contains(charge, status) || status == http.StatusPartialContent && slices.Contains(charge, http.StatusOK)
	}
	switch {
	case status == http.StatusSwitchingProtocols, status >= 200 && status < 300:
		return true
	case status == http.StatusNotModified:
		return false
	case status >= 300 && status < 400:
		return p.desk.Leaves(header.Get("Location"))
	}
	return false
}

// usesUp says whether an upstream's answer uses up what is owed: what a first payer
// would be charged for, or, where he pays first, everything that is goods.
func (p *Purchase) usesUp(status int, header http.Header) bool {
	if p.offered.First {
		return p.isGoods(status)
	}
	return p.chargeable(status, header)
}

// isGoods says whether a status stands for something that was done or given: one that
// usually does, or that the line charges for.
func (p *Purchase) isGoods(status int) bool {
	return status == http.StatusSwitchingProtocols || status >= 200 && status < 400 && status != http.StatusNotModified ||
		slices.Contains(p.offered.Price.Charge, status)
}

// chargedKey marks the context of a request that holds a payment.
type chargedKey struct{}

// IsPaidFor says whether a request holds a payment already: a gate has let it through.
func IsPaidFor(ctx context.Context) bool { return ctx.Value(chargedKey{}) != nil }
