package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Each file brings the tables one version further. A file that was released
// never changes.
//
//go:embed schema/*.sql
var schema embed.FS

// latest is the number of files.
const latest = 4

// The names of our advisory locks, in a database that may serve others too.
const (
	lockMigration = 0x70617977616c6c01 // "paywall" and a number
	lockPruning   = 0x70617977616c6c02
)

// migrate brings the tables up to date, unless it may only read. Of several gateways that
// start at once, one does it while the others wait.
func migrate(ctx context.Context, tx pgx.Tx, reader bool) error {
	var exists bool
	if err := tx.QueryRow(ctx, `SELECT to_regclass('paywall_schema_version') IS NOT NULL`).Scan(&exists); err != nil {
		return err
	}
	version := 0
	if exists {
		var err error
		if version, err = schemaVersion(ctx, tx); err != nil || version == latest {
			return err
		}
	}
	if reader && version == 0 {
		return errors.New("there is no ledger in this database: no gateway has used it yet, or its tables are in another database or schema (search_path) than this address leads to; take the address that the gateway has")
	}
	if reader {
		return fmt.Errorf("the ledger's tables are of version %d, made by an older gateway; this program reads version %d, and a gateway of this version brings them up to date when it starts", version, latest)
	}
	if _, err := tx.Exec(ctx, `SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true),
		pg_advisory_xact_lock($1)`, int64(lockMigration)); err != nil {
		return err
	}
	// Who waits to change a table, for somebody's forgotten transaction, holds up all other
	// gateways. They wait for longer than this does, and the next attempt tries again.
	if _, err := tx.Exec(ctx, `SELECT set_config('lock_timeout', $1, true)`, milliseconds(lockWait/2)); err != nil {
		return err
	}
	// Asking again whether the table exists could give the old answer: that does
	// not look for what others have done since this transaction began.
	if _, err := tx.Exec(ctx, `CREATE TABLE IF NOT EXISTS paywall_schema_version (
		version integer PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now())`); err != nil {
		return err
	}
	version, err := schemaVersion(ctx, tx)
	if err != nil {
		return err
	}
	for version++; version <= latest; version++ {
		sql, err := schema.ReadFile(fmt.Sprintf("schema/%d.sql", version))
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, string(sql)); err != nil {
			return fmt.Errorf("bringing the tables to version %d: %w", version, err)
		}
		if _, err := tx.Exec(ctx, `INSERT INTO paywall_schema_version (version) VALUES ($1)`, version); err != nil {
			return err
		}
	}
	return nil
}

func schemaVersion(ctx context.Context, tx pgx.Tx) (version int, err error) {
	err = tx.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM paywall_schema_version`).Scan(&version)
	if err == nil && version > latest {
		err = fmt.Errorf("the ledger's tables are of version %d, made by a newer gateway; this one knows version %d", version, latest)
	}
	return version, err
}
