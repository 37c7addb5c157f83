package postgres

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// batchTimeout ends a batch whose connection is dead and does not say so. The
// database gives up before; see sessionSettings.
const batchTimeout = 5 * time.Second

// noWait lets the transaction return before it is on disk.
const noWait = `SELECT set_config('synchronous_commit', 'off', true)`

// send does a batch in one transaction and one round trip. All of it is done, or
// the error tells whether nothing is; see changedNothing. The results are in the
// order of the batch, which it sorts.
func (l *Ledger) send(durable bool, batch []*line) ([]result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
	defer cancel()
	slices.SortFunc(batch, func(a, b *line) int { return bytes.Compare(a.id[:], b.id[:]) })
	conn, err := l.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	t := transaction{now: l.clockNow(), url: l.url, batch: batch, results: make([]result, len(batch)), place: make(map[[16]byte]int, len(batch))}
	t.queue(durable)
	answers := conn.SendBatch(ctx, &t.statements)
	for _, read := range t.readers {
		if err = read(answers); err != nil {
			break
		}
	}
	// The transaction ends here.
	if closed := answers.Close(); err == nil {
		err = closed
	}
	if err != nil {
		l.learn(err)
		return nil, err
	}
	return t.results, nil
}

// transaction is a batch on its way.
type transaction struct {
	now        pgtype.Timestamptz
	url        func(*write) []byte
	batch      []*line
	results    []result
	place      map[[16]byte]int // of an id in the batch
	statements pgx.Batch
	readers    []func(pgx.BatchResults) error
}

// queue writes the statements.
func (t *transaction) queue(durable bool) {
	var inserts, updates, removes, reads []*line
	for i, n := range t.batch {
		t.place[n.id] = i
		t.results[i].missed = !n.read
		switch {
		case n.read:
			reads = append(reads, n)
		case n.write.what == insert:
			inserts = append(inserts, n)
		case n.write.what == update:
			updates = append(updates, n)
		case n.write.what == remove:
			removes = append(removes, n)
		case n.write.what == replace:
			removes = append(removes, n)
			inserts = append(inserts, n)
		}
	}
	if !durable && len(reads) < len(t.batch) {
		t.statements.Queue(noWait)
		t.readers = append(t.readers, func(r pgx.BatchResults) error {
			_, err := r.Exec()
			return err
		})
	}
	if len(removes) > 0 {
		t.add(t.removed, removeRows, removeArgs(t.now, removes))
	}
	if len(inserts) > 0 {
		t.add(t.inserted, insertRows, insertArgs(t.now, inserts))
	}
	if len(updates) > 0 {
		t.add(t.updated, updateRows, updateArgs(t.now, t.url, updates))
	}
	if len(reads) > 0 {
		t.add(t.read, selectRows, []any{t.now, idColumn(reads)})
	}
}

// add queues a statement. scan reads one row of its answer.
func (t *transaction) add(scan func(pgx.Rows) error, sql string, args []any) {
	t.statements.Queue(sql, args...)
	t.readers = append(t.readers, func(r pgx.BatchResults) error {
		rows, err := r.Query()
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := scan(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}

// of finds whose row it is.
func (t *transaction) of(id pgtype.UUID) (*line, *result, error) {
	i, ok := t.place[id.Bytes]
	if !ok {
		return nil, nil, fmt.Errorf("the database answers for another row: %x", id.Bytes)
	}
	return t.batch[i], &t.results[i], nil
}

func (t *transaction) removed(rows pgx.Rows) error {
	var id pgtype.UUID
	var now time.Time
	if err := rows.Scan(&id, &now); err != nil {
		return err
	}
	n, r, err := t.of(id)
	if err != nil || n.write.what == replace {
		return err // that it could be inserted says all
	}
	*r = result{row: n.write.next, now: now}
	r.row.payment.Updated = now.UTC()
	return nil
}

func (t *transaction) inserted(rows pgx.Rows) error {
	var id pgtype.UUID
	var created, lease time.Time
	if err := rows.Scan(&id, &created, &lease); err != nil {
		return err
	}
	n, r, err := t.of(id)
	if err != nil {
		return err
	}
	*r = result{row: n.write.next, now: created}
	p := &r.row.payment
	p.Created, p.Updated, p.Lease = created.UTC(), created.UTC(), lease.UTC()
	return nil
}

func (t *transaction) updated(rows pgx.Rows) error {
	var id pgtype.UUID
	var updated, now time.Time
	var lease pgtype.Timestamptz
	if err := rows.Scan(&id, &updated, &lease, &now); err != nil {
		return err
	}
	n, r, err := t.of(id)
	if err != nil {
		return err
	}
	*r = result{row: n.write.next, now: now}
	r.row.payment.Updated, r.row.payment.Lease = updated.UTC(), instant(lease)
	return nil
}

func (t *transaction) read(rows pgx.Rows) error {
	var id pgtype.UUID
	var row record
	var now time.Time
	to, done := row.scan(&now)
	if err := rows.Scan(append([]any{&id}, to...)...); err != nil {
		return err
	}
	done()
	_, r, err := t.of(id)
	if err != nil {
		return err
	}
	*r = result{row: row, now: now}
	return nil
}
