package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}

// TestFilesTakenAway: files of a running ledger that are removed or replaced are noticed
// while nobody calls; then every call fails and says which file and what to do, and no
// file is made in the place of one. Where the very file comes back, the ledger goes on;
// else it is as the last word in the log says.
func TestFilesTakenAway(t *testing.T) {
	for name, c := range map[string]struct {
		take func(t *testing.T, path string)
		// back puts it right, nil if nobody can.
		back func(t *testing.T, path string)
		says string
	}{
		"the database is removed": {take: func(t *testing.T, path string) { remove(t, path) }, says: "payments.db was removed"},
		"the log is removed":      {take: func(t *testing.T, path string) { remove(t, path+"-wal") }, says: "payments.db-wal was removed"},
		"the index of the log is removed": {
			take: func(t *testing.T, path string) { remove(t, path+"-shm") }, says: "payments.db-shm was removed",
		},
		"the lock is removed": {take: func(t *testing.T, path string) { remove(t, path+".lock") }, says: "payments.db.lock was removed"},
		"the database is moved away": {
			take: func(t *testing.T, path string) { rename(t, path, path+".away") },
			back: func(t *testing.T, path string) { rename(t, path+".away", path) },
			says: "payments.db was removed",
		},
		"an empty one is moved over it": {
			take: func(t *testing.T, path string) {
				rename(t, path, path+".away")
				if err := os.WriteFile(path, nil, fileMode); err != nil {
					t.Fatal(err)
				}
			},
			back: func(t *testing.T, path string) { rename(t, path+".away", path) },
			says: "payments.db was replaced",
		},
		"another ledger is moved over it": {
			take: func(t *testing.T, path string) {
				other := filepath.Join(memoryDir(t), "other.db")
				l := open(t, other, Options{})
				bring(t, l, "other", ledger.Settled)
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				rename(t, path, path+".away")
				rename(t, other, path)
			},
			back: func(t *testing.T, path string) { rename(t, path+".away", path) },
			says: "payments.db was replaced",
		},
		"it is emptied": {take: func(t *testing.T, path string) {
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
		}, says: "payments.db was emptied"},
		"the directory is removed": {take: func(t *testing.T, path string) {
			if err := os.RemoveAll(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
		}, says: "was removed"},
		"its volume is away": {
			take: func(t *testing.T, path string) { rename(t, filepath.Dir(path), filepath.Dir(path)+".away") },
			back: func(t *testing.T, path string) { rename(t, filepath.Dir(path)+".away", filepath.Dir(path)) },
			says: "was removed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(memoryDir(t), "volume", "payments.db")
			core, log := observer.New(zapcore.ErrorLevel)
			l, err := Open(path, Options{Logger: zap.New(core)})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }() // which may say that it could not write all
			bring(t, l, "owed", ledger.Settled)
			held := bring(t, l, "held", ledger.Settling)
			claim := bring(t, l, "claim", ledger.Claimed)
			flush(t, l)
			before := time.Now()
			c.take(t, path)
			eventually(t, "the log tells", func() bool { return log.Len() > 0 })
			if took := time.Since(before); took > 5*time.Second {
				t.Errorf("noticed after %s", took)
			}
			if says := log.All()[0].ContextMap()["error"].(string); !strings.Contains(says, c.says) || !strings.Contains(says, "put the very file back") {
				t.Errorf("the log says %s", says)
			}
			for what, call := range map[string]func() error{
				"Get":    func() error { _, err := l.Get(t.Context(), "owed"); return err },
				"no Get": func() error { _, err := l.Get(t.Context(), "nobody's"); return err },
				"Claim":  func() error { _, err := l.Claim(t.Context(), payment("owed"), testLease); return err },
				"a new":  func() error { _, err := l.Claim(t.Context(), payment("new"), testLease); return err },
				"Take":   func() error { _, err := l.Take(t.Context(), "owed", ledger.Delivering, testLease); return err },
				"Renew":  func() error { return l.Renew(t.Context(), held, testLease) },
				"settle": func() error { _, err := l.Move(t.Context(), claim, ledger.Change{To: ledger.Settling}); return err },
				"Move":   func() error { _, err := l.Move(t.Context(), held, ledger.Change{To: ledger.Settled}); return err },
				"genesis": func() error {
					return l.RememberGenesis(t.Context(), "eip155:1", "0x1")
				},
				"List": func() error {
					for _, err := range l.List(t.Context(), ledger.Filter{}) {
						return err
					}
					return nil
				},
			} {
				if err := call(); !errors.Is(err, ledger.ErrUnavailable) {
					t.Errorf("%s: %v", what, err)
				}
			}
			if c.back == nil {
				_ = l.Close()
				again, err := Open(path, Options{})
				switch {
				case err == nil && name == "the directory is removed": // nothing is left that could show that it was there
					_ = again.Close()
				case err == nil: // nothing is forgotten
					wantState(t, again, "owed", ledger.Settled)
					wantState(t, again, "held", ledger.Settling)
					_ = again.Close()
				case name == "the directory is removed" || !strings.Contains(err.Error(), path):
					t.Error(err)
				}
				return
			}
			c.back(t, path)
			eventually(t, "it goes on", func() bool { _, err := l.Get(t.Context(), "owed"); return err == nil })
			move(t, l, held, ledger.Settled)
			move(t, l, claim, ledger.Settling)
			wantUsed(t, l, "owed")
			flush(t, l)
			again := open(t, copyFiles(t, path), Options{})
			for key, s := range map[ledger.Key]ledger.State{"owed": ledger.Settled, "held": ledger.Settled, "claim": ledger.Settling} {
				wantState(t, again, key, s)
			}
		})
	}
}

// TestMoneyIsNotAskedForInARemovedFile: between the moment when the file goes and the one
// when that is noticed, nobody is told that his payment is on disk.
func TestMoneyIsNotAskedForInARemovedFile(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	l, err := Open(path, Options{fault: func(at string) error {
		if at == "write" { // in the middle of the transaction
			return os.Rename(path, path+".away")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if _, err := settle(t, l, "k"); err == nil || errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("%v, want an error that says nothing", err)
	}
}

// TestMissingDatabase: where something beside it shows that there was a ledger, no new one
// is made; and a new one is told to the log, by its name.
func TestMissingDatabase(t *testing.T) {
	for name, c := range map[string]struct {
		how  func(t *testing.T, path string)
		says string // "" is a new ledger
	}{
		"nothing is there":     {func(*testing.T, string) {}, ""},
		"an empty file":        {func(t *testing.T, path string) { write(t, path, "") }, ""},
		"a lock of no ledger":  {func(t *testing.T, path string) { write(t, path+".lock", "") }, ""},
		"a log":                {func(t *testing.T, path string) { write(t, path+"-wal", "log") }, "payments.db-wal shows"},
		"an empty file, a log": {func(t *testing.T, path string) { write(t, path, ""); write(t, path+"-wal", "log") }, "payments.db-wal shows"},
		"the lock of a ledger": {func(t *testing.T, path string) { sell(t, path); remove(t, path) }, "payments.db.lock shows"},
		"an emptied ledger":    {func(t *testing.T, path string) { sell(t, path); write(t, path, "") }, "payments.db.lock shows"},
		"another database": {func(t *testing.T, path string) {
			sell(t, path)
			remove(t, path)
			execute(t, path, "CREATE TABLE a (b)", "DROP TABLE a")
		}, "payments.db.lock shows"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(memoryDir(t), "payments.db")
			c.how(t, path)
			core, log := observer.New(zapcore.WarnLevel)
			for range 2 { // the first try is no trace for the second
				l, err := Open(path, Options{Logger: zap.New(core)})
				if c.says != "" {
					if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "put "+path+" back") {
						t.Errorf("%v, want %q", err, c.says)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
			}
			warned := log.FilterMessageSnippet("a new ledger").FilterField(zap.String("file", path)).Len()
			if c.says == "" && warned != 1 || c.says != "" && log.Len() > 0 {
				t.Errorf("the log says %v", log.All())
			}
			if c.says == "" {
				return
			}
			for name := range contents(t, path) { // as the sentence says
				rename(t, filepath.Join(filepath.Dir(path), name), filepath.Join(memoryDir(t), name))
			}
			sell(t, path)
		})
	}
}

// TestAnOpenLedgerIsNotNew: in a process that had it open, no config makes a new ledger in
// its place, though nothing is left of it.
func TestAnOpenLedgerIsNotNew(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	s := use(path, Options{Logger: zap.NewNop()})
	if _, err := s.get(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.close()
	for name := range contents(t, path) {
		remove(t, filepath.Join(filepath.Dir(path), name))
	}
	if _, err := s.get(t.Context()); !errors.Is(err, ledger.ErrUnavailable) || !errors.Is(err, errMissing) {
		t.Errorf("%v", err)
	}
}

// TestLackOfChanges: a ledger without its write-ahead log, and an older copy in its place,
// are told from it, and the advice works.
func TestLackOfChanges(t *testing.T) {
	for _, how := range []string{"no log", "a log that is cut", "a log that is damaged", "an older copy"} {
		t.Run(how, func(t *testing.T) {
			from := filepath.Join(memoryDir(t), "payments.db")
			l := open(t, from, Options{})
			bring(t, l, "a", ledger.Settled)
			flush(t, l)
			l.chores()
			path := copyFiles(t, from)
			for _, key := range []ledger.Key{"b", "c", "d"} {
				bring(t, l, key, ledger.Settled)
				flush(t, l)
			}
			log := contents(t, from)["payments.db-wal"]
			if how != "an older copy" {
				path = copyFiles(t, from)
			}
			write(t, path+".lock", string(contents(t, from)["payments.db.lock"]))
			switch how {
			case "no log":
				remove(t, path+"-wal")
			case "a log that is cut":
				write(t, path+"-wal", string(log[:len(log)/2]))
			case "a log that is damaged":
				log[len(log)/2]++
				write(t, path+"-wal", string(log))
			}
			before := contents(t, path)
			for range 2 {
				again, err := Open(path, Options{})
				if err == nil {
					_ = again.Close()
					t.Fatal("it opens")
				}
				if !strings.Contains(err.Error(), "it lacks the latest") || !strings.Contains(err.Error(), path+"-wal") {
					t.Error(err)
				}
			}
			if after := contents(t, path); string(after["payments.db"]) != string(before["payments.db"]) || string(after["payments.db-wal"]) != string(before["payments.db-wal"]) {
				t.Error("it was changed")
			}
			remove(t, path+".lock")
			wantState(t, open(t, path, Options{}), "a", ledger.Settled)
		})
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), fileMode); err != nil {
		t.Fatal(err)
	}
}

// sell makes a ledger with one payment, and closes it.
func sell(t *testing.T, path string) {
	t.Helper()
	l := open(t, path, Options{})
	bring(t, l, "k", ledger.Delivered)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
