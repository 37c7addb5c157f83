package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

func TestSecondWriter(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	l := open(t, path, Options{})
	_, err := Open(path, Options{})
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
		t.Errorf("a second writer: %v", err)
	}
	bring(t, l, "k", ledger.Delivered) // the first goes on
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path, Options{})
}

// TestReader reads what a running ledger has, to the last change.
func TestReader(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	if _, err := OpenReader(path); err == nil {
		t.Error("a reader opened what is not there")
	}
	l := open(t, path, Options{segment: 1 << 12})
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	for i, s := range ledger.States() {
		bring(t, l, keyOf(s), s)
		if i%3 == 0 {
			if err := l.copyRows(true); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := bring(t, l, "changes", ledger.Settling)
	if err := l.copyRows(true); err != nil {
		t.Fatal(err)
	}
	move(t, l, c, ledger.Unknown)
	eventually(t, "the reader sees it", func() bool {
		p, err := r.Get(t.Context(), "changes")
		return err == nil && p.State == ledger.Unknown
	})
	want := 1
	for _, s := range ledger.States() {
		wantState(t, r, keyOf(s), afterRestart[s])
		id := ledger.ID(keyOf(s))
		for _, length := range []int{len(id), 15} {
			found, err := r.Begins(t.Context(), id[:length])
			switch {
			case err != nil:
				t.Error(err)
			case afterRestart[s] == "" && len(found) != 0:
				t.Errorf("the %s one begins with %s", s, id[:length])
			case afterRestart[s] != "" && (len(found) != 1 || found[0].Key != keyOf(s)):
				t.Errorf("%d begin with %s, want the %s one", len(found), id[:length], s)
			}
		}
		if afterRestart[s] != "" {
			want++
		}
	}
	if found, err := r.Begins(t.Context(), ""); err != nil || len(found) != want {
		t.Errorf("%d begin with nothing, want %d: %v", len(found), want, err)
	}
	for _, no := range []string{"no ID", strings.Repeat("0", 65), "0%"} {
		if found, err := r.Begins(t.Context(), no); err != nil || len(found) != 0 {
			t.Errorf("%q: %d, %v", no, len(found), err)
		}
	}
	n := 0
	for p, err := range r.List(t.Context(), ledger.Filter{Payer: "0xpayer"}) {
		if err != nil {
			t.Fatal(err)
		}
		wantState(t, l, p.Key, p.State)
		n++
	}
	if n != want {
		t.Errorf("%d rows, want %d", n, want)
	}
}

// TestReaderAtWork reads while segments come and go.
func TestReaderAtWork(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	l := open(t, path, Options{segment: 1 << 14})
	bring(t, l, "first", ledger.Settled)
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	end := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(end)
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-end:
				return
			default:
			}
			time.Sleep(2 * time.Millisecond)
			bring(t, l, ledger.Key(fmt.Sprint("k", i)), ledger.Delivered)
			if err := l.copyRows(i%2 == 0); err != nil {
				t.Error(err)
			}
		}
	})
	// What nobody waits for comes to the files some milliseconds later.
	eventually(t, "the reader sees the first one settled", func() bool {
		p, err := r.Get(t.Context(), "first")
		return err == nil && p.State == ledger.Settled
	})
	// From then on a reader goes forward with the writer, and never back.
	seen := make(map[ledger.Key]int)
	for range 30 {
		now := make(map[ledger.Key]int)
		for p, err := range r.List(t.Context(), ledger.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			if _, twice := now[p.Key]; twice {
				t.Errorf("%s is listed twice", p.Key)
			}
			now[p.Key] = slices.Index(ledger.States(), p.State)
		}
		for key, state := range seen {
			if at, ok := now[key]; !ok || at < state {
				t.Errorf("%s was %s, and is %s (%t)", key, ledger.States()[state], ledger.States()[at], ok)
			}
		}
		seen = now
		wantState(t, r, "first", ledger.Settled)
	}
}

// TestBackup takes a copy of a running ledger and goes on from it.
func TestBackup(t *testing.T) {
	dir := memoryDir(t)
	path, copied := filepath.Join(dir, "payments.db"), filepath.Join(dir, "backup.db")
	l := open(t, path, Options{})
	for i, s := range ledger.States() {
		bring(t, l, keyOf(s), s)
		if i == 3 {
			if err := l.copyRows(true); err != nil {
				t.Fatal(err)
			}
		}
	}
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	eventually(t, "all is in the files", func() bool {
		_, err := r.Get(t.Context(), keyOf(ledger.Unknown))
		return err == nil
	})
	if err := r.Backup(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	if err := r.Backup(t.Context(), copied); !errors.Is(err, os.ErrExist) {
		t.Errorf("a backup over another: %v", err)
	}
	if info, err := os.Stat(copied); err != nil || info.Mode().Perm() != fileMode {
		t.Errorf("%v, %v", info, err)
	}
	if beside, _ := filepath.Glob(copied + "?*"); len(beside) > 0 {
		t.Errorf("a backup is one file; there are %s", beside)
	}
	bring(t, l, "after", ledger.Delivered)

	restored := open(t, copied, Options{})
	for _, s := range ledger.States() {
		wantState(t, restored, keyOf(s), afterRestart[s])
	}
	wantState(t, restored, "after", "")
	n := 0
	for _, err := range restored.List(t.Context(), ledger.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 6 {
		t.Errorf("%d rows", n)
	}
	bring(t, restored, "new", ledger.Delivered)
	if err := restored.Close(); err != nil {
		t.Fatal(err)
	}
	wantState(t, open(t, copied, Options{}), "new", ledger.Delivered)
}

func TestGenesis(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	l := open(t, path, Options{})
	remember := func(network, hash string, want error) {
		t.Helper()
		if err := l.RememberGenesis(t.Context(), network, hash); !errors.Is(err, want) {
			t.Errorf("%s %s: %v, want %v", network, hash, err, want)
		}
	}
	remember("eip155:84532", "0xa", nil)
	remember("eip155:84532", "0xa", nil)
	remember("eip155:8453", "0xb", nil)
	remember("eip155:84532", "0xb", ledger.ErrGenesis)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, path, Options{})
	remember("eip155:84532", "0xb", ledger.ErrGenesis)
	remember("eip155:84532", "0xa", nil)
}
