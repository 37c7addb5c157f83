package sqlite

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/ledger/ledgertest"
)

func TestContract(t *testing.T) {
	ledgertest.Run(t, func(t *testing.T, now func() time.Time) ledger.Ledger {
		return cleaner{open(t, filepath.Join(memoryDir(t), "payments.db"), Options{Now: now})}
	})
}

// cleaner does the work of the background when it is told to.
type cleaner struct{ *Ledger }

func (c cleaner) Clean() error {
	err := c.commit()
	c.chores()
	return errors.Join(err, c.commit())
}

// open opens a ledger for a test, which it closes.
func open(t testing.TB, path string, o Options) *Ledger {
	t.Helper()
	l, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}
