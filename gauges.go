package paywall

import (
	"context"
	"math/big"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// owedEvery is how often the ledger is asked for what is owed, and owedMost how
// many of those are counted.
const (
	owedEvery = 30 * time.Second
	owedMost  = 10_000
)

// gauge is a number of payments and the oldest of them.
type gauge struct {
	count  int
	oldest time.Time
}

func (g *gauge) add(row ledger.Payment) {
	g.count++
	if g.oldest.IsZero() || row.Created.Before(g.oldest) {
		g.oldest = row.Created
	}
}

var (
	unsettledGauge = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "caddy", Subsystem: "paywall", Name: "unsettled",
		Help: "Payments that are claimed and not yet settled, now, in this process.",
	}, func() float64 { return float64(unsettledNow()) }) //nolint:forbidigo // no money

	facilitatorUp = prometheus.NewDesc("caddy_paywall_facilitator_up",
		"1 while the facilitator gives answers and can pay the gas; 0 while it is left alone with payments of at least one network.", []string{"facilitator"}, nil)
	gasBalance = prometheus.NewDesc("caddy_paywall_gas_balance",
		"What an account that pays the gas has of the chain's own coin, in whole coins, as it was last seen.", accountLabels, nil)
	gasSettlements = prometheus.NewDesc("caddy_paywall_gas_settlements",
		"For how many more settlements the account is good at the present price of gas, at the most that each of them may cost.", accountLabels, nil)
	gasCost = prometheus.NewDesc("caddy_paywall_gas_cost",
		"What one settlement costs now, as a rule, in whole coins of the chain: at most what is sold.", networkLabels, nil)
	gasLost = prometheus.NewDesc("caddy_paywall_gas_lost",
		"What transactions cost today (UTC) that moved no money, in whole coins of the chain; see gas_budget.", networkLabels, nil)
	doubtCount = prometheus.NewDesc("caddy_paywall_in_doubt",
		"Payments in the ledger of which nobody knows whether the money moved.", nil, nil)
	doubtAge = prometheus.NewDesc("caddy_paywall_oldest_doubt_seconds",
		"Age of the oldest of them, 0 without.", nil, nil)
	owedCount = prometheus.NewDesc("caddy_paywall_owed",
		"Payments in the ledger that are settled, not delivered and not being delivered, at most 10000; asked every 30 seconds.", nil, nil)
)

// networkLabels are those of a network on which a facilitator pays the gas, and
// accountLabels those of an account there.
var (
	networkLabels = []string{"facilitator", "network"}
	accountLabels = []string{"facilitator", "network", "account"}
)

// state collects what is so now. Of each there is one value: configs that
// overlap during a reload share it.
type state struct{}

// Describe implements prometheus.Collector.
func (state) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{facilitatorUp, gasBalance, gasSettlements, gasCost, gasLost, doubtCount, doubtAge, owedCount} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (state) Collect(ch chan<- prometheus.Metric) {
	value := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...) //nolint:forbidigo // no money
	}
	up := map[string]int{}
	networks := map[[2]string]facilitator.Funds{}
	accounts := map[[3]string]facilitator.Account{} // by their labels: two configs may have the same
	snapshots.Range(func(_, v any) bool {
		s, ok := v.(*facilitator.Memory)
		if !ok {
			return true
		}
		if _, known := up[s.Name]; !known {
			up[s.Name] = 1
		}
		if s.Breaker.Networks() > 0 {
			up[s.Name] = 0
		}
		for network, f := range s.Breaker.Funds() {
			networks[[2]string{s.Name, network}] = f
			for _, a := range f.Accounts {
				accounts[[3]string{s.Name, network, a.Address}] = a
			}
		}
		return true
	})
	for name, v := range up {
		value(facilitatorUp, v, name)
	}
	coins := func(d *prometheus.Desc, n *big.Int, labels ...string) {
		if n == nil {
			return // it is not known
		}
		v, _ := new(big.Float).Quo(new(big.Float).SetInt(n), big.NewFloat(1e18)).Float64()
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for labels, f := range networks {
		coins(gasCost, f.Cost, labels[:]...)
		coins(gasLost, f.Lost, labels[:]...)
	}
	for labels, a := range accounts {
		coins(gasBalance, a.Balance, labels[:]...)
		value(gasSettlements, int(a.Settlements), labels[:]...)
	}
	sharedStates.Range(func(_, v any) bool {
		s := v.(*shared)
		if g := s.inDoubt.Load(); g != nil {
			value(doubtCount, g.count)
			age := 0
			if g.count > 0 {
				age = max(0, int(time.Since(g.oldest).Seconds()))
			}
			value(doubtAge, age)
		}
		if g := s.owed.Load(); g != nil {
			value(owedCount, g.count)
		}
		return true
	})
}

// watchOwed counts what is owed until ctx ends. While the ledger does not say,
// the last count stands.
func (a *App) watchOwed(ctx context.Context) {
	ticker := time.NewTicker(owedEvery)
	defer ticker.Stop()
	for {
		if g, err := a.countOwed(ctx); err == nil {
			a.shared.owed.Store(&g)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (a *App) countOwed(ctx context.Context) (g gauge, err error) {
	filter := ledger.Filter{States: []ledger.State{ledger.Settled, ledger.Delivering}, Limit: owedMost, Brief: true}
	for row, err := range a.ledger.List(ctx, filter) {
		if err != nil {
			return g, err
		}
		if !ledger.Held(row, time.Now()) {
			g.add(row)
		}
	}
	return g, nil
}
