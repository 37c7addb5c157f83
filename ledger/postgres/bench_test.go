package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

const lease = 30 * time.Second

// request is a facilitator's request of the usual size.
var request = make([]byte, 1200)

// sample is a payment of the usual size.
func sample(n uint64) ledger.Payment {
	const asset, payer = "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913", "0x209693bc6afc0c5328ba36faf03c514ef312287c"
	now := time.Now()
	return ledger.Payment{
		Key:    ledger.Key(fmt.Sprintf("eip3009|eip155:8453|%s|%s|%064x", asset, payer, n)),
		Scheme: "exact", Network: "eip155:8453", Asset: asset, PayTo: payer, Payer: fmt.Sprintf("0x%040x", n%1000),
		Amount: "10000", ValidBefore: now.Add(5 * time.Minute), Keep: now.Add(24 * time.Hour),
		Method: "GET", Host: "shop.example", URL: fmt.Sprintf("/articles/%d", n%100), Client: "192.0.2.0/24",
		Facilitator: "cdp", Request: request,
	}
}

// sale is what follows a claim.
var sale = []ledger.Change{
	{To: ledger.Settling},
	{To: ledger.Settled, Transaction: "0x89c91c789e57059b17285e7ba1716a1f5ff4c5dace0ea5a5135f26158d0421b9"},
	{To: ledger.Delivering, Runs: 1},
	{To: ledger.Delivered, Status: 200},
}

// sell takes one payment from claim to delivered.
func sell(l ledger.Ledger, p ledger.Payment) error {
	ctx := context.Background()
	c, err := l.Claim(ctx, p, lease)
	if err != nil {
		return err
	}
	for _, ch := range sale {
		if _, err := l.Move(ctx, c, ch); err != nil {
			return err
		}
	}
	return nil
}

// crowd lets n sellers do b.N things and reports what each took.
func crowd(b *testing.B, n int, what func(uint64) error) {
	var next atomic.Int64
	took := make([][]time.Duration, n)
	var all sync.WaitGroup
	b.ResetTimer()
	for i := range n {
		all.Go(func() {
			for {
				k := next.Add(1)
				if k > int64(b.N) {
					return
				}
				start := time.Now()
				if err := what(uint64(k)); err != nil {
					b.Error(err)
					return
				}
				took[i] = append(took[i], time.Since(start))
			}
		})
	}
	all.Wait()
	b.StopTimer()
	each := slices.Concat(took...)
	slices.Sort(each)
	if len(each) > 0 {
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
		b.ReportMetric(float64(each[len(each)/2].Microseconds())/1000, "p50-ms")
		b.ReportMetric(float64(each[len(each)*99/100].Microseconds())/1000, "p99-ms")
	}
}

var crowds = []int{1, 8, 64, 256}

// BenchmarkSale is all that the ledger writes for one paid request: a Claim and
// four Moves, of which one waits for the disk.
func BenchmarkSale(b *testing.B) {
	for _, n := range crowds {
		b.Run(fmt.Sprint("concurrent=", n), func(b *testing.B) {
			l := open(b, Options{})
			_, _ = l.Get(b.Context(), "open")
			crowd(b, n, func(k uint64) error { return sell(l, sample(k)) })
		})
	}
}

// BenchmarkClaim is a Claim alone.
func BenchmarkClaim(b *testing.B) {
	for _, n := range crowds {
		b.Run(fmt.Sprint("concurrent=", n), func(b *testing.B) {
			l := open(b, Options{})
			_, _ = l.Get(b.Context(), "open")
			crowd(b, n, func(k uint64) error {
				_, err := l.Claim(context.Background(), sample(k), lease)
				return err
			})
		})
	}
}

// BenchmarkOwed is what a gateway asks before a sale: what is this payer owed?
func BenchmarkOwed(b *testing.B) {
	for _, n := range crowds {
		b.Run(fmt.Sprint("concurrent=", n), func(b *testing.B) {
			l := open(b, Options{})
			for k := range uint64(100) {
				c, _ := l.Claim(b.Context(), sample(k), lease)
				_, _ = l.Move(b.Context(), c, ledger.Change{To: ledger.Settling})
			}
			crowd(b, n, func(k uint64) error {
				p := sample(k)
				for _, err := range l.List(context.Background(), ledger.Filter{
					States: []ledger.State{ledger.Settled, ledger.Delivering, ledger.Unknown, ledger.Settling},
					Payer:  p.Payer, Method: p.Method, Host: p.Host, URL: p.URL,
				}) {
					if err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}
