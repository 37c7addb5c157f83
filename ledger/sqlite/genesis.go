package sqlite

import (
	"context"
	"errors"
	"fmt"
)

// ErrGenesis: a network is not the one that it was. Its payments are those of
// another chain, which has the same name.
var ErrGenesis = errors.New("another chain under the same name")

// RememberGenesis records the hash of the genesis block of a network, or compares
// it with the one that is on record; if they differ, the error is ErrGenesis.
func (l *Ledger) RememberGenesis(ctx context.Context, network, hash string) error {
	if _, err := l.db.write.ExecContext(ctx, "INSERT OR IGNORE INTO networks VALUES (?, ?)", network, hash); err != nil {
		return unavailable(ctx, err)
	}
	var known string
	if err := l.db.write.QueryRowContext(ctx, "SELECT genesis FROM networks WHERE network = ?", network).Scan(&known); err != nil {
		return unavailable(ctx, err)
	}
	if known != hash {
		return fmt.Errorf("%w: the ledger %s has payments of %s with genesis block %s, and this one has %s; use another file for it", ErrGenesis, l.path, network, known, hash)
	}
	return nil
}
