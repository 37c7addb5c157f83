package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// TestMigrateAtOnce: gateways that start together make the tables once.
func TestMigrateAtOnce(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	var all sync.WaitGroup
	for i := range uint64(8) {
		l := s.gateway(t, schema, Options{})
		all.Go(func() {
			if _, err := l.Claim(context.Background(), sample(i), lease); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := s.rows(t, schema, "true"); n != 8 {
		t.Errorf("%d rows", n)
	}
}

func TestNewerTables(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	if _, err := s.gateway(t, schema, Options{}).Claim(t.Context(), sample(1), lease); err != nil {
		t.Fatal(err)
	}
	s.exec(t, schema, fmt.Sprint("INSERT INTO paywall_schema_version VALUES (", latest+1, ")"))
	_, err := s.gateway(t, schema, Options{}).Get(t.Context(), sample(1).Key)
	wantUnavailable(t, "Get", err)
	if !strings.Contains(fmt.Sprint(err), "newer gateway") {
		t.Errorf("%v", err)
	}
}

// TestTablesGone: another database behind the same name, without our tables.
func TestTablesGone(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	l := s.gateway(t, schema, Options{})
	if err := sell(l, sample(1)); err != nil {
		t.Fatal(err)
	}
	s.exec(t, schema, "DROP TABLE paywall_payments, paywall_networks, paywall_keys, paywall_schema_version")
	_, err := l.Claim(t.Context(), sample(2), lease)
	wantUnavailable(t, "Claim", err)
	if err := sell(l, sample(3)); err != nil {
		t.Errorf("with new tables: %v", err)
	}
}

// TestStages: the table and the code agree on the stage of each state.
func TestStages(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	l := s.gateway(t, schema, Options{})
	if _, err := l.Claim(t.Context(), sample(1), lease); err != nil {
		t.Fatal(err)
	}
	for _, state := range ledger.States() {
		s.exec(t, schema, fmt.Sprintf("UPDATE paywall_payments SET state = '%s'", state))
		want, _ := stageOf([]ledger.State{state})
		if s.rows(t, schema, fmt.Sprint("stage = ", want)) != 1 {
			t.Errorf("%s is not of stage %d", state, want)
		}
		if state.Open() && want != 0 {
			t.Errorf("%s is open and of stage %d", state, want)
		}
	}
}

func TestGenesis(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	a, b := s.gateway(t, schema, Options{}), s.gateway(t, schema, Options{})
	for _, l := range []*Ledger{a, b, a} {
		if err := l.RememberGenesis(t.Context(), "eip155:84532", "0xaa"); err != nil {
			t.Error(err)
		}
	}
	if err := b.RememberGenesis(t.Context(), "eip155:84532", "0xbb"); !errors.Is(err, ledger.ErrGenesis) {
		t.Errorf("another chain: %v", err)
	}
	if err := b.RememberGenesis(t.Context(), "eip155:8453", "0xbb"); err != nil {
		t.Errorf("another network: %v", err)
	}
}

// TestPlans: what a gateway asks with every sale, and what people ask, goes
// through an index, for any number of rows and payers of any size.
func TestPlans(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	l := s.gateway(t, schema, Options{})
	if err := sell(l, sample(1)); err != nil {
		t.Fatal(err)
	}
	s.exec(t, schema, `INSERT INTO paywall_payments (id, created, updated, keep, status, runs, doubt,
			state, payer, amount, facilitator, transaction, reason, key, scheme, network, asset, pay_to,
			method, host, client, identifier, body, url)
		SELECT gen_random_uuid(), now() - n * interval '1 minute', now(), now(), 200, 1, false,
			CASE WHEN n % 500 = 0 THEN 'unknown' WHEN n % 50 = 0 THEN 'refused' ELSE 'delivered' END,
			CASE WHEN n % 2 = 0 THEN '0xlarge' ELSE '0x' || n END, '1', 'own', '', '', 'k' || n, 'exact', 'n', 'a', 'p',
			'GET', 'h', '', CASE WHEN n % 3 = 0 THEN 'pay_' || n ELSE '' END, '', '/'
		FROM generate_series(1, 20000) n;
		ANALYZE paywall_payments`)
	open := []ledger.State{ledger.Settling, ledger.Settled, ledger.Delivering, ledger.Unknown}
	now := l.clockNow()
	sold := sample(1)
	sold.ID = ledger.ID(sold.Key)
	begins, _ := beginsQuery("25c64969")
	for _, c := range []struct {
		name, want string
		question   question
	}{
		{"owed to a payer for a request", "_owed", l.listQuery(ledger.Filter{
			States: open, Payer: "0x1", Method: "GET", Host: "h", URL: "/",
		}, position{}, page)},
		{"owed to a large payer", "_owed", l.listQuery(ledger.Filter{States: open, Payer: "0xlarge"}, position{}, page)},
		{"owed to a payer for something", "_owed", l.listQuery(ledger.Filter{
			States: open, Payer: "0xlarge", Method: "GET", Host: "shop.example", URL: "/a", Since: time.Now().AddDate(0, 0, -1),
		}, position{}, page)},
		{"an identifier", "_identifier", l.listQuery(ledger.Filter{Payer: "0xlarge", Identifier: "pay_3"}, position{}, page)},
		{"open ones", "_open", l.listQuery(ledger.Filter{States: open}, position{}, page)},
		{"the next open ones", "_open", l.listQuery(ledger.Filter{States: open}, position{created: time.Now(), end: time.Now()}, page)},
		{"refused ones", "_refused", l.listQuery(ledger.Filter{States: []ledger.State{ledger.Refused}}, position{}, page)},
		{"all", "_age", l.listQuery(ledger.Filter{}, position{}, page)},
		{"a month", "_age", l.listQuery(ledger.Filter{Since: time.Now().AddDate(0, -1, 0)}, position{}, page)},
		{"a payer's", "_payer", l.listQuery(ledger.Filter{Payer: "0x1"}, position{}, page)},
		{"old claims", "_o", // _open or _owed
			question{sql: removing(staleClaims), args: []any{now, staleClaim, pruneStep}}},
		{"to be shed", "_o", question{sql: shedding, args: []any{now, pruneStep}}},
		{"old sales", "_finished", question{sql: removing(oldFinished), args: []any{now, time.Hour, pruneStep}}},
		{"old refusals", "_refused", question{sql: removing(oldRefused), args: []any{now, time.Hour, pruneStep, maxRefused}}},
		{"an id", "_pkey", begins},
		{"a key", "_pkey", getQuery("k")},
		{"a release", "_pkey", question{sql: writes[remove].sql, args: writes[remove].arrays([]*row{{payment: sold}})}},
		{"keys", "_pkey", question{sql: selectByID, args: []any{[]string{ledger.ID("k"), ledger.ID("l")}}}},
		{"an update", "_pkey", question{sql: writes[update].sql, args: writes[update].arrays([]*row{{payment: sold}})}},
		{"an update of all", "_pkey", question{sql: writes[replace].sql, args: writes[replace].arrays([]*row{{payment: sold}})}},
	} {
		plan := s.explain(t, l, c.question)
		if !strings.Contains(plan, "paywall_payments"+c.want) || strings.Contains(plan, "Seq Scan") {
			t.Errorf("%s does not go by %s:\n%s", c.name, c.want, plan)
		}
	}
}

// explain shows the plan that a gateway's connection makes.
func (s *server) explain(t *testing.T, l *Ledger, q question) string {
	t.Helper()
	rows, err := l.pool.Query(t.Context(), "EXPLAIN "+q.sql, q.args...)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", q.sql, err)
	}
	return strings.Join(lines, "\n")
}

// TestMovesInPlace: the moves from claimed to delivering touch no index.
func TestMovesInPlace(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	l := s.gateway(t, schema, Options{})
	for i := range uint64(100) {
		if err := sell(l, sample(i)); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := pgx.Connect(t.Context(), s.dsn(schema))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	// The counts come from the sessions when they have nothing else to do.
	var updates, inPlace int
	for end := time.Now().Add(15 * time.Second); updates < 400 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		_, _ = l.Get(t.Context(), "k")
		if err := conn.QueryRow(t.Context(), `SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_all_tables
			WHERE relid = 'paywall_payments'::regclass`).Scan(&updates, &inPlace); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of %d updates in place", inPlace, updates)
	if updates != 400 || inPlace < 250 {
		t.Errorf("%d of %d updates in place; 300 of 400 can be", inPlace, updates)
	}
}

// TestReader: who only looks changes nothing.
func TestReader(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	reader := s.gateway(t, schema, Options{ReadOnly: true})
	err := reader.Open(t.Context())
	wantUnavailable(t, "Open without tables", err)
	if text := fmt.Sprint(err); strings.Contains(text, "version 0") || !strings.Contains(text, "no ledger in this database") {
		t.Errorf("it says %s", text)
	}
	if err := sell(s.gateway(t, schema, Options{}), sample(1)); err != nil {
		t.Fatal(err)
	}
	if p, err := reader.Get(t.Context(), sample(1).Key); err != nil || p.State != ledger.Delivered {
		t.Errorf("Get: %s, %v", p.State, err)
	}
	id := ledger.ID(sample(1).Key)
	for begin, want := range map[string]int{id: 1, id[:9]: 1, "": 1, "no ID": 0, id + "0": 0} {
		if found, err := reader.Begins(t.Context(), begin); err != nil || len(found) != want {
			t.Errorf("%d begin with %q: %v", len(found), begin, err)
		}
	}
	n := 0
	for _, err := range reader.List(t.Context(), ledger.Filter{}) {
		if err != nil {
			t.Error(err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d rows", n)
	}
	_, err = reader.Claim(t.Context(), sample(2), lease)
	wantUnavailable(t, "Claim", err)
}
