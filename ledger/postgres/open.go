package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// openTimeout bounds an attempt to open, migration included.
const openTimeout = 2 * time.Minute

// Open opens the ledger if it is not open; calls of the other methods do so too.
func (l *Ledger) Open(ctx context.Context) error {
	if err := l.open(ctx); err != nil {
		return unavailable(err)
	}
	return nil
}

// attempt is an attempt to open, for which all wait who need it.
type attempt struct {
	done chan struct{}
	err  error
}

// open returns when the database is fit for use, or why it is not.
func (l *Ledger) open(ctx context.Context) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	a := l.opening
	if a == nil {
		a = &attempt{done: make(chan struct{})}
		l.opening = a
		go l.try(a) //nolint:gosec // others wait for it too
	}
	l.mu.Unlock()
	select {
	case <-a.done:
		return a.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// try makes an attempt. One that has failed makes room for another.
func (l *Ledger) try(a *attempt) {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	a.err = l.prepareDatabase(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case a.err != nil && !l.failing:
		l.logger.Error("the ledger's database cannot be used", zap.String("error", plain(a.err)))
	case a.err == nil && l.failing:
		l.logger.Info("the ledger's database can be used again")
	}
	if l.failing = a.err != nil; l.failing {
		l.opening = nil
	}
	close(a.done)
}

// prepareDatabase looks whether the database is one that can keep a ledger, and
// brings its tables up to date.
func (l *Ledger) prepareDatabase(ctx context.Context) error {
	err := pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		var encoding, fsync string
		if err := tx.QueryRow(ctx, `SELECT current_setting('server_encoding'), current_setting('fsync')`).Scan(&encoding, &fsync); err != nil {
			return err
		}
		if encoding != "UTF8" {
			return fmt.Errorf("the database is in %s; the ledger needs one in UTF8", encoding)
		}
		if fsync != "on" {
			l.logger.Warn("the database runs with fsync off: payments can be lost when it crashes")
		}
		if err := checkSettings(ctx, tx); err != nil {
			return err
		}
		if err := migrate(ctx, tx, l.reader); err != nil {
			return err
		}
		return l.loadQueryKey(ctx, tx)
	})
	if err == nil && !l.reader {
		l.announce()
		l.endDead(ctx, l.pool)
	}
	return err
}

// checkSettings reads our settings back. What is not lost in a crash depends on them, and
// that a call ends.
func checkSettings(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `SELECT lower(name), setting FROM pg_settings WHERE lower(name) = ANY($1)`, slices.Collect(maps.Keys(sessionSettings)))
	if err != nil {
		return fmt.Errorf("reading our settings back: %w", err)
	}
	found := make(map[string]string)
	var name, setting string
	if _, err := pgx.ForEachRow(rows, []any{&name, &setting}, func() error {
		found[name] = setting
		return nil
	}); err != nil {
		return fmt.Errorf("reading our settings back: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(sessionSettings)) {
		if want := sessionSettings[name]; found[name] != want {
			return fmt.Errorf("%s is %q on the connection, and not %q as we have set it: something between drops our settings, such as PgBouncer with "+
				"ignore_startup_parameters; give the ledger a way to the database itself", name, found[name], want)
		}
	}
	return nil
}

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

// storedURL is the URL as the database is to have it. While goods are owed they are owed
// to that URL alone, so the query is kept.
func (l *Ledger) storedURL(p *ledger.Payment) string {
	if l.hashQueries.Load() && p.State.Finished() {
		return ledger.HashQuery(*l.queryKey.Load(), p.URL)
	}
	return p.URL
}

// Secret implements ledger.Secrets.
func (l *Ledger) Secret(ctx context.Context) ([]byte, error) {
	if err := l.Open(ctx); err != nil {
		return nil, err
	}
	return ledger.DeriveSecret(*l.queryKey.Load()), nil
}
