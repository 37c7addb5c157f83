package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// RememberGenesis implements ledger.Chains.
func (l *Ledger) RememberGenesis(ctx context.Context, network, hash string) error {
	if err := l.begin(ctx); err != nil {
		return err
	}
	var known string
	statements := &pgx.Batch{}
	// Another gateway may be about to say the same.
	statements.Queue(`SELECT set_config('lock_timeout', $1, true)`, milliseconds(lockPatience))
	statements.Queue(`INSERT INTO paywall_networks (network, genesis) VALUES ($1, $2) ON CONFLICT DO NOTHING`, clean(network), clean(hash))
	statements.Queue(`SELECT genesis FROM paywall_networks WHERE network = $1`, clean(network)).QueryRow(func(row pgx.Row) error {
		return row.Scan(&known)
	})
	if err := l.send(ctx, statements); err != nil {
		// To remember it twice does no harm: whatever happened, ask again.
		return unavailable(err)
	}
	if known != clean(hash) {
		return fmt.Errorf("%w: the database has payments of %s with first block %s, and this one has %s", ledger.ErrGenesis, network, known, hash)
	}
	return nil
}
