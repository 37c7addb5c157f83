// Package metrics has the collectors of the gate, for Prometheus, and the words for what
// became of a payment. No label holds anything that a request says.
package metrics

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
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
func Reconciled(state string) Outcome { return Outcome("reconciled_" + state) }

// What became of a payment whose block a chain took back.
const (
	Moved    = "moved"    // the chain has it in another block
	Reverted = "reverted" // it does not show it
	Restored = "restored" // it does so again
)

// The collectors belong to the process and are registered anew with each config, so that
// counts survive reloads.
var (
	Challenges = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "paywall", Name: "challenges_total",
		Help: "Requests for priced paths that came without a payment.",
	})
	Closed = prometheus.NewCounter(prometheus.CounterOpts{
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
func CountSettlement(outcome string) { settlements.WithLabelValues(outcome).Inc() }

// CountReorganised counts a payment whose block a chain took back.
func CountReorganised(outcome string) { reorganised.WithLabelValues(outcome).Inc() }

// Register registers the collectors, and what is so now, with a config's registry.
func Register(reg prometheus.Registerer, now Now) error {
	// It happens so seldom that the first must not be missed: an alert needs the 0 before it.
	for _, outcome := range []string{Moved, Reverted, Restored} {
		reorganised.WithLabelValues(outcome)
	}
	for _, c := range []prometheus.Collector{Challenges, payments, Closed, settlements, reorganised, now} {
		var already prometheus.AlreadyRegisteredError
		if err := reg.Register(c); err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}
