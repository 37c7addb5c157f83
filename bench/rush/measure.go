//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// measured is what a run looked like.
type measured struct {
	clients   []*client
	begin     time.Time
	cpu       map[string]time.Duration // of processes, meanwhile
	load      [2]string                // of the machine, before and after
	before    int                      // kB of the gateway before the rush
	most      int                      // and at most
	waiting   int64                    // payers at once who had come and had no number
	asking    int64                    // of these, requests that the gateway had not answered
	samples   []sample
	earlier   int // numbers that were sold before
	attackers *attackers
}

// sample is a look at the gateway.
type sample struct {
	waiting, asking int64
	kB              int
}

// measure prepares the payers, lets them come, and checks what became of them.
func (r *rush) measure(ctx context.Context) error {
	s, err := newSigner(r.gateway)
	if err != nil {
		return err
	}
	wallets := newWallets(r.payers)
	twice := s.value.ToBig()
	twice.Add(twice, twice)
	if err := r.chain.fund(ctx, addresses(wallets), twice); err != nil {
		return err
	}
	m := &measured{}
	if err := r.payBefore(ctx, s, m, wallets); err != nil {
		return err
	}
	if m.attackers, err = r.newAttackers(ctx, s); err != nil {
		return err
	}
	if m.clients, err = r.newClients(s, wallets); err != nil {
		return err
	}
	for i, c := range m.clients {
		c.regular = i < m.earlier
	}
	rand.Shuffle(len(m.clients), func(i, j int) { m.clients[i], m.clients[j] = m.clients[j], m.clients[i] })
	runtime.GC()
	if err := r.rush(ctx, m); err != nil {
		return err
	}
	if err := r.saveProfiles("end"); err != nil {
		return err
	}
	_, m.most = r.gateway.memory()
	if err := r.gateway.stop(); err != nil { // after the last settlement
		return err
	}
	pause(ctx, seconds(2*r.block+1))
	a, err := r.audit(ctx, m)
	if err != nil {
		return err
	}
	r.report(m, a)
	fmt.Println()
	if said := bytes.TrimSpace(r.gateway.log()); len(said) > 0 {
		fmt.Printf("the gateway's log:\n%s\n", shorten(said))
	}
	return errors.Join(a.wrong...)
}

// payBefore has those pay who have done so before the rush.
func (r *rush) payBefore(ctx context.Context, s *signer, m *measured, wallets []*wallet) error {
	n := r.attack.regulars
	if r.warm {
		n = max(n, 1)
	}
	early, err := r.newClients(s, wallets[:n])
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for _, c := range early {
		wg.Go(func() { c.pay(ctx, r, time.Now().Add(seconds(r.patience))) })
	}
	wg.Wait()
	for _, c := range early {
		if c.number == 0 {
			return fmt.Errorf("before the rush, a payer got no number: %s", c.told)
		}
	}
	m.earlier = n
	return nil
}

// rush lets the payers come, each at a moment of his own.
func (r *rush) rush(ctx context.Context, m *measured) error {
	over, cancel := context.WithCancel(ctx)
	defer cancel()
	var asides sync.WaitGroup
	asides.Go(func() { m.attackers.run(over, r) })
	if r.attack.attackers > 0 {
		pause(ctx, seconds(r.attack.before))
	}
	m.before, _ = r.gateway.memory()
	m.load[0] = loadAverage()
	used := r.processors()
	m.begin = time.Now()
	asides.Go(func() { r.sample(over, m) })
	if r.profile != "" {
		asides.Go(func() { _ = r.profileNow(over) })
	}

	until := m.begin.Add(seconds(r.patience))
	var wg sync.WaitGroup
	for i, c := range m.clients {
		arrives := m.begin.Add(seconds(r.seconds) * time.Duration(i) / time.Duration(len(m.clients)))
		pause(ctx, time.Until(arrives))
		r.waiting.Add(1)
		wg.Go(func() {
			defer r.waiting.Add(-1)
			c.pay(ctx, r, until)
		})
	}
	wg.Wait()
	m.cpu = make(map[string]time.Duration)
	for name, now := range r.processors() {
		m.cpu[name] = now - used[name]
	}
	m.load[1] = loadAverage()
	cancel()
	asides.Wait()
	return ctx.Err()
}

func (r *rush) processors() map[string]time.Duration {
	return map[string]time.Duration{
		"gateway": processor(r.gateway.pid), "anvil": processor(r.chain.cmd.Process.Pid), "driver": processor(os.Getpid()),
	}
}

// counters are what the samples are made of.
type counters struct{ waiting, asking atomic.Int64 }

// sample looks at the gateway again and again.
func (r *rush) sample(ctx context.Context, m *measured) {
	heap := false
	for ctx.Err() == nil {
		now, _ := r.gateway.memory()
		s := sample{r.waiting.Load(), r.asking.Load(), now}
		m.waiting, m.asking = max(m.waiting, s.waiting), max(m.asking, s.asking)
		m.samples = append(m.samples, s)
		if !heap && time.Since(m.begin) > seconds(r.seconds) { // as many wait as ever
			heap = true
			_ = r.saveProfiles("full")
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// profileNow writes where the gateway's time goes in the middle of the rush.
func (r *rush) profileNow(ctx context.Context) error {
	pause(ctx, seconds(r.seconds)/3)
	return r.gateway.saveProfile(fmt.Sprintf("profile?seconds=%d", max(5, r.seconds/3)), filepath.Join(r.profile, "cpu"))
}

func (r *rush) saveProfiles(when string) error {
	if r.profile == "" {
		return nil
	}
	if err := os.MkdirAll(r.profile, 0o700); err != nil {
		return err
	}
	return errors.Join(r.gateway.saveProfile("heap", filepath.Join(r.profile, "heap."+when)),
		r.gateway.saveProfile("heap?debug=1", filepath.Join(r.profile, "memory."+when)), // with what the runtime says of itself
		r.gateway.saveProfile("goroutine?debug=1", filepath.Join(r.profile, "goroutines."+when)))
}

func loadAverage() string {
	b, _ := os.ReadFile("/proc/loadavg")
	if first, _, ok := bytes.Cut(b, []byte(" ")); ok {
		return string(first)
	}
	return "?"
}

// shorten keeps the first lines of each kind.
func shorten(log []byte) []byte {
	const most = 3
	lines := bytes.Split(log, []byte("\n"))
	if len(lines) > most {
		lines = append(slices.Clone(lines[:most]), fmt.Appendf(nil, "… %d more lines", len(lines)-most))
	}
	for i, l := range lines {
		lines[i] = l[:min(len(l), 400)]
	}
	return bytes.Join(lines, []byte("\n"))
}
