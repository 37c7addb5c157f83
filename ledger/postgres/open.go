package postgres

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// openTimeout bounds an attempt to open, migration included.
const openTimeout = 2 * time.Minute

// New makes a ledger. It reads the DSN and connects to nothing.
func New(o Options) (*Ledger, error) {
	config, err := parseDSN(o.DSN)
	if err != nil {
		return nil, err
	}
	if o.ReadOnly {
		config.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
	} else if config.ConnConfig.ValidateConnect == nil {
		// Of several hosts, the one that is the primary now.
		config.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	config.MaxConns = DefaultMaxConnections
	if o.MaxConnections > 0 {
		config.MaxConns = int32(min(o.MaxConnections, 1<<15)) //nolint:gosec // bounded
	}
	l := &Ledger{
		config:  config,
		reader:  o.ReadOnly,
		now:     o.Now,
		random:  o.Random,
		logger:  o.Logger,
		lines:   make(map[ledger.Key]*line),
		held:    held{rows: make(map[ledger.Key]heldRow), sweepAt: minSweep},
		durable: lane{durable: true},
		pruner:  pruner{stop: make(chan struct{})},
	}
	l.SetKeepFinished(o.KeepFinished)
	l.SetHashQueries(o.HashQueries)
	if l.random == nil {
		l.random = rand.Reader
	}
	if l.logger == nil {
		l.logger = zap.NewNop()
	}
	l.users.last, l.users.quiet = time.Now(), time.Minute
	return l, nil
}

// Open opens the ledger if it is not open; calls of the other methods do so too.
func (l *Ledger) Open(ctx context.Context) error {
	if _, err := l.open(ctx); err != nil {
		return fmt.Errorf("%w: %s", ledger.ErrUnavailable, plain(err))
	}
	return nil
}

// opening is the way to the database.
type opening struct {
	mu      sync.Mutex
	pool    *pgxpool.Pool
	ready   bool
	closed  bool
	failing bool // and said so in the log
	attempt *attempt
}

// attempt is one attempt to open, for which all wait who need it.
type attempt struct {
	done chan struct{}
	pool *pgxpool.Pool
	err  error
}

// open returns the connections to a database that is fit for use, or why there
// are none.
func (l *Ledger) open(ctx context.Context) (*pgxpool.Pool, error) {
	o := &l.opening
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return nil, ErrClosed
	}
	if o.ready {
		defer o.mu.Unlock()
		return o.pool, nil
	}
	a := o.attempt
	if a == nil {
		a = &attempt{done: make(chan struct{})}
		o.attempt = a
		go l.try(a) //nolint:gosec // others wait for it too
	}
	o.mu.Unlock()
	select {
	case <-a.done:
		return a.pool, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// try makes an attempt.
func (l *Ledger) try(a *attempt) {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	o := &l.opening
	o.mu.Lock()
	pool, err := o.pool, error(nil)
	if o.closed {
		err = ErrClosed
	} else if pool == nil {
		pool, err = pgxpool.NewWithConfig(ctx, l.config) // connects to nothing yet
		o.pool = pool
	}
	o.mu.Unlock()
	if err == nil {
		err = l.prepareDatabase(ctx, pool)
	}

	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err != nil && !o.failing:
		l.logger.Error("the ledger's database cannot be used", zap.String("error", plain(err)))
	case err == nil && o.failing:
		l.logger.Info("the ledger's database can be used again")
	}
	o.failing, o.ready, o.attempt = err != nil, err == nil && !o.closed, nil
	a.pool, a.err = pool, err
	close(a.done)
}

// prepareDatabase looks whether the database is one that can keep a ledger, and
// brings its tables up to date.
func (l *Ledger) prepareDatabase(ctx context.Context, pool *pgxpool.Pool) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var encoding, fsync string
	err = conn.QueryRow(ctx, `SELECT current_setting('server_encoding'), current_setting('fsync')`).Scan(&encoding, &fsync)
	if err != nil {
		return err
	}
	if encoding != "UTF8" {
		return fmt.Errorf("the database is in %s; the ledger needs one in UTF8", encoding)
	}
	if fsync != "on" {
		l.logger.Warn("the database runs with fsync off: payments can be lost when it crashes")
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if !l.reader {
			if err := migrate(ctx, tx); err != nil {
				return err
			}
			return l.loadQueryKey(ctx, tx)
		}
		version, err := schemaVersion(ctx, tx)
		if err == nil && version < latest {
			err = fmt.Errorf("the ledger's tables are of version %d, or missing; this program reads version %d", version, latest)
		}
		if err != nil {
			return err
		}
		return l.loadQueryKey(ctx, tx)
	})
}

// reset closes the connections; new ones look for the primary.
func (o *opening) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pool != nil {
		o.pool.Reset()
	}
}

// reopen lets the next call look at the database again.
func (o *opening) reopen() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ready = false
}

func (o *opening) close() {
	o.mu.Lock()
	pool := o.pool
	o.closed, o.ready, o.pool = true, false, nil
	o.mu.Unlock()
	if pool != nil {
		pool.Close()
	}
}
