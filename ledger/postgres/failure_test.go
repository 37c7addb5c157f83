package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

func TestChangedNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want bool
	}{
		{"statement failed", &pgconn.PgError{SeverityUnlocalized: "ERROR", Code: "53100"}, true},
		{"connection ended by the server", &pgconn.PgError{SeverityUnlocalized: "FATAL", Code: "57P01"}, false},
		{"no connection", unsent{&pgconn.PgError{SeverityUnlocalized: "FATAL", Code: "53300"}}, true},
		{"wrapped", fmt.Errorf("x: %w", unsent{errors.New("x")}), true},
		{"broken", errors.New("unexpected EOF"), false},
		{"too late", context.DeadlineExceeded, false},
	} {
		if got := changedNothing(c.err); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// wantUnavailable tests that a call failed, and surely has changed nothing.
func wantUnavailable(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("%s: %v, want ErrUnavailable", what, err)
	}
}

// wantUnknown tests that the outcome of a call is not known.
func wantUnknown(t *testing.T, what string, err error) {
	t.Helper()
	for _, named := range []error{nil, ledger.ErrUnavailable, ledger.ErrLost, ledger.ErrNotFound, ledger.ErrInvalid, ledger.ErrFull} {
		if errors.Is(err, named) {
			t.Errorf("%s: %v, want an error without a name", what, err)
		}
	}
}

// TestDown: without a database nothing happens, quickly, and with it all goes on
// without a restart.
func TestDown(t *testing.T) {
	s := ownServer(t)
	s.stop(syscall.SIGINT)
	l := s.gateway(t, "public", Options{})
	begin := time.Now()
	wantUnavailable(t, "Open", l.Open(t.Context()))
	_, err := l.Claim(t.Context(), sample(1), lease)
	wantUnavailable(t, "Claim", err)
	_, err = l.Get(t.Context(), "k")
	wantUnavailable(t, "Get", err)
	for _, err := range l.List(t.Context(), ledger.Filter{}) {
		wantUnavailable(t, "List", err)
	}
	wantUnavailable(t, "RememberGenesis", l.RememberGenesis(t.Context(), "eip155:1", "0x1"))
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %s to see that the database is down", took)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	c, err := l.Claim(t.Context(), sample(1), lease)
	if err != nil {
		t.Fatalf("Claim after the start: %v", err)
	}
	s.stop(syscall.SIGINT)
	_, err = l.Move(t.Context(), c, ledger.Change{To: ledger.Settling})
	if err == nil {
		t.Error("Move without a database")
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settling}); err != nil {
		t.Errorf("Move after a restart: %v", err)
	}
	l.Close()
	_, err = l.Get(t.Context(), "k")
	wantUnavailable(t, "Get after Close", err)
}

// TestLostAnswer: the database commits and the connection breaks before it can
// say so. The call's outcome is not known, and not called unavailable.
func TestLostAnswer(t *testing.T) {
	l := open(t, Options{})
	var cut atomic.Bool
	commit := &commitWatch{then: func() { cut.Store(true) }}
	l.config.ConnConfig.Tracer = commit
	dial := l.config.ConnConfig.DialFunc
	l.config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return &deafConn{conn, &cut}, err
	}
	if err := sell(l, sample(2)); err != nil { // so that the statements are prepared
		t.Fatal(err)
	}
	c, err := l.Claim(t.Context(), sample(1), lease)
	if err != nil {
		t.Fatal(err)
	}
	commit.await()
	_, err = l.Move(t.Context(), c, ledger.Change{To: ledger.Settling})
	wantUnknown(t, "Move", err)
	_, err = l.Get(t.Context(), c.Payment.Key)
	wantUnavailable(t, "Get", err)
	cut.Store(false)
	if p, err := l.Get(t.Context(), c.Payment.Key); err != nil || p.State != ledger.Settling {
		t.Errorf("the row is %s, %v", p.State, err)
	}
	// What the gateway thought of the row is forgotten, and the holder goes on.
	if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settled}); err != nil {
		t.Errorf("Move: %v", err)
	}
}

// commitWatch does something once when changes are about to be made.
type commitWatch struct {
	awaited atomic.Bool
	then    func()
}

func (w *commitWatch) await() { w.awaited.Store(true) }

func (w *commitWatch) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (w *commitWatch) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (w *commitWatch) TraceBatchStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceBatchStartData) context.Context {
	all := d.Batch.QueuedQueries
	if strings.HasPrefix(all[len(all)-1].SQL, "UPDATE") && w.awaited.CompareAndSwap(true, false) {
		w.then()
	}
	return ctx
}
func (w *commitWatch) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (w *commitWatch) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// deafConn sends and, when it is cut, does not hear.
type deafConn struct {
	net.Conn
	cut *atomic.Bool
}

func (c *deafConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.cut.Load() {
		return 0, net.ErrClosed
	}
	return n, err
}

// TestSlow: another transaction sits on the row. Callers go when their time is
// up, and the database gives up.
func TestSlow(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	l := s.gateway(t, schema, Options{})
	c, err := l.Claim(t.Context(), sample(1), lease)
	if err != nil {
		t.Fatal(err)
	}
	other, err := pgx.Connect(t.Context(), s.dsn(schema))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.Background())
	if _, err := other.Exec(t.Context(), "BEGIN; SELECT 1 FROM paywall_payments FOR UPDATE"); err != nil {
		t.Fatal(err)
	}

	_, err = l.Move(t.Context(), c, ledger.Change{To: ledger.Settling})
	wantUnavailable(t, "Move of a locked row", err)

	sent, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	var all sync.WaitGroup
	all.Go(func() {
		_, err := l.Move(sent, c, ledger.Change{To: ledger.Settling})
		wantUnknown(t, "Move that was sent", err)
	})
	for waiting := 0; waiting == 0; {
		if err := other.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE NOT granted").Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = l.Move(short, c, ledger.Change{To: ledger.Settling})
	wantUnavailable(t, "Move that was not sent", err)
	giveUp()
	all.Wait()

	if _, err := other.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if p, err := l.Get(t.Context(), c.Payment.Key); err != nil || p.State != ledger.Claimed && p.State != ledger.Settling {
		t.Errorf("the row is %s, %v", p.State, err)
	}
}

// TestFewConnections: the database gives us fewer connections than we would take.
func TestFewConnections(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	s.exec(t, schema, fmt.Sprintf("CREATE ROLE few_%[1]s LOGIN CONNECTION LIMIT 1; GRANT ALL ON SCHEMA %[1]s TO few_%[1]s", schema))
	l, err := New(Options{DSN: strings.Replace(s.dsn(schema), "user=gateway", "user=few_"+schema, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var all sync.WaitGroup
	for i := range uint64(200) {
		all.Go(func() {
			if err := sell(l, sample(i)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// TestWhatCameTooLateDoesNotHappen: a call that found no connection in time is not made
// when there is one: its payment would be held for nobody.
func TestWhatCameTooLateDoesNotHappen(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	s.exec(t, schema, fmt.Sprintf("CREATE ROLE late_%[1]s LOGIN CONNECTION LIMIT 1; GRANT ALL ON SCHEMA %[1]s TO late_%[1]s", schema))
	dsn := strings.Replace(s.dsn(schema), "user=gateway", "user=late_"+schema, 1)
	l, err := New(Options{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.pool.Reset()
	var other *pgx.Conn
	for other == nil {
		other, _ = pgx.Connect(t.Context(), dsn)
	}
	var all sync.WaitGroup
	for i := range uint64(200) {
		all.Go(func() {
			_, err := within(time.Second, func(ctx context.Context) (any, error) { return l.Claim(ctx, sample(i), lease) })
			wantUnavailable(t, "Claim without a connection", err)
		})
	}
	all.Wait()
	other.Close(t.Context())
	if _, err := l.Claim(t.Context(), sample(1000), lease); err != nil {
		t.Fatal(err)
	}
	if n := s.rows(t, schema, "true"); n != 1 {
		t.Errorf("%d payments, want the last one", n)
	}
}

// TestReadOnly: a server that is not the primary is no ledger, until it is.
func TestReadOnly(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	role := "standby_" + schema
	s.exec(t, schema, fmt.Sprintf("CREATE ROLE %[2]s LOGIN; GRANT ALL ON SCHEMA %[1]s TO %[2]s", schema, role))
	l, err := New(Options{DSN: strings.Replace(s.dsn(schema), "user=gateway", "user="+role, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := l.Claim(t.Context(), sample(1), lease)
	if err != nil {
		t.Fatal(err)
	}
	s.exec(t, schema, fmt.Sprintf("ALTER ROLE %s SET default_transaction_read_only = on", role))
	l.pool.Reset()
	_, err = l.Move(t.Context(), c, ledger.Change{To: ledger.Settling})
	wantUnavailable(t, "Move", err)
	s.exec(t, schema, fmt.Sprintf("ALTER ROLE %s RESET default_transaction_read_only", role))
	if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settling}); err != nil {
		t.Errorf("Move: %v", err)
	}
}

// TestSettings: the durable moves do not depend on what a role or a database
// has set.
func TestSettings(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	role := "lax_" + schema
	s.exec(t, schema, fmt.Sprintf(`CREATE ROLE %[2]s LOGIN; GRANT ALL ON SCHEMA %[1]s TO %[2]s;
		ALTER ROLE %[2]s SET synchronous_commit = off;
		ALTER ROLE %[2]s SET default_transaction_isolation = 'serializable'`, schema, role))
	l, err := New(Options{DSN: strings.Replace(s.dsn(schema), "user=gateway", "user="+role, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := sell(l, sample(1)); err != nil {
		t.Fatal(err)
	}
	var commit, isolation string
	if err := l.pool.QueryRow(t.Context(), `SELECT current_setting('synchronous_commit'), current_setting('transaction_isolation')`).Scan(&commit, &isolation); err != nil {
		t.Fatal(err)
	}
	if commit != "on" || isolation != "read committed" {
		t.Errorf("synchronous_commit = %s, transactions are %s", commit, isolation)
	}
}

// TestCommitFails: all statements go well, and the transaction does not.
func TestCommitFails(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	l := s.gateway(t, schema, Options{})
	if err := l.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.exec(t, schema, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$;
		CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON paywall_payments DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW EXECUTE FUNCTION refuse()`)
	_, err := l.Claim(t.Context(), sample(1), lease)
	wantUnavailable(t, "Claim", err)
	if _, err := l.Get(t.Context(), sample(1).Key); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
}
