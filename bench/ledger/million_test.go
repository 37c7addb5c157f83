//go:build unix

package ledger

import (
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/ledger/sqlite"
)

// BenchmarkMillion sells a million times and looks at the memory on the way, each
// time when the file has caught up: finished payments are to be there and not in
// memory. It also tells the most that was in memory while the file was behind. Then
// it starts anew with that file, and finds payments in it.
func BenchmarkMillion(b *testing.B) {
	path := filepath.Join(b.TempDir(), "payments.db")
	l, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		b.Fatal(err)
	}
	empty := heap()
	seen := map[string]float64{}
	var first, last ledger.Payment
	end, peak := make(chan struct{}), make(chan uint64)
	go func() { peak <- highest(end) }()
	for _, sold := range []struct {
		until int64
		unit  string
	}{{100_000, "heap-kB@100k"}, {500_000, "heap-kB@500k"}, {1_000_000, "heap-kB@1M"}} {
		last = sellMany(b, l, sold.until-sales.Load())
		if first.Key == "" {
			first = last
		}
		seen[sold.unit] = float64(quiet()-empty) / 1e3
	}
	close(end)
	seen["heap-kB-most"] = float64(int64(<-peak)-empty) / 1e3 //nolint:gosec // will not be so much
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}

	start := time.Now()
	if l, err = sqlite.Open(path, sqlite.Options{}); err != nil {
		b.Fatal(err)
	}
	seen["open-ms"] = float64(time.Since(start).Milliseconds())
	seen["heap-kB-anew"] = float64(heap()-empty) / 1e3
	b.Cleanup(func() { _ = l.Close() })
	b.Run("Seen", func(b *testing.B) { // what is reported of a benchmark with others in it is lost
		for b.Loop() {
			continue
		}
		for unit, value := range seen {
			b.ReportMetric(value, unit)
		}
	})
	for name, look := range map[string]func() bool{
		"Replay": func() bool { // one of the first comes again
			_, err := l.Claim(b.Context(), first, time.Minute)
			return err != nil
		},
		"Purchase": func() bool { // what its payer bought
			n := 0
			for range l.List(b.Context(), ledger.Filter{Payer: last.Payer, Method: last.Method, Host: last.Host, URL: last.URL}) {
				n++
			}
			return n == 1
		},
		"Open": func() bool { // what is not finished
			for range l.List(b.Context(), ledger.Filter{States: []ledger.State{ledger.Settling, ledger.Unknown}}) {
				return false
			}
			return true
		},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if !look() {
					b.Fatal("the ledger says otherwise")
				}
			}
		})
	}
}

// sales counts what was sold in this process.
var sales atomic.Int64

// sellMany sells n times, 64 at once, and returns one of the payments.
func sellMany(b *testing.B, l *sqlite.Ledger, n int64) ledger.Payment {
	var left atomic.Int64
	left.Store(n)
	kept := make(chan ledger.Payment, 64)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			var p ledger.Payment
			for left.Add(-1) >= 0 {
				p = sample()
				if err := sell(b.Context(), l, p); err != nil {
					b.Error(err)
					return
				}
				sales.Add(1)
			}
			kept <- p
		})
	}
	wg.Wait()
	return <-kept
}

// highest returns the most that a garbage collection has left in the heap until
// end.
func highest(end chan struct{}) (most uint64) {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for {
		metrics.Read(sample)
		most = max(most, sample[0].Value.Uint64())
		select {
		case <-end:
			return most
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// quiet is the heap when it falls no more. This sells faster than any gate, and
// the copy in the file follows behind.
func quiet() int64 {
	least, since := heap(), time.Now()
	for time.Since(since) < 10*time.Second {
		time.Sleep(500 * time.Millisecond)
		if now := heap(); now < least-least/50 {
			least, since = now, time.Now()
		}
	}
	return least
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // will not be so much
}
