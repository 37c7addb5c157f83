//go:build linux

package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// bench is all that is measured, and what was.
type bench struct {
	options
	dir      string
	upstream string
	wallets  []*wallet
	postgres *postgresServer
	targets  []*target
	requests int // in a turn
}

// target is a gateway and its results, one for each round.
type target struct {
	*gateway
	results []result
}

// result is what one turn took.
type result struct {
	load
	// cpu is the gateway's processor time while it served, and total the same
	// with what it did behind that, until it was quiet.
	cpu, total processor
}

// start starts the targets. The first is what the others are compared with.
func (b *bench) start() error {
	type ledger struct{ name, words, program string }
	ledgers := []ledger{
		{"memory", "memory i_accept_loss", b.gateway},
		{"sqlite", "sqlite " + filepath.Join(b.dir, "payments.db"), b.gateway},
	}
	if b.against != "" {
		ledgers = append(ledgers, ledger{"other", "sqlite " + filepath.Join(b.dir, "other.db"), b.against})
	}
	if b.options.postgres {
		var err error
		if b.postgres, err = startPostgres(b.options.dir); err != nil {
			return err
		}
		ledgers = append(ledgers, ledger{"postgres", `postgres "` + b.postgres.dsn() + `"`, b.gateway})
	}
	ledgers = append(ledgers, ledger{"reverse_proxy", "", b.gateway})
	for _, l := range ledgers {
		g, err := b.startGateway(l.name, l.words, l.program)
		if err != nil {
			return fmt.Errorf("starting %s: %w", l.name, err)
		}
		b.targets = append(b.targets, &target{gateway: g})
	}
	return nil
}

func (b *bench) stop() error {
	var errs []error
	for _, t := range b.targets {
		errs = append(errs, t.stop())
	}
	if b.postgres != nil {
		errs = append(errs, b.postgres.stop())
	}
	return errors.Join(errs...)
}

// warmUp lets every target serve a little, and chooses how many requests a turn
// has: the same for all, so that all do the same work.
func (b *bench) warmUp() error {
	b.requests = 20 * b.payers
	slowest := time.Duration(0)
	for range 2 {
		slowest = 0
		for _, t := range b.targets {
			r, err := b.turn(t)
			if err != nil {
				return err
			}
			slowest = max(slowest, r.elapsed)
		}
	}
	each := b.seconds / slowest.Seconds() * 20
	b.requests = max(1, int(each)) * b.payers
	return nil
}

// round gives every target its turn.
func (b *bench) round() error {
	for _, t := range b.targets {
		r, err := b.turn(t)
		if err != nil {
			return err
		}
		t.results = append(t.results, r)
	}
	return nil
}

// turn signs, which does not count, and drives one target.
func (b *bench) turn(t *target) (r result, err error) {
	requests, err := b.sign(t.gateway, b.requests)
	if err != nil {
		return r, err
	}
	before, err := t.cpu()
	if err != nil {
		return r, err
	}
	if r.load, err = drive(t.address, b.payers, requests, t.sells); err != nil {
		return r, fmt.Errorf("%s: %w", t.name, err)
	}
	after, err := t.cpu()
	if err != nil {
		return r, err
	}
	end, err := t.quiet()
	if err != nil {
		return r, err
	}
	r.cpu, r.total = after.minus(before), end.minus(before)
	return r, nil
}
