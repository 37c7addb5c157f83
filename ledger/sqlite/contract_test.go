package sqlite

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
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
	ctx := context.Background()
	return errors.Join(c.copyRows(true), c.shed(ctx), c.copyRows(true), c.tidy(ctx))
}

// TestContractCopied is the contract with everything in the database as soon as
// can be.
func TestContractCopied(t *testing.T) {
	ledgertest.Run(t, func(t *testing.T, now func() time.Time) ledger.Ledger {
		l := open(t, filepath.Join(memoryDir(t), "payments.db"), Options{Now: now})
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
					if err := l.copyRows(true); err != nil {
						t.Error(err)
					}
				}
			}
		})
		t.Cleanup(func() { close(stop); wg.Wait() })
		return cleaner{l}
	})
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
