package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// forgotten is a transaction that somebody has begun and does not end.
func (s *server) forgotten(t *testing.T, schema, sql string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.dsn(schema))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(t.Context(), "BEGIN; "+sql); err != nil {
		t.Fatal(err)
	}
	return conn
}

// within calls the ledger as those do who handle money, with less time than a lock may
// take: who is held up by another's row gets no answer.
func within[T any](d time.Duration, call func(ctx context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return call(ctx)
}

// TestALockedRowHoldsUpItsOwnCallAlone: an operator has forgotten a transaction.
func TestALockedRowHoldsUpItsOwnCallAlone(t *testing.T) {
	const theRow = "WHERE id = '%[1]s'"
	for _, tt := range []struct {
		name, sql string
		claimed   bool // the row is there, and held
	}{
		{"locked", "SELECT 1 FROM paywall_payments " + theRow + " FOR UPDATE", true},
		{"changed", "UPDATE paywall_payments SET reason = 'mine' " + theRow, true},
		{"removed", "DELETE FROM paywall_payments " + theRow, true},
		{"about to be there", "INSERT INTO paywall_payments SELECT * FROM jsonb_populate_record((SELECT p FROM paywall_payments p LIMIT 1), jsonb_build_object('id', '%[1]s'))", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := theServer(t)
			schema := s.newSchema(t)
			core, logs := observer.New(zapcore.ErrorLevel)
			l := s.gateway(t, schema, Options{Logger: zap.New(core)})
			const stuck, others = 1, 300
			if _, err := l.Claim(t.Context(), sample(2), lease); err != nil {
				t.Fatal(err)
			}
			var held ledger.Claim
			var err error
			if tt.claimed {
				if held, err = l.Claim(t.Context(), sample(stuck), lease); err != nil {
					t.Fatal(err)
				}
			}
			operator := s.forgotten(t, schema, fmt.Sprintf(strings.Replace(tt.sql, "SELECT * FROM jsonb", "(id, status, runs, doubt, state, payer, amount, facilitator, transaction, reason, key, scheme, network, asset, pay_to, method, host, client, identifier, body, url, created, updated) SELECT id, status, runs, doubt, state, payer, amount, facilitator, transaction, reason, key, scheme, network, asset, pay_to, method, host, client, identifier, body, url, created, updated FROM jsonb", 1), ledger.ID(sample(stuck).Key)))
			var all sync.WaitGroup
			var slowest time.Duration
			var mu sync.Mutex
			for n := range 4 { // also while it is known
				all.Go(func() {
					_, err := within(ledger.CallWithin, func(ctx context.Context) (any, error) {
						if tt.claimed {
							return l.Move(ctx, held, ledger.Change{To: ledger.Settling})
						}
						return l.Claim(ctx, sample(stuck), lease)
					})
					wantUnavailable(t, "the call of the locked row", err)
				})
				for i := range others {
					all.Go(func() {
						begun := time.Now()
						_, err := within(lockPatience, func(ctx context.Context) (any, error) {
							return l.Claim(ctx, sample(uint64(1000*(n+1)+i)), lease)
						})
						if err != nil {
							t.Errorf("another payment: %v", err)
						}
						mu.Lock()
						slowest = max(slowest, time.Since(begun))
						mu.Unlock()
					})
				}
				time.Sleep(200 * time.Millisecond)
			}
			all.Wait()
			t.Logf("of %d others the slowest took %s", 4*others, slowest)
			told := logs.FilterMessageSnippet("holds up payments").All()
			if len(told) != 1 || told[0].ContextMap()["pid"] != int32(operator.PgConn().PID()) {
				t.Errorf("the log has %v, want the process %d", told, operator.PgConn().PID())
			}
			if _, err := operator.Exec(t.Context(), "ROLLBACK"); err != nil {
				t.Fatal(err)
			}
			if tt.claimed {
				_, err = l.Move(t.Context(), held, ledger.Change{To: ledger.Settling})
			} else {
				_, err = l.Claim(t.Context(), sample(stuck), lease)
			}
			if err != nil {
				t.Errorf("when it is free again: %v", err)
			}
			for l.isStuck(ledger.ID(sample(stuck).Key)) && !t.Failed() { // the answer comes a moment earlier
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// TestALockedTableHoldsEverybodyUpForAWhile: all get an answer, of which nothing is in doubt,
// and who can be served when it is free is served.
func TestALockedTableHoldsEverybodyUpForAWhile(t *testing.T) {
	for _, mode := range []string{"SHARE", "ACCESS EXCLUSIVE"} {
		t.Run(mode, func(t *testing.T) {
			s := theServer(t)
			schema := s.newSchema(t)
			core, logs := observer.New(zapcore.ErrorLevel)
			l := s.gateway(t, schema, Options{Logger: zap.New(core)})
			held, err := l.Claim(t.Context(), sample(0), lease)
			if err != nil {
				t.Fatal(err)
			}
			operator := s.forgotten(t, schema, "LOCK TABLE paywall_payments IN "+mode+" MODE")
			var all sync.WaitGroup
			for i := range uint64(300) {
				all.Go(func() {
					_, err := within(ledger.CallWithin, func(ctx context.Context) (any, error) {
						if i == 0 {
							return l.Move(ctx, held, ledger.Change{To: ledger.Settling})
						}
						return l.Claim(ctx, sample(i), lease)
					})
					wantUnavailable(t, "a call", err)
				})
			}
			all.Wait()
			told := logs.FilterMessageSnippet("holds up payments").All()
			if len(told) == 0 || told[0].ContextMap()["pid"] != int32(operator.PgConn().PID()) {
				t.Errorf("the log has %v, want the process %d", told, operator.PgConn().PID())
			}
			for i := range uint64(200) {
				all.Go(func() {
					if _, err := l.Claim(context.Background(), sample(1000+i), lease); err != nil {
						t.Errorf("a call that waits while the table becomes free: %v", err)
					}
				})
			}
			time.Sleep(lockPatience / 3)
			if _, err := operator.Exec(t.Context(), "ROLLBACK"); err != nil {
				t.Fatal(err)
			}
			all.Wait()
		})
	}
}

// TestAForgottenTransactionAndNewTables: a gateway that has to change the tables gives
// up for now where it would hold up all others behind it.
func TestAForgottenTransactionAndNewTables(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	old := s.gateway(t, schema, Options{})
	if _, err := old.Claim(t.Context(), sample(1), lease); err != nil {
		t.Fatal(err)
	}
	s.exec(t, schema, "ALTER TABLE paywall_payments ADD COLUMN revision bigint NOT NULL DEFAULT 1")
	s.exec(t, schema, "DELETE FROM paywall_schema_version WHERE version > 3")
	operator := s.forgotten(t, schema, "SELECT 1 FROM paywall_payments LIMIT 1")
	l := s.gateway(t, schema, Options{})
	sold, tries := make(chan struct{}), sync.WaitGroup{}
	tries.Go(func() {
		for selling := true; selling; {
			wantUnavailable(t, "Open", l.Open(t.Context()))
			select {
			case <-sold:
				selling = false
			default:
			}
		}
	})
	for i := range uint64(30) {
		if _, err := within(ledger.CallWithin, func(ctx context.Context) (any, error) { return old.Claim(ctx, sample(2+i), lease) }); err != nil {
			t.Fatalf("another gateway: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	close(sold)
	tries.Wait()
	if _, err := operator.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := l.Open(t.Context()); err != nil {
		t.Error(err)
	}
}
