package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// loadQueryKey reads the key of the hashes of queries, which all gateways share.
func (l *Ledger) loadQueryKey(ctx context.Context, tx pgx.Tx) error {
	var key []byte
	if err := tx.QueryRow(ctx, `SELECT value FROM paywall_keys WHERE name = 'queries'`).Scan(&key); err != nil {
		return fmt.Errorf("reading the key for queries: %w", err)
	}
	if len(key) != 32 {
		return fmt.Errorf("the key for queries has %d bytes, want 32", len(key))
	}
	l.queryKey.Store(&key)
	return nil
}

// hashQuery is the URL as finished payments may have it. The database has been
// opened.
func (l *Ledger) hashQuery(url string) string {
	return ledger.HashQuery(*l.queryKey.Load(), url)
}

// hashedURL is the filter's URL as finished payments may have it, if it is another
// one and the filter may select such payments.
func (l *Ledger) hashedURL(ctx context.Context, f ledger.Filter) (string, error) {
	finished := len(f.States) == 0 || slices.ContainsFunc(f.States, func(s ledger.State) bool { return !s.Open() })
	if !finished || !strings.Contains(f.URL, "?") {
		return "", nil
	}
	if err := l.Open(ctx); err != nil {
		return "", err
	}
	return l.hashQuery(f.URL), nil
}

// url is what is written for the URL of a row: nil leaves what is there. While
// goods are owed they are owed to that URL alone, so the query is kept.
func (l *Ledger) url(w *write) []byte {
	if p := &w.next.payment; l.hashQueries.Load() && !p.State.Open() && p.State != ledger.Claimed {
		return []byte(l.hashQuery(p.URL))
	}
	return nil
}

// Secret implements ledger.Secrets.
func (l *Ledger) Secret(ctx context.Context) ([]byte, error) {
	if err := l.Open(ctx); err != nil {
		return nil, err
	}
	return ledger.DeriveSecret(*l.queryKey.Load()), nil
}

var _ ledger.Secrets = (*Ledger)(nil)
