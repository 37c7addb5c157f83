package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// unsent is an error from before a transaction could have been committed.
type unsent struct{ error }

func (e unsent) Unwrap() error { return e.error }

// changedNothing says whether the failure of a transaction proves that it has
// changed nothing. A connection that broke proves nothing: the database may have
// committed, and the answer is what was lost.
func changedNothing(err error) bool {
	if _, ok := errors.AsType[unsent](err); ok || pgconn.SafeToRetry(err) {
		return true
	}
	if _, ok := errors.AsType[pgx.ErrPreprocessingBatch](err); ok {
		return true
	}
	// ERROR is the end of a transaction, FATAL that of a connection.
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.SeverityUnlocalized == "ERROR"
}

// transient says whether the same can succeed at once: others were in the way,
// or the connection knew the tables as they were before.
func transient(err error) bool {
	return changedNothing(err) && code(err,
		"40001", // serialization failure
		"40P01", // deadlock
		"0A000", // a prepared statement that no longer fits
		"26000", // a prepared statement that is gone
	)
}

// spoiled says whether the values were the cause.
func spoiled(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || !changedNothing(err) || len(e.Code) != 5 {
		return false
	}
	switch e.Code[:2] {
	case "22", "23", "54": // data exception, constraint, program limit
		return true
	}
	return false
}

// full says that the database is there and asks us to come back: too many
// connections, or starting up.
func full(err error) bool { return code(err, "53300", "57P03") }

func code(err error, codes ...string) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains(codes, e.Code)
}

// learn draws the consequences of an error beyond the call that met it.
func (l *Ledger) learn(err error) {
	switch {
	case broken(err), code(err, "25006"): // gone, or read only: no longer the primary
		l.pool.Reset() // new connections look for the primary
	case code(err, "42P01", "42703"): // no such table or column: another database
		l.mu.Lock()
		l.opening = nil
		l.mu.Unlock()
	}
}

// broken says that a connection has broken. The others are then too, more likely
// than not, and each would have to be found out.
func broken(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return !ok || e.SeverityUnlocalized != "ERROR"
}

// unavailable is the error of a call that has changed nothing.
func unavailable(err error) error {
	return fmt.Errorf("%w: %s", ledger.ErrUnavailable, plain(err))
}

// plain is the text of an error without who we are to the database.
func plain(err error) string {
	if e, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		err = e.Unwrap()
	}
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if strings.Contains(text, "unsupported startup parameter") {
		text += ": a pooler such as PgBouncer is between, and does not take our settings; give the ledger a way to the database itself"
	}
	return text
}

const (
	connectTimeout = 3 * time.Second
	retryConnect   = 50 * time.Millisecond
)

// connect returns a connection to the open ledger. Every error is an unsent.
func (l *Ledger) connect(ctx context.Context) (*pgxpool.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	for {
		err := l.open(ctx)
		if err == nil {
			var conn *pgxpool.Conn
			if conn, err = l.pool.Acquire(ctx); err == nil {
				return conn, nil
			}
		}
		if !full(err) {
			return nil, unsent{err}
		}
		select {
		case <-ctx.Done():
			return nil, unsent{err}
		case <-time.After(retryConnect):
		}
	}
}

// send sends statements that are a transaction of their own.
func (l *Ledger) send(ctx context.Context, statements *pgx.Batch) error {
	conn, err := l.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if err = conn.SendBatch(ctx, statements).Close(); err != nil {
		l.learn(err)
	}
	return err
}
