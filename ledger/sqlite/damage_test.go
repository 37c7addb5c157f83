package sqlite

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// damaged makes the files of a crash with several segments, and returns the path
// of the database and the names of the segments that have records.
func damaged(t *testing.T) (path string, segments []string) {
	t.Helper()
	path = filepath.Join(memoryDir(t), "payments.db")
	l := open(t, path, Options{segment: 1 << 12, still: true})
	if err := l.copyRows(true); err != nil {
		t.Fatal(err)
	}
	for _, key := range []ledger.Key{"a", "b", "c", "d", "e", "f", "g", "h"} {
		c := bring(t, l, key, ledger.Settled)
		c.Payment.Answer = make([]byte, 1500)
		if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Delivering, Answer: make([]byte, 1500)}); err != nil {
			t.Fatal(err)
		}
	}
	flush(t, l)
	path = copyFiles(t, path)
	names, err := filepath.Glob(journalPrefix(path) + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && len(trimZeros(b)) > 0 {
			segments = append(segments, name)
		}
	}
	if len(segments) < 3 {
		t.Fatalf("%d segments", len(segments))
	}
	return path, segments
}

func change(t *testing.T, name string, f func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, f(b), fileMode); err != nil {
		t.Fatal(err)
	}
}

// TestDamage: a ledger that has lost what was on disk does not open, for it would
// sell again what was sold; it says what to do, and that works.
func TestDamage(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, path string, segments []string)
		says   string
	}{
		{"a bit in the middle", func(t *testing.T, _ string, segments []string) {
			change(t, segments[1], func(b []byte) []byte { b[headerSize+frameOverhead+5] ^= 1; return b })
		}, "was on disk and cannot be read"},
		{"a bit in a header", func(t *testing.T, _ string, segments []string) {
			change(t, segments[1], func(b []byte) []byte { b[20] ^= 1; return b })
		}, "header"},
		{"a short segment", func(t *testing.T, _ string, segments []string) {
			change(t, segments[1], func(b []byte) []byte { return b[:headerSize+100] })
		}, "it follows record"},
		{"a segment is missing", func(t *testing.T, _ string, segments []string) {
			if err := os.Remove(segments[1]); err != nil {
				t.Fatal(err)
			}
		}, "it follows record"},
		{"the first segment is missing", func(t *testing.T, _ string, segments []string) {
			if err := os.Remove(segments[0]); err != nil {
				t.Fatal(err)
			}
		}, "the segment before"},
		{"another database", func(t *testing.T, path string, _ []string) {
			for _, name := range []string{path, path + "-wal"} {
				if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
			}
		}, "another database"},
		{"a newer kind of record", func(t *testing.T, _ string, segments []string) {
			change(t, segments[0], func(b []byte) []byte {
				content, number, synced := readFrame(b[headerSize:])
				content[0] = 99
				seal(b[headerSize:headerSize+frameOverhead+len(content)], number, synced)
				return b
			})
		}, "kind 99"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, segments := damaged(t)
			c.damage(t, path, segments)
			l, err := Open(path, Options{})
			if err == nil {
				_ = l.Close()
				t.Fatal("it opens")
			}
			if !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "payments.db.log-* to another place") {
				t.Errorf("error: %v", err)
			}
			names, _ := filepath.Glob(journalPrefix(path) + "*")
			for _, name := range names {
				if err := os.Remove(name); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				l := open(t, path, Options{})
				bring(t, l, ledger.Key("new"+time.Now().String()), ledger.Settling)
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestTornTail: the end of the last segment was not confirmed to anybody, or is
// not there: the ledger opens without it.
func TestTornTail(t *testing.T) {
	path, segments := damaged(t)
	last := segments[len(segments)-1]
	change(t, last, func(b []byte) []byte {
		end := len(trimZeros(b))
		for i := end - 10; i < end; i++ {
			b[i] ^= 0xff
		}
		return append(b, "rubbish"...)
	})
	l := open(t, path, Options{})
	for _, key := range []ledger.Key{"a", "b", "c", "d", "e", "f", "g"} {
		wantState(t, l, key, ledger.Delivering)
	}
	bring(t, l, "new", ledger.Settling)
	crashed := copyFiles(t, path)
	wantState(t, open(t, crashed, Options{}), "new", ledger.Settling)
}

// TestOldSegmentsComeBack: a directory that was not synced brings removed
// segments back, which say nothing any more.
func TestOldSegmentsComeBack(t *testing.T) {
	path, segments := damaged(t)
	old := map[string][]byte{}
	for _, name := range segments {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		old[name] = b
	}
	l := open(t, path, Options{segment: 1 << 12, still: true})
	for _, key := range []ledger.Key{"a", "b"} {
		c, err := l.Take(t.Context(), key, ledger.Delivering, testLease)
		if err != nil {
			t.Fatal(err)
		}
		move(t, l, c, ledger.Delivered)
	}
	if err := l.copyRows(true); err != nil {
		t.Fatal(err)
	}
	bring(t, l, "new", ledger.Settled)
	flush(t, l)
	crashed := copyFiles(t, path)
	for i, name := range segments {
		if i != 1 { // one stays away
			back := strings.Replace(name, path, crashed, 1)
			if err := os.WriteFile(back, old[name], fileMode); err != nil {
				t.Fatal(err)
			}
		}
	}
	again := open(t, crashed, Options{})
	wantState(t, again, "a", ledger.Delivered)
	wantState(t, again, "c", ledger.Delivering)
	wantState(t, again, "new", ledger.Settled)
	wantUsed(t, again, "b")
}

// TestNewerDatabase: a program does not open what a later one has changed.
func TestNewerDatabase(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	d, err := openDatabase(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.write.ExecContext(t.Context(), "PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("Open: %v", err)
	}
	if _, err := OpenReader(path); err == nil {
		t.Error("a reader opens it")
	}
}

func TestSchemaHasEveryColumn(t *testing.T) {
	d := testDatabase(t)
	rows, err := d.read.QueryContext(t.Context(), "SELECT name FROM pragma_table_info('payments')")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	const firstVersion = "request answer" // where they were, and are no more
	want := slices.Sorted(slices.Values(append(strings.Fields(firstVersion+" lead"), columns[:]...)))
	if got := slices.Sorted(slices.Values(names)); !slices.Equal(got, want) {
		t.Errorf("the table has %s, and the code %s", got, want)
	}
}
