package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
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
	if _, err := OpenReader(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a reader opens what is not there: %v", err)
	}
	l := open(t, path, Options{})
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	for i, s := range ledger.States() {
		bring(t, l, keyOf(s), s)
		if i%3 == 0 {
			flush(t, l)
		}
	}
	c := bring(t, l, "changes", ledger.Settling)
	flush(t, l)
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

// TestReaderAtWork reads while the ledger is written.
func TestReaderAtWork(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	l := open(t, path, Options{})
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
			flush(t, l)
		}
	})
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

// TestNewest: newest first is the list the other way round, over any number of pages, and a
// limit counts from there.
func TestNewest(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	l := open(t, path, Options{})
	for i := range 2*pageRows + 3 {
		bring(t, l, ledger.Key(fmt.Sprint("k", i)), []ledger.State{ledger.Settled, ledger.Unknown}[i%2])
	}
	flush(t, l)
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	for _, f := range []ledger.Filter{{}, {States: []ledger.State{ledger.Settled, ledger.Unknown}}, {Payer: "0xpayer"}, {Limit: 3}, {Limit: 300}} {
		limit := f.Limit
		f.Limit = 0
		var want, got []ledger.Key
		for p, err := range r.List(t.Context(), f) {
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, p.Key)
		}
		slices.Reverse(want)
		if len(want) < 300 {
			t.Fatalf("%d rows", len(want))
		}
		if limit > 0 {
			want = want[:limit]
		}
		f.Limit = limit
		for p, err := range r.Newest(t.Context(), f) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, p.Key)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v: %d rows, want %d: %q", f, len(got), len(want), got[:min(len(got), 5)])
		}
	}
}
