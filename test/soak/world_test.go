package soak

import (
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// world is what outlives every gateway.
type world struct {
	t *testing.T
	*money
	*dice
	up     *upstream
	remote *remote

	// maimed: a gateway was killed, or stood still for longer than its claims last.
	maimed atomic.Bool

	mu        sync.Mutex
	purchases []*purchase
}

func newWorld(t *testing.T) *world {
	t.Helper()
	m := newMoney(t)
	return &world{t: t, dice: newDice(t), money: m, up: newUpstream(t), remote: newRemote(t, m)}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// fileLedger is the ledger that survives restarts.
func fileLedger(dir string) string { return "sqlite " + filepath.Join(dir, "payments.db") }
