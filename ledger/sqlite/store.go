package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// copyOf is a version of a row on its way to the database.
type copyOf struct {
	row     *row // nil if it is in no memory
	key     digest
	version uint64
	payment *ledger.Payment // does not change meanwhile
}

// store writes rows into the database in one transaction. With hash, finished
// ones lose the query of their URL.
//
// It speaks to the driver itself: what package sql does for each statement would
// be a fifth of the work.
func (d *database) store(ctx context.Context, items []copyOf, hash bool) error {
	if len(items) == 0 {
		return nil
	}
	conn, err := d.write.Conn(ctx)
	if err != nil {
		return err
	}
	err = conn.Raw(func(c any) error {
		begin, ok := c.(driver.ConnBeginTx)
		if !ok {
			return fmt.Errorf("the driver's connection is a %T", c)
		}
		tx, err := begin.BeginTx(ctx, driver.TxOptions{})
		if err != nil {
			return err
		}
		if err = d.storeAll(ctx, c, items, hash); err == nil {
			err = tx.Commit()
		}
		if err != nil {
			_ = tx.Rollback() // SQLite may have done so itself
		}
		return err
	})
	return errors.Join(err, conn.Close())
}

// storeAll writes the rows in the transaction of a connection.
func (d *database) storeAll(ctx context.Context, c any, items []copyOf, hash bool) error {
	one, err := prepareRaw(ctx, c, upsertRow)
	if err != nil {
		return err
	}
	defer func() { _ = one.Close() }()
	many, err := prepareRaw(ctx, c, upsertRows)
	if err != nil {
		return err
	}
	defer func() { _ = many.Close() }()
	args := make([]driver.NamedValue, 0, rowsAtOnce*(len(columns)+1))
	var last uint64
	for len(items) > 0 {
		n, statement := rowsAtOnce, many
		if len(items) < n {
			n, statement = 1, one
		}
		args = args[:0]
		for i := range items[:n] {
			it := &items[i]
			last = max(last, it.version)
			url := it.payment.URL
			if hash && finished(it.payment.State) {
				url = d.hashQuery(url)
			}
			args = appendValues(args, &it.key, it.version, it.payment, url)
		}
		if _, err := statement.ExecContext(ctx, args); err != nil {
			return err
		}
		items = items[n:]
	}
	complete, err := prepareRaw(ctx, c, completeMeta)
	if err != nil {
		return err
	}
	defer func() { _ = complete.Close() }()
	_, err = complete.ExecContext(ctx, []driver.NamedValue{
		{Ordinal: 1, Value: metaVersion}, {Ordinal: 2, Value: metaNumber(last)},
	})
	return err
}

// rawStatement is a statement of the driver.
type rawStatement interface {
	driver.Stmt
	driver.StmtExecContext
}

func prepareRaw(ctx context.Context, c any, text string) (rawStatement, error) {
	p, ok := c.(driver.ConnPrepareContext)
	if !ok {
		return nil, fmt.Errorf("the driver's connection is a %T", c)
	}
	stmt, err := p.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	if raw, ok := stmt.(rawStatement); ok {
		return raw, nil
	}
	return nil, errors.Join(fmt.Errorf("the driver's statement is a %T", stmt), stmt.Close())
}

// completeMeta raises a number in the table meta.
const completeMeta = "UPDATE meta SET value = max(value, ?2) WHERE name = ?1"
