package sqlite

import (
	"context"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// copyOf is a version of a row on its way to the database.
type copyOf struct {
	row     *row // nil if it is in no memory
	key     digest
	version uint64
	payment ledger.Payment
}

// store writes rows into the database in one transaction. With hash, finished
// ones lose the query of their URL.
func (d *database) store(ctx context.Context, items []copyOf, hash bool) error {
	if len(items) == 0 {
		return nil
	}
	tx, err := d.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	upsert := tx.StmtContext(ctx, d.upsert)
	var last uint64
	for i := range items {
		it := &items[i]
		last = max(last, it.version)
		url := it.payment.URL
		if hash && finished(it.payment.State) {
			url = d.hashQuery(url)
		}
		if _, err := upsert.ExecContext(ctx, values(&it.key, it.version, &it.payment, url)...); err != nil {
			return err
		}
	}
	if _, err := tx.StmtContext(ctx, d.complete).ExecContext(ctx, metaVersion, metaNumber(last)); err != nil {
		return err
	}
	return tx.Commit()
}
