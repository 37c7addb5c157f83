package memory

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// Secret implements ledger.Secrets.
func (l *Ledger) Secret(ctx context.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.secret == nil {
		secret := make([]byte, 32)
		if _, err := io.ReadFull(l.random, secret); err != nil {
			return nil, fmt.Errorf("%w: no randomness for a secret: %w", ledger.ErrUnavailable, err)
		}
		l.secret = secret
	}
	return bytes.Clone(l.secret), nil
}

var _ ledger.Secrets = (*Ledger)(nil)
