package sqlite

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// owe leaves n payments settled and not delivered, and the database has them.
func owe(t *testing.T, l *Ledger, name string, n int) (keys []ledger.Key) {
	t.Helper()
	for i := range n {
		key := ledger.Key(fmt.Sprint(name, i))
		move(t, l, bring(t, l, key, ledger.Settled), ledger.Settled)
		keys = append(keys, key)
	}
	flush(t, l)
	if err := l.copyRows(true); err != nil {
		t.Fatal(err)
	}
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
		"every one of one": {Payer: p.Payer},
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

// TestOwedLeaveRoom: payments that are owed filled the memory for ever, and then
// the ledger took no more.
func TestOwedLeaveRoom(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	l := open(t, path, Options{Max: 10, still: true})
	var keys []ledger.Key
	for i := range 5 {
		keys = append(keys, owe(t, l, fmt.Sprint("round ", i, " "), 8)...)
	}
	if n := len(l.rows.all); n > 10 {
		t.Errorf("%d in memory", n)
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
	crashed := open(t, copyFiles(t, path), Options{still: true})
	for _, l := range []*Ledger{l, crashed} {
		for i, key := range keys {
			want := ledger.Settled
			if i < 20 {
				want = ledger.Delivered
			}
			wantState(t, l, key, want)
		}
	}
}

// TestOwedForLongLeaveMemory: nobody asks for them any more but by name.
func TestOwedForLongLeaveMemory(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	var ahead atomic.Int64
	options := Options{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }, still: true}
	l := open(t, path, options)
	keys := owe(t, l, "old ", 300)
	l.evictOld()
	if n := len(l.rows.all); n != 300 {
		t.Fatalf("%d in memory, and none is old", n)
	}
	ahead.Store(int64(25 * time.Hour))
	l.evictOld()
	if n := len(l.rows.all); n != 0 {
		t.Errorf("%d in memory", n)
	}
	wantOwed(t, l, keys)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, path, options)
	if n := len(l.rows.all); n != 0 {
		t.Errorf("%d in memory, opened anew", n)
	}
	wantOwed(t, l, keys)
	c, err := l.Take(t.Context(), keys[0], ledger.Delivering, testLease)
	if err != nil {
		t.Fatal(err)
	}
	move(t, l, c, ledger.Settled)
	wantOwed(t, l, keys)
}

// TestOwedAnswersLeaveMemory: what is kept of answers that broke off is bounded.
func TestOwedAnswersLeaveMemory(t *testing.T) {
	l := open(t, filepath.Join(memoryDir(t), "payments.db"), Options{still: true})
	answer := make([]byte, owedSizeMost/16)
	var keys []ledger.Key
	for i := range 20 {
		keys = append(keys, ledger.Key(fmt.Sprint("key ", i)))
		if _, err := l.Move(t.Context(), bring(t, l, keys[i], ledger.Delivering), ledger.Change{To: ledger.Settled, Answer: answer}); err != nil {
			t.Fatal(err)
		}
	}
	flush(t, l)
	if err := l.copyRows(true); err != nil {
		t.Fatal(err)
	}
	l.evictOld()
	if n := len(l.rows.all); n == 0 || n > 16 {
		t.Errorf("%d in memory", n)
	}
	wantOwed(t, l, keys)
	for _, key := range keys {
		c, err := l.Take(t.Context(), key, ledger.Delivering, testLease)
		if err != nil || len(c.Payment.Answer) != len(answer) {
			t.Fatalf("%s: %d bytes, %v", key, len(c.Payment.Answer), err)
		}
		move(t, l, c, ledger.Delivered)
	}
	if n := l.rows.owedSize; n > owedSizeMost {
		t.Errorf("%d bytes", n)
	}
}
