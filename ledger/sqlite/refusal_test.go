package sqlite

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// execute makes or changes a database as another program does.
func execute(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", dataSource(path, "rwc"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range statements {
		if _, err := db.ExecContext(t.Context(), text); err != nil {
			t.Fatal(text, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// forgetMark makes a ledger one of which the lock file says nothing.
func forgetMark(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path + ".lock"); err != nil {
		t.Fatal(err)
	}
}

// TestOtherFilesAreRefused: a file of a version before, or of after this, or of another
// program, is not opened, by the gateway or by who reads, and not changed. The error says
// what to do, and that works.
func TestOtherFilesAreRefused(t *testing.T) {
	sold := func(t *testing.T, path string) {
		l := open(t, path, Options{})
		bring(t, l, "k", ledger.Delivered)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		make func(t *testing.T, path string)
		says string
	}{
		"the first schema": {func(t *testing.T, path string) {
			execute(t, path, "CREATE TABLE payments (hash BLOB PRIMARY KEY, version INTEGER)", "CREATE TABLE meta (name TEXT, value BLOB)", "PRAGMA user_version = 1")
		}, "move all of"},
		"the second schema, with a log": {func(t *testing.T, path string) {
			execute(t, path, "PRAGMA journal_mode = WAL", "CREATE TABLE payments (hash BLOB PRIMARY KEY, version INTEGER)", "PRAGMA user_version = 2")
		}, "move all of"},
		"a journal without a database": {func(t *testing.T, path string) {
			if err := os.WriteFile(path+".log-0000000000000001", []byte("segment"), fileMode); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, nil, fileMode); err != nil {
				t.Fatal(err)
			}
		}, "move all of"},
		"a journal beside a ledger of this version": {func(t *testing.T, path string) {
			sold(t, path)
			if err := os.WriteFile(path+".log-0000000000000001", []byte("segment"), fileMode); err != nil {
				t.Fatal(err)
			}
		}, "move all of"},
		"the schema before this one": {func(t *testing.T, path string) {
			sold(t, path)
			execute(t, path, "PRAGMA user_version = 1")
			forgetMark(t, path)
		}, "move all of"},
		"another program's database": {func(t *testing.T, path string) {
			execute(t, path, "CREATE TABLE books (title TEXT)", "PRAGMA application_id = 7")
		}, "move all of"},
		"a newer version": {func(t *testing.T, path string) {
			sold(t, path)
			execute(t, path, "PRAGMA user_version = 99")
			forgetMark(t, path)
		}, "is of version 99"},
		"no database": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), fileMode); err != nil {
				t.Fatal(err)
			}
		}, "restore a backup"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(memoryDir(t), "payments.db")
			c.make(t, path)
			before := contents(t, path)
			if l, err := Open(path, Options{}); err == nil {
				_ = l.Close()
				t.Error("it opens")
			} else if !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) {
				t.Errorf("Open: %v", err)
			}
			if r, err := OpenReader(path); err == nil {
				_ = r.Close()
				t.Error("a reader opens it")
			} else if !strings.Contains(err.Error(), c.says) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("OpenReader: %v", err)
			}
			for name, b := range contents(t, path) {
				if old, ok := before[name]; ok && string(old) != string(b) {
					t.Errorf("%s was changed", name)
				}
			}
			away := memoryDir(t)
			for name := range contents(t, path) {
				if err := os.Rename(filepath.Join(filepath.Dir(path), name), filepath.Join(away, name)); err != nil {
					t.Fatal(err)
				}
			}
			sold(t, path)
		})
	}
}

// TestDamage: what SQLite calls damaged is said with what to do, when the ledger opens or
// when it comes to that place, and nothing is sold again for it.
func TestDamage(t *testing.T) {
	const rows, page = 100, 4096
	key := func(i int) ledger.Key { return ledger.Key(fmt.Sprint("key ", i)) }
	path := filepath.Join(memoryDir(t), "payments.db")
	l := open(t, path, Options{})
	for i := range rows {
		bring(t, l, key(i), ledger.Settled)
	}
	flush(t, l)
	roots := map[string]int{}
	db := reading(t, l)
	found, err := db.QueryContext(t.Context(), "SELECT name, rootpage FROM sqlite_schema")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = found.Close() }()
	for found.Next() {
		var name string
		var root int
		if err := found.Scan(&name, &root); err != nil {
			t.Fatal(err)
		}
		roots[name] = root
	}
	if err := errors.Join(found.Close(), db.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(7, 7))
	for name, root := range roots {
		b := slices.Clone(whole)
		for i := range page {
			b[page*(root-1)+i] = byte(random.Uint32())
		}
		damagedPath := filepath.Join(memoryDir(t), "payments.db")
		if err := os.WriteFile(damagedPath, b, fileMode); err != nil {
			t.Fatal(err)
		}
		l, err := Open(damagedPath, Options{})
		if err == nil {
			for i := range rows {
				_, err = l.Claim(t.Context(), payment(key(i)), testLease)
				if err == nil {
					t.Errorf("%s is damaged, and %s is sold again", name, key(i))
				}
				if _, taken := errors.AsType[*ledger.TakenError](err); !taken {
					break
				}
				err = nil
			}
			_ = l.Close()
		}
		switch name {
		case "payments", "sqlite_autoindex_payments_1", "meta", "payments_state", "kept": // which are read
			if err == nil || !strings.Contains(err.Error(), "restore a backup") {
				t.Errorf("%s is damaged: %v", name, err)
			}
		}
	}
}

// TestTornLog: the end of the write-ahead log that a power failure has torn was promised to
// nobody: the ledger opens without it, and goes on.
func TestTornLog(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	l := open(t, path, Options{})
	for _, key := range []ledger.Key{"a", "b", "c"} {
		bring(t, l, key, ledger.Settling)
	}
	path = copyFiles(t, path)
	log, err := os.OpenFile(path+"-wal", os.O_WRONLY|os.O_APPEND, fileMode)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.Write(make([]byte, 5000)); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	torn := open(t, path, Options{})
	for _, key := range []ledger.Key{"a", "b", "c"} {
		wantState(t, torn, key, ledger.Settling)
	}
	bring(t, torn, "new", ledger.Settling)
	wantState(t, open(t, copyFiles(t, path), Options{}), "new", ledger.Settling)
}

func TestSchemaHasEveryColumn(t *testing.T) {
	l := open(t, filepath.Join(memoryDir(t), "payments.db"), Options{})
	rows, err := reading(t, l).QueryContext(t.Context(), "SELECT name FROM pragma_table_info('payments')")
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
	if !slices.Equal(names, names) {
		t.Errorf("the table has %s, and the code %s", names, columns)
	}
}
