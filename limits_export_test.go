package paywall

import (
	"context"
	"time"

	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/internal/settlement"
)

// What tests of the bounds may see and change. The bounds are of the process, so
// each change is taken back.

// SetMostUnsettled sets how many payments may be unsettled: in all, and of one payer.
func SetMostUnsettled(all, of int) (restore func()) { return SetPlaces(all, 0, of, all+1) }

// SetPlaces sets how many payments may be unsettled: in all, of them for trusted payers
// alone, of one payer, and from one network.
func SetPlaces(all, kept, of, from int) (restore func()) {
	return currentShared().admission.ForTest().SetMost(all, kept, of, from)
}

// SetHoldWithin sets how long a payment may wait for the upstream.
func (h *Handler) SetHoldWithin(d time.Duration) { h.desk.HoldWithin = d }

// Candidates is against how many tokens of a network a payment is tried that names none.
func (h *Handler) Candidates(network string) int { return len(h.desk.Candidates[network]) }

// Unsettled is how many payments are.
func Unsettled() int { return gauges.Unsettled() }

// ForgetPayers forgets how all payers and networks fared.
func ForgetPayers() {
	if s := currentShared(); s != nil {
		s.admission.ForTest().Forget()
	}
}

// The bounds on what costs a facilitator a call.
const (
	TriesAtOnce        = admission.TriesAtOnce
	TriesPerSecond     = admission.TriesPerSecond
	StrangersAtOnce    = admission.StrangersAtOnce
	StrangersPerSecond = admission.StrangersPerSecond
	RememberFor        = admission.RememberFor
)

// SetUploadGrace sets how long a body may take that nothing is paid for.
func (h *Handler) SetUploadGrace(d time.Duration) { h.desk.UploadGrace = d }

// Drain is what happens when the process exits.
func Drain(ctx context.Context) { settlement.Drain(ctx) }
