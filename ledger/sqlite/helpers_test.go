package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

const testLease = time.Minute

// payment is a payment as the gate claims it.
func payment(key ledger.Key) ledger.Payment {
	return ledger.Payment{
		Key: key, Scheme: "exact", Network: "eip155:8453", Asset: "0xasset", PayTo: "0xpayee", Payer: "0xpayer", Amount: "10000",
		ValidBefore: time.Now().Add(5 * time.Minute), Keep: time.Now().Add(24 * time.Hour),
		Method: "GET", Host: "shop.example", URL: "/a?email=me@example.com", Client: "192.0.2.0/24", Identifier: "id-" + string(key),
		Facilitator: "own", Request: []byte(`{"signature":"0xsecret"}`),
	}
}

// way leads from a claim to a state.
func way(to ledger.State) []ledger.State {
	switch to {
	case ledger.Claimed:
		return nil
	case ledger.Settling, ledger.Released:
		return []ledger.State{to}
	case ledger.Delivering:
		return []ledger.State{ledger.Settling, ledger.Settled, to}
	case ledger.Delivered:
		return []ledger.State{ledger.Settling, ledger.Settled, ledger.Delivering, to}
	default:
		return []ledger.State{ledger.Settling, to}
	}
}

// bring claims the key and moves it to a state.
func bring(t testing.TB, l *Ledger, key ledger.Key, to ledger.State) ledger.Claim {
	t.Helper()
	c, err := l.Claim(t.Context(), payment(key), testLease)
	if err != nil {
		t.Fatalf("Claim of %s: %v", key, err)
	}
	for _, s := range way(to) {
		c.Payment = move(t, l, c, s)
	}
	return c
}

func move(t testing.TB, l *Ledger, c ledger.Claim, to ledger.State) ledger.Payment {
	t.Helper()
	p, err := l.Move(t.Context(), c, ledger.Change{To: to})
	if err != nil {
		t.Fatalf("Move of %s to %s: %v", c.Payment.Key, to, err)
	}
	return p
}

func wantState(t testing.TB, l interface {
	Get(ctx context.Context, key ledger.Key) (ledger.Payment, error)
}, key ledger.Key, want ledger.State,
) ledger.Payment {
	t.Helper()
	p, err := l.Get(t.Context(), key)
	if errors.Is(err, ledger.ErrNotFound) {
		p.State = ""
	} else if err != nil {
		t.Fatalf("Get of %s: %v", key, err)
	}
	if p.State != want {
		t.Errorf("%s is %q, want %q", key, p.State, want)
	}
	return p
}

// wantUsed tests that the key cannot be claimed.
func wantUsed(t testing.TB, l *Ledger, key ledger.Key) {
	t.Helper()
	_, err := l.Claim(t.Context(), payment(key), testLease)
	if _, ok := errors.AsType[*ledger.TakenError](err); !ok {
		t.Errorf("%s was claimed again: %v", key, err)
	}
}

// copyFiles copies a ledger's files as they are now, as a crash leaves them.
func copyFiles(t testing.TB, path string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), filepath.Base(path))
	var names []string
	for _, pattern := range []string{"-wal", ""} {
		found, err := filepath.Glob(path + pattern)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to+strings.TrimPrefix(name, path), b, fileMode); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// eventually waits for something that happens in the background.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 seconds: %s", what)
		}
	}
}

func keyOf(s ledger.State) ledger.Key { return ledger.Key(fmt.Sprint("key of ", s)) }

// memoryDir is a directory where a sync costs nothing, if there is one.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ledger")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// flush writes what is to be written.
func flush(t testing.TB, l *Ledger) {
	t.Helper()
	if err := l.commit(); err != nil {
		t.Fatal(err)
	}
}

// reading is the file of a ledger as other programs read it.
func reading(t testing.TB, l *Ledger) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", dataSource(l.path, "ro"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}
