package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

const (
	// batchTimeout ends a transaction whose connection is dead and does not say so. The
	// database gives up before; see sessionSettings.
	batchTimeout = 5 * time.Second
	// maxTries is how often a batch is tried while other gateways are in its way.
	maxTries = 20
)

// call is one call that may change a row.
type call struct {
	key ledger.Key
	id  string // of the key
	// apply is the rule that the call goes by.
	apply func(row ledger.Payment, now time.Time) (ledger.Payment, error)
	// token is the caller's, or, if he becomes the holder, his new one.
	token ledger.Token
	holds bool
	anew  bool // the row starts anew

	due time.Time // when the caller gives up; zero: never

	// begun is set by who comes first: the writer, from when on the change may happen, or
	// the caller, who gives up before that.
	begun atomic.Bool
	ours  bool // the writer has set begun
	done  chan struct{}
	row   ledger.Payment
	err   error
}

// do lets a call share a transaction with others, and waits for the answer. A durable one
// is on disk by then. The comment of the package says which have to be.
func (l *Ledger) do(ctx context.Context, c *call, durable bool) (ledger.Payment, error) {
	if err := l.begin(ctx); err != nil {
		return ledger.Payment{}, err
	}
	c.id, c.done = ledger.ID(c.key), make(chan struct{})
	c.due, _ = ctx.Deadline()
	if durable {
		l.durable.add(c)
	} else {
		l.swift.add(c)
	}
	select {
	case <-c.done:
		return c.row, c.err
	case <-ctx.Done():
	}
	if c.begun.CompareAndSwap(false, true) {
		return ledger.Payment{}, fmt.Errorf("%w: %w", ledger.ErrUnavailable, ctx.Err())
	}
	select {
	case <-c.done: // at the same time
		return c.row, c.err
	default:
		return ledger.Payment{}, ctx.Err() // it may happen yet
	}
}

// start executes a batch, without the calls whose rows were locked a moment ago.
func (l *Ledger) start(batch []*call, durable bool) {
	l.execute(slices.DeleteFunc(batch, func(c *call) bool {
		stuck := l.isStuck(c.id)
		if stuck {
			l.goAlone([]*call{c}, durable)
		}
		return stuck
	}), durable)
}

// begin says whether the call is to be made: unless its caller has given up, or is about
// to. What happened after that he would not know.
func (c *call) begin() bool {
	if !c.ours && c.patience() > 0 {
		c.ours = c.begun.CompareAndSwap(false, true)
	}
	return c.ours
}

// errBusy is for who has waited too long for a row that others change all the time.
var errBusy = errors.New("the payment changes all the time")

// execute makes the changes of a batch and answers its calls.
func (l *Ledger) execute(batch []*call, durable bool) {
	var err error
	aside := false
	for n := 0; len(batch) > 0 && n < maxTries; n++ {
		batch, err = l.write(batch, try{durable: durable, guess: n == 0})
		switch {
		case locked(err) && aside:
			// Of a row that another transaction is about to insert nobody can tell before.
			l.goAlone(batch, durable)
			return
		case locked(err):
			aside = true
			batch, err = l.setAside(batch, durable)
		}
		if err != nil && !transient(err) {
			break
		}
	}
	if err == nil {
		err = unsent{errBusy}
	}
	for i, c := range batch {
		if spoiled(err) && len(batch) > 1 { // the others shall not suffer for the one that is the cause
			l.execute(batch[i:i+1], durable)
		} else {
			c.fail(err)
		}
	}
}

// fail answers a call whose transaction has failed.
func (c *call) fail(err error) {
	c.row = ledger.Payment{}
	switch {
	case c.err == nil && !changedNothing(err):
		c.err = fmt.Errorf("no answer from the database: %s", plain(err))
	case spoiled(err):
		c.err = fmt.Errorf("%w: the database does not take the payment: %s", ledger.ErrInvalid, plain(err))
	default:
		c.err = unavailable(err)
	}
	close(c.done)
}

// try is how a batch is written.
type try struct {
	durable bool
	guess   bool // what rows are like that are likely known
	watched bool // while it waits for a lock the log is told who has that
}

// write reads the rows of a batch, lets the rules judge the calls, and writes in one
// transaction what they have changed. It answers the calls, unless there is an error, and
// returns those that have no answer: without an error, because their row is not the one
// that was read, or guessed.
func (l *Ledger) write(batch []*call, t try) (left []*call, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
	defer cancel()
	conn, err := l.connect(ctx)
	if err != nil {
		return batch, err
	}
	defer conn.Release()
	// Nobody gives up any more from here on: it can have taken long to come so far.
	if batch = slices.DeleteFunc(batch, func(c *call) bool { return !c.begin() }); len(batch) == 0 {
		return nil, nil
	}
	if t.watched {
		defer l.watch(ctx, conn)()
	}
	rows, now, err := l.read(ctx, conn, batch, t)
	if err != nil {
		l.learn(err)
		return batch, unsent{err}
	}
	for _, c := range batch {
		c.judge(rows[c.id], now)
	}
	if statements := l.changes(rows, t); statements.Len() > 0 {
		if err := conn.SendBatch(ctx, statements).Close(); err != nil {
			l.learn(err)
			return batch, err
		}
	}
	for _, c := range batch {
		if rows[c.id].missed {
			left = append(left, c)
			continue
		}
		l.noteHolder(c, rows[c.id], now)
		close(c.done)
	}
	return left, nil
}

// read reads the clock, and the rows of the calls that cannot be guessed.
func (l *Ledger) read(ctx context.Context, conn *pgxpool.Conn, batch []*call, t try) (rows map[string]*row, now time.Time, err error) {
	rows = make(map[string]*row, len(batch))
	var unknown []string
	for _, c := range batch {
		if rows[c.id] != nil {
			continue
		}
		r := &row{payment: ledger.Payment{ID: c.id}}
		if !t.guess || !l.guess(c, r) {
			unknown = append(unknown, c.id)
		}
		rows[c.id] = r
	}
	statements := &pgx.Batch{}
	if len(unknown) > 0 {
		statements.Queue(selectByID, unknown).Query(func(found pgx.Rows) error {
			return scanAll(found, func(r *row) { rows[r.payment.ID] = r })
		})
	}
	statements.Queue("SELECT clock_timestamp()").QueryRow(func(r pgx.Row) error { return r.Scan(&now) })
	if err := conn.SendBatch(ctx, statements).Close(); err != nil {
		return nil, now, err
	}
	if l.now != nil {
		now = l.now()
	}
	return rows, now.UTC().Truncate(time.Microsecond), nil
}

// judge applies the rules to the row as calls before have left it.
func (c *call) judge(r *row, now time.Time) {
	switch p := r.payment; {
	case p.Key != "" && p.Key != c.key:
		c.err = fmt.Errorf("payment %s has another key of the same name", p.ID)
	case !c.holds && (c.token == "" || c.token != r.token):
		c.err = ledger.ErrLost
	default:
		c.row, c.err = c.apply(p, now)
	}
	if c.err != nil {
		c.err = ledger.CloneTaken(c.err)
		r.missed = r.missed || r.guessed // only a row that was read can say no
		return
	}
	if !r.changed {
		r.was, r.changed = r.payment, true
	}
	r.payment, r.anew = c.row, r.anew || c.anew
	r.clean()
	switch {
	case c.holds:
		r.token = c.token
	case r.payment.Lease.IsZero():
		r.token = ""
	}
	c.row = r.payment.Clone()
}

// changes are the statements that write the rows as the calls have left them, in the order
// of their IDs: two gateways that write the same ones do not wait for each other. They are
// one transaction, and the first to change a row after it was read wins it.
func (l *Ledger) changes(rows map[string]*row, t try) *pgx.Batch {
	var stored [len(writes)][]*row
	for _, id := range slices.Sorted(maps.Keys(rows)) {
		r := rows[id]
		how, ok := r.write()
		if !ok || r.missed {
			continue
		}
		r.missed = true
		s := *r
		s.payment.URL = l.storedURL(&r.payment)
		stored[how] = append(stored[how], &s)
	}
	statements := &pgx.Batch{}
	for how, stored := range stored {
		if len(stored) == 0 {
			continue
		}
		if statements.Len() == 0 && !t.durable {
			statements.Queue("SELECT set_config('synchronous_commit', 'off', true)")
		}
		statements.Queue(writes[how].sql, writes[how].arrays(stored)...).Query(func(written pgx.Rows) error {
			var name string
			var version uint32
			_, err := pgx.ForEachRow(written, []any{id{&name}, &version}, func() error {
				rows[name].missed, rows[name].version = false, version
				return nil
			})
			return err
		})
	}
	return statements
}

// write says how the row is to be written, if it is.
func (r *row) write() (how int, ok bool) {
	switch {
	case !r.changed:
		return 0, false
	case r.was.Key == "":
		return insert, true
	case r.payment.State == ledger.Released: // anybody can have made it, for nothing, and it is free
		return remove, true
	case r.anew:
		return replace, true
	case same(r.was.Request, r.payment.Request) && same(r.was.Answer, r.payment.Answer):
		return update, true
	default:
		return updateKept, true
	}
}

// same says whether the rules have handed on the same bytes. They are the largest part of
// a row, and stay in most changes.
func same(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
