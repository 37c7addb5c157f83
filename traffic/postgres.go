package traffic

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Postgres keeps counts in the database that gateways share, in tables whose names begin
// with `paywall_traffic_`. It connects when it is first used.
type Postgres struct {
	config *pgxpool.Config
	read   bool

	mu     sync.Mutex
	pool   *pgxpool.Pool
	closed bool
	pruned time.Time
}

// NewPostgres makes a store in a database; its one connection is not one of the ledger.
func NewPostgres(config *pgxpool.Config) *Postgres { return &Postgres{config: small(config)} }

// NewPostgresReader makes one that only reads, so that a standby will do.
func NewPostgresReader(config *pgxpool.Config) *Postgres {
	return &Postgres{config: small(config), read: true}
}

func small(config *pgxpool.Config) *pgxpool.Config {
	config = config.Copy()
	config.MaxConns, config.MinConns = 1, 0
	return config
}

const postgresLayout = `
	CREATE TABLE IF NOT EXISTS %s (
		hour timestamptz NOT NULL, site text NOT NULL, line text NOT NULL, kind text NOT NULL, name text NOT NULL, proof text NOT NULL, unit text NOT NULL,
		asked bigint NOT NULL, observed bigint NOT NULL, challenged bigint NOT NULL, paid bigint NOT NULL, delivered bigint NOT NULL,
		worth numeric NOT NULL, earned numeric NOT NULL,
		PRIMARY KEY (hour, site, line, kind, name, proof, unit)
	);`

// layoutLock keeps gateways from making the tables at once.
const layoutLock = 0x78347472

// Open connects and makes the tables, as the first call would.
func (p *Postgres) Open(ctx context.Context) error {
	_, err := p.open(ctx)
	return err
}

func (p *Postgres) open(ctx context.Context) (*pgxpool.Pool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	if p.pool != nil {
		return p.pool, nil
	}
	pool, err := pgxpool.NewWithConfig(ctx, p.config)
	if err != nil {
		return nil, fmt.Errorf("opening the counts: %w", err)
	}
	if !p.read {
		err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", layoutLock); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, fmt.Sprintf(postgresLayout+postgresLayout, "paywall_traffic_hours", "paywall_traffic_days"))
			return err
		})
	}
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("opening the counts: %w", err)
	}
	p.pool = pool
	return pool, nil
}

// Add implements Store.
func (p *Postgres) Add(ctx context.Context, rows []Row) error {
	pool, err := p.open(ctx)
	if err != nil {
		return err
	}
	batch := &pgx.Batch{}
	for _, table := range tables {
		put := "INSERT INTO paywall_traffic_" + table.name + " AS t (" + columns + ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)" +
			" ON CONFLICT (" + keyColumns + ") DO UPDATE SET asked = t.asked + excluded.asked, observed = t.observed + excluded.observed," +
			" challenged = t.challenged + excluded.challenged, paid = t.paid + excluded.paid, delivered = t.delivered + excluded.delivered," +
			" worth = t.worth + excluded.worth, earned = t.earned + excluded.earned"
		for _, row := range rows {
			batch.Queue(put, row.Hour.Truncate(table.length), row.Site, row.Line, row.Kind, row.Name, row.Proof, row.Unit,
				row.Asked, row.Observed, row.Challenged, row.Paid, row.Delivered, row.Worth.String(), row.Earned.String())
		}
	}
	now := rows[0].Hour
	p.mu.Lock()
	isNew := p.pruned.Before(now)
	p.mu.Unlock()
	if isNew {
		batch.Queue("DELETE FROM paywall_traffic_hours WHERE hour < $1", now.Add(-keepHours))
	}
	if err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return tx.SendBatch(ctx, batch).Close() }); err != nil {
		return fmt.Errorf("adding counts: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pruned = now
	return nil
}

// Rows implements Reader.
func (p *Postgres) Rows(ctx context.Context, q Query) iter.Seq2[Row, error] {
	return partByPart(q, func(part span) (cursor, func(), error) {
		pool, err := p.open(ctx)
		if err != nil {
			return nil, nil, err
		}
		until := part.until
		if until.IsZero() {
			until = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
		}
		rows, err := pool.Query(ctx, "SELECT "+columns+" FROM paywall_traffic_"+part.table+" WHERE hour >= $1 AND hour < $2 ORDER BY "+keyColumns, part.since, until) //nolint:sqlclosecheck // partByPart closes it
		if err != nil {
			return nil, nil, fmt.Errorf("reading the counts: %w", err)
		}
		return rows, rows.Close, nil
	})
}

// Close implements io.Closer.
func (p *Postgres) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.pool != nil {
		p.pool.Close()
		p.pool = nil
	}
	return nil
}

// Interface guards
var (
	_ Store  = (*Postgres)(nil)
	_ Reader = (*Postgres)(nil)
)
