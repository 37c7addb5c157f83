//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// profileAll drives each target some more while it writes a profile of its
// processor time; that of its memory is of all that it did.
func (b *bench) profileAll() error {
	if err := os.MkdirAll(b.profile, 0o700); err != nil {
		return err
	}
	for _, t := range b.targets {
		done := make(chan error, 1)
		go func() {
			done <- t.gateway.profile(fmt.Sprintf("profile?seconds=%d", max(10, 4*int(b.seconds))), filepath.Join(b.profile, t.name+".cpu"))
		}()
		var err error
		for len(done) == 0 && err == nil {
			_, err = b.turn(t)
		}
		if err = errors.Join(err, <-done, t.gateway.profile("allocs", filepath.Join(b.profile, t.name+".allocs"))); err != nil {
			return err
		}
	}
	return nil
}

// countSyncs drives a gateway with a SQLite ledger under strace, which stops it
// at syncs alone, and counts those of the ledger while it serves.
func (b *bench) countSyncs(w io.Writer) error {
	trace := filepath.Join(b.dir, "trace")
	g, err := b.startGateway("traced", "sqlite "+filepath.Join(b.dir, "traced.db"),
		"strace", "-f", "--seccomp-bpf", "-y", "-ttt", "-e", "trace=fsync,fdatasync", "-o", trace, b.gateway)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.stop()) }()
	for _, payers := range []int{b.payers, 1} {
		requests, err := b.sign(g, min(b.requests, 200*payers))
		if err != nil {
			return err
		}
		begin := time.Now()
		if _, err := drive(g.address, payers, requests, true); err != nil {
			return err
		}
		end := time.Now()
		time.Sleep(200 * time.Millisecond) // strace writes, too
		n, err := syncsBetween(trace, begin, end)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "\nsyncs of the ledger, %d at once: %d for %d requests, %.2f each\n", payers, n, len(requests), float64(n)/float64(len(requests)))
	}
	return nil
}

// syncsBetween counts the syncs of ledgers in a trace.
func syncsBetween(trace string, begin, end time.Time) (n int, err error) {
	f, err := os.Open(trace)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 || !strings.Contains(fields[2], "sync(") || !strings.Contains(fields[2], ".db") {
			continue
		}
		seconds, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			continue
		}
		if at := time.UnixMicro(int64(seconds * 1e6)); !at.Before(begin) && !at.After(end) {
			n++
		}
	}
	return n, lines.Err()
}
