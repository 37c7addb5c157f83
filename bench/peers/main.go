// Command peers plays the same scenes with the gateway and with the official
// middleware for Express, and prints what became of them. It looks at behaviour
// only and times nothing. See docs/compare.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/caddy-paywall/caddy-paywall/bench/process"
)

func main() {
	directory := flag.String("express", "bench/peers/express", "where server.mjs is, and its packages")
	caddy := flag.String("caddy", "", "a cmd/caddy that is built already")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *directory, *caddy); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, express, caddy string) error {
	if _, err := os.Stat(filepath.Join(express, "node_modules", "@x402", "express")); err != nil {
		return fmt.Errorf("the packages are missing: run `npm ci` in %s (%w)", express, err)
	}
	dir, err := os.MkdirTemp("", "paywall-peers")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if caddy == "" {
		caddy = filepath.Join(dir, "caddy")
		if err := process.Build(ctx, "cmd/caddy", caddy); err != nil {
			return err
		}
	}
	var t table
	for _, s := range []seller{
		{name: "caddy-paywall", command: caddyCommand(caddy)},
		{name: "Express", command: expressCommand(express, "authorization")},
		{name: "Express, upfront", command: expressCommand(express, "upfront")},
	} {
		if err := t.play(ctx, dir, express, s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	t.print(os.Stdout)
	return nil
}

// play lets one seller play all scenes.
func (t *table) play(ctx context.Context, dir, express string, s seller) (err error) {
	w := &world{ctx: ctx, express: express, seller: &s, table: t}
	if w.upstream, err = startUpstream(); err != nil {
		return err
	}
	defer w.upstream.Close()
	if w.facilitator, err = startFacilitator(); err != nil {
		return err
	}
	defer w.facilitator.Close()
	if s.dir, err = os.MkdirTemp(dir, "seller"); err != nil {
		return err
	}
	s.upstream, s.facilitator = w.upstream.port(), w.facilitator.url
	if err := s.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	t.sellers = append(t.sellers, s.name)
	for _, scene := range scenes {
		if err := scene(w); err != nil {
			said, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("%w\n%s", err, said)
		}
	}
	return t.check()
}
