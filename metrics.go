package paywall

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// Collectors belong to the process and are registered anew with each config,
// so that counts survive reloads.
var (
	challenges = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "paywall", Name: "challenges_total",
		Help: "Requests for priced paths that came without a payment.",
	})
	payments = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "paywall", Name: "payments_total",
		Help: "Requests that came with a payment, by what became of it.",
	}, []string{"outcome"})
	closed = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "paywall", Name: "closed_total",
		Help: "Requests for priced paths that were answered 503, because nobody could have settled a payment.",
	})
	reorganised = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "paywall", Name: "reorganised_total",
		Help: "Payments whose block a chain took back after they were settled, by what became of them.",
	}, []string{"outcome"})
	settlementOutcomes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "paywall", Name: "settlements_total",
		Help: "Settlements asked for, by outcome.",
	}, []string{"outcome"})
)

func registerMetrics(reg prometheus.Registerer) error {
	// It happens so seldom that the first must not be missed: an alert needs the 0 before it.
	for _, outcome := range []string{reorganisedMoved, reorganisedReverted, reorganisedRestored} {
		reorganised.WithLabelValues(outcome)
	}
	for _, c := range []prometheus.Collector{challenges, payments, closed, settlementOutcomes, reorganised, unsettledGauge, state{}} {
		var already prometheus.AlreadyRegisteredError
		if err := reg.Register(c); err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}

func observeSettlement(o facilitator.Outcome) {
	settlementOutcomes.WithLabelValues(o.String()).Inc()
}
