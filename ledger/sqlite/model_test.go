package sqlite

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/maphash"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/ledger/memory"
)

// TestModel makes any calls on a ledger and on one in memory alone, which must
// answer alike, whatever of it is in the file, and whatever fails.
func TestModel(t *testing.T) {
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue { // each takes a while
		_ = checks.Value.Set("25")
		defer func() { _ = checks.Value.Set(checks.DefValue) }()
	}
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{time: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), claims: map[ledger.Key][2]ledger.Claim{}, disk: &disk{}}
		m.path = filepath.Join(memoryDir(t), "payments.db")
		m.memory = memory.New(memory.Options{Now: m.now})
		m.open(rt)
		defer func() {
			if err := m.file.Close(); err != nil {
				rt.Error(err)
			}
		}()
		key := rapid.Custom(func(t *rapid.T) ledger.Key {
			return ledger.Key(fmt.Sprint("k", rapid.IntRange(0, 5).Draw(t, "n")))
		})
		payer := rapid.SampledFrom([]string{"", "a", "b"})
		state := rapid.SampledFrom(ledger.States())
		rt.Repeat(map[string]func(*rapid.T){
			"": m.check,
			"claim": func(t *rapid.T) {
				p := payment(key.Draw(t, "key"))
				p.Payer, p.Identifier = payer.Draw(t, "payer"), payer.Draw(t, "identifier")
				p.ValidBefore, p.Keep = m.time.Add(time.Minute), m.time.Add(time.Hour)
				p.Line, p.Effects = payer.Draw(t, "line"), rapid.Bool().Draw(t, "effects")
				if rapid.Bool().Draw(t, "to be fetched soon") {
					p.FetchBy = m.time.Add(3 * testLease)
				}
				m.hold(t, p.Key, func(l ledger.Ledger) (ledger.Claim, error) { return l.Claim(t.Context(), p, testLease) })
			},
			"take": func(t *rapid.T) {
				key, to := key.Draw(t, "key"), state.Draw(t, "to")
				m.hold(t, key, func(l ledger.Ledger) (ledger.Claim, error) { return l.Take(t.Context(), key, to, testLease) })
			},
			"move": func(t *rapid.T) { m.move(t, key.Draw(t, "key"), state.Draw(t, "to"), payer.Draw(t, "payer")) },
			"go on": func(t *rapid.T) {
				key := key.Draw(t, "key")
				next := map[ledger.State]ledger.State{
					ledger.Claimed: ledger.Settling, ledger.Settling: ledger.Settled, ledger.Settled: ledger.Delivering, ledger.Delivering: ledger.Delivered,
					ledger.Delivered: ledger.Delivered,
				}
				m.move(t, key, next[m.claims[key][0].Payment.State], "")
			},
			"renew": func(t *rapid.T) {
				key := key.Draw(t, "key")
				if m.mayBeForgotten(t, key) {
					return
				}
				m.same(t, m.memory.Renew(t.Context(), m.claims[key][0], 2*testLease), m.file.Renew(t.Context(), m.claims[key][1], 2*testLease))
			},
			"wait": func(t *rapid.T) {
				m.time = m.time.Add(rapid.SampledFrom([]time.Duration{1, testLease, 2 * testLease}).Draw(t, "time"))
			},
			"write": func(*rapid.T) { _ = m.file.commit() },
			"clean": func(*rapid.T) { m.file.chores() },
			"list":  m.list,
			"fail": func(t *rapid.T) {
				m.disk.fail(rapid.SampledFrom([]string{"begin", "write", "committed"}).Draw(t, "at"), errFull)
				_ = m.file.commit() // the background may have been first, and then nothing waits
				m.disk.heal()
				if err := m.file.commit(); err != nil {
					t.Fatal(err)
				}
			},
			"restart": func(t *rapid.T) {
				if err := m.file.Close(); err != nil {
					t.Fatal(err)
				}
				m.open(t)
				m.forget(t)
			},
		})
	})
}

type model struct {
	path   string
	disk   *disk
	time   time.Time
	memory *memory.Ledger
	file   *Ledger
	claims map[ledger.Key][2]ledger.Claim
}

func (m *model) now() time.Time { return m.time }

func (m *model) open(t *rapid.T) {
	var err error
	if m.file, err = Open(m.path, Options{Now: m.now, fault: m.disk.fault}); err != nil {
		t.Fatal(err)
	}
}

// forget makes the model forget what a restart forgets: it lets all leases end.
func (m *model) forget(*rapid.T) {
	m.time = m.time.Add(10 * testLease)
	clear(m.claims)
}

func (m *model) hold(t *rapid.T, key ledger.Key, f func(ledger.Ledger) (ledger.Claim, error)) {
	if _, err := m.memory.Get(t.Context(), key); errors.Is(err, ledger.ErrNotFound) {
		if p, err := m.file.Get(t.Context(), key); err == nil && p.State == ledger.Delivered && m.over(p) {
			return // to memory it is new, and to the file delivered for some time yet
		}
	}
	a, errA := f(m.memory)
	b, errB := f(m.file)
	m.same(t, errA, errB)
	if errA == nil {
		m.claims[key] = [2]ledger.Claim{a, b}
		m.equal(t, a.Payment, b.Payment)
	}
}

func (m *model) move(t *rapid.T, key ledger.Key, to ledger.State, payer string) {
	c := m.claims[key]
	if m.mayBeForgotten(t, key) {
		return
	}
	ch := ledger.Change{
		To: to, Payer: payer, Proven: rapid.Bool().Draw(t, "proven"), Reorganised: rapid.Bool().Draw(t, "reorganised"), Runs: 1,
		Body: payer, Ended: rapid.IntRange(0, 2).Draw(t, "ended"), Answer: []byte(payer),
	}
	a, errA := m.memory.Move(t.Context(), c[0], ch)
	b, errB := m.file.Move(t.Context(), c[1], ch)
	m.same(t, errA, errB)
	if errA == nil {
		m.equal(t, a, b)
		c[0].Payment, c[1].Payment = a, b
		m.claims[key] = c
	}
}

// mayBeForgotten says whether the key is a claim whose holder is gone: one store
// may have forgotten it, and the other not yet.
func (m *model) mayBeForgotten(t *rapid.T, key ledger.Key) bool {
	p, err := m.memory.Get(t.Context(), key)
	q, _ := m.file.Get(t.Context(), key)
	return err != nil || p.State == ledger.Claimed && !ledger.Held(p, m.time) || q.State == ledger.Claimed && !ledger.Held(q, m.time)
}

// same tests that two errors are of one kind. A row that is free may be unknown.
func (m *model) same(t *rapid.T, a, b error) {
	t.Helper()
	takenA, isA := errors.AsType[*ledger.TakenError](a)
	takenB, isB := errors.AsType[*ledger.TakenError](b)
	switch {
	case isA && isB:
		m.equal(t, takenA.Payment, takenB.Payment)
	case isA && errors.Is(b, ledger.ErrNotFound) && ledger.Claimable(takenA.Payment, m.time),
		isB && errors.Is(a, ledger.ErrNotFound) && ledger.Claimable(takenB.Payment, m.time):
	case isA || isB || (a == nil) != (b == nil) || a != nil && !errors.Is(b, errors.Unwrap(a)) && !errors.Is(b, a):
		t.Fatalf("memory says %v, and the file %v", a, b)
	}
}

// equal compares rows but for their leases, which end with the process, and for
// what is free.
func (m *model) equal(t *rapid.T, a, b ledger.Payment) {
	t.Helper()
	if ledger.Claimable(a, m.time) && ledger.Claimable(b, m.time) && a.State != b.State {
		return
	}
	if ledger.Held(a, m.time) != ledger.Held(b, m.time) {
		t.Fatalf("%s: held is %v in memory, and %v in the file", a.Key, ledger.Held(a, m.time), ledger.Held(b, m.time))
	}
	a.Lease, b.Lease = time.Time{}, time.Time{}
	if by := cmp.Or(a.FetchBy, a.Keep); !m.time.Before(by) { // one store may have shed it, and the other not yet
		a.Request, b.Request, a.Answer, b.Answer = nil, nil, nil, nil
	}
	if !reflect.DeepEqual(a, b) {
		t.Fatalf("memory has %+v\nand the file %+v", a, b)
	}
}

func (m *model) check(t *rapid.T) {
	for i := range 6 {
		key := ledger.Key(fmt.Sprint("k", i))
		a, errA := m.memory.Get(t.Context(), key)
		b, errB := m.file.Get(t.Context(), key)
		switch {
		case errors.Is(errA, ledger.ErrNotFound) && (errors.Is(errB, ledger.ErrNotFound) || m.over(b)):
		case errors.Is(errB, ledger.ErrNotFound) && m.over(a):
		case errA != nil || errB != nil:
			t.Fatalf("%s: memory says %v, and the file %v", key, errA, errB)
		default:
			m.equal(t, a, b)
		}
	}
	m.sound(t)
}

// list compares what one of some filters selects.
func (m *model) list(t *rapid.T) {
	f := rapid.SampledFrom([]ledger.Filter{
		{},
		{States: []ledger.State{ledger.Settling, ledger.Unknown}},
		{States: []ledger.State{ledger.Settled, ledger.Delivered}},
		{Payer: "a"},
		{Payer: "b", Identifier: "a"},
		{Payer: "a", Method: "GET", Host: "shop.example", URL: "/a?email=me@example.com", States: []ledger.State{ledger.Settled}},
		{Identifier: "b", Limit: 1000},
	}).Draw(t, "filter")
	a, b := m.listed(t, m.memory, f), m.listed(t, m.file, f)
	if len(a) != len(b) {
		t.Fatalf("%+v: memory lists %d, and the file %d", f, len(a), len(b))
	}
	for key := range a {
		m.equal(t, a[key], b[key])
	}
}

// over says whether a row need not be kept: what is free, and what is delivered and past
// its Keep. One store may have forgotten it, and the other not yet.
func (m *model) over(p ledger.Payment) bool {
	return ledger.Claimable(p, m.time) || p.State == ledger.Delivered && !m.time.Before(p.Keep)
}

// listed returns the rows that have to be kept, by their keys.
func (m *model) listed(t *rapid.T, l ledger.Ledger, f ledger.Filter) map[ledger.Key]ledger.Payment {
	all := map[ledger.Key]ledger.Payment{}
	var last time.Time
	for p, err := range l.List(context.Background(), f) {
		if err != nil {
			t.Fatal(err)
		}
		if p.Created.Before(last) {
			t.Fatalf("%+v: not in order of Created", f)
		}
		last = p.Created
		if _, twice := all[p.Key]; twice {
			t.Fatalf("%+v: %s is listed twice", f, p.Key)
		}
		if !m.over(p) {
			all[p.Key] = p
		}
	}
	return all
}

// sound tests that what is in memory agrees with itself.
func (m *model) sound(t *rapid.T) {
	l := m.file
	l.mu.Lock()
	defer l.mu.Unlock()
	unfinished := 0
	for key, r := range l.rows.all {
		if r.payment.Key != key || r.gone {
			t.Fatalf("%s is under %s", r.payment.Key, key)
		}
		if !r.payment.State.Finished() {
			unfinished++
		}
		if r.token == "" != r.payment.Lease.IsZero() {
			t.Fatalf("%s has token %q and lease %s", key, r.token, r.payment.Lease)
		}
		if r.token == "" && !r.pending() {
			t.Fatalf("%s is %s, and in memory for nothing", key, r.payment.State)
		}
		if r.unwritten && !slices.Contains(l.filling.rows, r) {
			t.Fatalf("%s is not written", key)
		}
	}
	for p, rows := range l.rows.purchases {
		for _, r := range rows {
			unfinished--
			if r.gone || r.payment.State.Finished() || r.payment.Purchase() != p {
				t.Fatalf("%s, %s, is indexed as %v", r.payment.Key, r.payment.State, p)
			}
		}
	}
	if unfinished != 0 {
		t.Fatalf("%d more are not finished than the index has", unfinished)
	}
	m.resting(t)
}

// resting tests that what memory knows of the file is so. It is called under the lock.
func (m *model) resting(t *rapid.T) {
	var want [buckets]uint32
	l := m.file
	rows, err := l.file.rows(context.Background(), selectRow)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range rows {
		if l.rows.all[s.payment.Key] == nil && s.payment.State.Open() {
			want[maphash.Comparable(l.rows.seed, s.payment.Purchase())%buckets]++
		}
	}
	if l.rows.resting != want {
		t.Fatal("the open rows that the file alone has are miscounted")
	}
}
