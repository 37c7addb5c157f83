package sqlite

import (
	"cmp"
	"hash/maphash"
	"slices"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// row is what is in memory of one claim: because somebody holds it, or because the file
// does not have it as it is.
type row struct {
	payment ledger.Payment
	id      int64 // see schema
	token   ledger.Token
	changes int // how many there were

	// inFile is what the file has of the claim; the zero one is nothing, or nobody knows.
	inFile ledger.Payment
	// unwritten: the next transaction is to write the row. writing: the present one does.
	unwritten, writing bool
	// before is the claim of the same key before this one, if the file does not have it yet.
	before *row
	gone   bool // from the table
}

// pending says whether the file is yet to have the row as it is.
func (r *row) pending() bool { return r.unwritten || r.writing }

// buckets is how many counters table.resting has.
const buckets = 1 << 12

// table is the rows in memory.
type table struct {
	all map[ledger.Key]*row
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

// add adds a row, in place of an earlier claim of its key.
func (t *table) add(r *row) {
	if old := t.all[r.payment.Key]; old != nil {
		t.remove(old)
		if r.before = old; old.payment.State == ledger.Claimed {
			r.before = old.before
		}
	}
	r.gone = false
	t.all[r.payment.Key] = r
	t.index(r)
}

// recall brings a row back into memory that the file alone has.
func (t *table) recall(s stored) *row {
	r := &row{payment: s.payment, inFile: s.payment, id: s.id}
	if s.payment.State.Open() {
		*t.restingAt(s.payment.Purchase())--
	}
	t.add(r)
	return r
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
	rows := slices.DeleteFunc(t.purchases[key], func(other *row) bool { return other == r })
	if t.purchases[key] = rows; len(rows) == 0 {
		delete(t.purchases, key)
	}
}

// rest takes a row out of memory when the file has it as it is, and nobody holds it.
func (t *table) rest(r *row) {
	if r.gone || r.token != "" || r.pending() {
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
	t.remove(r)
	if r.before != nil && r.before.pending() {
		t.add(r.before)
	}
}

func (t *table) remove(r *row) {
	t.unindex(r)
	r.gone = true
	delete(t.all, r.payment.Key)
}

// find returns the rows that the filter may select, the oldest first, and whether the
// file has no others. A URL may stand in them as it was, or hashed.
func (t *table) find(f ledger.Filter, hashed string) (rows []*row, alone bool) {
	if p, ok := f.Purchase(); ok && f.Unfinished() && *t.restingAt(p) == 0 {
		rows, alone = slices.Clone(t.purchases[p]), true
	} else {
		// Who pays may change, and the state does: what the file says of these may be
		// of before that.
		f.Payer, f.States = "", nil
		for _, r := range t.all {
			if matches(f, hashed, r.payment) {
				rows = append(rows, r)
			}
		}
	}
	slices.SortFunc(rows, func(a, b *row) int { return cmp.Compare(a.id, b.id) })
	return rows, alone
}

// matches is Filter.Match for a row whose URL may be hashed.
func matches(f ledger.Filter, hashed string, p ledger.Payment) bool {
	if f.URL != "" && p.URL == hashed {
		p.URL = f.URL
	}
	return f.Match(p)
}
