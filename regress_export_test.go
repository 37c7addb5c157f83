package paywall

import (
	"time"

	"github.com/caddy-paywall/caddy-paywall/routes"
)

// What tests of a running gate may change, so that they need not wait.

// SetAnswerWithin sets how long a payer waits for a settlement.
func (h *Handler) SetAnswerWithin(d time.Duration) { h.desk.AnswerWithin = d }

// SetRenewEvery sets how often a claim is renewed.
func (h *Handler) SetRenewEvery(d time.Duration) { h.desk.RenewEvery = d }

// SetNow sets the gate's clock; the ledger has its own.
func (h *Handler) SetNow(now func() time.Time) { h.desk.Now = now }

// SetRouteFindings replaces what Start does with the findings of the routes, and
// returns what restores it.
func SetRouteFindings(change func([]routes.Finding) []routes.Finding) (restore func()) {
	routeFindings = func(a *App) ([]routes.Finding, error) {
		findings, err := a.routeFindings()
		return change(findings), err
	}
	return func() { routeFindings = (*App).routeFindings }
}
