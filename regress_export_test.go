package paywall

import "time"

// What tests of a running gate may change, so that they need not wait.

// SetAnswerWithin sets how long a payer waits for a settlement.
func (h *Handler) SetAnswerWithin(d time.Duration) { h.answerWithin = d }

// SetNow sets the gate's clock; the ledger has its own.
func (h *Handler) SetNow(now func() time.Time) { h.now = now }
