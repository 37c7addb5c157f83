package sqlite

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// owe leaves n payments settled and not delivered.
func owe(t *testing.T, l *Ledger, name string, n int) (keys []ledger.Key) {
	t.Helper()
	for i := range n {
		key := ledger.Key(fmt.Sprint(name, i))
		move(t, l, bring(t, l, key, ledger.Settled), ledger.Settled)
		keys = append(keys, key)
	}
	flush(t, l)
	return keys
}

// wantOwed compares what is owed, by all the ways to ask for it.
func wantOwed(t *testing.T, l *Ledger, keys []ledger.Key) {
	t.Helper()
	p := payment("")
	for name, f := range map[string]ledger.Filter{
		"all":              {States: []ledger.State{ledger.Settled, ledger.Delivering}},
		"a purchase":       {States: []ledger.State{ledger.Unknown, ledger.Settled}, Payer: p.Payer, Method: p.Method, Host: p.Host, URL: p.URL},
		"since a while":    {States: []ledger.State{ledger.Settled}, Payer: p.Payer, Since: time.Now().Add(-time.Hour)},
		"every one of one": {Payer: p.Payer, States: []ledger.State{ledger.Settled}},
	} {
		found := make(map[ledger.Key]bool)
		for row, err := range l.List(t.Context(), f) {
			if err != nil {
				t.Fatal(err)
			}
			found[row.Key] = true
		}
		for _, key := range keys {
			if !found[key] {
				t.Errorf("%s: %s is missing", name, key)
			}
		}
		if len(found) != len(keys) {
			t.Errorf("%s: %d rows, want %d", name, len(found), len(keys))
		}
	}
}

// TestOwedTakeNoMemory: what is owed was in memory for ever, and then the ledger took no
// more. It is in the file alone, and found there by all ways, and sold by none.
func TestOwedTakeNoMemory(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	l := open(t, path, Options{Max: 10})
	var keys []ledger.Key
	for i := range 5 {
		keys = append(keys, owe(t, l, fmt.Sprint("round ", i, " "), 60)...)
		if n := len(l.rows.all) + len(l.rows.purchases); n > 0 {
			t.Errorf("%d in memory", n)
		}
	}
	wantOwed(t, l, keys)
	for _, key := range keys[:20] {
		wantUsed(t, l, key)
		c, err := l.Take(t.Context(), key, ledger.Delivering, testLease)
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		move(t, l, c, ledger.Delivered)
		wantUsed(t, l, key)
	}
	flush(t, l)
	crashed := open(t, copyFiles(t, path), Options{})
	for _, l := range []*Ledger{l, crashed} {
		wantOwed(t, l, keys[20:])
		for i, key := range keys {
			want := ledger.Settled
			if i < 20 {
				want = ledger.Delivered
			}
			wantState(t, l, key, want)
		}
	}
}

// TestFull: memory is full of payments under way, and has room again when the holder of
// one is gone. What it has forgotten of such a row is not forgotten by the file.
func TestFull(t *testing.T) {
	var ahead atomic.Int64
	l := open(t, filepath.Join(memoryDir(t), "payments.db"), Options{
		Max: 4, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	for _, s := range []ledger.State{ledger.Claimed, ledger.Settling, ledger.Settled, ledger.Delivering} {
		bring(t, l, keyOf(s), s)
	}
	flush(t, l)
	if _, err := l.Claim(t.Context(), payment("more"), testLease); !errors.Is(err, ledger.ErrFull) {
		t.Errorf("Claim: %v, want ErrFull", err)
	}
	ahead.Store(int64(testLease))
	for i := range 4 {
		bring(t, l, ledger.Key(fmt.Sprint("more ", i)), ledger.Claimed)
	}
	for _, s := range []ledger.State{ledger.Settling, ledger.Settled, ledger.Delivering} {
		wantState(t, l, keyOf(s), s)
		wantUsed(t, l, keyOf(s))
	}
	wantState(t, l, keyOf(ledger.Claimed), "")
	if _, err := l.Claim(t.Context(), payment("too much"), testLease); !errors.Is(err, ledger.ErrFull) {
		t.Errorf("Claim: %v, want ErrFull", err)
	}
}
