package sqlite

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

func TestCaddyfile(t *testing.T) {
	for _, c := range []struct{ name, text, want, err string }{
		{"plain", `sqlite`, `{}`, ""},
		{"file", `sqlite /var/lib/p.db`, `{"file":"/var/lib/p.db"}`, ""},
		{"all", "sqlite p.db {\n\tkeep_finished 30d\n\thash_queries\n}", `{"file":"p.db","keep_finished":2592000000000000,"hash_queries":true}`, ""},
		{"for ever", "sqlite {\n\tkeep_finished forever\n}", `{"keep_finished":-1}`, ""},
		{"two files", `sqlite a b`, "", "wrong argument count"},
		{"unknown word", "sqlite {\n\tkeep 1d\n}", "", "unknown word"},
		{"twice", "sqlite {\n\thash_queries\n\thash_queries\n}", "", "given twice"},
		{"no duration", "sqlite {\n\tkeep_finished long\n}", "", "is no duration"},
		{"zero", "sqlite {\n\tkeep_finished 0\n}", "", "is no duration"},
		{"missing", "sqlite {\n\tkeep_finished\n}", "", "wrong argument count"},
		{"surplus", "sqlite {\n\thash_queries on\n}", "", "wrong argument count"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := new(Module)
			err := m.UnmarshalCaddyfile(caddyfile.NewTestDispenser(c.text))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error = %v, want %q", err, c.err)
				}
				return
			}
			got, _ := json.Marshal(m)
			if err != nil || string(got) != c.want {
				t.Errorf("%s, %v; want %s", got, err, c.want)
			}
		})
	}
}

// provision is what Caddy does with the module of a config.
func provision(t *testing.T, m *Module) (cleanup func()) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	if err := m.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	return func() {
		cancel()
		if err := m.Cleanup(); err != nil {
			t.Error(err)
		}
	}
}

// TestReload: one config follows another without losing what is held, and the
// file is closed when the last request of the last config is over.
func TestReload(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	first := &Module{File: path}
	end := provision(t, first)
	if _, err := os.Stat(path); err == nil {
		t.Fatal("Provision opens the file")
	}
	if err := first.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := first.Claim(t.Context(), payment("k"), testLease)
	if err != nil {
		t.Fatal(err)
	}
	second := &Module{File: path, HashQueries: true}
	endSecond := provision(t, second)
	end()
	if _, err := second.Move(t.Context(), c, ledger.Change{To: ledger.Settling}); err != nil {
		t.Fatal(err)
	}
	l := second.shared.ledger.Load()
	if !l.options.Load().HashQueries {
		t.Error("the options of the second config do not hold")
	}
	endSecond()
	// A third config comes back while the request of the second is under way.
	third := &Module{File: path}
	endThird := provision(t, third)
	if err := third.Open(t.Context()); err != nil || third.shared.ledger.Load() != l {
		t.Errorf("opened again: %v", err)
	}
	endThird()
	time.Sleep(3 * closeCheck)
	for _, s := range []ledger.State{ledger.Settled, ledger.Delivering} {
		if _, err := first.Move(t.Context(), c, ledger.Change{To: s}); err != nil {
			t.Fatalf("the request of the first config cannot go on: %v", err)
		}
	}
	time.Sleep(lingers + 3*closeCheck)
	if third.shared.ledger.Load() != l {
		t.Error("closed while a request holds a payment")
	}
	if _, err := first.Move(t.Context(), c, ledger.Change{To: ledger.Delivered}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it closes", func() bool { return third.shared.ledger.Load() == nil })
	eventually(t, "it is free", func() bool {
		l, err := Open(path, Options{})
		return err == nil && l.Close() == nil
	})
	// A request of an old config that had not come so far yet.
	if _, err := first.Get(t.Context(), "k"); err != nil {
		t.Errorf("a late request: %v", err)
	}
	eventually(t, "it closes again", func() bool { return third.shared.ledger.Load() == nil })
}

// TestUnavailable: while the file cannot be opened, calls say so, and it is tried
// again.
func TestUnavailable(t *testing.T) {
	dir := memoryDir(t)
	path := filepath.Join(dir, "payments.db")
	other, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := &Module{File: path}
	defer provision(t, m)()
	for range 3 {
		if _, err := m.Claim(t.Context(), payment("k"), testLease); !errors.Is(err, ledger.ErrUnavailable) || !strings.Contains(err.Error(), "in use by process") {
			t.Errorf("Claim: %v", err)
		}
	}
	for _, err := range m.List(t.Context(), ledger.Filter{}) {
		if !errors.Is(err, ledger.ErrUnavailable) {
			t.Errorf("List: %v", err)
		}
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it opens", func() bool {
		_, err := m.Claim(t.Context(), payment("k"), time.Millisecond)
		return err == nil
	})
	closeAll(context.Background())
	if m.shared.ledger.Load() != nil {
		t.Error("open after the end of the process")
	}
}
