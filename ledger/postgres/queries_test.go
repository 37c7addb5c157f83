package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// TestHashQueries: what was asked for cannot be read from the database when it
// was delivered, but it is found, by every gateway.
func TestHashQueries(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	l := s.gateway(t, schema, Options{HashQueries: true})
	const url = "/a?email=me@example.com"
	p := sample(1)
	p.URL = url
	c, err := l.Claim(t.Context(), p, lease)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), s.dsn(schema))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	stored := func() string {
		t.Helper()
		var url []byte
		if err := conn.QueryRow(t.Context(), "SELECT url FROM paywall_payments WHERE key = $1", p.Key).Scan(&url); err != nil {
			t.Fatal(err)
		}
		return string(url)
	}
	for _, ch := range sale {
		if got := stored(); got != url {
			t.Errorf("before %s it is %s", ch.To, got)
		}
		if _, err := l.Move(t.Context(), c, ch); err != nil {
			t.Fatal(err)
		}
	}
	hashed := stored()
	if !strings.HasPrefix(hashed, "/a?sha256=") || strings.Contains(hashed, "example") {
		t.Errorf("after delivery it is %s", hashed)
	}
	if c, err = l.Take(t.Context(), p.Key, ledger.Delivered, lease); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Delivered, Reorganised: true, Reason: ledger.ReasonReverted}); err != nil {
		t.Fatal(err)
	}
	if got := stored(); got != hashed {
		t.Errorf("after a reorganisation it is %s", got)
	}
	open := sample(2)
	open.URL = url
	if _, err := l.Claim(t.Context(), open, lease); err != nil {
		t.Fatal(err)
	}
	plain := sample(3)
	plain.URL = "/a"
	if err := sell(l, plain); err != nil {
		t.Fatal(err)
	}

	// Another gateway, which is not told to hash, finds them too.
	other := s.gateway(t, schema, Options{})
	for _, c := range []struct {
		filter ledger.Filter
		want   []string
	}{
		{ledger.Filter{URL: url}, []string{hashed, url}},
		{ledger.Filter{URL: url, States: []ledger.State{ledger.Delivered}}, []string{hashed}},
		{ledger.Filter{URL: url, States: []ledger.State{ledger.Claimed}}, []string{url}},
		{ledger.Filter{URL: hashed}, []string{hashed}},
		{ledger.Filter{URL: "/a?email=you@example.com"}, nil},
		{ledger.Filter{URL: "/a"}, []string{"/a"}},
	} {
		var got []string
		for p, err := range other.List(t.Context(), c.filter) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, p.URL)
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%+v finds %q, want %q", c.filter, got, c.want)
		}
	}
}

// TestMigrateFromFirst: tables of the first version are brought up to date.
func TestMigrateFromFirst(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	if err := sell(s.gateway(t, schema, Options{}), sample(1)); err != nil {
		t.Fatal(err)
	}
	s.exec(t, schema, "DROP TABLE paywall_keys")
	s.exec(t, schema, "ALTER TABLE paywall_payments ADD COLUMN revision bigint NOT NULL DEFAULT 1, DROP COLUMN line, DROP COLUMN effects, DROP COLUMN ended, DROP COLUMN fetch_by")
	s.exec(t, schema, "DELETE FROM paywall_schema_version WHERE version > 1")
	l := s.gateway(t, schema, Options{})
	if p, err := l.Get(t.Context(), sample(1).Key); err != nil || p.State != ledger.Delivered ||
		p.Line != "" || p.Effects || p.Ended != 0 || !p.FetchBy.IsZero() {
		t.Errorf("%+v, %v", p, err)
	}
	if err := sell(l, sample(2)); err != nil {
		t.Error(err)
	}
}

// TestNewest: newest first is the list the other way round, over any number of pages, and a
// limit counts from there.
func TestNewest(t *testing.T) {
	s := theServer(t)
	r := s.gateway(t, s.newSchema(t), Options{})
	for i := range 2*page + 3 {
		c, err := r.Claim(t.Context(), sample(uint64(i)), lease)
		if err != nil {
			t.Fatal(err)
		}
		for _, ch := range sale[:2] {
			if _, err := r.Move(t.Context(), c, ch); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, f := range []ledger.Filter{{}, {States: []ledger.State{ledger.Settled, ledger.Unknown}}, {Host: "shop.example"}, {Limit: 3}, {Limit: 150}} {
		limit := f.Limit
		f.Limit = 0
		var want, got []ledger.Key
		for p, err := range r.List(t.Context(), f) {
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, p.Key)
		}
		slices.Reverse(want)
		if len(want) < 150 {
			t.Fatalf("%d rows", len(want))
		}
		if limit > 0 {
			want = want[:limit]
		}
		f.Limit = limit
		for p, err := range r.Newest(t.Context(), f) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, p.Key)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v: %d rows, want %d: %q", f, len(got), len(want), got[:min(len(got), 5)])
		}
	}
}
