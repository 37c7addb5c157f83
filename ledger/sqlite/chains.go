package sqlite

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
	var known string
	if err := l.asWriter(func(s *store) error {
		if _, err := s.conn.ExecContext(ctx, "INSERT OR IGNORE INTO networks VALUES (?, ?)", network, hash); err != nil {
			return err
		}
		return s.conn.QueryRowContext(ctx, "SELECT genesis FROM networks WHERE network = ?", network).Scan(&known)
	}); err != nil {
		return unavailable(ctx, err)
	}
	if known != hash {
		return fmt.Errorf("%w: the file %s has payments of %s with first block %s, and this one has %s", ledger.ErrGenesis, l.path, network, known, hash)
	}
	return nil
}

// Secret implements ledger.Secrets.
func (l *Ledger) Secret(context.Context) ([]byte, error) {
	return ledger.DeriveSecret(l.file.salt), nil
}

var _ ledger.Secrets = (*Ledger)(nil)
