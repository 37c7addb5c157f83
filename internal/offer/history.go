package offer

import (
	"hash/maphash"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// History remembers what was asked for a resource, so that who was quoted a
// price can pay it for as long as the quote says, though the config or what a
// facilitator supports has changed since. It is shared by all configs of the
// process, bounded, and forgetful: who is forgotten gets a new quote, and
// nothing has moved.
type History struct {
	seed maphash.Seed
	// A resource has a place in one set; who is longest there makes room.
	sets [1 << 12][4]atomic.Pointer[quote]
}

// maxEarlier is how many offers before the latest are remembered for a resource.
const maxEarlier = 4

// quote is one offer made for one resource.
type quote struct {
	resource uint64
	offer    *Offer
	at       time.Time
	earlier  *quote // the offer before this one, if it can still be paid; see maxEarlier
}

// NewHistory returns one that remembers nothing.
func NewHistory() *History { return &History{seed: maphash.MakeSeed()} }

// ResourceOf names what a request asks for: host, path and query, the line that
// prices it, because one URL may have several prices, and whether it is settled
// first, which is part of the offer; see Otherwise.
func (h *History) ResourceOf(host, uri, line string, first bool) uint64 {
	var hash maphash.Hash
	hash.SetSeed(h.seed)
	_, _ = hash.WriteString(strings.ToLower(host))
	_ = hash.WriteByte(0)
	_, _ = hash.WriteString(uri)
	_ = hash.WriteByte(0)
	_, _ = hash.WriteString(line)
	resource := hash.Sum64() &^ 1
	if first {
		resource |= 1
	}
	return resource
}

// Otherwise names the same as ResourceOf does, settled in the other order.
func Otherwise(resource uint64) uint64 { return resource ^ 1 }

// recent copies the latest quotes of a chain that can still be paid.
func (q *quote) recent(now time.Time, most int) *quote {
	if q == nil || most == 0 || !q.payable(now) {
		return nil
	}
	kept := *q
	kept.earlier = q.earlier.recent(now, most-1)
	return &kept
}

func (q *quote) payable(now time.Time) bool { return now.Sub(q.at) <= MaxTimeout+MaxTimeout/10 }

// find returns where the quotes for a resource are, or nil.
func (h *History) find(resource uint64) *atomic.Pointer[quote] {
	set := &h.sets[resource%uint64(len(h.sets))]
	for i := range set {
		if last := set[i].Load(); last != nil && last.resource == resource {
			return &set[i]
		}
	}
	return nil
}

// room returns where there is room for another resource.
func (h *History) room(resource uint64) *atomic.Pointer[quote] {
	set := &h.sets[resource%uint64(len(h.sets))]
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

// Remember records an offer that goes out.
func (h *History) Remember(resource uint64, o *Offer, now time.Time) {
	slot := h.find(resource)
	if slot == nil {
		h.room(resource).Store(&quote{resource: resource, offer: o, at: now})
		return
	}
	next := &quote{resource: resource, offer: o, at: now}
	switch last := slot.Load(); {
	case last.resource != resource: // another has just taken its place
	case last.offer == o:
		if now.Sub(last.at) <= MaxTimeout/10 {
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
func (h *History) recall(resource uint64, now time.Time) []*Offer {
	slot := h.find(resource)
	if slot == nil {
		return nil
	}
	var offers []*Offer
	for last := slot.Load(); last != nil && last.resource == resource; last = last.earlier {
		if last.payable(now) {
			offers = append(offers, last.offer)
		}
	}
	return offers
}

// Match is what a payment may pay for.
type Match struct {
	Requirement x402.Requirement
	Settlers    []facilitator.Named
	Option      *Option
}

// Matches returns what a payment matches: of the current offer, and of earlier offers for
// the same resource, whose facilitators are those of the set under the same names where it
// has them. The error is why the current offer is none of them.
func (h *History) Matches(p *x402.Payment, current *Offer, resource uint64, set *facilitator.Set, now time.Time) (found []Match, err error) {
	i, err := x402.Match(p, current.requirements)
	if err == nil {
		found = append(found, Match{current.requirements[i], current.settlers[i], current.options[i]})
		if p.Version == x402.V2 {
			return found, nil
		}
	}
	for _, o := range h.recall(resource, now) {
		if o == current {
			continue // a payment may be long, and matching takes as long
		}
		i, e := x402.Match(p, o.requirements)
		if e != nil || set.Closed(o.requirements[i].Network) {
			continue
		}
		settlers := slices.Clone(o.settlers[i])
		for j, s := range settlers {
			if f, ok := set.Get(s.Name); ok {
				settlers[j] = f
			}
		}
		found = append(found, Match{o.requirements[i], settlers, o.options[i]})
	}
	return found, err
}
