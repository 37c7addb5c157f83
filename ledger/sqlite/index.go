package sqlite

import (
	"maps"
	"slices"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// index finds rows in memory: a gateway asks with every payment what the payer
// is owed for this request, and a reconciler all the time for what is in doubt.
// The rows of one key are a list, in which each has its links.
type index[K comparable] map[K]*row

// links are a row's place in an index.
type links struct{ prev, next *row }

// The places that a row has.
const (
	inOpen = iota
	inPurchases
	inPayers
	inIdentifiers
	indexes
)

// purchase is who bought what.
type purchase struct{ payer, method, host, url string }

func purchaseOf(p *ledger.Payment) purchase {
	return purchase{p.Payer, p.Method, p.Host, p.URL}
}

func (x index[K]) add(place int, key K, r *row) {
	next := x[key]
	r.links[place] = links{next: next}
	if next != nil {
		next.links[place].prev = r
	}
	x[key] = r
}

func (x index[K]) remove(place int, key K, r *row) {
	prev, next := r.links[place].prev, r.links[place].next
	if next != nil {
		next.links[place].prev = prev
	}
	switch {
	case prev != nil:
		prev.links[place].next = next
	case next != nil:
		x[key] = next
	default:
		delete(x, key)
	}
	r.links[place] = links{}
}

func (x index[K]) find(place int, key K) (found []*row) {
	for r := x[key]; r != nil; r = r.links[place].next {
		found = append(found, r)
	}
	return found
}

// index puts a row into the indexes: the open ones into all, the others where a
// payer is asked about.
func (t *table) index(r *row) {
	p := &r.payment
	if p.State.Open() {
		t.open.add(inOpen, struct{}{}, r)
		t.purchases.add(inPurchases, purchaseOf(p), r)
	}
	t.payers.add(inPayers, p.Payer, r)
	if p.Identifier != "" {
		t.identifiers.add(inIdentifiers, p.Identifier, r)
	}
}

// unindex must come before a change of the row.
func (t *table) unindex(r *row) {
	p := &r.payment
	if p.State.Open() {
		t.open.remove(inOpen, struct{}{}, r)
		t.purchases.remove(inPurchases, purchaseOf(p), r)
	}
	t.payers.remove(inPayers, p.Payer, r)
	if p.Identifier != "" {
		t.identifiers.remove(inIdentifiers, p.Identifier, r)
	}
}

// samePlaces says whether two versions of a row are in the same places: most
// changes are from one open state to another.
func samePlaces(a, b *ledger.Payment) bool {
	return a.State.Open() == b.State.Open() && a.Identifier == b.Identifier && purchaseOf(a) == purchaseOf(b)
}

// find returns the rows that the filter may select, oldest first.
func (t *table) find(f ledger.Filter) []*row {
	var found []*row
	switch open := onlyOpen(f); {
	case f.Identifier != "":
		found = t.identifiers.find(inIdentifiers, f.Identifier)
	case open && f.Payer != "" && f.Method != "" && f.Host != "" && f.URL != "":
		found = t.purchases.find(inPurchases, purchase{f.Payer, f.Method, f.Host, f.URL})
	case f.Payer != "":
		found = t.payers.find(inPayers, f.Payer)
	case open:
		found = t.open.find(inOpen, struct{}{})
	default:
		found = slices.AppendSeq(make([]*row, 0, len(t.all)), maps.Values(t.all))
	}
	byAge(found)
	return found
}

// onlyOpen says whether the filter selects open rows alone.
func onlyOpen(f ledger.Filter) bool {
	for _, s := range f.States {
		if !s.Open() {
			return false
		}
	}
	return len(f.States) > 0
}
