package settlement

import (
	"context"
	"time"

	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// owedEvery is how often the ledger is asked for what is owed, and owedMost how many owed
// payments are counted.
const (
	owedEvery = 30 * time.Second
	owedMost  = 10_000
)

// WatchOwed counts what is owed until ctx ends, and tells saw. While the ledger does not
// say, the last count stands.
func (s *Settler) WatchOwed(ctx context.Context, saw func(metrics.Count)) {
	ticker := time.NewTicker(owedEvery)
	defer ticker.Stop()
	for {
		if owed, err := s.countOwed(ctx); err == nil {
			saw(owed)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (s *Settler) countOwed(ctx context.Context) (owed metrics.Count, err error) {
	filter := ledger.Filter{States: []ledger.State{ledger.Settled, ledger.Delivering}, Limit: owedMost, Brief: true}
	for row, err := range s.Ledger.List(ctx, filter) {
		if err != nil {
			return owed, err
		}
		if !ledger.Held(row, time.Now()) {
			owed.Add(row)
		}
	}
	return owed, nil
}
