package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"fmt"
)

// migrations bring a database from one version to the next; user_version counts
// them. What is released is never changed, only added to.
var migrations = []string{
	// Instants are Unix time in nanoseconds, NULL for none. Strings that may hold
	// any bytes are blobs. hash is the SHA-256 of the key, of which the first half
	// is the payment's ID; version counts the changes of the whole ledger.
	`CREATE TABLE payments (
		hash         BLOB PRIMARY KEY NOT NULL,
		version      INTEGER NOT NULL,
		key          TEXT NOT NULL,
		state        TEXT NOT NULL,
		doubt        INTEGER NOT NULL,
		scheme       TEXT NOT NULL,
		network      TEXT NOT NULL,
		asset        TEXT NOT NULL,
		pay_to       TEXT NOT NULL,
		payer        TEXT NOT NULL,
		amount       TEXT NOT NULL,
		valid_before INTEGER,
		method       TEXT NOT NULL,
		host         TEXT NOT NULL,
		url          BLOB NOT NULL,
		client       TEXT NOT NULL,
		identifier   TEXT NOT NULL,
		body         TEXT NOT NULL,
		facilitator  TEXT NOT NULL,
		transaction_id TEXT NOT NULL,
		reason       TEXT NOT NULL,
		status       INTEGER NOT NULL,
		runs         INTEGER NOT NULL,
		request      BLOB,
		answer       BLOB,
		created      INTEGER NOT NULL,
		updated      INTEGER NOT NULL,
		lease        INTEGER,
		keep         INTEGER
	) STRICT;
	CREATE INDEX payments_created ON payments (created);
	CREATE INDEX payments_payer ON payments (payer, created);
	CREATE INDEX payments_identifier ON payments (identifier, created) WHERE identifier <> '';
	-- Most rows are delivered: those are found by created.
	CREATE INDEX payments_state ON payments (state, created) WHERE state <> 'delivered';
	CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
	CREATE TABLE networks (network TEXT PRIMARY KEY NOT NULL, genesis TEXT NOT NULL) STRICT, WITHOUT ROWID;`,
	// What a payment has learnt to say of itself; of older ones it is not known.
	`ALTER TABLE payments ADD COLUMN line TEXT NOT NULL DEFAULT '';
	ALTER TABLE payments ADD COLUMN effects INTEGER NOT NULL DEFAULT 0;
	ALTER TABLE payments ADD COLUMN ended INTEGER NOT NULL DEFAULT 0;
	ALTER TABLE payments ADD COLUMN fetch_by INTEGER;
	-- What is to leave no trace stands behind lead, as many zeros as a page has bytes,
	-- and so in pages of its own, which SQLite overwrites when they are free. A row's
	-- first page it shares with others, and whenever SQLite moves rows from one such
	-- page to another, their bytes may stay behind in the first, secure_delete or not.
	ALTER TABLE payments ADD COLUMN lead BLOB;
	ALTER TABLE payments ADD COLUMN kept_request BLOB;
	ALTER TABLE payments ADD COLUMN kept_answer BLOB;
	UPDATE payments SET lead = zeroblob(4096), kept_request = request, kept_answer = answer, request = NULL, answer = NULL
		WHERE request IS NOT NULL OR answer IS NOT NULL;
	CREATE INDEX payments_kept ON payments (coalesce(fetch_by, keep, 0)) WHERE lead IS NOT NULL AND state IN ('settled', 'delivering');`,
}

// The names in the table meta.
const (
	// metaDatabase is a random number that binds the journal to the database.
	metaDatabase = "database"
	// metaSalt is the key of the hashes of queries.
	metaSalt = "salt"
	// metaVersion is the highest version that a row in the table has.
	metaVersion = "version"
	// metaComplete is the number up to which the table has all records.
	metaComplete = "complete"
)

// migrate brings the database up to date.
func migrate(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > len(migrations) {
		return fmt.Errorf("the database is of a newer version (%d) than this program (%d)", version, len(migrations))
	}
	for ; version < len(migrations); version++ {
		if _, err := tx.ExecContext(ctx, migrations[version]); err != nil {
			return fmt.Errorf("migration to version %d: %w", version+1, err)
		}
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", version)); err != nil {
		return err
	}
	for name, size := range map[string]int{metaDatabase: 8, metaSalt: 32} {
		value := make([]byte, size)
		_, _ = rand.Read(value) // never fails
		if _, err := tx.ExecContext(ctx, "INSERT OR IGNORE INTO meta VALUES (?, ?)", name, value); err != nil {
			return err
		}
	}
	for _, name := range []string{metaVersion, metaComplete} {
		if _, err := tx.ExecContext(ctx, "INSERT OR IGNORE INTO meta VALUES (?, ?)", name, metaNumber(0)); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func metaNumber(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
