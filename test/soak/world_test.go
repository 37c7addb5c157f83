package soak

import (
	"path/filepath"
	"sync"
	"testing"
)

// world is what outlives every gateway.
type world struct {
	t *testing.T
	*money
	*dice
	up     *upstream
	remote *remote

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
