package soak

import (
	"database/sql"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"
)

// fileRows reads the ledger of a gateway that has stopped, as a program that
// knows nothing but SQLite.
func fileRows(t testing.TB, path string) []settledRow {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	return rows(t, db, "SELECT key, state, transaction_id, amount, updated / 1000000000 FROM payments")
}

// rows reads a ledger.
func rows(t testing.TB, db *sql.DB, query string) []settledRow {
	t.Helper()
	found, err := db.Query(query)
	if err != nil {
		t.Fatalf("reading the ledger: %v", err)
	}
	defer found.Close()
	var all []settledRow
	for found.Next() {
		var r settledRow
		var updated int64
		if err := found.Scan(&r.key, &r.state, &r.tx, &r.amount, &updated); err != nil {
			t.Fatal(err)
		}
		r.updated = time.Unix(updated, 0)
		all = append(all, r)
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
