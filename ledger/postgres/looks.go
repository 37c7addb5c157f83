package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// looks are questions that share round trips like the calls in a lane. A gateway
// asks with every sale what the payer is owed.
type looks struct {
	waiting []*look
	active  int
}

type look struct {
	ctx context.Context
	question
	rows []record
	err  error
	done chan struct{}
}

// slowTimeout is for questions that may have to read all rows.
const slowTimeout = time.Minute

var patience = fmt.Sprintf(`SELECT set_config('statement_timeout', '%d', true)`, slowTimeout.Milliseconds())

// ask returns the rows that a question selects.
func (l *Ledger) ask(ctx context.Context, q question) ([]record, error) {
	k := &look{ctx: ctx, question: q, done: make(chan struct{})}
	if !q.quick {
		ctx, cancel := context.WithTimeout(ctx, slowTimeout)
		defer cancel()
		l.askAll(ctx, []*look{k}, patience)
		return k.rows, k.err
	}
	l.mu.Lock()
	l.looks.waiting = append(l.looks.waiting, k)
	if l.looks.active == 0 || l.looks.active < workers && len(l.looks.waiting) >= crowded {
		l.looks.active++
		go l.lookAround() //nolint:gosec // it answers others too
	}
	l.mu.Unlock()
	select {
	case <-k.done:
		return k.rows, k.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ledger.ErrUnavailable, ctx.Err())
	}
}

// lookAround asks what waits until nothing does.
func (l *Ledger) lookAround() {
	for {
		l.mu.Lock()
		n := min(len(l.looks.waiting), maxBatch)
		batch := l.looks.waiting[:n:n]
		l.looks.waiting = l.looks.waiting[n:]
		if n == 0 {
			l.looks.active--
		}
		l.mu.Unlock()
		if n == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
		l.askAll(ctx, batch)
		cancel()
		for _, k := range batch {
			close(k.done)
		}
	}
}

// askAll asks the questions in one round trip, after the statements before.
func (l *Ledger) askAll(ctx context.Context, batch []*look, before ...string) {
	err := l.tryAll(ctx, batch, before)
	if err != nil && transient(err) {
		err = l.tryAll(ctx, batch, before)
	}
	if err == nil {
		return
	}
	for _, k := range batch {
		k.rows, k.err = nil, fmt.Errorf("%w: %s", ledger.ErrUnavailable, plain(err))
		if ended := k.ctx.Err(); ended != nil {
			k.err = fmt.Errorf("%w: %w", ledger.ErrUnavailable, ended)
		}
	}
}

func (l *Ledger) tryAll(ctx context.Context, batch []*look, before []string) error {
	conn, err := l.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	statements := &pgx.Batch{}
	for _, sql := range before {
		statements.Queue(sql)
	}
	for _, k := range batch {
		k.rows = nil
		statements.Queue(k.sql, k.args...).Query(func(rows pgx.Rows) error {
			for rows.Next() {
				var r record
				to, done := r.scan()
				if err := rows.Scan(to...); err != nil {
					return err
				}
				done()
				k.rows = append(k.rows, r)
			}
			return rows.Err()
		})
	}
	err = conn.SendBatch(ctx, statements).Close()
	if err != nil {
		l.learn(err)
	}
	return err
}

// youngest returns when the youngest row was claimed.
func (l *Ledger) youngest(ctx context.Context) (t time.Time, err error) {
	conn, err := l.connect(ctx)
	if err == nil {
		defer conn.Release()
		err = conn.QueryRow(ctx, `SELECT coalesce(max(created), now()) FROM paywall_payments`).Scan(&t)
	}
	if err != nil {
		return t, fmt.Errorf("%w: %s", ledger.ErrUnavailable, plain(err))
	}
	return t, nil
}
