//go:build linux

// Command paid measures the paid path: gateways that differ in their ledger
// alone, and a Caddy without the paywall, in turn. See bench/README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"time"

	"github.com/caddy-paywall/caddy-paywall/bench/process"
)

// options are what the command line says.
type options struct {
	rounds   int
	seconds  float64 //nolint:forbidigo // a duration, no money
	payers   int
	lone     int
	postgres bool
	syncs    bool
	settle   string
	delay    time.Duration
	profile  string
	idle     int
	gateway  string
	against  string
	dir      string
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "rounds, in each of which every target has its turn")
	flag.Float64Var(&o.seconds, "seconds", 2, "about how long a turn takes")
	flag.IntVar(&o.payers, "payers", 64, "payers at once, each with a connection")
	flag.IntVar(&o.lone, "lone", 300, "requests of a lone payer to each target; 0: none")
	flag.BoolVar(&o.postgres, "postgres", false, "also measure PostgreSQL, started for it")
	flag.BoolVar(&o.syncs, "syncs", false, "also count the syncs for each paid request (needs strace)")
	flag.StringVar(&o.settle, "settle", "on_success", "when the money moves: on_success or first")
	flag.DurationVar(&o.delay, "delay", 0, "how long the facilitator takes to settle")
	flag.IntVar(&o.idle, "idle", 256, "how many idle connections to the upstream the gateways keep; Caddy: 32")
	flag.StringVar(&o.profile, "profile", "", "write profiles of each target to this directory, in turns that do not count")
	flag.StringVar(&o.gateway, "gateway", "", "a gateway that is built already")
	flag.StringVar(&o.against, "against", "", "another build of the gateway, whose SQLite ledger is measured too")
	flag.StringVar(&o.dir, "dir", "", "where the ledger is; default: the directory for temporary files")
	flag.Parse()
	// The gateways are told to end with the thread that has started them, and on
	// an interrupt they end by themselves: then this ends, and clears up.
	runtime.LockOSThread()
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(o options) (err error) {
	dir, err := os.MkdirTemp(o.dir, "paywall-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	up, err := startUpstream()
	if err != nil {
		return err
	}
	defer up.Close()
	if o.gateway == "" {
		o.gateway = filepath.Join(dir, "gateway")
		if err := process.Build(context.Background(), "bench/gateway", o.gateway); err != nil {
			return err
		}
	}
	b := &bench{options: o, dir: dir, upstream: up.address, wallets: newWallets(o.payers)}
	defer func() { err = errors.Join(err, b.stop()) }()
	if err := b.start(); err != nil {
		return err
	}
	if err := b.warmUp(); err != nil {
		return err
	}
	for range o.rounds {
		if err := b.round(); err != nil {
			return err
		}
	}
	if o.rounds > 0 {
		b.printRounds(os.Stdout)
	}
	if o.lone > 0 {
		if err := b.alone(os.Stdout); err != nil {
			return err
		}
	}
	if o.profile != "" {
		if err := b.profileAll(); err != nil {
			return err
		}
	}
	if o.syncs {
		return b.countSyncs(os.Stdout)
	}
	return nil
}
