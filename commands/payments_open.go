package commands

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger/postgres"
	"github.com/caddy-paywall/caddy-paywall/ledger/sqlite"
)

// openSQLite opens the file of a gateway that may be running.
func openSQLite(file string) (*sqlite.Reader, error) {
	where := ""
	if file == "" {
		file, where = sqlite.DefaultFile(), ", where Caddy keeps it unless told otherwise"
		if me, err := user.Current(); err == nil {
			where += ", when it runs as " + me.Username + "; a service often has a user of its own (sudo -u caddy …)"
		}
	}
	l, err := sqlite.OpenReader(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("opening the ledger: there is none at %s%s; say where it is with --file or --postgres-env", file, where)
	case err != nil:
		return nil, err
	}
	return l, nil
}

// openPostgres opens the database that gateways share.
func openPostgres(ctx context.Context, dsn string) (reader, error) {
	l, err := postgres.New(postgres.Options{DSN: dsn, MaxConnections: 1, ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("the address of the database: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := l.Open(ctx); err != nil {
		l.Close()
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	return closer{l}, nil
}

// closer gives a ledger the method that readers have.
type closer struct{ *postgres.Ledger }

// Close implements io.Closer.
func (c closer) Close() error {
	c.Ledger.Close()
	return nil
}
