package sqlite

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// round does what goes on in the background.
func round(t *testing.T, l *Ledger) {
	t.Helper()
	flush(t, l)
	l.chores()
	flush(t, l)
	if err := l.tidy(); err != nil {
		t.Fatal(err)
	}
}

// contents returns what is in the files of a ledger.
func contents(t *testing.T, path string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	names, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(name)] = b
	}
	return files
}

// wantIn tests whether a text is in files.
func wantIn(t *testing.T, files map[string][]byte, text string, want bool) {
	t.Helper()
	n := 0
	for name, b := range files {
		found := bytes.Count(b, []byte(text))
		if n += found; found > 0 && !want {
			t.Errorf("%s has %q %d times", name, text, found)
		}
	}
	if want && n == 0 {
		t.Errorf("%q is nowhere", text)
	}
}

// TestNothingOfItStaysOnDisk: the signed request and the kept answer of a payment are in none of
// the ledger's files, nor in what SQLite calls free in them, when they serve nobody
// any more: because the goods have arrived, or nothing was paid, or nobody can fetch
// them. What may yet be asked for again stays.
func TestNothingOfItStaysOnDisk(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	l := open(t, path, Options{Now: now})
	begun := now()
	kinds := []struct {
		name    string
		to      ledger.State
		fetchBy time.Duration
		keep    time.Duration
		stays   bool
	}{
		{"fetch-by-passed", ledger.Settled, time.Hour, 90 * 24 * time.Hour, false},
		{"keep-passed", ledger.Settled, 0, 24 * time.Hour, false},
		{"both-passed", ledger.Settled, time.Hour, 24 * time.Hour, false},
		{"holder-gone", ledger.Delivering, time.Hour, 90 * 24 * time.Hour, false},
		{"delivered", ledger.Delivered, 0, 90 * 24 * time.Hour, false},
		{"refused", ledger.Refused, 0, 90 * 24 * time.Hour, false},
		{"can-be-fetched", ledger.Settled, 60 * 24 * time.Hour, 90 * 24 * time.Hour, true},
		{"can-be-fetched-until-keep", ledger.Settled, 0, 90 * 24 * time.Hour, true},
		{"in-doubt", ledger.Unknown, time.Hour, 24 * time.Hour, true},
	}
	// Many of them, of any size, that come and go between others: as SQLite moves
	// rows from page to page.
	random := rand.New(rand.NewPCG(3, 2))
	filler := func() string { return strings.Repeat("x", random.IntN(1500)) }
	secret := func(name, what string) string { return "SECRET " + what + " OF " + name + ";" }
	var underWay []func()
	for i := range 900 {
		kind := kinds[random.IntN(len(kinds))]
		p := payment(ledger.Key(fmt.Sprint(kind.name, " ", i)))
		p.Keep = begun.Add(kind.keep)
		if kind.fetchBy > 0 {
			p.FetchBy = begun.Add(kind.fetchBy)
		}
		p.Request = []byte(secret(kind.name, "REQUEST") + filler())
		c, err := l.Claim(t.Context(), p, testLease)
		if err != nil {
			t.Fatal(err)
		}
		move(t, l, c, ledger.Settling)
		underWay = append(underWay, func() {
			if kind.to == ledger.Refused || kind.to == ledger.Unknown {
				move(t, l, c, kind.to)
				return
			}
			move(t, l, c, ledger.Settled)
			answer := []byte(secret(kind.name, "ANSWER") + filler() + filler() + filler())
			for _, to := range []ledger.State{ledger.Delivering, ledger.Delivering} {
				if _, err := l.Move(t.Context(), c, ledger.Change{To: to, Answer: answer}); err != nil {
					t.Fatal(err)
				}
			}
			if kind.to != ledger.Delivering {
				move(t, l, c, kind.to)
			}
		})
		if i%100 == 99 {
			flush(t, l)
			random.Shuffle(len(underWay), func(i, j int) { underWay[i], underWay[j] = underWay[j], underWay[i] })
			for _, end := range underWay[:len(underWay)/2] {
				end()
			}
			underWay = underWay[len(underWay)/2:]
			flush(t, l)
			pruneAll(t, l, 20)
		}
	}
	for _, end := range underWay {
		end()
	}

	round(t, l)
	files := contents(t, path)
	for _, kind := range kinds {
		gone := kind.to == ledger.Delivered || kind.to == ledger.Refused
		wantIn(t, files, secret(kind.name, "REQUEST"), !gone)
		wantIn(t, files, secret(kind.name, "ANSWER"), !gone && kind.to != ledger.Unknown)
	}
	ahead.Store(int64(25 * time.Hour))
	round(t, l)
	reader, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	files = contents(t, path)
	for _, kind := range kinds {
		wantIn(t, files, secret(kind.name, "REQUEST"), kind.stays)
		wantIn(t, files, secret(kind.name, "ANSWER"), kind.stays && kind.to != ledger.Unknown)
		for name, list := range map[string]interface {
			List(context.Context, ledger.Filter) iter.Seq2[ledger.Payment, error]
		}{"the ledger": l, "a reader": reader} {
			n := 0
			for p, err := range list.List(t.Context(), ledger.Filter{States: []ledger.State{kind.to}}) {
				if err != nil {
					t.Fatal(err)
				}
				if !strings.HasPrefix(string(p.Key), kind.name+" ") {
					continue
				}
				n++
				if (len(p.Request) > 0) != kind.stays || kind.to != ledger.Unknown && (len(p.Answer) > 0) != kind.stays {
					t.Fatalf("%s: %s has request %q and answer %q", name, p.Key, p.Request, p.Answer)
				}
			}
			if n == 0 {
				t.Errorf("%s has no %s", name, kind.name)
			}
		}
	}
}

// TestShedSurvivesACrash: what was shed does not come back.
func TestShedSurvivesACrash(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	var ahead atomic.Int64
	options := Options{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}
	l := open(t, path, options)
	for _, key := range []ledger.Key{"held", "left"} {
		c := bring(t, l, key, ledger.Delivering)
		if key == "left" {
			move(t, l, c, ledger.Settled)
		}
	}
	flush(t, l)
	ahead.Store(int64(25 * time.Hour))
	held, err := l.Take(t.Context(), "held", ledger.Delivering, testLease)
	if err != nil {
		t.Fatal(err)
	}
	want := func(l *Ledger, key ledger.Key, request bool) {
		t.Helper()
		if p, err := l.Get(t.Context(), key); err != nil || (len(p.Request) > 0) != request || !p.State.Open() {
			t.Errorf("%s is %s with request %q, %v", key, p.State, p.Request, err)
		}
	}
	for range 2 {
		if err := l.shed(t.Context()); err != nil {
			t.Fatal(err)
		}
		flush(t, l)
		for name, l := range map[string]*Ledger{"the ledger": l, "crashed": open(t, copyFiles(t, path), options)} {
			t.Log(name)
			want(l, "left", false)
			want(l, "held", true)
		}
		flush(t, l)
	}
	move(t, l, held, ledger.Settled)
	round(t, l)
	want(l, "held", false)
}

// TestShedInTheBackground: nobody has to ask for it.
func TestShedInTheBackground(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	l := open(t, path, Options{})
	move(t, l, bring(t, l, "k", ledger.Delivering), ledger.Settled)
	flush(t, l)
	later := open(t, copyFiles(t, path), Options{
		Now:         func() time.Time { return time.Now().Add(25 * time.Hour) },
		choresEvery: 10 * time.Millisecond,
	})
	eventually(t, "the request is gone, and the log of the database empty", func() bool {
		p, err := later.Get(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		log, err := os.Stat(later.path + "-wal")
		return len(p.Request) == 0 && err == nil && log.Size() == 0
	})
}

// TestShedUnderAHolder: a row that somebody holds keeps its request in memory and in the
// file, so that a crash does not make it another.
func TestShedUnderAHolder(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	var ahead atomic.Int64
	options := Options{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}
	l := open(t, path, options)
	move(t, l, bring(t, l, "k", ledger.Settled), ledger.Settled)
	ahead.Store(int64(25 * time.Hour))
	c, err := l.Take(t.Context(), "k", ledger.Delivering, testLease)
	if err != nil {
		t.Fatal(err)
	}
	flush(t, l)
	l.chores()
	p, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settling, Reorganised: true})
	if err != nil || len(p.Request) == 0 {
		t.Fatalf("%q, %v", p.Request, err)
	}
	if p := wantState(t, open(t, copyFiles(t, path), options), "k", ledger.Settling); len(p.Request) == 0 {
		t.Error("after a crash it has no request")
	}
}

// TestCheckpointWaitsForNobody: who reads for long does not stop the ledger.
func TestCheckpointWaitsForNobody(t *testing.T) {
	l := open(t, filepath.Join(memoryDir(t), "payments.db"), Options{})
	bring(t, l, "k", ledger.Delivered)
	flush(t, l)
	reads, err := reading(t, l).BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := reads.QueryRowContext(t.Context(), "SELECT count(*) FROM payments").Scan(&n); err != nil {
		t.Fatal(err)
	}
	bring(t, l, "while it is read", ledger.Delivered)
	flush(t, l)
	checkpoint := func(want bool) {
		t.Helper()
		if err := l.asWriter(func(c *connection) error {
			done, err := c.checkpoint()
			if done != want {
				t.Errorf("done: %v, want %v", done, want)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	}
	checkpoint(false)
	if err := reads.Rollback(); err != nil {
		t.Fatal(err)
	}
	checkpoint(true)
	wantState(t, l, "k", ledger.Delivered)
}
