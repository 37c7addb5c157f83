// Command demo shows what caddy-paywall does, with one command and nothing
// else: a chain in the process, a small old site, Caddy in front of it with
// Caddyfile.example as it stands, one request that does not pay and one that
// does. All money in it is TEST MONEY.
//
// Then it stays up, so that one can try for oneself. With -once it ends after
// the round trip, with an error if any step of it failed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	o := options{}
	flag.BoolVar(&o.once, "once", false, "end after the round trip, with an error if a step failed")
	flag.StringVar(&o.config, "config", "", "the `Caddyfile` to run (default: Caddyfile.example, which is built in)")
	flag.StringVar(&o.site, "site", "http://localhost:8402", "the `URL` under which Caddy serves the shop")
	flag.StringVar(&o.chain, "chain", "127.0.0.1:8545", "the `address` of the chain's JSON-RPC, on loopback")
	flag.StringVar(&o.log, "log", "", "a `file` for Caddy's log (default: none)")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "demo: unexpected %q; see -h\n", flag.Arg(0))
		os.Exit(2)
	}
	complaints := os.Stderr
	if err := redirectLog(o.log); err != nil {
		fmt.Fprintln(complaints, "demo:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(complaints, "demo:", err)
		os.Exit(1)
	}
}

// redirectLog sends Caddy's log, which goes to standard error, to a file or
// nowhere: it would drown what the demo says.
func redirectLog(file string) error {
	if file == "" {
		file = os.DevNull
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	os.Stderr = f
	return nil
}

// options are the command line.
type options struct {
	once                     bool
	config, site, chain, log string
}

// run is the demo, from the chain to the last word.
func run(ctx context.Context, o options, out *os.File) error {
	say := func(format string, a ...any) { fmt.Fprintf(out, format+"\n", a...) }
	say("caddy-paywall: a demo with TEST MONEY. Nothing leaves this machine.\n")

	began := time.Now()
	shop, err := open(ctx, o, say)
	if err != nil {
		return err
	}
	defer shop.close()
	if err := shop.roundTrip(ctx, say); err != nil {
		return err
	}
	say("From start to the paid answer: %s.", time.Since(began).Round(10*time.Millisecond))
	if o.once {
		return nil
	}
	shop.invite(say)
	<-ctx.Done()
	say("\nThe chain and its TEST MONEY are gone.")
	return nil
}
