//go:build linux

package main

import (
	"cmp"
	"fmt"
	"maps"
	"math/big"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report prints what was measured.
func (r *rush) report(m *measured, a *audited) {
	var took []time.Duration
	var ends []time.Time
	waiting, tries := 0, 0
	told := make(map[string]int)
	for _, c := range m.clients {
		tries += c.tries
		switch {
		case c.number > 0:
			took, ends = append(took, c.took), append(ends, c.sent.Add(c.took))
		case c.waiting:
			waiting++
			told[c.told]++
		default:
			told[c.told]++
		}
	}
	slices.Sort(took)
	slices.SortFunc(ends, time.Time.Compare)
	fmt.Printf("%d payers within %d s from %d networks, %d key(s), batch %s, ledger %s, blocks of %d s; load of the machine %s, then %s\n\n",
		len(m.clients), r.seconds, r.networks, r.keys, cmp.Or(r.options.batch, "by default"), r.ledger, r.block, m.load[0], m.load[1])
	fmt.Printf("served and charged once: %d; told to wait to the end, and not charged: %d; others: %d; requests a payer: %s\n",
		len(took), waiting, len(m.clients)-len(took)-waiting, ratio(tries, len(m.clients)))
	for _, says := range byCount(told) {
		fmt.Printf("%6d last told: %s\n", told[says], says)
	}
	if len(took) > 0 {
		all := ends[len(ends)-1].Sub(m.begin)
		first, last := ends[len(ends)/10], ends[len(ends)*9/10]
		fmt.Printf("a second: %.1f in all (%.1f s), %.1f sustained (from the first tenth to the last)\n",
			each(len(ends), all), all.Seconds(), each(len(ends)*9/10-len(ends)/10, last.Sub(first)))
		fmt.Printf("seconds until served: p50 %.1f, p90 %.1f, p99 %.1f, most %.1f\n",
			quantile(took, 50).Seconds(), quantile(took, 90).Seconds(), quantile(took, 99).Seconds(), took[len(took)-1].Seconds())
	}
	r.reportMemory(m)
	for _, name := range slices.Sorted(maps.Keys(m.cpu)) {
		fmt.Printf("processor time of the %s: %.1f s, %.2f ms for each who was served\n", name, m.cpu[name].Seconds(), 1000*m.cpu[name].Seconds()/max(1, float64(len(took)))) //nolint:forbidigo // no money
	}
	r.reportGas(a)
	if r.attack.attackers > 0 {
		m.attackers.report(m, a)
	}
}

func (r *rush) reportMemory(m *measured) {
	full := slices.MaxFunc(m.samples, func(a, b sample) int { return cmp.Compare(a.waiting, b.waiting) })
	fmt.Printf("most at once: %d payers without a number, %d of them with a request at the gateway\n", m.waiting, m.asking)
	fmt.Printf("memory of the gateway (RSS): %d MB before, %d MB at most, %d MB while the most payers waited\n", m.before>>10, m.most>>10, full.kB>>10)
}

// reportGas prints what the gateway's transactions cost, by how many payments they had.
func (r *rush) reportGas(a *audited) {
	type row struct{ transactions, payments, gas int }
	rows := make(map[int]*row)
	price, _ := new(big.Int).SetString(r.gateway.offer.Amount, 10)
	sum := row{}
	var prices []uint64
	for _, one := range a.receipts {
		prices = append(prices, uint64(one.Price))
		n := len(one.settles(price))
		if rows[n] == nil {
			rows[n] = &row{}
		}
		for _, x := range []*row{rows[n], &sum} {
			x.transactions++
			x.payments += n
			x.gas += int(one.GasUsed)
		}
	}
	fmt.Printf("\n%d transactions for %d payments, %d gas, %s gas a payment\n", sum.transactions, sum.payments, sum.gas, ratio(sum.gas, sum.payments))
	if slices.Sort(prices); len(prices) > 0 {
		fmt.Printf("price of gas: from %d to %d, median %d (of the chain's smallest unit)\n", prices[0], prices[len(prices)-1], prices[len(prices)/2])
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "payments in one\ttransactions\tgas a payment\tto one alone\t")
	for _, n := range slices.Sorted(maps.Keys(rows)) {
		x := rows[n]
		alone := ""
		if one := rows[1]; one != nil && n > 1 {
			alone = fmt.Sprintf("%+.0f %%", 100*(float64(x.gas)/float64(x.payments)*float64(one.payments)/float64(one.gas)-1)) //nolint:forbidigo // gas, no money
		}
		if n == 0 {
			fmt.Fprintf(t, "none (lost)\t%d\t%d in all\t\t\n", x.transactions, x.gas)
			continue
		}
		fmt.Fprintf(t, "%d\t%d\t%s\t%s\t\n", n, x.transactions, ratio(x.gas, x.payments), alone)
	}
	_ = t.Flush()
}

// report prints how long payers have waited while others attacked, and what the
// attackers got.
func (s *attackers) report(m *measured, a *audited) {
	fmt.Println()
	for _, regular := range []bool{false, true} {
		var blocks []int
		late := 0
		for _, c := range m.clients {
			switch {
			case c.regular != regular:
			case c.number > 0:
				blocks = append(blocks, int(a.block[c.hash])-int(c.head))
			default:
				late++
			}
		}
		who := "strangers"
		if regular {
			who = "who had paid before"
		}
		if slices.Sort(blocks); len(blocks) > 0 {
			within := 0
			for _, b := range blocks {
				if b <= 3 {
					within++
				}
			}
			fmt.Printf("%s: blocks until paid: p50 %d, p90 %d, most %d; within three: %d of %d; never: %d\n",
				who, blocks[len(blocks)/2], blocks[len(blocks)*9/10], blocks[len(blocks)-1], within, len(blocks)+late, late)
		} else if late > 0 {
			fmt.Printf("%s: %d, none was served\n", who, late)
		}
	}
	fmt.Printf("attackers sent %d payments, held back %d while they waited for answers, and bought %d numbers; what they were told:\n", s.sent.Load(), s.skipped.Load(), s.bought())
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, says := range byCount(s.told) {
		fmt.Printf("%6d %s\n", s.told[says], says)
	}
}

func byCount(told map[string]int) []string {
	return slices.SortedFunc(maps.Keys(told), func(a, b string) int {
		return cmp.Or(cmp.Compare(told[b], told[a]), strings.Compare(a, b))
	})
}

func quantile(sorted []time.Duration, percent int) time.Duration {
	return sorted[(len(sorted)-1)*percent/100]
}

func each(n int, in time.Duration) float64 { return float64(n) / max(in.Seconds(), 0.001) } //nolint:forbidigo // no money

func ratio(a, b int) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", float64(a)/float64(b)) //nolint:forbidigo // no money
}
