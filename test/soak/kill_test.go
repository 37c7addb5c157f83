package soak

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestKill kills the gateway at random points, under load, with reloads, and
// starts it again. The clients go on until they have their goods.
func TestKill(t *testing.T) {
	t.Parallel()
	for _, facilitator := range []string{"own", "remote"} {
		t.Run(facilitator, func(t *testing.T) {
			t.Parallel()
			kills, limit := 3, 3*time.Minute
			if long {
				kills = 20
			}
			if full {
				kills, limit = 260, 35*time.Minute
			}
			if n, err := strconv.Atoi(os.Getenv("SOAK_KILLS")); err == nil {
				kills, limit = n, limit+time.Duration(n)*5*time.Second
			}
			w := newWorld(t)
			ctx, cancel := context.WithTimeout(t.Context(), limit+patience)
			defer cancel()
			end := time.Now().Add(limit)
			g := w.gateway(shop{facilitator: facilitator})
			origins := []string{g.plain}
			done := w.load(ctx, 8, facilitator == "remote", func() string { return origins[w.n(len(origins))] })
			reloads := w.reloading(ctx, g)
			n := 0
			for ; n < kills && time.Now().Before(end); n++ {
				sleep(ctx, w.between(20*time.Millisecond, 2500*time.Millisecond))
				g.kill()
				sleep(ctx, w.between(0, 300*time.Millisecond))
				g.start()
			}
			done()
			t.Logf("%d kills, %d reloads", n, reloads())
			w.audit()
			w.settle(g)
		})
	}
}

// patience is how long the last clients may take until they have their goods, when
// all that was to happen has happened.
const patience = 5 * time.Minute

// settle gives the reconciler time for what no client waits for any more, stops
// the gateway and compares its ledger with the chain.
func (w *world) settle(g *gateway) {
	w.t.Helper()
	time.Sleep(5 * time.Second)
	g.stop()
	w.compareFile(g)
}

// compareFile compares the ledger of a gateway that has stopped with the chain.
func (w *world) compareFile(g *gateway) {
	w.t.Helper()
	w.compare(fileRows(w.t, filepath.Join(g.dir, "payments.db")))
}

// load makes clients buy, one thing after the other, until the function that it
// returns is called, which waits for the last goods.
func (w *world) load(ctx context.Context, clients int, trouble bool, origin func() string) (done func()) {
	var enough atomic.Bool
	var buyers sync.WaitGroup
	for i := range clients {
		c := client(nil)
		key := w.payers()[i%len(w.payers())]
		buyers.Go(func() {
			for !enough.Load() && ctx.Err() == nil {
				p := purchase{key: key, habit: []habit{stock, hasty, careful}[w.n(3)]}
				if w.n(3) == 0 {
					p.method = http.MethodPost
				}
				if trouble && w.n(4) == 0 {
					p.script = &script{calls: []manners{[]manners{drops, ignores, fails, pends, twice, late(time.Second)}[w.n(6)]}}
				}
				w.purchase(p).buy(ctx, c, origin)
			}
		})
	}
	return func() {
		enough.Store(true)
		buyers.Wait()
	}
}

// reloading reloads the config up to five times a second until ctx ends, each time
// with one or two keys for the gas, in either order.
func (w *world) reloading(ctx context.Context, g *gateway) (count func() int64) {
	var n atomic.Int64
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() {
		for ctx.Err() == nil {
			sleep(ctx, w.between(200*time.Millisecond, 600*time.Millisecond))
			if err := g.reload(w.n(len(g.variants))); err != nil {
				w.t.Errorf("reload: %v", err)
			}
			n.Add(1)
		}
	})
	return func() int64 {
		cancel()
		work.Wait()
		return n.Load()
	}
}
