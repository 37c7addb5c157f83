package memory

import (
	"context"
	"fmt"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// RememberGenesis implements ledger.Chains.
func (l *Ledger) RememberGenesis(ctx context.Context, network, hash string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	known, ok := l.chains[network]
	if !ok {
		l.chains[network] = hash
		return nil
	}
	if known != hash {
		return fmt.Errorf("%w: %s began with block %s when the ledger first heard of it, now with %s", ledger.ErrGenesis, network, known, hash)
	}
	return nil
}

var _ ledger.Chains = (*Ledger)(nil)
