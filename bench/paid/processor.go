//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// processor is the time that a process has had on the processors, in its own
// code and in the system's for it.
type processor struct{ own, system time.Duration }

func (p processor) all() time.Duration { return p.own + p.system }

func (p processor) minus(q processor) processor {
	return processor{p.own - q.own, p.system - q.system}
}

// cpu is the processor time of the gateway so far.
func (g *gateway) cpu() (p processor, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.pid))
	if err != nil {
		return p, err
	}
	_, rest, _ := bytes.Cut(stat, []byte(") ")) // what is before may have spaces
	fields := bytes.Fields(rest)
	const utime, stime, perSecond = 11, 12, 100 // ticks, on every Linux that Go runs on
	for at, to := range map[int]*time.Duration{utime: &p.own, stime: &p.system} {
		n, err := strconv.ParseInt(string(fields[at]), 10, 64)
		if err != nil {
			return p, err
		}
		*to = time.Duration(n) * time.Second / perSecond
	}
	return p, nil
}

// quiet waits until the gateway has nothing to do, and returns its cpu then. A
// ledger that follows behind has followed by then.
func (g *gateway) quiet() (p processor, err error) {
	const tick, calm = 100 * time.Millisecond, 13 // more than the second between two looks of the ledger
	since := 0
	for range 100 {
		now, err := g.cpu()
		if err != nil {
			return p, err
		}
		if now.minus(p).all() > 10*time.Millisecond {
			since = 0
		}
		p = now
		if since++; since > calm {
			break
		}
		time.Sleep(tick)
	}
	return p, nil
}
