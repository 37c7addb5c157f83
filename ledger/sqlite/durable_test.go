package sqlite

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// afterRestart is what a restart makes of each state: nobody holds anything, and
// claims were in memory alone.
var afterRestart = map[ledger.State]ledger.State{
	ledger.Claimed: "", ledger.Released: "",
	ledger.Settling: ledger.Settling, ledger.Settled: ledger.Settled, ledger.Delivering: ledger.Delivering,
	ledger.Delivered: ledger.Delivered, ledger.Refused: ledger.Refused, ledger.Unknown: ledger.Unknown,
}

// TestRestart closes a ledger, or lets it crash, with payments in all states, in
// the journal alone or in the database too, and opens it again.
func TestRestart(t *testing.T) {
	for _, how := range []string{"closed", "crashed", "crashed, copied", "crashed, half copied"} {
		t.Run(how, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "payments.db")
			l := open(t, path, Options{})
			for _, s := range ledger.States() {
				bring(t, l, keyOf(s), s)
				if how == "crashed, copied" || how == "crashed, half copied" && s == ledger.Settled {
					if err := l.copyRows(true); err != nil {
						t.Fatal(err)
					}
				}
			}
			changing := bring(t, l, "changing", ledger.Settling)
			if how == "crashed, half copied" {
				if err := l.copyRows(true); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := l.Move(t.Context(), changing, ledger.Change{To: ledger.Settled, Transaction: "0x1", Runs: 2}); err != nil {
				t.Fatal(err)
			}
			if how == "closed" {
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				if left, _ := filepath.Glob(journalPrefix(path) + "*"); len(left) > 0 {
					t.Errorf("a clean end leaves %v", left)
				}
			} else {
				flush(t, l)
				path = copyFiles(t, path)
			}
			for range 2 {
				again := open(t, path, Options{})
				for _, s := range ledger.States() {
					p := wantState(t, again, keyOf(s), afterRestart[s])
					if !p.Lease.IsZero() {
						t.Errorf("somebody holds the %s one until %s", s, p.Lease)
					}
					if s.Open() || s == ledger.Delivered {
						wantUsed(t, again, keyOf(s))
					}
					if s.Open() && string(p.Request) != `{"signature":"0xsecret"}` {
						t.Errorf("the %s one has request %s", s, p.Request)
					}
				}
				if p := wantState(t, again, "changing", ledger.Settled); p.Transaction != "0x1" || p.Runs != 2 {
					t.Errorf("came back as %+v", p)
				}
				if err := again.Close(); err != nil {
					t.Fatal(err)
				}
			}
			again := open(t, path, Options{})
			c, err := again.Take(t.Context(), keyOf(ledger.Settling), ledger.Settling, testLease)
			if err != nil || !c.Payment.Doubt {
				t.Errorf("taken: %+v, %v; want it in doubt", c.Payment, err)
			}
		})
	}
}

// TestCrashCopies looks at the files at many moments of a life: at none of them
// is a payment forgotten whose settling was promised.
func TestCrashCopies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "payments.db")
	l := open(t, path, Options{segment: 1 << 12, still: true})
	promised := map[ledger.Key]ledger.State{}
	for i := range 40 {
		key := ledger.Key(fmt.Sprint("k", i))
		state := ledger.States()[i%len(ledger.States())]
		bring(t, l, key, state)
		if state != ledger.Claimed && state != ledger.Released {
			promised[key] = state
		}
		if i%7 == 3 {
			if err := l.copyRows(i%2 == 0); err != nil {
				t.Fatal(err)
			}
		}
		if i%13 == 5 {
			l.journal.drop()
		}
		if i%4 != 0 {
			continue
		}
		crashed := open(t, copyFiles(t, path), Options{segment: 1 << 16})
		for key := range promised {
			p, err := crashed.Get(t.Context(), key)
			if err != nil || p.State == ledger.Claimed {
				t.Fatalf("after %d: %s is %q, %v", i, key, p.State, err)
			}
		}
		if err := crashed.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRefusedAnew: a refused payment that is claimed anew and let go is free, not
// what the database had of it before it was refused.
func TestRefusedAnew(t *testing.T) {
	for _, copied := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "payments.db")
		l := open(t, path, Options{})
		c := bring(t, l, "k", ledger.Settling)
		if copied {
			if err := l.copyRows(true); err != nil {
				t.Fatal(err)
			}
		}
		move(t, l, c, ledger.Refused)
		for range 3 {
			c = bring(t, l, "k", ledger.Claimed)
			move(t, l, c, ledger.Released)
		}
		flush(t, l)
		crashed := copyFiles(t, path)
		bring(t, l, "k", ledger.Delivered)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		again := open(t, path, Options{})
		wantState(t, again, "k", ledger.Delivered)
		wantUsed(t, again, "k")
		bring(t, open(t, crashed, Options{}), "k", ledger.Settling)
	}
}

// TestForgottenByMemory: what left memory is found, and not counted twice.
func TestForgottenByMemory(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "payments.db"), Options{})
	for i := range 300 {
		bring(t, l, ledger.Key(fmt.Sprint("k", i)), ledger.Delivered)
	}
	if err := l.copyRows(false); err != nil {
		t.Fatal(err)
	}
	if n := len(l.rows.all); n != 0 {
		t.Errorf("%d finished payments are in memory", n)
	}
	if n := len(l.rows.payers) + len(l.rows.identifiers) + len(l.rows.open) + len(l.rows.purchases); n != 0 {
		t.Errorf("%d are in the indexes", n)
	}
	n := 0
	for _, err := range l.List(t.Context(), ledger.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 300 {
		t.Errorf("%d are listed", n)
	}
	for i := range 300 {
		wantUsed(t, l, ledger.Key(fmt.Sprint("k", i)))
	}
}

func TestSegmentsGo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "payments.db")
	l := open(t, path, Options{still: true})
	big := payment("")
	big.Request = make([]byte, 1<<20)
	for i := range 30 {
		big.Key = ledger.Key(fmt.Sprint("k", i))
		c, err := l.Claim(t.Context(), big, testLease)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range way(ledger.Delivered) {
			move(t, l, c, s)
		}
	}
	segments := func() int {
		names, _ := filepath.Glob(journalPrefix(path) + "*")
		return len(names)
	}
	if n := segments(); n < 4 {
		t.Errorf("%d segments for 30 MB", n)
	}
	if err := l.copyRows(false); err != nil {
		t.Fatal(err)
	}
	if n := segments(); n > 2 {
		t.Errorf("%d segments after everything was copied", n)
	}
	// One that is idle loses the last one too.
	l.journal.drop()
	eventually(t, "the segment goes", func() bool {
		if err := l.copyRows(false); err != nil {
			t.Fatal(err)
		}
		return segments() <= 1
	})
	// A record that is larger than a segment.
	big.Key, big.Request = "huge", make([]byte, segmentSize+1)
	c, err := l.Claim(t.Context(), big, testLease)
	if err != nil {
		t.Fatal(err)
	}
	move(t, l, c, ledger.Settling)
	if p := wantState(t, open(t, copyFiles(t, path), Options{}), "huge", ledger.Settling); len(p.Request) != segmentSize+1 {
		t.Errorf("%d bytes came back", len(p.Request))
	}
}

func TestFileModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	l := open(t, filepath.Join(dir, "payments.db"), Options{})
	bring(t, l, "k", ledger.Settling)
	if err := l.copyRows(true); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) < 4 {
		t.Fatalf("%d files, %v", len(entries), err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != fileMode {
			t.Errorf("%s has mode %s", e.Name(), info.Mode())
		}
	}
}
