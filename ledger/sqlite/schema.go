package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	// applicationID tells SQLite's own tools, and us, whose file it is: "payw". The
	// files of versions before the first release have none.
	applicationID = 0x70617977
	// schemaVersion is the user_version of the file. What is released is never
	// changed, only added to.
	schemaVersion = 1
)

// schema makes an empty database. Instants are Unix time in nanoseconds, NULL for
// none; strings that may hold any bytes are blobs.
//
// The id counts the claims that came as far as settling, so that a payment that is
// claimed anew has a new one. hash is the SHA-256 of the key; its first half is the
// payment's public ID.
//
// What is to leave no trace, the signed request and the kept answer, is in a table of
// its own, behind lead, as many zeros as a page has bytes, and so in pages of its own,
// which SQLite overwrites when they are free. A row's first page it shares with others,
// and whenever SQLite moves rows from one such page to another, their bytes may stay
// behind in the first, secure_delete or not. head is the beginning of the answer, which tells nothing
// and is read without the rest. kept_until is from when on nobody can
// fetch the payment any more; it is NULL where nothing is kept, or may be needed for
// ever.
const schema = `
CREATE TABLE payments (
	id             INTEGER PRIMARY KEY,
	hash           BLOB NOT NULL UNIQUE,
	key            TEXT NOT NULL,
	state          TEXT NOT NULL,
	doubt          INTEGER NOT NULL,
	scheme         TEXT NOT NULL,
	network        TEXT NOT NULL,
	asset          TEXT NOT NULL,
	pay_to         TEXT NOT NULL,
	payer          TEXT NOT NULL,
	amount         TEXT NOT NULL,
	valid_before   INTEGER,
	method         TEXT NOT NULL,
	host           TEXT NOT NULL,
	url            BLOB NOT NULL,
	line           TEXT NOT NULL,
	client         TEXT NOT NULL,
	identifier     TEXT NOT NULL,
	effects        INTEGER NOT NULL,
	body           TEXT NOT NULL,
	facilitator    TEXT NOT NULL,
	transaction_id TEXT NOT NULL,
	reason         TEXT NOT NULL,
	status         INTEGER NOT NULL,
	runs           INTEGER NOT NULL,
	ended          INTEGER NOT NULL,
	created        INTEGER NOT NULL,
	updated        INTEGER NOT NULL,
	fetch_by       INTEGER,
	keep           INTEGER,
	kept_until     INTEGER
) STRICT;
CREATE INDEX payments_created ON payments (created);
CREATE INDEX payments_payer ON payments (payer, created);
CREATE INDEX payments_identifier ON payments (identifier, created) WHERE identifier <> '';
-- Most rows are delivered, and found by created.
CREATE INDEX payments_state ON payments (state, created) WHERE state <> 'delivered';
CREATE INDEX payments_kept ON payments (kept_until) WHERE kept_until IS NOT NULL;
CREATE TABLE kept (
	id      INTEGER PRIMARY KEY,
	head    BLOB,
	lead    BLOB NOT NULL,
	request BLOB,
	answer  BLOB
) STRICT;
CREATE TABLE networks (network TEXT PRIMARY KEY NOT NULL, genesis TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) STRICT, WITHOUT ROWID;`

// The names in the table meta.
const (
	// metaSalt is the key of the hashes of queries.
	metaSalt = "salt"
	// metaTried is overwritten to find out whether the disk is well again.
	metaTried = "tried"
)

// create makes the tables in an empty database.
func create(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var salt [32]byte
	_, _ = rand.Read(salt[:]) // never fails
	for _, step := range []struct {
		text string
		args []any
	}{
		{schema, nil},
		{"INSERT INTO meta VALUES (?, ?)", []any{metaSalt, salt[:]}},
		{fmt.Sprintf("PRAGMA application_id = %d", applicationID), nil},
		{fmt.Sprintf("PRAGMA user_version = %d", schemaVersion), nil},
	} {
		if _, err := tx.ExecContext(ctx, step.text, step.args...); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// errOther is for a file that this version cannot go on with.
var errOther = errors.New("the file is not a ledger of this version")

// check looks at what is at path, changes nothing, and reports whether there is
// nothing yet.
func check(ctx context.Context, path string) (empty bool, err error) {
	if _, err := os.Stat(path); err != nil {
		return false, err
	}
	beside, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return false, err
	}
	for _, e := range beside {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+".log-") { // a journal, which versions before had
			return false, refuse(path)
		}
	}
	db, err := sql.Open("sqlite", dataSource(path, "ro", "busy_timeout(10000)"))
	if err != nil {
		return false, err
	}
	defer func() { _ = db.Close() }()
	var id, version, tables int
	err = db.QueryRowContext(ctx, "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema) FROM pragma_application_id, pragma_user_version").
		Scan(&id, &version, &tables)
	switch {
	case err != nil:
		return false, damaged(err)
	case id == 0 && version == 0 && tables == 0:
		return true, nil
	case id != applicationID:
		return false, refuse(path)
	case version != schemaVersion:
		return false, fmt.Errorf("%w: it is of version %d, and this program writes version %d; use the program that wrote it, or another file", errOther, version, schemaVersion)
	}
	return false, nil
}

// refuse refuses a file that is not ours, or of before the first release.
func refuse(path string) error {
	return fmt.Errorf("%w, but of one before it or of another program: move all of %s* to another place, and the ledger starts anew; what the old one says is owed or in doubt, look up with the program that wrote it", errOther, path)
}
