//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// printRounds prints the medians of the rounds, and the medians of the ratios
// within each round, which what else the machine does moves much less.
func (b *bench) printRounds(w io.Writer) {
	fmt.Fprintf(w, "%d rounds of %d requests, %d payers at once, settle %s, facilitator %s\n\n",
		b.rounds, b.requests, b.payers, b.settle, b.delay)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "target\treq/s\tp50 ms\tp99 ms\tCPU us/req\tof it system\twith what follows\t")
	for _, x := range b.targets {
		fmt.Fprintf(t, "%s\t%.0f\t%.1f\t%.1f\t%.0f\t%.0f\t%.0f\t\n", x.name,
			median(x.results, perSecond),
			median(x.results, func(r result) float64 { return ms(r.quantile(50)) }),
			median(x.results, func(r result) float64 { return ms(r.quantile(99)) }),
			median(x.results, cpuEach), median(x.results, systemEach), median(x.results, totalEach))
	}
	_ = t.Flush()
	fmt.Fprintln(w, "\nratios (1 is as good, less is worse; median and range of the rounds):")
	for _, x := range b.targets[1:] {
		if x.sells {
			printRatios(w, x, b.targets[0])
		}
	}
	last := b.targets[len(b.targets)-1]
	for _, x := range b.targets[:len(b.targets)-1] {
		printRatios(w, x, last)
	}
}

func printRatios(w io.Writer, x, base *target) {
	t := tabwriter.NewWriter(w, 26, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s / %s\t", x.name, base.name)
	for _, m := range []struct {
		name string
		of   func(x, base result) float64
	}{
		{"req/s", func(x, base result) float64 { return perSecond(x) / perSecond(base) }},
		{"CPU", func(x, base result) float64 { return cpuEach(base) / cpuEach(x) }},
		{"CPU with what follows", func(x, base result) float64 { return totalEach(base) / totalEach(x) }},
	} {
		var ratios []float64
		for i := range x.results {
			ratios = append(ratios, m.of(x.results[i], base.results[i]))
		}
		slices.Sort(ratios)
		fmt.Fprintf(t, "%s %.2f (%.2f-%.2f)\t", m.name, middle(ratios), ratios[0], ratios[len(ratios)-1])
	}
	fmt.Fprintln(t)
	_ = t.Flush()
}

func perSecond(r result) float64  { return float64(r.requests) / r.elapsed.Seconds() }
func cpuEach(r result) float64    { return r.cpu.all().Seconds() * 1e6 / float64(r.requests) }
func systemEach(r result) float64 { return r.cpu.system.Seconds() * 1e6 / float64(r.requests) }
func totalEach(r result) float64  { return r.total.all().Seconds() * 1e6 / float64(r.requests) }
func ms(d time.Duration) float64  { return d.Seconds() * 1e3 }

func median(results []result, of func(result) float64) float64 {
	var all []float64
	for _, r := range results {
		all = append(all, of(r))
	}
	slices.Sort(all)
	return middle(all)
}

// middle is the median of what is sorted.
func middle(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
