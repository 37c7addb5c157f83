//go:build linux

// Command streams measures what an open paid stream costs: endless event streams
// through a Caddy without the paywall and through others that sell them. See
// bench/README.md.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-paywall/caddy-paywall/bench/process"
	"github.com/caddy-paywall/caddy-paywall/client"
)

func main() {
	streams := flag.Int("streams", 1000, "streams that are open at once")
	rounds := flag.Int("rounds", 3, "rounds, in each of which every target has its turn")
	flag.Parse()
	if err := run(*streams, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// targets are the gateways, by name: what is sold where, and the ledger; the
// first sells nothing.
var targets = []struct{ name, ledger string }{
	{"reverse_proxy", ""},
	{"memory", "memory i_accept_loss"},
	{"sqlite", "sqlite"},
}

func run(streams, rounds int) error {
	dir, err := os.MkdirTemp("", "paywall-streams-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "gateway")
	if err := process.Build(context.Background(), "bench/gateway", binary); err != nil {
		return err
	}
	site, err := startSite()
	if err != nil {
		return err
	}
	defer site.Close()
	results := make([][]usage, len(targets))
	for round := range rounds {
		for i, target := range targets {
			used, err := measure(filepath.Join(dir, fmt.Sprintf("%s-%d", target.name, round)), binary, target.ledger, site.address, streams)
			if err != nil {
				return fmt.Errorf("%s: %w", target.name, err)
			}
			results[i] = append(results[i], used)
		}
	}
	report(results, streams)
	return nil
}

// measure starts a gateway, opens streams through it, and returns what it uses
// more than before, all together.
func measure(dir, binary, ledger, site string, streams int) (used usage, err error) {
	g, err := startGateway(dir, binary, ledger, site)
	if err != nil {
		return usage{}, err
	}
	defer func() { err = errors.Join(err, g.stop()) }()
	// What is made once is made by the first few.
	warm, err := open(g, 8)
	if err != nil {
		return usage{}, err
	}
	closeAll(warm)
	before, err := g.settle()
	if err != nil {
		return usage{}, err
	}
	opened, err := open(g, streams)
	defer closeAll(opened)
	if err != nil {
		return usage{}, err
	}
	after, err := g.settle()
	if err != nil {
		return usage{}, err
	}
	return after.minus(before), nil
}

// open opens streams, each paid for where it has a price, and reads the first
// event of each.
func open(g *gateway, streams int) (opened []*http.Response, err error) {
	key, err := client.DevKey(0)
	if err != nil {
		return nil, err
	}
	limit, err := client.ParseLimit("0.01")
	if err != nil {
		return nil, err
	}
	payer := &client.Client{Key: key, Limits: []client.Limit{limit}, Transport: &http.Transport{
		DisableCompression: true,
		DialContext:        (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
	}}
	var (
		mu  sync.Mutex
		all sync.WaitGroup
		one = make(chan int)
	)
	for range 16 {
		all.Go(func() {
			for i := range one {
				res, e := first(payer, fmt.Sprintf("http://%s/events/%d", g.address, i), g.sells)
				mu.Lock()
				if e != nil {
					err = e
				} else {
					opened = append(opened, res)
				}
				mu.Unlock()
			}
		})
	}
	for i := range streams {
		one <- i
	}
	close(one)
	all.Wait()
	return opened, err
}

// first opens one stream.
func first(payer *client.Client, url string, sells bool) (*http.Response, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	result, err := payer.Do(req)
	if err != nil {
		return nil, err
	}
	res := result.Response
	if result.Paid() != sells || res.StatusCode != http.StatusOK {
		_ = res.Body.Close()
		return nil, fmt.Errorf("%s: %s, status %d", url, result.Outcome, res.StatusCode)
	}
	if line, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil || !strings.HasPrefix(line, "data:") {
		_ = res.Body.Close()
		return nil, fmt.Errorf("%s: first line %q: %w", url, line, err)
	}
	return res, nil
}

func closeAll(opened []*http.Response) {
	for _, res := range opened {
		_ = res.Body.Close()
	}
}

// report prints the medians, and the ratios to the first target within a round.
func report(results [][]usage, streams int) {
	fmt.Printf("%d streams, %d rounds\n\n| target | RSS kB | heap kB | stacks kB | goroutines | heap and stacks / reverse_proxy |\n|---|---|---|---|---|---|\n", streams, len(results[0]))
	for i, rounds := range results {
		per := func(of func(usage) int) float64 { //nolint:forbidigo // memory, no money
			var all []int
			for _, u := range rounds {
				all = append(all, of(u))
			}
			slices.Sort(all)
			return float64(all[len(all)/2]) / float64(streams) //nolint:forbidigo // memory, no money
		}
		var ratios []float64 //nolint:forbidigo // memory, no money
		for round, u := range rounds {
			base := results[0][round]
			ratios = append(ratios, float64(u.heap+u.stacks)/float64(base.heap+base.stacks)) //nolint:forbidigo // memory, no money
		}
		slices.Sort(ratios)
		fmt.Printf("| %s | %.1f | %.1f | %.1f | %.1f | %.2f (%.2f-%.2f) |\n", targets[i].name,
			per(func(u usage) int { return u.resident })/1024, per(func(u usage) int { return u.heap })/1024,
			per(func(u usage) int { return u.stacks })/1024, per(func(u usage) int { return u.goroutines }),
			ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1])
	}
}
