package paywall

import (
	"hash/maphash"
	"net/http"
	"reflect"
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
	seed maphash.Seed
	// A resource has a place in one set; who is longest there makes room.
	sets [1 << 12][4]atomic.Pointer[quote]
}

// maxEarlier is how many offers before the latest are remembered for a resource.
const maxEarlier = 4

// quote is one offer made for one resource.
type quote struct {
	resource uint64
	offer    *offer
	at       time.Time
	earlier  *quote // the offer before this one, if it can still be paid; see maxEarlier
}

func newQuotes() *quotes { return &quotes{seed: maphash.MakeSeed()} }

// resourceOf names what a request asks for: host, path and query, the line that
// prices it, because one URL may have several prices, and whether it is settled
// first, which is part of the offer.
func (q *quotes) resourceOf(r *http.Request, line string, first bool) uint64 {
	var h maphash.Hash
	h.SetSeed(q.seed)
	_, _ = h.WriteString(strings.ToLower(r.Host))
	_ = h.WriteByte(0)
	_, _ = h.WriteString(requestURI(r))
	_ = h.WriteByte(0)
	_, _ = h.WriteString(line)
	if first {
		_ = h.WriteByte(1)
	}
	return h.Sum64()
}

// recent copies the latest quotes of a chain that can still be paid.
func (qt *quote) recent(now time.Time, most int) *quote {
	if qt == nil || most == 0 || !qt.payable(now) {
		return nil
	}
	kept := *qt
	kept.earlier = qt.earlier.recent(now, most-1)
	return &kept
}

func (qt *quote) payable(now time.Time) bool { return now.Sub(qt.at) <= maxTimeout+maxTimeout/10 }

// find returns where the quotes for a resource are, or nil.
func (q *quotes) find(resource uint64) *atomic.Pointer[quote] {
	set := &q.sets[resource%uint64(len(q.sets))]
	for i := range set {
		if last := set[i].Load(); last != nil && last.resource == resource {
			return &set[i]
		}
	}
	return nil
}

// room returns where there is room for another resource.
func (q *quotes) room(resource uint64) *atomic.Pointer[quote] {
	set := &q.sets[resource%uint64(len(q.sets))]
	var oldest *quote
	slot := &set[0]
	for i := range set {
		last := set[i].Load()
		if last == nil {
			return &set[i]
		}
		if oldest == nil || last.at.Before(oldest.at) {
			oldest, slot = last, &set[i]
		}
	}
	return slot
}

// remember records an offer that goes out.
func (q *quotes) remember(resource uint64, o *offer, now time.Time) {
	slot := q.find(resource)
	if slot == nil {
		q.room(resource).Store(&quote{resource: resource, offer: o, at: now})
		return
	}
	next := &quote{resource: resource, offer: o, at: now}
	switch last := slot.Load(); {
	case last.resource != resource: // another has just taken its place
	case last.offer == o:
		if now.Sub(last.at) <= maxTimeout/10 {
			return
		}
		next.earlier = last.earlier
	case reflect.DeepEqual(last.offer.requirements, o.requirements): // a reload that did not change it
		next.earlier = last.earlier
	default:
		next.earlier = last.recent(now, maxEarlier)
	}
	slot.Store(next)
}

// recall returns the offers for a resource that can still be paid, the latest
// first.
func (q *quotes) recall(resource uint64, now time.Time) []*offer {
	slot := q.find(resource)
	if slot == nil {
		return nil
	}
	var offers []*offer
	for last := slot.Load(); last != nil && last.resource == resource; last = last.earlier {
		if last.payable(now) {
			offers = append(offers, last.offer)
		}
	}
	return offers
}

// fit is what a payment may pay for.
type fit struct {
	requirement x402.Requirement
	settlers    []facilitator.Named
	option      *option // nil for a guess
}

// fits returns what a payment matches: of the current offer, and of earlier
// quotes for the same resource, whose facilitators are this config's under the
// same names where it has them.
func (h *Handler) fits(p *x402.Payment, current *offer, resource uint64, now time.Time) (found []fit, err error) {
	i, err := x402.Match(p, current.requirements)
	if err == nil {
		found = append(found, fit{current.requirements[i], current.settlers[i], current.options[i]})
		if p.Version == x402.V2 {
			return found, nil
		}
	}
	for _, o := range h.shared.quotes.recall(resource, now) {
		if o == current {
			continue // a payment may be long, and matching takes as long
		}
		i, e := x402.Match(p, o.requirements)
		if e != nil || h.app.settlers.Closed(o.requirements[i].Network) {
			continue
		}
		settlers := slices.Clone(o.settlers[i])
		for j, s := range settlers {
			if f, ok := h.app.settlers.Get(s.Name); ok {
				settlers[j] = f
			}
		}
		found = append(found, fit{o.requirements[i], settlers, o.options[i]})
	}
	return found, err
}
