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

// pruneAll removes what may go, but for some free rows of each state.
func pruneAll(t *testing.T, l *Ledger, most int) {
	t.Helper()
	flush(t, l)
	if err := errors.Join(l.pruneFree(most), l.shed(t.Context()), l.tidy()); err != nil {
		t.Fatal(err)
	}
}

// TestRefusedAreBounded: a flood of payments that were refused filled the disk.
func TestRefusedAreBounded(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	l := open(t, path, Options{})
	begun := bring(t, l, "begun early", ledger.Settling)
	for i := range 60 {
		state := []ledger.State{ledger.Refused, ledger.Delivered, ledger.Settled}[i%3]
		bring(t, l, ledger.Key(fmt.Sprint("key ", i)), state)
	}
	move(t, l, begun, ledger.Refused)
	flush(t, l)
	pruneAll(t, l, 5)
	count := func(l *Ledger) map[ledger.State]int {
		found := make(map[ledger.State]int)
		for p, err := range l.List(t.Context(), ledger.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			found[p.State]++
		}
		return found
	}
	want := map[ledger.State]int{ledger.Refused: 5, ledger.Delivered: 20, ledger.Settled: 20}
	if got := count(l); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	crashed := open(t, copyFiles(t, path), Options{})
	if got := count(crashed); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("after a crash: %v, want %v", got, want)
	}
	for _, l := range []*Ledger{l, crashed} {
		wantUsed(t, l, "key 1")
		bring(t, l, "begun early", ledger.Settled) // it is free
	}
}

// TestPrunedWhileTaken: a delivered payment is removed from the file while somebody
// holds it, who then says that its money is gone.
func TestPrunedWhileTaken(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	var ahead atomic.Int64
	l := open(t, path, Options{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }, KeepFinished: time.Hour})
	bring(t, l, "k", ledger.Delivered)
	flush(t, l)
	ahead.Store(int64(48 * time.Hour))
	c, err := l.Take(t.Context(), "k", ledger.Delivered, testLease)
	if err != nil {
		t.Fatal(err)
	}
	l.chores()
	if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Delivered, Reorganised: true, Reason: ledger.ReasonReverted}); err != nil {
		t.Fatal(err)
	}
	flush(t, l)
	if p := wantState(t, open(t, copyFiles(t, path), Options{}), "k", ledger.Delivered); p.Reason != ledger.ReasonReverted {
		t.Errorf("%+v", p)
	}
}
