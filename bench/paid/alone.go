//go:build linux

package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// alone measures what one payer waits for who has no company, and beside that
// the least that a power-safe sale waits for: one sync of one record. All take
// turns.
func (b *bench) alone(w io.Writer) error {
	const block = 50
	took := make([][]time.Duration, len(b.targets))
	var syncs []time.Duration
	for left := b.lone; left > 0; left -= block {
		for i, t := range b.targets {
			requests, err := b.sign(t.gateway, min(left, block))
			if err != nil {
				return err
			}
			l, err := drive(t.address, 1, requests, t.sells)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			took[i] = append(took[i], l.took...)
		}
		some, err := bareSyncs(filepath.Join(b.dir, "bare"), min(left, block))
		if err != nil {
			return err
		}
		syncs = append(syncs, some...)
	}
	fmt.Fprintf(w, "\na lone payer, %d requests to each, in turn:\n", b.lone)
	for i, t := range b.targets {
		printTimes(w, t.name, took[i])
	}
	printTimes(w, "a bare fdatasync", syncs)
	return nil
}

func printTimes(w io.Writer, name string, took []time.Duration) {
	slices.Sort(took)
	l := load{took: took}
	fmt.Fprintf(w, "%16s  p50 %.2f ms  p99 %.2f ms\n", name, ms(l.quantile(50)), ms(l.quantile(99)))
}

// bareSyncs writes records of the usual size into a file that was written
// before, and waits for the disk after each.
func bareSyncs(name string, n int) (took []time.Duration, err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	record := make([]byte, 1700)
	_, _ = rand.Read(record) // never fails
	if _, err := f.Write(make([]byte, n*len(record))); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	for i := range n {
		begin := time.Now()
		if _, err := f.WriteAt(record, int64(i*len(record))); err != nil {
			return nil, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return nil, err
		}
		took = append(took, time.Since(begin))
	}
	return took, nil
}
