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

// TestRestart closes a ledger, or lets it crash, with payments in all states, and opens
// it again.
func TestRestart(t *testing.T) {
	for _, how := range []string{"closed", "crashed", "crashed with an empty log"} {
		t.Run(how, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "payments.db")
			l := open(t, path, Options{})
			for _, s := range ledger.States() {
				bring(t, l, keyOf(s), s)
			}
			changing := bring(t, l, "changing", ledger.Settling)
			if _, err := l.Move(t.Context(), changing, ledger.Change{To: ledger.Settled, Transaction: "0x1", Runs: 2}); err != nil {
				t.Fatal(err)
			}
			if how == "closed" {
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				if left, _ := filepath.Glob(path + "-*"); len(left) > 0 {
					t.Errorf("a clean end leaves %v", left)
				}
			} else {
				flush(t, l)
				if how != "crashed" {
					l.chores()
				}
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
	l := open(t, path, Options{})
	promised := map[ledger.Key]ledger.State{}
	for i := range 40 {
		key := ledger.Key(fmt.Sprint("k", i))
		state := ledger.States()[i%len(ledger.States())]
		bring(t, l, key, state)
		if state != ledger.Claimed && state != ledger.Released {
			promised[key] = state
		}
		if i%7 == 3 {
			flush(t, l)
		}
		if i%13 == 5 {
			l.chores()
		}
		if i%4 != 0 {
			continue
		}
		crashed := open(t, copyFiles(t, path), Options{})
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
// what the file had of it before it was refused, also when the refusal is on its way to
// the file meanwhile.
func TestRefusedAnew(t *testing.T) {
	for _, onItsWay := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "payments.db")
		l := open(t, path, Options{})
		c := bring(t, l, "k", ledger.Settling)
		if onItsWay {
			l.writing.Lock()
		}
		move(t, l, c, ledger.Refused)
		for range 3 {
			c = bring(t, l, "k", ledger.Claimed)
			move(t, l, c, ledger.Released)
			wantState(t, l, "k", ledger.Refused)
		}
		if onItsWay {
			l.writing.Unlock()
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

// TestSoldAnewBeforeItsRefusalIsWritten: one transaction has the end of a claim and the
// settling of the next one of the same key. Nothing of the first is left, its request
// neither.
func TestSoldAnewBeforeItsRefusalIsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "payments.db")
	l := open(t, path, Options{})
	c := bring(t, l, "k", ledger.Settling)
	l.writing.Lock()
	move(t, l, c, ledger.Refused)
	moved := make(chan error)
	go func() {
		c, err := l.Claim(t.Context(), payment("k"), testLease)
		if err == nil {
			_, err = l.Move(t.Context(), c, ledger.Change{To: ledger.Settling, Request: []byte("another")})
		}
		moved <- err
	}()
	eventually(t, "it waits", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.filling.waits) == 1
	})
	l.writing.Unlock()
	if err := <-moved; err != nil {
		t.Fatal(err)
	}
	crashed := open(t, copyFiles(t, path), Options{})
	if p := wantState(t, crashed, "k", ledger.Settling); string(p.Request) != "another" {
		t.Errorf("its request is %s", p.Request)
	}
	var rows, kept int
	if err := reading(t, crashed).QueryRowContext(t.Context(), "SELECT (SELECT count(*) FROM payments), (SELECT count(*) FROM kept)").Scan(&rows, &kept); err != nil {
		t.Fatal(err)
	}
	if rows != 1 || kept != 1 {
		t.Errorf("%d rows and %d requests", rows, kept)
	}
}

// TestForgottenByMemory: what left memory is found, and not counted twice.
func TestForgottenByMemory(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "payments.db"), Options{})
	for i := range 300 {
		bring(t, l, ledger.Key(fmt.Sprint("k", i)), ledger.Delivered)
	}
	flush(t, l)
	if n := len(l.rows.all); n != 0 {
		t.Errorf("%d finished payments are in memory", n)
	}
	if n := len(l.rows.purchases); n != 0 {
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

func TestFileModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	l := open(t, filepath.Join(dir, "payments.db"), Options{})
	bring(t, l, "k", ledger.Settling)
	flush(t, l)
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
