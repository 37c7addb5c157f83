package metrics

import (
	"iter"
	"math/big"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// Count is a number of payments in the ledger, and when the oldest of them was made.
type Count struct {
	Payments int
	Oldest   time.Time
}

// Add counts a payment.
func (c *Count) Add(row ledger.Payment) {
	c.Payments++
	if c.Oldest.IsZero() || row.Created.Before(c.Oldest) {
		c.Oldest = row.Created
	}
}

var (
	unsettled = prometheus.NewDesc("caddy_paywall_unsettled",
		"Payments that are claimed and not yet settled, now, in this process.", nil, nil)
	facilitatorUp = prometheus.NewDesc("caddy_paywall_facilitator_up",
		"1 while the facilitator gives answers and can pay the gas; 0 while it is left alone with payments of at least one network.", []string{"facilitator"}, nil)
	gasBalance = prometheus.NewDesc("caddy_paywall_gas_balance",
		"What an account that pays the gas has of the chain's own coin, in whole coins, as it was last seen.", accountLabels, nil)
	gasSettlements = prometheus.NewDesc("caddy_paywall_gas_settlements",
		"For how many more settlements the account is good at the present price of gas, at the most that each of them may cost.", accountLabels, nil)
	gasCost = prometheus.NewDesc("caddy_paywall_gas_cost",
		"What one settlement costs now, as a rule, in whole coins of the chain: at most what is sold.", networkLabels, nil)
	belowCost = prometheus.NewDesc("caddy_paywall_price_below_cost",
		"1 while the cheapest price on the network is below what its settlement costs; without coin_price there is none.", networkLabels, nil)
	gasLost = prometheus.NewDesc("caddy_paywall_gas_lost",
		"What transactions cost today (UTC) that moved no money, in whole coins of the chain; see gas_budget.", networkLabels, nil)
	ledgerUp = prometheus.NewDesc("caddy_paywall_ledger_up",
		"1 while the ledger works; 0 while it does not, so that priced paths answer 503.", nil, nil)
	clockAhead = prometheus.NewDesc("caddy_paywall_clock_ahead_seconds",
		"How far the clocks of the facilitators are ahead of ours, below zero if ours is; 0 for less than a minute.", nil, nil)
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

// Gauges collect what is so now. Of each there is one value: configs that overlap during a
// reload share it.
type Gauges struct {
	// Facilitators are those of all configs. Several may have one name.
	Facilitators iter.Seq[*facilitator.Memory]
	// Unsettled is how many payments are claimed and not yet settled.
	Unsettled func() int
	// LedgerUp says whether the ledger works, if there is one.
	LedgerUp func() (up, known bool)
	// ClockAhead is how far the clocks of the facilitators are ahead of ours.
	ClockAhead func() time.Duration
	// InDoubt and Owed are what was last seen in the ledger; nil is nothing yet.
	InDoubt, Owed func() *Count
}

// Describe implements prometheus.Collector.
func (Gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{unsettled, facilitatorUp, gasBalance, gasSettlements, gasCost, belowCost, gasLost, ledgerUp, clockAhead, doubtCount, doubtAge, owedCount} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g Gauges) Collect(ch chan<- prometheus.Metric) {
	value := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...) //nolint:forbidigo // no money
	}
	value(unsettled, g.Unsettled())
	value(clockAhead, int(g.ClockAhead()/time.Second))
	g.collectFacilitators(ch, value)
	if up, known := g.LedgerUp(); known {
		v := 0
		if up {
			v = 1
		}
		value(ledgerUp, v)
	}
	if c := g.InDoubt(); c != nil {
		value(doubtCount, c.Payments)
		age := 0
		if c.Payments > 0 {
			age = max(0, int(time.Since(c.Oldest).Seconds()))
		}
		value(doubtAge, age)
	}
	if c := g.Owed(); c != nil {
		value(owedCount, c.Payments)
	}
}

func (g Gauges) collectFacilitators(ch chan<- prometheus.Metric, value func(d *prometheus.Desc, v int, labels ...string)) {
	up := map[string]int{}
	networks := map[[2]string]facilitator.Funds{}
	below := map[[2]string]int{}
	accounts := map[[3]string]facilitator.Account{} // by their labels: two configs may have the same
	for s := range g.Facilitators {
		if _, known := up[s.Name]; !known {
			up[s.Name] = 1
		}
		if !s.Up() {
			up[s.Name] = 0
		}
		for network, yes := range s.Breaker.BelowCost() {
			below[[2]string{s.Name, network}] = 0
			if yes {
				below[[2]string{s.Name, network}] = 1
			}
		}
		for network, f := range s.Breaker.Funds() {
			networks[[2]string{s.Name, network}] = f
			for _, a := range f.Accounts {
				accounts[[3]string{s.Name, network, a.Address}] = a
			}
		}
	}
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
	for labels, v := range below {
		value(belowCost, v, labels[:]...)
	}
	for labels, f := range networks {
		coins(gasCost, f.Cost, labels[:]...)
		coins(gasLost, f.Lost, labels[:]...)
	}
	for labels, a := range accounts {
		coins(gasBalance, a.Balance, labels[:]...)
		value(gasSettlements, int(a.Settlements), labels[:]...)
	}
}
