package sqlite

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// row is what is in memory of one payment. A key that is claimed anew gets a new
// row.
type row struct {
	payment ledger.Payment
	key     digest
	token   ledger.Token
	// order counts the claims. It is not Created, which may go back with the
	// clock.
	order uint64

	// version is the number of the latest record of the row; 0 while it is a
	// claim, which has none.
	version uint64
	// awaited is the latest record that somebody waited for. Until it is on disk,
	// it may yet be taken back.
	awaited uint64
	// dirty: the database does not have this version. since and from are when it
	// began to be so, and the first record that the database does not have.
	dirty  bool
	queued bool
	since  time.Time
	from   uint64
	// stored: the database has some version of the row.
	stored bool
	// below is the free row in place of which this one was claimed, if the
	// database does not have that one yet.
	below *row

	links [indexes]links
}

// table is the payments in memory: claims, open ones but for those that are owed for
// long, and finished ones that the database does not have yet.
type table struct {
	all    map[ledger.Key]*row
	order  uint64
	claims []*row // by age; some are claims no more
	dirty  []*row // by age; some are dirty no more
	queued int    // how many are in dirty, or were taken out of it to be copied
	// evicted counts how often rows have gone to the database alone.
	evicted uint64
	// owed is the settled rows that nobody holds and that the database has; some are
	// so no more. away is the latest Created of those that have left memory.
	owed     []owedRow
	owedSize int
	away     time.Time

	open        index[struct{}]
	purchases   index[purchase]
	payers      index[string]
	identifiers index[string]
}

func newTable() table {
	return table{
		all:         make(map[ledger.Key]*row),
		open:        make(index[struct{}]),
		purchases:   make(index[purchase]),
		payers:      make(index[string]),
		identifiers: make(index[string]),
	}
}

// add adds a row under its key, in place of the one that is there.
func (t *table) add(r *row) {
	if old := t.all[r.payment.Key]; old != nil {
		t.unindex(old)
	}
	t.order++
	r.order = t.order
	t.all[r.payment.Key] = r
	t.index(r)
	if r.payment.State == ledger.Claimed {
		t.claims = append(t.claims, r)
	}
}

// change gives a row its new contents, and its places by them.
func (t *table) change(r *row, p ledger.Payment) {
	moved := !samePlaces(&r.payment, &p)
	if moved {
		t.unindex(r)
	}
	r.payment = p
	if p.Lease.IsZero() {
		r.token = ""
	}
	if moved {
		t.index(r)
	}
}

// remove removes a row. The free row below it comes back, until the database
// has it.
func (t *table) remove(r *row) {
	t.unindex(r)
	if below := r.below; below != nil && below.dirty {
		t.all[r.payment.Key] = below
		t.index(below)
		return
	}
	delete(t.all, r.payment.Key)
}

// sweep looks at the n oldest claims, and removes those whose holder is gone.
func (t *table) sweep(now time.Time, n int) (removed int64) {
	for range min(n, len(t.claims)) {
		r := t.claims[0]
		t.claims[0] = nil
		t.claims = t.claims[1:]
		switch {
		case r.payment.State != ledger.Claimed || t.all[r.payment.Key] != r:
		case ledger.Held(r.payment, now):
			t.claims = append(t.claims, r)
		default:
			t.remove(r)
			removed++
		}
	}
	return removed
}

// soil says that the database does not have the row's present version.
func (t *table) soil(r *row, version uint64) {
	r.version = version
	if !r.dirty {
		r.dirty, r.since, r.from = true, time.Now(), version
	}
	if !r.queued {
		r.queued = true
		t.queued++
		t.dirty = append(t.dirty, r)
	}
}

// finished says whether nothing more happens to a row in this state, but that it
// may be claimed anew, or taken after a reorganisation.
func finished(s ledger.State) bool { return !s.Open() && s != ledger.Claimed }

// final says whether a row does not change any more: it is finished, and nobody
// holds it. Whoever takes it, after a reorganisation, gets another one.
func (r *row) final() bool { return finished(r.payment.State) && r.token == "" }

// pack moves the strings of a claim into one: what the caller gave may be parts
// of something larger.
func pack(p *ledger.Payment) {
	p.Request = bytes.Clone(p.Request)
	fields := [...]*string{
		(*string)(&p.Key), &p.Scheme, &p.Network, &p.Asset, &p.PayTo, &p.Payer, &p.Amount,
		&p.Method, &p.Host, &p.URL, &p.Line, &p.Client, &p.Identifier, &p.Body, &p.Facilitator,
	}
	n := 0
	for _, f := range fields {
		n += len(*f)
	}
	var b strings.Builder
	b.Grow(n)
	for _, f := range fields {
		b.WriteString(*f)
	}
	packed := b.String()
	for _, f := range fields {
		*f, packed = packed[:len(*f)], packed[len(*f):]
	}
}

// copied is a row for the caller.
func copied(p ledger.Payment) ledger.Payment {
	p.Request, p.Answer = bytes.Clone(p.Request), bytes.Clone(p.Answer)
	return p
}

// copiedFor is a row for a caller who has most of it: the request is a kilobyte,
// and comes back with each of a payment's moves.
func copiedFor(p, had ledger.Payment, given ledger.Change) ledger.Payment {
	p.Request = copiedUnless(p.Request, given.Request, had.Request)
	p.Answer = copiedUnless(p.Answer, given.Answer, had.Answer)
	return p
}

// copiedUnless copies b, unless one of the caller's own has the same contents.
func copiedUnless(b []byte, own ...[]byte) []byte {
	for _, o := range own {
		if len(b) > 0 && bytes.Equal(b, o) {
			return o
		}
	}
	return bytes.Clone(b)
}

// byAge sorts rows as List returns them.
func byAge(rows []*row) {
	slices.SortFunc(rows, func(a, b *row) int {
		return cmp.Or(a.payment.Created.Compare(b.payment.Created), cmp.Compare(a.order, b.order))
	})
}
