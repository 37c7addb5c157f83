package settlement

import (
	"context"
	"errors"
	"iter"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/ledger/memory"
)

// TestReconcilerSeesToWhatItIsTold though a part of the ledger, such as a former one, is
// away: it then tells nobody how many doubts there are.
func TestReconcilerSeesToWhatItIsTold(t *testing.T) {
	book := memory.New(memory.Options{})
	c, err := book.Claim(t.Context(), ledger.Payment{Key: "k", Facilitator: "own"}, time.Minute)
	for _, to := range []ledger.State{ledger.Settling, ledger.Unknown} {
		if err == nil {
			_, err = book.Move(t.Context(), c, ledger.Change{To: to})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	away := errors.New("a part is away")
	r := &reconciler{
		settler: &Settler{Ledger: ledger.Guard(inPart{book, away}), Facilitators: facilitator.NewSet(), Unrecorded: new(Unrecorded)},
		saw:     func(metrics.Count) { t.Error("it tells how many doubts there are") },
		now:     time.Now, logger: zap.NewNop(),
		attempts: make(map[ledger.Key]*attempts), busy: make(map[asked]bool),
	}
	if err := r.round(t.Context()); !errors.Is(err, away) {
		t.Error(err)
	}
	if r.attempts["k"] == nil {
		t.Error("it does not try the payment that it has heard of")
	}
}

// inPart is a ledger that can list only some of its rows.
type inPart struct {
	ledger.Ledger
	err error
}

func (l inPart) List(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Payment, error] {
	return func(yield func(ledger.Payment, error) bool) {
		for row, err := range l.Ledger.List(ctx, f) {
			if !yield(row, err) {
				return
			}
		}
		yield(ledger.Payment{}, l.err)
	}
}
