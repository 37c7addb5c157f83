package paywall

import (
	"context"
	"time"
)

// What tests of the bounds may see and change. The bounds are of the process, so
// each change is taken back.

// SetMostUnsettled sets how many payments may be unsettled: in all, and of one payer.
func SetMostUnsettled(all, of int) (restore func()) { return SetPlaces(all, 0, of, all+1) }

// SetPlaces sets how many payments may be unsettled: in all, of them for trusted payers
// alone, of one payer, and from one network.
func SetPlaces(all, kept, of, from int) (restore func()) {
	unsettled.mu.Lock()
	defer unsettled.mu.Unlock()
	before := [...]int{unsettled.most, unsettled.kept, unsettled.mostOf, unsettled.mostFrom}
	unsettled.most, unsettled.kept, unsettled.mostOf, unsettled.mostFrom = all, kept, of, from
	return func() {
		unsettled.mu.Lock()
		defer unsettled.mu.Unlock()
		unsettled.most, unsettled.kept, unsettled.mostOf, unsettled.mostFrom = before[0], before[1], before[2], before[3]
	}
}

// SetHoldWithin sets how long a payment may wait for the upstream.
func (h *Handler) SetHoldWithin(d time.Duration) { h.holdWithin = d }

// Candidates is against how many tokens of a network a payment is tried that names none.
func (h *Handler) Candidates(network string) int { return len(h.candidates[network]) }

// Unsettled is how many payments are.
func Unsettled() int { return unsettled.count() }

// ForgetPayers forgets how all payers and networks fared.
func ForgetPayers() {
	for _, s := range []*payers{distrusted, trusted} {
		s.mu.Lock()
		s.younger, s.older = nil, nil
		s.mu.Unlock()
	}
	tabs.mu.Lock()
	tabs.younger, tabs.older = nil, nil
	tabs.mu.Unlock()
	for _, t := range []*tries{networkTries, payerTries, strangerTries, strangersInAll, networkLooks} {
		for i := range t.buckets {
			b := &t.buckets[i]
			b.mu.Lock()
			b.owed = 0
			b.mu.Unlock()
		}
	}
}

// The bounds on what costs a facilitator a call.
const (
	TriesAtOnce        = triesAtOnce
	TriesPerSecond     = triesPerSecond
	StrangersAtOnce    = strangersAtOnce
	StrangersPerSecond = strangersPerSecond
	RememberFor        = rememberFor
)

// SetUploadGrace sets how long a body may take that nothing is paid for.
func (h *Handler) SetUploadGrace(d time.Duration) { h.uploadGrace = d }

// Drain is what happens when the process exits.
func Drain(ctx context.Context) { drain(ctx) }
