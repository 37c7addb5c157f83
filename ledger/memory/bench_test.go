package memory

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// sample is a payment of the usual size.
func sample(n uint64) ledger.Payment {
	const asset, payer = "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913", "0x209693bc6afc0c5328ba36faf03c514ef312287c"
	return ledger.Payment{
		Key:    ledger.Key(fmt.Sprintf("eip3009|eip155:8453|%s|%s|%064x", asset, payer, n)),
		Scheme: "exact", Network: "eip155:8453", Asset: asset, PayTo: payer, Payer: payer,
		Amount: "10000", ValidBefore: time.Now().Add(5 * time.Minute), Keep: time.Now().Add(24 * time.Hour),
		Method: "GET", Host: "shop.example", URL: fmt.Sprintf("/articles/%d", n), Client: "192.0.2.0/24",
		Facilitator: "cdp", Request: request,
	}
}

// request is a facilitator's request of the usual size.
var request = make([]byte, 1200)

// sell takes one payment from claim to delivered.
func sell(b *testing.B, l *Ledger, p ledger.Payment) {
	ctx := context.Background()
	c, err := l.Claim(ctx, p, lease)
	if err != nil {
		b.Fatal(err)
	}
	for _, ch := range []ledger.Change{
		{To: ledger.Settling},
		{To: ledger.Settled, Transaction: "0x89c91c789e57059b17285e7ba1716a1f5ff4c5dace0ea5a5135f26158d0421b9"},
		{To: ledger.Delivering, Runs: 1},
		{To: ledger.Delivered, Status: 200},
	} {
		if _, err := l.Move(ctx, c, ch); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSale is all that the ledger does for one paid request: a Claim and
// four Moves. Sold payments are forgotten at once, so that the size stays.
func BenchmarkSale(b *testing.B) {
	for _, goroutines := range []int{1, 64} {
		b.Run(fmt.Sprint("goroutines=", goroutines), func(b *testing.B) {
			l := New(Options{})
			var n atomic.Uint64
			next := func() ledger.Payment {
				p := sample(n.Add(1))
				p.ValidBefore, p.Keep = time.Time{}, time.Time{}
				return p
			}
			b.ReportAllocs()
			if goroutines == 1 {
				for b.Loop() {
					sell(b, l, next())
				}
				return
			}
			b.SetParallelism(max(1, goroutines/runtime.GOMAXPROCS(0)))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					sell(b, l, next())
				}
			})
		})
	}
}

// BenchmarkMillion measures a ledger that remembers a million delivered payments
// and a hundred open ones.
func BenchmarkMillion(b *testing.B) {
	const rows = 1_000_000
	before := heap()
	l := New(Options{Max: rows + 1_000_000})
	for n := range uint64(rows) {
		sell(b, l, sample(n))
	}
	size := float64(heap()-before) / rows
	for n := range uint64(100) {
		c, _ := l.Claim(b.Context(), sample(rows+n), lease)
		_, _ = l.Move(b.Context(), c, ledger.Change{To: ledger.Settling})
	}

	b.Run("Memory", func(b *testing.B) {
		for b.Loop() {
			continue
		}
		b.ReportMetric(size, "bytes/row")
	})
	b.Run("Sale", func(b *testing.B) {
		n := uint64(2 * rows)
		for b.Loop() {
			n++
			p := sample(n)
			p.ValidBefore, p.Keep = time.Time{}, time.Time{}
			sell(b, l, p)
		}
	})
	b.Run("Replay", func(b *testing.B) { // a delivered payment that comes again
		for b.Loop() {
			_, _ = l.Claim(b.Context(), sample(0), lease)
		}
	})
	owed := []ledger.State{ledger.Settling, ledger.Settled, ledger.Delivering, ledger.Unknown}
	p := sample(rows + 1)
	for name, filter := range map[string]ledger.Filter{
		"ListPurchase": {States: owed, Payer: p.Payer, Method: p.Method, Host: p.Host, URL: p.URL},
		"ListOpen":     {States: owed},
		"ListAll":      {URL: "/none"},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				for _, err := range l.List(b.Context(), filter) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
	runtime.KeepAlive(l)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
