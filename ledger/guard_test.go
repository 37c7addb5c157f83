package ledger_test

import (
	"context"
	"errors"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// A ledger that panics, or hangs until its call's context ends.
type broken struct{ hangs bool }

func (b broken) fail(ctx context.Context) error {
	if !b.hangs {
		panic("broken")
	}
	<-ctx.Done()
	return ctx.Err()
}

func (b broken) Claim(ctx context.Context, _ ledger.Payment, _ time.Duration) (ledger.Claim, error) {
	return ledger.Claim{}, b.fail(ctx)
}

func (b broken) Take(ctx context.Context, _ ledger.Key, _ ledger.State, _ time.Duration) (ledger.Claim, error) {
	return ledger.Claim{}, b.fail(ctx)
}

func (b broken) Renew(ctx context.Context, _ ledger.Claim, _ time.Duration) error { return b.fail(ctx) }

func (b broken) Move(ctx context.Context, _ ledger.Claim, _ ledger.Change) (ledger.Payment, error) {
	return ledger.Payment{}, b.fail(ctx)
}

func (b broken) Get(ctx context.Context, _ ledger.Key) (ledger.Payment, error) {
	return ledger.Payment{}, b.fail(ctx)
}

func (b broken) List(ctx context.Context, _ ledger.Filter) iter.Seq2[ledger.Payment, error] {
	return func(yield func(ledger.Payment, error) bool) {
		if yield(ledger.Payment{}, nil) {
			yield(ledger.Payment{}, b.fail(ctx))
		}
	}
}

func calls(ctx context.Context, l ledger.Ledger) map[string]func() error {
	return map[string]func() error{
		"Claim": func() error { _, err := l.Claim(ctx, ledger.Payment{}, time.Minute); return err },
		"Take":  func() error { _, err := l.Take(ctx, "key", ledger.Settling, time.Minute); return err },
		"Renew": func() error { return l.Renew(ctx, ledger.Claim{}, time.Minute) },
		"Move":  func() error { _, err := l.Move(ctx, ledger.Claim{}, ledger.Change{}); return err },
		"Get":   func() error { _, err := l.Get(ctx, "key"); return err },
		"List": func() (last error) {
			for _, err := range l.List(ctx, ledger.Filter{}) {
				last = err
			}
			return last
		},
	}
}

func TestGuardedLedgerThatPanicsGivesAnError(t *testing.T) {
	for name, call := range calls(t.Context(), ledger.Guard(broken{})) {
		t.Run(name, func(t *testing.T) {
			if err := call(); err == nil {
				t.Error("no error")
			}
		})
	}
}

// The loop's own panics are not the ledger's.
func TestPanicInTheLoopOverAGuardedLedgerReachesTheLoop(t *testing.T) {
	defer func() {
		if recover() != "mine" {
			t.Error("the panic of the loop was lost")
		}
	}()
	for range ledger.Guard(broken{}).List(t.Context(), ledger.Filter{}) {
		panic("mine")
	}
}

func TestGuardedCallOutlivesItsCallerAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for name, call := range calls(ctx, ledger.Guard(broken{hangs: true})) {
			if err := call(); name != "List" && !errors.Is(err, context.DeadlineExceeded) { // its caller bounds List
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
