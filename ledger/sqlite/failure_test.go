package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// disk is what goes wrong with the file, when it is told to.
type disk struct {
	mu sync.Mutex
	// at is the point of a transaction at which err comes, "" for none.
	at  string
	err error
	// panics: the writer panics there.
	panics bool
	// hangs: it waits there until the channel is closed.
	hangs chan struct{}
}

var errFull error = syscall.ENOSPC

func (d *disk) fail(at string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at, d.err = at, err
}

func (d *disk) heal() { d.fail("", nil) }

func (d *disk) fault(at string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at != at {
		return nil
	}
	if hangs := d.hangs; hangs != nil {
		d.mu.Unlock()
		<-hangs
		d.mu.Lock()
		return nil
	}
	if d.panics {
		panic("the writer")
	}
	return d.err
}

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
// doubt, and in either case no new payment is taken until the disk is well. What was
// said to have happened meanwhile is on disk then.
func TestDiskFails(t *testing.T) {
	for _, c := range []struct {
		name, at string
		panics   bool
		unknown  bool
	}{
		{"no transaction", "begin", false, false},
		{"not all written", "write", false, false},
		{"the writer panics", "write", true, false},
		{"no word of the commit", "committed", false, true},
		{"the writer panics after the commit", "committed", true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &disk{panics: c.panics}
			path := filepath.Join(t.TempDir(), "payments.db")
			l := open(t, path, Options{fault: d.fault})
			bring(t, l, "before", ledger.Settled)
			paid := bring(t, l, "paid", ledger.Settling)
			flush(t, l)
			d.fail(c.at, errFull)

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

			d.heal()
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
			after := open(t, recovered, Options{})
			for key, want := range map[ledger.Key]ledger.State{
				"before": ledger.Settled, "k": ledger.Settled, "paid": ledger.Settled, "after": ledger.Delivered,
			} {
				wantState(t, after, key, want)
			}
		})
	}
}

// TestDiskFailsForMany: of many who wait for a disk that fails, each learns the
// truth.
func TestDiskFailsForMany(t *testing.T) {
	d := &disk{}
	path := filepath.Join(t.TempDir(), "payments.db")
	l := open(t, path, Options{fault: d.fault})
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
		d.fail([]string{"begin", "committed", "write"}[i%3], syscall.EIO)
		eventually(t, "it fails", func() bool { return l.well() != nil })
		d.heal()
		eventually(t, "it recovers", func() bool { return l.well() == nil })
		if settling, unavailable, unknown := seen(); i >= 2 && settling && unavailable && unknown || i == 20 {
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

// TestUndoneByStep: a payment that was settled, and is to be settled again after a
// reorganisation, falls back by as much as was not written, and no further.
func TestUndoneByStep(t *testing.T) {
	d := &disk{}
	path := filepath.Join(t.TempDir(), "payments.db")
	l := open(t, path, Options{fault: d.fault})
	c := bring(t, l, "k", ledger.Settling)
	flush(t, l)
	l.writing.Lock()
	d.fail("write", errFull)
	if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settled, Transaction: "0x1"}); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error)
	for range 2 { // the second from settling to settling
		go func() {
			_, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settling, Reorganised: true})
			errs <- err
		}()
	}
	eventually(t, "they wait", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.filling.waits) == 2
	})
	l.writing.Unlock()
	for range 2 {
		if err := <-errs; !errors.Is(err, ledger.ErrUnavailable) {
			t.Errorf("%v, want ErrUnavailable", err)
		}
	}
	if p := wantState(t, l, "k", ledger.Settled); p.Doubt || p.Transaction != "0x1" {
		t.Errorf("%+v", p)
	}
	d.heal()
	flush(t, l)
	if p := wantState(t, open(t, copyFiles(t, path), Options{}), "k", ledger.Settled); p.Doubt || p.Transaction != "0x1" {
		t.Errorf("on disk: %+v", p)
	}
}

// TestSlowDisk: a call waits no longer than its context, and then it is not
// known what the disk has.
func TestSlowDisk(t *testing.T) {
	d := &disk{}
	l := open(t, filepath.Join(t.TempDir(), "payments.db"), Options{fault: d.fault})
	held := bring(t, l, "held", ledger.Settling)
	c := bring(t, l, "k", ledger.Claimed)
	flush(t, l)
	hangs := make(chan struct{})
	d.hangs = hangs
	d.fail("write", nil)
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

	l.busy.Store(time.Now().Add(-time.Minute).UnixNano())
	if _, err := l.Claim(t.Context(), payment("new"), testLease); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("Claim while the disk hangs: %v", err)
	}
	d.heal()
	close(hangs)
	eventually(t, "it goes on", func() bool {
		_, err := l.Claim(t.Context(), payment("new"), testLease)
		return err == nil
	})
}

// TestLeaseEndsBeforeTheCommit: who may begin to ask for money has a lease that runs
// when it is told so. The payment is in doubt from then on.
func TestLeaseEndsBeforeTheCommit(t *testing.T) {
	for _, taken := range []bool{false, true} {
		var ahead atomic.Int64
		d := &disk{hangs: make(chan struct{})}
		l := open(t, filepath.Join(t.TempDir(), "payments.db"), Options{
			Now:   func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
			fault: d.fault,
		})
		c := bring(t, l, "k", ledger.Claimed)
		d.fail("write", nil)
		moved := make(chan error)
		go func() {
			_, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settling})
			moved <- err
		}()
		eventually(t, "it is settling", func() bool {
			p, err := l.Get(t.Context(), "k")
			return err == nil && p.State == ledger.Settling
		})
		ahead.Store(int64(testLease))
		if taken {
			if _, err := l.Take(t.Context(), "k", ledger.Settling, testLease); err != nil {
				t.Fatal(err)
			}
		}
		d.heal()
		close(d.hangs)
		if err := <-moved; err == nil || named(err) {
			t.Errorf("taken %v: %v, want an error that says nothing", taken, err)
		}
		wantState(t, l, "k", ledger.Settling)
		if !taken { // nobody else began, and the holder knows that it did not
			move(t, l, c, ledger.Released)
		}
	}
}

// TestCloseWritesWhatWaits: what waits when the ledger is closed is written, or the
// error says that it was not.
func TestCloseWritesWhatWaits(t *testing.T) {
	for _, fails := range []bool{false, true} {
		d := &disk{}
		path := filepath.Join(t.TempDir(), "payments.db")
		l, err := Open(path, Options{fault: d.fault})
		if err != nil {
			t.Fatal(err)
		}
		paid := bring(t, l, "paid", ledger.Settling)
		waits := bring(t, l, "waits", ledger.Claimed)
		flush(t, l)
		l.writing.Lock()
		move(t, l, paid, ledger.Settled)
		if fails {
			d.fail("begin", errFull)
		}
		moved, closed := make(chan error), make(chan error)
		go func() {
			_, err := l.Move(t.Context(), waits, ledger.Change{To: ledger.Settling})
			moved <- err
		}()
		eventually(t, "it waits", func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(l.filling.waits) == 1
		})
		go func() { closed <- l.Close() }()
		eventually(t, "it is closed", func() bool {
			_, err := l.Get(t.Context(), "paid")
			return errors.Is(err, ledger.ErrUnavailable)
		})
		l.writing.Unlock()
		if err := <-moved; fails != errors.Is(err, ledger.ErrUnavailable) || !fails && err != nil {
			t.Errorf("fails %v: Move returned %v", fails, err)
		}
		if err := <-closed; fails != (err != nil) || fails && !strings.Contains(err.Error(), "1 payments are not in the file") {
			t.Errorf("fails %v: Close returned %v", fails, err)
		}
		want := map[ledger.Key]ledger.State{"paid": ledger.Settled, "waits": ledger.Settling}
		if fails {
			want = map[ledger.Key]ledger.State{"paid": ledger.Settling, "waits": ""}
		}
		again := open(t, path, Options{})
		for key, state := range want {
			wantState(t, again, key, state)
		}
	}
}

// TestOneTransaction: a sale waits for the disk once, and many at once share a
// transaction.
func TestOneTransaction(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "payments.db"), Options{})
	commits := func() uint64 {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.commits
	}
	bring(t, l, "alone", ledger.Delivered)
	flush(t, l)
	if n := commits(); n > 4 {
		t.Errorf("%d transactions for one sale", n)
	}
	before := commits()
	const n = 200
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { bring(t, l, ledger.Key(fmt.Sprint("k", i)), ledger.Settling) })
	}
	wg.Wait()
	if got := commits() - before; got > n/2 {
		t.Errorf("%d transactions for %d sales at once", got, n)
	}
}

// TestSQLiteIsFull: the database may not grow, and SQLite says so in the middle of a
// transaction.
func TestSQLiteIsFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "payments.db")
	l := open(t, path, Options{})
	bring(t, l, "first", ledger.Delivered)
	flush(t, l)
	if err := l.asWriter(func(c *connection) error { // until the connection is made anew
		_, err := c.exec("PRAGMA max_page_count = 1")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	large := payment("k")
	large.Request = make([]byte, 1<<20)
	c, err := l.Claim(t.Context(), large, testLease)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settling}); !errors.Is(err, ledger.ErrUnavailable) || !strings.Contains(err.Error(), "full") {
		t.Fatalf("Move: %v", err)
	}
	eventually(t, "it recovers", func() bool { return l.well() == nil })
	move(t, l, c, ledger.Settling)
	wantUsed(t, l, "first")
}

// TestFullDisk fills a real file system.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	const size = 8 << 20
	if err := mountSmall(dir, size); err != nil {
		t.Skip("no file system to fill: ", err)
	}
	defer unmount(dir)
	filler := filepath.Join(dir, "filler")
	path := filepath.Join(dir, "payments.db")
	l := open(t, path, Options{})
	bring(t, l, "first", ledger.Delivered)
	paid := bring(t, l, "paid", ledger.Settling)
	_ = os.WriteFile(filler, make([]byte, size), fileMode) // as much as there is room for
	promised := map[ledger.Key]bool{"first": true, "paid": true}
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
	move(t, l, paid, ledger.Settled) // is not lost
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
	again := open(t, path, Options{})
	for key := range promised {
		wantUsed(t, again, key)
	}
	wantState(t, again, "paid", ledger.Settled)
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestNothingStaysOfAClaimThatWasCommittedUnseen: nobody knows whether a payment that was
// to settle was committed, and it was. When its holder has let go, its signature is gone.
func TestNothingStaysOfAClaimThatWasCommittedUnseen(t *testing.T) {
	for _, to := range []ledger.State{ledger.Released, ledger.Refused} {
		t.Run(string(to), func(t *testing.T) {
			d := &disk{}
			l := open(t, filepath.Join(t.TempDir(), "payments.db"), Options{fault: d.fault})
			c := bring(t, l, "k", ledger.Claimed)
			d.fail("committed", errFull)
			if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settling, Request: []byte("signed")}); err == nil {
				t.Fatal("no error")
			}
			if _, err := l.Move(t.Context(), c, ledger.Change{To: to}); err != nil {
				t.Fatal(err)
			}
			d.heal()
			flush(t, l)
			var kept int
			if err := reading(t, l).QueryRowContext(t.Context(), "SELECT count(*) FROM kept").Scan(&kept); err != nil || kept != 0 {
				t.Errorf("%d signatures are in the file, %v", kept, err)
			}
		})
	}
}
