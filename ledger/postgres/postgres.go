// Package postgres is a ledger in a PostgreSQL database, shared by any number of
// gateways. Of all that present one authorization to any of them, one goes on.
//
// # How it works
//
// Calls that wait go together. The clock is read, and those of their rows that this
// gateway cannot guess; the rules of package ledger judge the calls, one after the other;
// what they have changed is written in one transaction. That is two round trips, for one
// call as for a hundred. Nothing is locked between the two: a row is written if nobody
// else has written it meanwhile (its xmin is the same), and a new one if there is none.
// Calls whose row was another are judged again, by the row as it is.
//
// Leases are judged by the clock of the database alone; the clocks of the gateways may go
// as they like.
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
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
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
	// Presence is a folder where gateways of this machine show that they live, so that the
	// claims of one that was killed are free at once for those who use the same folder; ""
	// shows nothing.
	Presence string
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
	pool   *pgxpool.Pool
	reader bool
	now    func() time.Time
	random io.Reader
	logger *zap.Logger

	keepFinished atomic.Int64 // a time.Duration
	hashQueries  atomic.Bool
	queryKey     atomic.Pointer[[]byte] // nil until the database was opened

	// Who waits for the database: with calls that must be on disk before they return,
	// with those that need not, and with questions.
	durable, swift group[*call]
	looks          group[*look]

	peers  peers
	prunes sync.Once
	quit   chan struct{} // closed by Close

	mu      sync.Mutex
	opening *attempt
	failing bool // the database cannot be used, and the log has it
	closed  bool
	used    time.Time     // when the latest call began
	quiet   time.Duration // for how long nobody must have come before a retired ledger closes
	holders map[ledger.Key]holder
	stuck   map[string]time.Time // rows that others have locked, by ID, and until when they are taken for such
	blamed  time.Time            // when it was last asked who locks our rows

	alone chan struct{} // holds one for each call that is written alone now

	presence  string    // the folder
	instance  string    // names this ledger in its tokens
	announced bool      // in the folder, or it was tried
	held      *heldFile // what shows that this process lives
}

var (
	_ ledger.Ledger  = (*Ledger)(nil)
	_ ledger.Chains  = (*Ledger)(nil)
	_ ledger.Secrets = (*Ledger)(nil)
)

// ErrClosed is the error of calls after Close, together with
// ledger.ErrUnavailable.
var ErrClosed = errors.New("the ledger is closed")

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
		config: config, reader: o.ReadOnly, now: o.Now, random: o.Random, logger: o.Logger,
		quit: make(chan struct{}), used: time.Now(), quiet: 2 * slowTimeout,
		holders: make(map[ledger.Key]holder), stuck: make(map[string]time.Time),
		alone: make(chan struct{}, max(1, config.MaxConns/2)), presence: o.Presence,
		peers: peers{answering: make(chan struct{}, maxAnswering), asked: make(map[string]chan []byte)},
	}
	l.durable.do = func(batch []*call) { l.start(batch, true) }
	l.swift.do = func(batch []*call) { l.start(batch, false) }
	l.looks.do = func(batch []*look) { l.answer(context.Background(), batchTimeout, batch) }
	l.SetKeepFinished(o.KeepFinished)
	l.SetHashQueries(o.HashQueries)
	if l.random == nil {
		l.random = rand.Reader
	}
	if l.logger == nil {
		l.logger = zap.NewNop()
	}
	l.instance = newInstance(l.random)
	l.pool, err = pgxpool.NewWithConfig(context.Background(), config)
	return l, err
}

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
	if clean(string(p.Key)) != string(p.Key) {
		return ledger.Claim{}, fmt.Errorf("%w: the key is not text", ledger.ErrInvalid)
	}
	if _, err := ledger.ApplyClaim(ledger.Payment{}, p, time.Unix(0, 0), lease); err != nil {
		return ledger.Claim{}, err
	}
	p = p.Clone()
	return l.hold(ctx, false, &call{key: p.Key, anew: true, apply: func(row ledger.Payment, now time.Time) (ledger.Payment, error) {
		return ledger.ApplyClaim(row, p, now, lease)
	}})
}

// Take implements ledger.Ledger.
func (l *Ledger) Take(ctx context.Context, key ledger.Key, to ledger.State, lease time.Duration) (ledger.Claim, error) {
	return l.hold(ctx, true, &call{key: key, apply: func(row ledger.Payment, now time.Time) (ledger.Payment, error) {
		if row.Key == "" {
			return row, ledger.ErrNotFound
		}
		return ledger.ApplyTake(row, to, now, lease)
	}})
}

// hold does a call by which the caller becomes the holder.
func (l *Ledger) hold(ctx context.Context, durable bool, c *call) (_ ledger.Claim, err error) {
	c.holds = true
	if c.token, err = l.newToken(); err != nil {
		return ledger.Claim{}, err
	}
	p, err := l.do(ctx, c, durable)
	if err != nil {
		return ledger.Claim{}, err
	}
	l.prunes.Do(func() {
		go l.pruneAlways()
		go l.listen()
		if l.presence != "" {
			go l.lookForDead()
		}
	})
	return ledger.Claim{Token: c.token, Payment: p}, nil
}

// Renew implements ledger.Ledger.
func (l *Ledger) Renew(ctx context.Context, c ledger.Claim, lease time.Duration) error {
	_, err := l.do(ctx, &call{key: c.Payment.Key, token: c.Token, apply: func(row ledger.Payment, now time.Time) (ledger.Payment, error) {
		return ledger.ApplyRenew(row, now, lease)
	}}, true)
	return err
}

// Move implements ledger.Ledger.
func (l *Ledger) Move(ctx context.Context, c ledger.Claim, ch ledger.Change) (ledger.Payment, error) {
	ch = ch.Clone()
	return l.do(ctx, &call{key: c.Payment.Key, token: c.Token, apply: func(row ledger.Payment, now time.Time) (ledger.Payment, error) {
		return ledger.ApplyMove(row, ch, now)
	}}, ch.To == ledger.Settling)
}

// begin is what every call does first.
func (l *Ledger) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, ErrClosed)
	}
	l.used = time.Now()
	return nil
}

// Retire closes the ledger when its last user is gone: no call began for longer than
// any takes, and no lease runs that was given out here. Requests that began before a
// reload finish with the ledger that they began with.
func (l *Ledger) Retire() {
	go func() {
		for l.live() || !l.idle() {
			time.Sleep(l.quiet / 60)
		}
		l.Close()
	}()
}

func (l *Ledger) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.used) >= l.quiet
}

// Close ends the connections once the transactions under way are done. Later calls
// get ErrClosed.
func (l *Ledger) Close() {
	l.mu.Lock()
	if !l.closed {
		close(l.quit)
	}
	l.closed = true
	l.mu.Unlock()
	l.pool.Close()
	l.leave()
}
