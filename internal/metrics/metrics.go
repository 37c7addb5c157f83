// Package metrics has the collectors of the gate, for Prometheus, and the words for what
// became of a payment. No label holds anything that a request says.
package metrics

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// Outcome is what became of a request that came with a payment, in the log and as a label;
// docs/operating.md says what each means.
type Outcome string

// The outcomes of requests that came with a payment.
const (
	Delivered   Outcome = "delivered"
	Undelivered Outcome = "undelivered"
	Redeemed    Outcome = "redeemed"
	Settled     Outcome = "settled"
	Uncharged   Outcome = "uncharged"

	Malformed Outcome = "malformed"
	Rejected  Outcome = "rejected"
	Invalid   Outcome = "invalid"
	Refused   Outcome = "refused"
	Expired   Outcome = "expired"
	Limited   Outcome = "limited"

	Unverified Outcome = "unverified"
	Unsent     Outcome = "unsent"

	Pending    Outcome = "pending"
	Unknown    Outcome = "unknown"
	Unrecorded Outcome = "unrecorded"

	// TransactionReused is for a facilitator that has sold one transaction twice.
	TransactionReused Outcome = "transaction_reused"
)

// Reconciled is the outcome of a payment that was in doubt, and is now in a state of the
// ledger.
func Reconciled(state ledger.State) Outcome { return Outcome("reconciled_" + string(state)) }

// Reorganised is what became of a payment whose block a chain took back.
type Reorganised string

// What becomes of payments whose block a chain takes back.
const (
	Moved    Reorganised = "moved"    // the chain has it in another block
	Reverted Reorganised = "reverted" // it does not show it
	Restored Reorganised = "restored" // it does so again
)

// The collectors belong to the process and are registered anew with each config, so that
// counts survive reloads.
var (
	challenges = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "paywall", Name: "challenges_total",
		Help: "Requests for priced paths that came without a payment.",
	})
	closed = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "paywall", Name: "closed_total",
		Help: "Requests for priced paths that were answered 503, because nobody could have settled a payment.",
	})
	payments = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "paywall", Name: "payments_total",
		Help: "Requests that came with a payment, by what became of it.",
	}, []string{"outcome"})
	reorganised = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "paywall", Name: "reorganised_total",
		Help: "Payments whose block a chain took back after they were settled, by what became of them.",
	}, []string{"outcome"})
	settlements = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "paywall", Name: "settlements_total",
		Help: "Settlements asked for, by outcome.",
	}, []string{"outcome"})
)

// CountPayment counts a request that came with a payment.
func CountPayment(o Outcome) { payments.WithLabelValues(string(o)).Inc() }

// CountSettlement counts a settlement that was asked for, by the facilitator's outcome.
func CountSettlement(o facilitator.Outcome) { settlements.WithLabelValues(o.String()).Inc() }

// CountChallenge counts a request that came without a payment, and was asked for one.
func CountChallenge() { challenges.Inc() }

// CountClosed counts a request that was asked for no payment, since nobody could have
// settled it.
func CountClosed() { closed.Inc() }

// CountReorganised counts a payment whose block a chain took back.
func CountReorganised(to Reorganised) { reorganised.WithLabelValues(string(to)).Inc() }

// Register registers the counters and the gauges with a config's registry.
func Register(reg prometheus.Registerer, gauges Gauges) error {
	// It happens so seldom that the first must not be missed: an alert needs the 0 before it.
	for _, to := range []Reorganised{Moved, Reverted, Restored} {
		reorganised.WithLabelValues(string(to))
	}
	for _, c := range []prometheus.Collector{challenges, payments, closed, settlements, reorganised, gauges} {
		var already prometheus.AlreadyRegisteredError
		if err := reg.Register(c); err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}
