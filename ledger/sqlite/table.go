package sqlite

import (
	"cmp"
	"hash/maphash"
	"slices"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// row is what is in memory of one payment: because somebody holds it, or because the
// file does not have it as it is.
type row struct {
	payment ledger.Payment
	hash    digest
	token   ledger.Token
	// id is the row's number in the file; 0 for a claim, of which the file is to know
	// nothing.
	id int64
	// again: the file may have an earlier claim of the same key.
	again bool
	// change is the number of the latest change of the row, of all in this process.
	change uint64

	// next is what the next transaction is to write of the row, and current what the
	// present one writes. A claim may have both, of an earlier claim that was refused.
	next, current *version

	// queued: the row is in table.holders.
	queued bool
	// gone: the row is in the table no more.
	gone bool
}

// version is what the file is to have of a row. It does not change.
type version struct {
	payment ledger.Payment
	hash    digest
	id      int64
	// anew: the file has no row of that id. again is that of the row.
	anew, again bool
	// kept and payer: the file has another request or answer, or another payer.
	kept, payer bool
}

// buckets is how many counters table.resting has.
const buckets = 1 << 12

// table is the rows in memory.
type table struct {
	all map[ledger.Key]*row
	// holders are the rows that somebody holds, or did, in the order in which they
	// are looked at.
	holders []*row
	// purchases are the rows that are not finished, by what they bought: a gate asks with
	// every payment what the payer has under way for this request.
	purchases map[ledger.Purchase][]*row
	// resting counts the open rows that the file alone has, in buckets by what they
	// bought: where there are none, the file need not be asked. It is as large for a
	// million of them as for one.
	resting [buckets]uint32
	seed    maphash.Seed
}

func newTable() table {
	return table{all: make(map[ledger.Key]*row), purchases: make(map[ledger.Purchase][]*row), seed: maphash.MakeSeed()}
}

func (t *table) restingAt(p ledger.Purchase) *uint32 {
	return &t.resting[maphash.Comparable(t.seed, p)%buckets]
}

// add adds a row that is new in memory.
func (t *table) add(r *row) {
	t.all[r.payment.Key] = r
	t.index(r)
}

// recall brings a row back into memory that the file alone has.
func (t *table) recall(s stored) *row {
	r := &row{payment: s.payment, hash: s.hash, id: s.id}
	if s.payment.State.Open() {
		*t.restingAt(s.payment.Purchase())--
	}
	t.add(r)
	return r
}

// hold gives a row a holder.
func (t *table) hold(r *row, token ledger.Token) {
	r.token = token
	if !r.queued {
		r.queued = true
		t.holders = append(t.holders, r)
	}
}

// set gives a row its new contents.
func (t *table) set(r *row, p ledger.Payment) {
	moved := r.payment.State.Finished() != p.State.Finished() || r.payment.Purchase() != p.Purchase()
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

func (t *table) index(r *row) {
	if !r.payment.State.Finished() {
		key := r.payment.Purchase()
		t.purchases[key] = append(t.purchases[key], r)
	}
}

// unindex must come before a change of the row.
func (t *table) unindex(r *row) {
	if r.payment.State.Finished() {
		return
	}
	key := r.payment.Purchase()
	rows := t.purchases[key]
	if len(rows) == 1 {
		delete(t.purchases, key)
		return
	}
	t.purchases[key] = slices.DeleteFunc(rows, func(other *row) bool { return other == r })
}

// rest takes a row out of memory when the file has it as it is, and nobody holds it.
func (t *table) rest(r *row) {
	if r.gone || r.token != "" || r.next != nil || r.current != nil {
		return
	}
	if r.payment.State.Open() {
		*t.restingAt(r.payment.Purchase())++
	}
	t.remove(r)
}

// letGo ends a claim without a trace. What the file is still to have of an earlier one
// comes back.
func (t *table) letGo(r *row) {
	v := cmp.Or(r.next, r.current)
	if v == nil {
		t.remove(r)
		return
	}
	t.set(r, v.payment)
	r.id = v.id
}

func (t *table) remove(r *row) {
	t.unindex(r)
	r.gone = true
	delete(t.all, r.payment.Key)
}

// rows returns the rows that the filter may select, the oldest first, and whether the
// file has no others. A URL may stand in them as it was, or hashed.
func (t *table) rows(f ledger.Filter, hashed string) (rows []listed, alone bool) {
	if p, ok := f.Purchase(); ok && f.Unfinished() {
		if *t.restingAt(p) == 0 {
			for _, r := range t.purchases[p] {
				rows = append(rows, listed{r, r.payment.Created})
			}
			alone = true
		}
	}
	if !alone {
		// Who pays may change, and the state does: what the file says of these may be
		// of before that.
		f.Payer, f.States = "", nil
		for _, r := range t.all {
			if matches(f, hashed, r.payment) {
				rows = append(rows, listed{r, r.payment.Created})
			}
		}
	}
	slices.SortFunc(rows, func(a, b listed) int {
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.row.id, b.row.id))
	})
	return rows, alone
}

// listed is a row that a List has found in memory, and its age then.
type listed struct {
	row     *row
	created time.Time
}

// matches is Filter.Match for a row whose URL may be hashed.
func matches(f ledger.Filter, hashed string, p ledger.Payment) bool {
	if f.URL != "" && p.URL == hashed {
		p.URL = f.URL
	}
	return f.Match(p)
}
