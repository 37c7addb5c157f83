package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

func TestCaddyfile(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{in: `postgres {env.DSN}`, want: `{"dsn":"{env.DSN}"}`},
		{in: `postgres "host=/run/postgresql dbname=paywall"`, want: `{"dsn":"host=/run/postgresql dbname=paywall"}`},
		{in: "postgres d {\n keep_finished 30d\n max_connections 4\n}", want: `{"dsn":"d","keep_finished":2592000000000000,"max_connections":4}`},
		{in: "postgres d {\n keep_finished forever\n}", want: `{"dsn":"d","keep_finished":-1}`},
		{in: "postgres d {\n hash_queries\n max_connections 4\n}", want: `{"dsn":"d","hash_queries":true,"max_connections":4}`},
		{in: "postgres d {\n hash_queries\n hash_queries\n}", err: "twice"},
		{in: "postgres d {\n hash_queries on\n}", err: "want no value"},
		{in: `postgres`, err: "want `ledger postgres <dsn>`"},
		{in: `postgres host=/run/postgresql dbname=paywall`, err: "in quotes"},
		{in: "postgres d {\n keep 3d\n}", err: "knows keep_finished, hash_queries and max_connections"},
		{in: "postgres d {\n keep_finished\n}", err: "want one value"},
		{in: "postgres d {\n keep_finished soon\n}", err: "no duration"},
		{in: "postgres d {\n keep_finished -1h\n}", err: "no duration"},
		{in: "postgres d {\n keep_finished 1h\n keep_finished 1h\n}", err: "twice"},
		{in: "postgres d {\n max_connections 0\n}", err: "not a number"},
		{in: "postgres d {\n max_connections 1\n max_connections 1\n}", err: "twice"},
	} {
		var m Module
		err := m.UnmarshalCaddyfile(caddyfile.NewTestDispenser(c.in))
		got, _ := json.Marshal(&m)
		if c.err == "" && (err != nil || string(got) != c.want) || c.err != "" && !strings.Contains(fmt.Sprint(err), c.err) {
			t.Errorf("%s: %s, %v", c.in, got, err)
		}
	}
}

func TestDSN(t *testing.T) {
	for _, c := range []struct{ dsn, err string }{
		{"", "no DSN"},
		{"host=/run/postgresql dbname=paywall", ""},
		{"postgres://u:canary@localhost/db", ""},
		{"postgres://u:canary@127.0.0.1/db", ""},
		{"postgres://u:canary@db.example/db?sslmode=verify-full", ""},
		{"postgres://u:canary@db.example/db?sslmode=disable", ""},
		{"postgres://u:canary@db.example/db", "sslmode=verify-full"},
		{"postgres://u:canary@db.example/db?sslmode=prefer", "sslmode=verify-full"},
		{"postgres://u:canary@db.example/db?sslmode=allow", "sslmode=verify-full"},
		{"postgres://a,b.example/db?sslmode=require", ""},
		{"postgres://u:can%ary@db.example/db", "cannot be read"},
		{"postgres://u:canary@db.example:canary/db", "cannot be read"},
		{"password=canary host", "cannot be read"},
	} {
		_, err := New(Options{DSN: c.dsn})
		if c.err == "" && err != nil || !strings.Contains(fmt.Sprint(err), c.err) {
			t.Errorf("%s: %v", c.dsn, err)
		}
		if strings.Contains(fmt.Sprint(err), "can") && strings.Contains(fmt.Sprint(err), "ary") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

// provisioned is a module as Caddy makes it.
func provisioned(t *testing.T, m *Module) (*Module, context.CancelFunc) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	if err := m.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	return m, func() {
		cancel()
		if err := m.Cleanup(); err != nil {
			t.Error(err)
		}
	}
}

// TestReload: a reload keeps the connections, and a request that began before
// the ledger left the config finishes with it.
func TestReload(t *testing.T) {
	s := theServer(t)
	t.Setenv("PAYWALL_TEST_DSN", s.dsn(s.newSchema(t)))
	first, end := provisioned(t, &Module{DSN: "{env.PAYWALL_TEST_DSN}"})
	if first.pool.Stat().NewConnsCount() != 0 {
		t.Error("Provision connects")
	}
	c, err := first.Claim(t.Context(), sample(1), lease)
	if err != nil {
		t.Fatal(err)
	}
	second, endSecond := provisioned(t, &Module{DSN: "{env.PAYWALL_TEST_DSN}", KeepFinished: caddy.Duration(time.Hour)})
	end()
	if first.Ledger != second.Ledger || second.keepFinished.Load() != int64(time.Hour) {
		t.Error("the reload made another ledger, or kept an old option")
	}
	other, endOther := provisioned(t, &Module{DSN: "{env.PAYWALL_TEST_DSN}", MaxConnections: 2})
	if other.Ledger == second.Ledger || other.config.MaxConns != 2 {
		t.Error("max_connections has not changed")
	}
	endOther()

	l := second.Ledger
	l.quiet = 60 * time.Millisecond
	endSecond()
	for _, ch := range sale[:3] {
		time.Sleep(100 * time.Millisecond)
		if _, err := l.Move(t.Context(), c, ch); err != nil {
			t.Fatalf("the old request: %v", err)
		}
	}
	if _, err := l.Move(t.Context(), c, sale[3]); err != nil {
		t.Fatalf("the old request: %v", err)
	}
	for stop := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := l.Get(t.Context(), "k"); errors.Is(err, ErrClosed) && errors.Is(err, ledger.ErrUnavailable) {
			break
		}
		if time.Now().After(stop) {
			t.Fatal("the ledger stays open without users")
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// TestSecret: what a placeholder stands for is in no config, log or error.
func TestSecret(t *testing.T) {
	const canary = "c4nary-passw0rd"
	file := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(file, []byte("postgres://gateway:"+canary+"@127.0.0.1:1/"+canary+"db\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m, end := provisioned(t, &Module{DSN: "{file." + file + "}"})
	defer end()
	config, err := json.Marshal(m)
	if err != nil || strings.Contains(string(config), canary) {
		t.Errorf("config: %s, %v", config, err)
	}
	core, logs := observer.New(zap.DebugLevel)
	m.logger = zap.New(core)
	_, err = m.Claim(t.Context(), sample(1), lease)
	wantUnavailable(t, "Claim", err)
	texts := fmt.Sprint(err, m.RememberGenesis(t.Context(), "n", "h"))
	for _, err := range m.List(t.Context(), ledger.Filter{}) {
		texts += fmt.Sprint(err)
	}
	if err := m.prune(make(chan struct{})); err != nil {
		texts += plain(err)
	}
	for _, e := range logs.All() {
		texts += fmt.Sprint(e.Message, e.ContextMap())
	}
	if logs.Len() != 1 || strings.Contains(texts, canary) {
		t.Errorf("%d lines in the log; errors and log: %s", logs.Len(), texts)
	}

	for _, dsn := range []string{"{env.PAYWALL_TEST_MISSING}", "{file./does/not/exist}", "", "postgres://gateway:" + canary + "@h:x/"} {
		ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
		bad := &Module{DSN: dsn}
		if err := bad.Provision(ctx); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", dsn, err)
		}
		if err := bad.Cleanup(); err != nil {
			t.Error(err)
		}
		cancel()
	}
}
