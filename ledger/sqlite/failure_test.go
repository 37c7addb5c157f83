package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

func settle(t testing.TB, l *Ledger, key ledger.Key) (ledger.Claim, error) {
	t.Helper()
	c := bring(t, l, key, ledger.Claimed)
	_, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settling})
	return c, err
}

func named(err error) bool {
	return errors.Is(err, ledger.ErrUnavailable) || errors.Is(err, ledger.ErrLost) || errors.Is(err, ledger.ErrInvalid) ||
		errors.Is(err, ledger.ErrFull) || errors.Is(err, ledger.ErrNotFound)
}

// TestDiskFails: what is surely not on disk has not happened, what may be is in
// doubt, and in either case no new payment is taken until the disk is well.
func TestDiskFails(t *testing.T) {
	for _, c := range []struct {
		name    string
		fails   func(d *badDisk)
		unknown bool
	}{
		{"full", func(d *badDisk) { d.write = errFull }, false},
		{"half written", func(d *badDisk) { d.write, d.half = errFull, true }, false},
		{"half written, not to be undone", func(d *badDisk) { d.write, d.half, d.truncate = errFull, true, syscall.EIO }, true},
		{"no new segment", func(d *badDisk) { d.create = syscall.EROFS }, false},
		{"not synced", func(d *badDisk) { d.sync = syscall.EIO }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := &badDisk{}
			path := filepath.Join(t.TempDir(), "payments.db")
			l := open(t, path, Options{disk: disk, segment: 1 << 14})
			if c.name != "no new segment" {
				bring(t, l, "before", ledger.Settled)
			}
			paid := bring(t, l, "paid", ledger.Settling)
			if c.name == "no new segment" {
				l.journal.drop()
				eventually(t, "the segment ends", func() bool { return l.journal.segments.releasable(1 << 62) })
				if p := <-l.journal.segments.coming; p.err != nil {
					t.Fatal(p.err)
				}
				l.journal.segments.coming = nil
			}
			disk.set(c.fails)

			claim, err := settle(t, l, "k")
			switch {
			case c.unknown && (err == nil || named(err)):
				t.Errorf("error = %v, want one that says nothing", err)
			case c.unknown:
				wantState(t, l, "k", ledger.Settling)
			case !errors.Is(err, ledger.ErrUnavailable):
				t.Errorf("error = %v, want ErrUnavailable", err)
			default:
				wantState(t, l, "k", ledger.Claimed)
			}
			// What has happened has happened, and is seen.
			move(t, l, paid, ledger.Settled)
			begin := time.Now()
			if _, err := l.Claim(t.Context(), payment("new"), testLease); !errors.Is(err, ledger.ErrUnavailable) || time.Since(begin) > time.Second {
				t.Errorf("Claim while the disk fails: %v", err)
			}
			crashed := copyFiles(t, path)

			disk.heal()
			eventually(t, "it recovers", func() bool {
				_, err := l.Claim(t.Context(), payment("new"), testLease)
				return err == nil
			})
			if !c.unknown {
				move(t, l, claim, ledger.Settling) // the claim has stayed
			}
			move(t, l, claim, ledger.Settled)
			bring(t, l, "after", ledger.Delivered)
			flush(t, l)
			recovered := copyFiles(t, path)

			before := open(t, crashed, Options{})
			if p, _ := before.Get(t.Context(), "k"); p.State != "" && !c.unknown {
				t.Errorf("after a crash meanwhile, k is %s", p.State)
			}
			wantState(t, before, "paid", ledger.Settling)
			after := open(t, recovered, Options{})
			for key, want := range map[ledger.Key]ledger.State{"k": ledger.Settled, "paid": ledger.Settled, "after": ledger.Delivered} {
				wantState(t, after, key, want)
			}
			if c.name != "no new segment" {
				wantState(t, after, "before", ledger.Settled)
			}
		})
	}
}

// TestDiskFailsForMany: of many who wait for a disk that fails, each learns the
// truth.
func TestDiskFailsForMany(t *testing.T) {
	disk := &badDisk{}
	path := filepath.Join(t.TempDir(), "payments.db")
	l := open(t, path, Options{disk: disk, segment: 1 << 14})
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[ledger.Key]error{}
	end := make(chan struct{})
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-end:
					return
				default:
				}
				key := ledger.Key(fmt.Sprint("k", w, "-", i))
				c, err := l.Claim(t.Context(), payment(key), testLease)
				if err != nil {
					time.Sleep(time.Millisecond)
					continue
				}
				_, err = l.Move(t.Context(), c, ledger.Change{To: ledger.Settling})
				mu.Lock()
				got[key] = err
				mu.Unlock()
			}
		})
	}
	seen := func() (settling, unavailable, unknown bool) {
		mu.Lock()
		defer mu.Unlock()
		for _, err := range got {
			settling = settling || err == nil
			unavailable = unavailable || errors.Is(err, ledger.ErrUnavailable)
			unknown = unknown || err != nil && !errors.Is(err, ledger.ErrUnavailable)
		}
		return settling, unavailable, unknown
	}
	for i := 0; ; i++ {
		time.Sleep(30 * time.Millisecond)
		disk.set([]func(*badDisk){
			func(d *badDisk) { d.write = errFull },
			func(d *badDisk) { d.sync = syscall.EIO },
			func(d *badDisk) { d.write, d.half = errFull, true },
		}[i%3])
		time.Sleep(30 * time.Millisecond)
		disk.heal()
		eventually(t, "it recovers", func() bool { return l.well() == nil })
		if settling, unavailable, unknown := seen(); i >= 3 && settling && unavailable && unknown || i == 60 {
			break // each of the cases has come
		}
	}
	close(end)
	wg.Wait()
	crashed := open(t, copyFiles(t, path), Options{})
	for key, err := range got {
		switch {
		case err == nil:
			wantState(t, crashed, key, ledger.Settling)
			wantState(t, l, key, ledger.Settling)
		case errors.Is(err, ledger.ErrUnavailable):
			wantState(t, crashed, key, "")
			wantState(t, l, key, ledger.Claimed)
		default:
			wantState(t, l, key, ledger.Settling)
			wantState(t, crashed, key, ledger.Settling)
		}
	}
	if settling, unavailable, unknown := seen(); !settling || !unavailable || !unknown {
		t.Error("a case did not come")
	}
}

// TestSlowDisk: a call waits no longer than its context, and then it is not
// known what the disk has.
func TestSlowDisk(t *testing.T) {
	disk := &badDisk{}
	l := open(t, filepath.Join(t.TempDir(), "payments.db"), Options{disk: disk})
	held := bring(t, l, "held", ledger.Settling)
	hangs := make(chan struct{})
	disk.set(func(d *badDisk) { d.hangs = hangs })
	c := bring(t, l, "k", ledger.Claimed)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := l.Move(ctx, c, ledger.Change{To: ledger.Settling})
	if !errors.Is(err, context.DeadlineExceeded) || named(err) {
		t.Errorf("error = %v", err)
	}
	wantState(t, l, "k", ledger.Settling)
	// What does not wait for the disk goes on.
	move(t, l, held, ledger.Settled)
	move(t, l, held, ledger.Delivering)
	// The holder knows that it did not ask for money.
	move(t, l, c, ledger.Released)
	wantState(t, l, "k", ledger.Released)
	bring(t, l, "k", ledger.Claimed)

	l.journal.busy.Store(time.Now().Add(-time.Minute).UnixNano())
	if _, err := l.Claim(t.Context(), payment("new"), testLease); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("Claim while the disk hangs: %v", err)
	}
	disk.set(func(d *badDisk) { d.hangs = nil })
	close(hangs)
	eventually(t, "it goes on", func() bool {
		_, err := l.Claim(t.Context(), payment("new"), testLease)
		return err == nil
	})
}

// TestOneSync: a sale waits for the disk once, and many at once share a sync.
func TestOneSync(t *testing.T) {
	disk := &badDisk{}
	l := open(t, filepath.Join(t.TempDir(), "payments.db"), Options{disk: disk})
	bring(t, l, "first", ledger.Delivered) // makes a segment
	flush(t, l)
	var before int
	disk.set(func(d *badDisk) { before = d.syncs })
	syncs := func() (n int) {
		disk.set(func(d *badDisk) { n = d.syncs - before })
		return n
	}
	begin := time.Now()
	bring(t, l, "alone", ledger.Delivered)
	if n, took := syncs(), time.Since(begin); n != 1 && took < syncWithin {
		t.Errorf("%d syncs for one sale", n)
	}
	flush(t, l) // the rest of it, later
	eventually(t, "the end is synced too", func() bool { return syncs() == 2 })
	const n = 200
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { bring(t, l, ledger.Key(fmt.Sprint("k", i)), ledger.Settling) })
	}
	wg.Wait()
	if got := syncs() - 2; got > n/2 {
		t.Errorf("%d syncs for %d sales at once", got, n)
	}
}

// TestFullDisk fills a real file system, database and all.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	const size = 8 << 20
	if err := mountSmall(dir, size); err != nil {
		t.Skip("no file system to fill: ", err)
	}
	defer unmount(dir)
	filler := filepath.Join(dir, "filler")
	l := open(t, filepath.Join(dir, "payments.db"), Options{segment: 1 << 16})
	bring(t, l, "first", ledger.Delivered)
	_ = os.WriteFile(filler, make([]byte, size), fileMode) // as much as there is room for
	promised := map[ledger.Key]bool{"first": true}
	failed := 0
	for i := 0; failed < 20 && i < 5000; i++ {
		key := ledger.Key(fmt.Sprint("k", i))
		c, err := l.Claim(t.Context(), payment(key), testLease)
		if err == nil {
			_, err = l.Move(t.Context(), c, ledger.Change{To: ledger.Settling})
		}
		switch {
		case err == nil:
			promised[key] = true
		case errors.Is(err, ledger.ErrUnavailable):
			failed++
		default:
			t.Logf("%s: %v", key, err)
			promised[key] = true
		}
	}
	if failed == 0 {
		t.Fatal("the disk is not full")
	}
	if err := l.copyRows(true); err == nil {
		t.Log("the database has room yet")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it recovers", func() bool {
		_, err := l.Claim(t.Context(), payment("new"), testLease)
		return err == nil
	})
	for key := range promised {
		wantUsed(t, l, key)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, filepath.Join(dir, "payments.db"), Options{segment: 1 << 16})
	for key := range promised {
		wantUsed(t, again, key)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}
