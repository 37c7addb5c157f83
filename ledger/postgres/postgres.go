// Package postgres is a ledger in a PostgreSQL database, shared by any number of
// gateways. Of all that present one authorization to any of them, one goes on.
//
// # How it works
//
// A call reads nothing that it knows already. It applies the rules of package
// ledger to the row as this gateway saw it last, and writes the outcome on the
// condition that the row is still that one: every change gives it a new random
// revision. A new payment is one INSERT ... ON CONFLICT DO NOTHING. Only when
// the condition fails, or the rules say no, does it read the row and judge
// again. So a payment is sold in five round trips, and concurrent calls share
// them: see lane.
//
// Leases are judged by the clock of the database alone; the clocks of the
// gateways may go as they like. Where a rule depends on the time, the
// condition has it: see plan.
//
// # What a crash of the database can take
//
// PostgreSQL writes one log, in the order of the commits. A commit that waits for
// the disk takes all earlier ones with it, also those that did not wait. So it
// is enough that some wait:
//
//   - Moves to Settling wait. Before anybody is asked for money, the row is on
//     disk, and the claim before it.
//   - Takes wait. They void the token of a holder who may still be alive; if they
//     set doubt, forgetting it would let the old holder free the row on a "no".
//   - Renewals wait. The holder goes on sending because nobody else may begin.
//     They come every ten seconds at most, and nobody waits for them.
//   - Claims do not. Nobody has been asked for money. A holder whose claim is lost
//     gets ErrLost from its move to Settling. An upstream that was started
//     before the settlement may be started again, by the same payment.
//   - Later moves do not. A row that is found in an earlier state, from Settling
//     on, is asked about again, or delivered again; its money is not moved again.
//   - Releases do not. The row is found Claimed or Settling, and is late in getting
//     free.
//
// The log is flushed soon after, within three times wal_writer_delay (0.6 s). A
// standby that takes over has what it has received: with several servers, set
// synchronous_standby_names, or the last moments before a failover are lost,
// moves to Settling among them.
package postgres

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// Defaults of the options.
const (
	DefaultKeepFinished   = 400 * 24 * time.Hour
	DefaultMaxConnections = 8
)

// Options are the options of a ledger.
type Options struct {
	// DSN says where the database is and who we are: a URL
	// (postgres://user:password@host/database?sslmode=verify-full) or words
	// (host=/run/postgresql dbname=paywall).
	DSN string
	// KeepFinished is how long finished payments stay, for accounting, after the
	// time for which the gateway itself needs them; 0 means DefaultKeepFinished,
	// and less than 0 for ever.
	KeepFinished time.Duration
	// HashQueries replaces the query of the URL of a finished payment by a keyed
	// hash of it; see ledger.HashQuery.
	HashQueries bool
	// MaxConnections is how many connections to open at most; 0 means
	// DefaultMaxConnections.
	MaxConnections int
	// ReadOnly is for who only looks: it makes no tables, and a standby will do.
	ReadOnly bool
	// Now is the clock; nil means that of the database, which all gateways share.
	Now func() time.Time
	// Random is where tokens come from; nil means crypto/rand. It must be safe
	// to read from several goroutines.
	Random io.Reader
	// Logger hears what goes wrong in the background; nil means nobody.
	Logger *zap.Logger
}

// Ledger is a ledger.Ledger in PostgreSQL.
//
// It connects when it is first used, or on Open, and again whenever that is
// needed. While the database cannot be reached, calls fail with
// ledger.ErrUnavailable.
type Ledger struct {
	config *pgxpool.Config
	reader bool
	now    func() time.Time
	random io.Reader
	logger *zap.Logger

	keepFinished atomic.Int64 // a time.Duration
	hashQueries  atomic.Bool
	queryKey     atomic.Pointer[[]byte] // nil until the database was opened

	// What waits for the database.
	mu    sync.Mutex
	seq   uint64
	lines map[ledger.Key]*line
	held  held
	// Calls that must be on disk before they return, and those that need not.
	durable, swift lane
	looks          looks

	opening opening
	users   users
	pruner  pruner
}

var (
	_ ledger.Ledger = (*Ledger)(nil)
	_ ledger.Chains = (*Ledger)(nil)
)

// ErrClosed is the error of calls after Close, together with
// ledger.ErrUnavailable.
var ErrClosed = errors.New("the ledger is closed")

// SetKeepFinished changes how long finished payments stay; 0 means
// DefaultKeepFinished, and less than 0 for ever.
func (l *Ledger) SetKeepFinished(d time.Duration) {
	if d == 0 {
		d = DefaultKeepFinished
	}
	l.keepFinished.Store(int64(d))
}

// SetHashQueries changes whether the queries of finished payments are hashed. Those
// that are finished stay as they are.
func (l *Ledger) SetHashQueries(on bool) { l.hashQueries.Store(on) }

// Claim implements ledger.Ledger.
func (l *Ledger) Claim(ctx context.Context, p ledger.Payment, lease time.Duration) (ledger.Claim, error) {
	p, err := storable(p)
	if err != nil {
		return ledger.Claim{}, err
	}
	if _, err := ledger.ApplyClaim(ledger.Payment{}, p, time.Unix(0, 0), lease); err != nil {
		return ledger.Claim{}, err
	}
	return l.hold(ctx, &op{kind: claiming, key: p.Key, payment: p, lease: lease})
}

// Take implements ledger.Ledger.
func (l *Ledger) Take(ctx context.Context, key ledger.Key, to ledger.State, lease time.Duration) (ledger.Claim, error) {
	return l.hold(ctx, &op{kind: taking, key: key, change: ledger.Change{To: to}, lease: lease})
}

// hold does a call by which the caller becomes the holder.
func (l *Ledger) hold(ctx context.Context, o *op) (ledger.Claim, error) {
	var err error
	if o.token, err = ledger.NewToken(l.random); err != nil {
		return ledger.Claim{}, err
	}
	p, err := l.do(ctx, o)
	if err != nil {
		return ledger.Claim{}, err
	}
	l.pruner.wake(l)
	return ledger.Claim{Token: o.token, Payment: p}, nil
}

// Renew implements ledger.Ledger.
func (l *Ledger) Renew(ctx context.Context, c ledger.Claim, lease time.Duration) error {
	_, err := l.do(ctx, &op{kind: renewing, key: c.Payment.Key, token: c.Token, lease: lease})
	return err
}

// Move implements ledger.Ledger.
func (l *Ledger) Move(ctx context.Context, c ledger.Claim, ch ledger.Change) (ledger.Payment, error) {
	return l.do(ctx, &op{kind: moving, key: c.Payment.Key, token: c.Token, change: storableChange(ch)})
}

// Get implements ledger.Ledger.
func (l *Ledger) Get(ctx context.Context, key ledger.Key) (ledger.Payment, error) {
	return l.do(ctx, &op{kind: getting, key: key})
}
