//go:build linux

// Command rush measures a mint rush: thousands of payers who pay within a minute
// for one numbered token each, at a real Caddy that settles by itself on a chain
// with blocks of two seconds. At the end, whoever was charged has one number of his
// own, and whoever was told to wait was not charged. See bench/README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/caddy-paywall/caddy-paywall/bench/process"
)

// options are what the command line says.
type options struct {
	payers   int
	networks int
	seconds  int
	patience int
	keys     int
	batch    string
	budget   string
	ledger   string
	warm     bool
	block    int
	blockGas uint64
	drive    drive
	attack   attack
	profile  string
	gateway  string
	anvil    string
	dir      string
}

// drive is how payers behave.
type drive struct{ hangUp bool }

func main() {
	var o options
	flag.IntVar(&o.payers, "payers", 10_000, "how many pay, once each")
	flag.IntVar(&o.networks, "networks", 2_500, "in how many client networks (/24) they are")
	flag.IntVar(&o.seconds, "seconds", 60, "within how many seconds they come")
	flag.IntVar(&o.patience, "patience", 270, "how many seconds after it was signed a payment is tried again at most; it is good for 300")
	flag.IntVar(&o.keys, "keys", 1, "how many keys the gateway sends with")
	flag.StringVar(&o.batch, "batch", "", "words after `batch` in the Caddyfile, like \"10 200ms\" or off; default: the facilitator's own")
	flag.StringVar(&o.budget, "gas-budget", "", "the word after `gas_budget`, like 0.01/day; default: the facilitator's own")
	flag.StringVar(&o.ledger, "ledger", "sqlite", "sqlite or memory")
	flag.BoolVar(&o.warm, "warm", false, "one payment settles before the rush; else the gateway has settled nothing since it was started")
	flag.IntVar(&o.block, "block", 2, "seconds between blocks")
	flag.Uint64Var(&o.blockGas, "block-gas", 60_000_000, "gas of a block")
	flag.BoolVar(&o.drive.hangUp, "hang-up", false, "payers who are told to wait hang up meanwhile; else they keep their connections")
	flag.IntVar(&o.attack.attackers, "attackers", 0, "how many attackers send all they can, half of them with money for one payment, half with wallets that burn gas; then payers come sparsely")
	flag.IntVar(&o.attack.rate, "attack-rate", 10, "payments of each attacker a second")
	flag.IntVar(&o.attack.before, "attack-before", 10, "for how many seconds they attack before the first payer comes")
	flag.IntVar(&o.attack.wallets, "attack-wallets", 64, "contract wallets of each attacker who has such")
	flag.IntVar(&o.attack.regulars, "regulars", -1, "how many of the payers have paid once before the attack; default: half of them while there are attackers, else none")
	flag.StringVar(&o.profile, "profile", "", "write profiles of the gateway to this directory")
	flag.StringVar(&o.gateway, "gateway", "", "a gateway that is built already")
	flag.StringVar(&o.anvil, "anvil", "", "anvil; default: $ANVIL, that of test/interop/node_modules, or that on the PATH")
	flag.StringVar(&o.dir, "dir", "", "where the ledger is; default: the directory for temporary files")
	flag.Parse()
	// What is started here is told to end with the thread that has started it.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// rush is one run.
type rush struct {
	options
	counters
	root    string // of the repository
	dir     string
	chain   *chain
	gateway *gateway
	mint    *mint
}

func run(ctx context.Context, o options) (err error) {
	if err := manyFiles(); err != nil {
		return err
	}
	if o.attack.regulars < 0 {
		o.attack.regulars = 0
		if o.attack.attackers > 0 {
			o.attack.regulars = o.payers / 2
		}
	}
	dir, err := os.MkdirTemp(o.dir, "paywall-rush")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := &rush{options: o, dir: dir}
	if r.root, err = repository(); err != nil {
		return err
	}
	if o.gateway == "" {
		o.gateway = filepath.Join(dir, "gateway")
		if err := process.Build(ctx, "bench/gateway", o.gateway); err != nil {
			return err
		}
		r.options.gateway = o.gateway
	}
	if r.mint, err = startMint(); err != nil {
		return err
	}
	defer r.mint.Close()
	if r.chain, err = r.startChain(ctx); err != nil {
		return err
	}
	defer r.chain.stop()
	keys, err := r.chain.newKeys(ctx, o.keys)
	if err != nil {
		return err
	}
	if r.gateway, err = r.startGateway(keys); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.gateway.stop()) }()
	return r.measure(ctx)
}

// manyFiles allows as many connections as the system lets us have, to what is started
// here too.
func manyFiles() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	l.Cur = l.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
}

// repository is where this module is.
func repository() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/caddy-paywall/caddy-paywall").Output()
	if err != nil {
		return "", fmt.Errorf("run this in the repository: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// seconds is a duration of some.
func seconds(n int) time.Duration { return time.Duration(n) * time.Second }
