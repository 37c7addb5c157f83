package paywall

import (
	"hash/maphash"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// quotes remembers what was asked for a resource, so that who was quoted a
// price can pay it for as long as the quote says, though the config or what a
// facilitator supports has changed since. It is shared by all configs of the
// process, bounded, and forgetful: who is forgotten gets a new quote, and
// nothing has moved.
type quotes struct {
	seed  maphash.Seed
	slots [1 << 14]atomic.Pointer[quote]
}

// quote is one offer made for one resource.
type quote struct {
	resource uint64
	offer    *offer
	at       time.Time
}

var quoted = &quotes{seed: maphash.MakeSeed()}

// resourceOf names what a request asks for: host, path and query, and whether
// it is settled first, which is part of the offer.
func (q *quotes) resourceOf(r *http.Request, first bool) uint64 {
	var h maphash.Hash
	h.SetSeed(q.seed)
	_, _ = h.WriteString(strings.ToLower(r.Host))
	_ = h.WriteByte(0)
	_, _ = h.WriteString(requestURI(r))
	if first {
		_ = h.WriteByte(1)
	}
	return h.Sum64()
}

// remember records an offer that goes out.
func (q *quotes) remember(resource uint64, o *offer, now time.Time) {
	slot := &q.slots[resource%uint64(len(q.slots))]
	if last := slot.Load(); last == nil || last.resource != resource || last.offer != o || now.Sub(last.at) > maxTimeout/10 {
		slot.Store(&quote{resource, o, now})
	}
}

// recall returns the latest offer for a resource that can still be paid, or
// nil.
func (q *quotes) recall(resource uint64, now time.Time) *offer {
	last := q.slots[resource%uint64(len(q.slots))].Load()
	if last == nil || last.resource != resource || now.Sub(last.at) > maxTimeout+maxTimeout/10 {
		return nil
	}
	return last.offer
}

// matchQuote finds what a payment pays for in an earlier quote. The
// facilitators are this config's under the same names, where it has them.
func (h *Handler) matchQuote(r *http.Request, p *x402.Payment, first bool, now time.Time) (x402.Requirement, []facilitator.Named, bool) {
	o := quoted.recall(quoted.resourceOf(r, first), now)
	if o == nil {
		return x402.Requirement{}, nil, false
	}
	i, err := x402.Match(p, o.requirements)
	if err != nil {
		return x402.Requirement{}, nil, false
	}
	settlers := slices.Clone(o.settlers[i])
	for j, s := range settlers {
		if b, ok := h.app.backends[s.Name]; ok {
			settlers[j] = b.Named
		}
	}
	return o.requirements[i], settlers, true
}
