package soak

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// disk sets how large files of the gateway may grow: what a full disk does, and
// a disk with room again, without a mount.
func (g *gateway) disk(full bool) {
	g.t.Helper()
	limit := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if full {
		limit.Cur = 1
	}
	if err := unix.Prlimit(g.cmd.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		g.t.Fatal(err)
	}
}

// TestFullDisk fills the disk under the ledger, and makes room again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	rounds := 2
	if full {
		rounds = 50
	}
	w := newWorld(t)
	g := w.gateway(shop{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	here := func() string { return g.plain }
	for range rounds {
		if !w.purchase(purchase{habit: careful}).buy(ctx, client(nil), here) {
			t.Fatal("nothing is sold on a good disk")
		}
		g.disk(true)
		w.refused(ctx, g) // the first learn that the disk is full
		asked, verified := w.remote.counts()
		refused := w.refused(ctx, g)
		if nowAsked, nowVerified := w.remote.counts(); nowAsked != asked || nowVerified != verified {
			t.Errorf("with a full disk the facilitator was asked: %d times to verify, %d times to settle", nowVerified-verified, nowAsked-asked)
		}
		for _, p := range refused {
			if n := w.up.started(p.path); n != 0 {
				t.Errorf("with a full disk the upstream was started: %s, %d times", p.path, n)
			}
		}
		g.disk(false)
	}
	// Without a restart everybody gets what he came for.
	var buyers sync.WaitGroup
	for _, p := range w.purchases {
		if p.got == 0 {
			buyers.Go(func() { p.buy(ctx, client(nil), here) })
		}
	}
	buyers.Wait()
	w.audit()
	w.settle(g)
}

// refused tries to buy, and is told to come back.
func (w *world) refused(ctx context.Context, g *gateway) []*purchase {
	w.t.Helper()
	before, _ := w.remote.counts()
	var all []*purchase
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodGet} {
		p := w.purchase(purchase{method: method, habit: careful})
		all = append(all, p)
		ch, ok := p.ask(ctx, client(nil), g.plain)
		if !ok {
			if !strings.Contains(p.story[len(p.story)-1], "asked: 503 ledger_unavailable") { // before he signs
				p.fault("with a full disk there is no price")
			}
			continue
		}
		s, err := p.sign(2, ch)
		w.must(err)
		a, err := p.request(ctx, client(nil), g.plain, s.header())
		if err != nil {
			p.fault("with a full disk: %v", err)
			continue
		}
		p.tell("full disk: %d %s", a.status, a.code)
		if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			p.fault("with a full disk: %d %s, Retry-After %q", a.status, a.code, a.header.Get("Retry-After"))
		}
	}
	if after, _ := w.remote.counts(); after != before {
		w.t.Errorf("with a full disk money was asked for %d times", after-before)
	}
	return all
}
