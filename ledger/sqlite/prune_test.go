package sqlite

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// pruneAll removes what may go, but for some free rows of each state.
func pruneAll(t *testing.T, l *Ledger, most int) {
	t.Helper()
	complete, err := l.noteComplete(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range []ledger.State{ledger.Refused, ledger.Released} {
		if _, err := l.pruneStep(t.Context(), pruneFree, state, complete, state, most, pruneAtOnce); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(l.shed(t.Context()), l.copyRows(true), l.tidy(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// TestRefusedAreBounded: a flood of payments that were refused filled the disk.
func TestRefusedAreBounded(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	l := open(t, path, Options{segment: 1 << 12, still: true})
	begun := bring(t, l, "begun early", ledger.Settling)
	for i := range 60 {
		state := []ledger.State{ledger.Refused, ledger.Delivered, ledger.Settled}[i%3]
		bring(t, l, ledger.Key(fmt.Sprint("key ", i)), state)
	}
	move(t, l, begun, ledger.Refused)
	flush(t, l)
	if err := l.copyRows(true); err != nil {
		t.Fatal(err)
	}
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
	// What the journal still says of the others is nothing that was lost.
	crashed := open(t, copyFiles(t, path), Options{still: true})
	if got := count(crashed); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("after a crash: %v, want %v", got, want)
	}
	for _, l := range []*Ledger{l, crashed} {
		wantUsed(t, l, "key 1")
		bring(t, l, "begun early", ledger.Settled) // it is free
	}
}
