package commands

import (
	"context"
	"fmt"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/ledger/postgres"
	"github.com/caddy-paywall/caddy-paywall/ledger/sqlite"
)

// openSQLite opens the file of a gateway that may be running.
func openSQLite(file string) (reader, error) {
	if file == "" {
		file = sqlite.DefaultFile()
	}
	return sqlite.OpenReader(file)
}

// openPostgres opens the database that gateways share.
func openPostgres(ctx context.Context, dsn string) (reader, error) {
	l, err := postgres.New(postgres.Options{DSN: dsn, MaxConnections: 1})
	if err != nil {
		return nil, fmt.Errorf("the address of the database: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	// It opens when it is first used, in the background.
	for {
		for _, err = range l.List(ctx, ledger.Filter{Limit: 1}) {
			break
		}
		if err == nil {
			return closer{l}, nil
		}
		select {
		case <-ctx.Done():
			l.Close()
			return nil, fmt.Errorf("opening the ledger: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// closer gives a ledger the method that readers have.
type closer struct{ *postgres.Ledger }

// Close implements io.Closer.
func (c closer) Close() error {
	c.Ledger.Close()
	return nil
}
