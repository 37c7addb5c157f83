//go:build unix

// Package ledger measures the ledgers beside each other and beside the least
// that durability costs. It has benchmarks only:
//
//	go test -bench . -benchtime 5s ./bench/ledger
package ledger

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/ledger/memory"
	"github.com/caddy-paywall/caddy-paywall/ledger/sqlite"
)

// seller does what a ledger does for one paid request.
type seller func(ctx context.Context) error

// BenchmarkSale is a claim and four moves, of which one waits for the disk, for
// each of the contenders at each number of requests at once. Compare the numbers
// of one run only.
func BenchmarkSale(b *testing.B) {
	for _, at := range []int{1, 8, 64, 256} {
		for _, c := range []struct {
			name string
			open func(b *testing.B) seller
		}{
			{"memory", func(*testing.B) seller { return sells(memory.New(memory.Options{Max: 1 << 30})) }},
			{"sqlite", func(b *testing.B) seller { return sells(open(b, sqlite.Options{Max: 1 << 30})) }},
			{"bare append", bareAppend},
			{"sqlite alone", sqliteAlone},
		} {
			b.Run(fmt.Sprintf("%s/%d", c.name, at), func(b *testing.B) {
				measure(b, at, c.open(b))
			})
		}
	}
}

func open(b *testing.B, o sqlite.Options) *sqlite.Ledger {
	l, err := sqlite.Open(filepath.Join(b.TempDir(), "payments.db"), o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := l.Close(); err != nil {
			b.Error(err)
		}
	})
	return l
}

// measure lets n requests sell at once and reports the time that the slowest of
// a hundred took, and the time of the processor.
func measure(b *testing.B, n int, sell seller) {
	var left atomic.Int64
	left.Store(int64(b.N))
	times := make([][]time.Duration, n)
	before := processor(b)
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				begin := time.Now()
				if err := sell(b.Context()); err != nil {
					b.Error(err)
					return
				}
				times[i] = append(times[i], time.Since(begin))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	used := processor(b) - before
	all := slices.Concat(times...)
	slices.Sort(all)
	b.ReportMetric(all[len(all)/2].Seconds()*1e6, "p50-us")
	b.ReportMetric(all[len(all)*99/100].Seconds()*1e6, "p99-us")
	b.ReportMetric(used.Seconds()*1e6/float64(b.N), "cpu-us/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sales/s")
}

func processor(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// sample is a payment of the usual size that nobody has seen.
func sample() ledger.Payment {
	const asset = "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913"
	var random [52]byte
	_, _ = rand.Read(random[:])
	payer, nonce := "0x"+hex.EncodeToString(random[:20]), "0x"+hex.EncodeToString(random[20:])
	now := time.Now()
	return ledger.Payment{
		Key:    ledger.Key("eip3009|eip155:8453|" + asset + "|" + payer + "|" + nonce),
		Scheme: "exact", Network: "eip155:8453", Asset: asset, PayTo: asset, Payer: payer,
		Amount: "10000", ValidBefore: now.Add(5 * time.Minute), Keep: now.Add(24 * time.Hour),
		Method: "GET", Host: "shop.example", URL: "/articles/" + nonce[:10], Client: "192.0.2.0/24",
		Facilitator: "cdp",
	}
}

// request is a facilitator's request of the usual size.
var request = make([]byte, 1200)

var changes = []ledger.Change{
	{To: ledger.Settling, Request: request},
	{To: ledger.Settled, Transaction: "0x89c91c789e57059b17285e7ba1716a1f5ff4c5dace0ea5a5135f26158d0421b9"},
	{To: ledger.Delivering, Runs: 1},
	{To: ledger.Delivered, Status: 200},
}

func sells(l ledger.Ledger) seller {
	return func(ctx context.Context) error { return sell(ctx, l, sample()) }
}

// sell sells one payment.
func sell(ctx context.Context, l ledger.Ledger, p ledger.Payment) error {
	c, err := l.Claim(ctx, p, time.Minute)
	for _, ch := range changes {
		if err == nil {
			_, err = l.Move(ctx, c, ch)
		}
	}
	return err
}

// BenchmarkReplay is a payment that was delivered and comes again, when it is no
// longer in memory.
func BenchmarkReplay(b *testing.B) {
	path := filepath.Join(b.TempDir(), "payments.db")
	l, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		b.Fatal(err)
	}
	p := sample()
	if err = errors.Join(sell(b.Context(), l, p), l.Close()); err != nil {
		b.Fatal(err)
	}
	if l, err = sqlite.Open(path, sqlite.Options{}); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for b.Loop() {
		if _, err := l.Claim(b.Context(), p, time.Minute); err == nil {
			b.Fatal("sold twice")
		}
	}
}
