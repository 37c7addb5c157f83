package memory

import (
	"context"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// TestSound makes any calls on a small ledger and looks at its structures after
// each.
func TestSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		s := newTester(t, 6)
		claims := map[ledger.Key]ledger.Claim{}
		key := rapid.Custom(func(t *rapid.T) ledger.Key {
			return ledger.Key(fmt.Sprint("k", rapid.IntRange(0, 9).Draw(t, "n")))
		})
		state := rapid.SampledFrom(ledger.States())
		payer := rapid.SampledFrom([]string{"", "a", "b"})
		keep := func(c ledger.Claim, err error) {
			if err == nil {
				claims[c.Payment.Key] = c
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { s.wantSound(t) },
			"claim": func(t *rapid.T) {
				keep(s.Claim(ctx, ledger.Payment{
					Key: key.Draw(t, "key"), Payer: payer.Draw(t, "payer"), Keep: s.time.Add(time.Minute),
					Request: []byte(payer.Draw(t, "request")),
				}, lease))
			},
			"take": func(t *rapid.T) { keep(s.Take(ctx, key.Draw(t, "key"), state.Draw(t, "to"), lease)) },
			"move": func(t *rapid.T) {
				_, _ = s.Move(ctx, claims[key.Draw(t, "key")], ledger.Change{
					To: state.Draw(t, "to"), Payer: payer.Draw(t, "payer"),
					Proven: rapid.Bool().Draw(t, "proven"), Reorganised: rapid.Bool().Draw(t, "reorganised"),
				})
			},
			"renew": func(t *rapid.T) { _ = s.Renew(ctx, claims[key.Draw(t, "key")], 2*lease) },
			"wait": func(t *rapid.T) {
				s.time = s.time.Add(rapid.SampledFrom([]time.Duration{1, lease, 2 * time.Minute}).Draw(t, "time"))
			},
		})
	})
}

// wantSound tests that the structures of the ledger agree with each other.
func (l *Ledger) wantSound(t rapid.TB) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()

	linked, open := 0, 0
	var prev *row
	for r := l.all.first; r != nil; prev, r = r, r.age.next {
		linked++
		if r.age.prev != prev || r.age.gone || prev != nil && prev.age.number >= r.age.number {
			t.Errorf("%s is linked wrongly by age", r.payment.Key)
		}
		if l.rows[r.payment.Key] != r {
			t.Errorf("%s is linked and not found", r.payment.Key)
		}
		if !r.payment.State.Finished() {
			open++
		}
		if (r.token == "") != r.payment.Lease.IsZero() {
			t.Errorf("%s is %s with token %q and lease %s", r.payment.Key, r.payment.State, r.token, r.payment.Lease)
		}
		want := map[ledger.State]*queue{
			ledger.Claimed: &l.room.spent, ledger.Delivered: &l.room.spent, ledger.Refused: &l.room.refused,
			ledger.Settled: &l.room.owed, ledger.Delivering: &l.room.owed,
		}[r.payment.State]
		if place := r.queues[toForget]; place.in != want || want != nil && want.rows[place.at] != r {
			t.Errorf("%s, %s, is in the wrong queue", r.payment.Key, r.payment.State)
		}
		at, sheds := ledger.ShedAt(r.payment)
		if place := r.queues[toShed]; sheds != (place.in == &l.room.kept) || sheds && !place.due.Equal(at) {
			t.Errorf("%s, %s, is to be shed at %s: %v, and in the queue for %s: %v", r.payment.Key, r.payment.State, at, sheds, place.due, place.in != nil)
		}
	}
	if linked != len(l.rows) || l.all.last != prev {
		t.Errorf("%d rows, %d linked", len(l.rows), linked)
	}
	for key, first := range l.open {
		var prev *row
		for r := first; r != nil; prev, r = r, r.open.next {
			open--
			if r.payment.Purchase() != key || r.open.prev != prev {
				t.Errorf("%s is indexed wrongly", r.payment.Key)
			}
		}
	}
	if open != 0 {
		t.Errorf("%d more rows are open than the index has", open)
	}
	for _, q := range []*queue{&l.room.spent, &l.room.refused, &l.room.owed, &l.room.kept} {
		for i, r := range q.rows {
			if place := r.queues[q.place]; place.at != i || place.in != q || i > 0 && q.before(i, (i-1)/2) {
				t.Errorf("%s is at a wrong place of its queue", r.payment.Key)
			}
		}
	}
}
