package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// ownServer is one that the test may harm.
func ownServer(t *testing.T) *server {
	t.Helper()
	s, err := newServer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.destroy() })
	return s
}

// TestSettlingIsDurable: when Move to Settling has returned, the row is there
// after a crash, and so are those of all calls before it.
func TestSettlingIsDurable(t *testing.T) {
	s := ownServer(t)
	l := s.gateway(t, "public", Options{})
	for i := range uint64(5) {
		if err := sell(l, sample(1000+i)); err != nil {
			t.Fatal(err)
		}
		c, err := l.Claim(t.Context(), sample(i), lease)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settling}); err != nil {
			t.Fatal(err)
		}
		s.stop(syscall.SIGQUIT)
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
		p, err := getAgain(t, l, c.Payment.Key)
		if err != nil || p.State != ledger.Settling || len(p.Request) != len(request) {
			t.Errorf("after crash %d: %s, %v", i, p.State, err)
		}
		if p, err := l.Get(t.Context(), sample(1000+i).Key); err != nil || p.State != ledger.Delivered {
			t.Errorf("the sale before crash %d: %s, %v", i, p.State, err)
		}
		// The holder lives, and goes on.
		if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settled}); err != nil {
			t.Errorf("Move after crash %d: %v", i, err)
		}
	}
}

// getAgain is Get, once the ledger can be asked again.
func getAgain(t *testing.T, l *Ledger, key ledger.Key) (ledger.Payment, error) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		p, err := l.Get(t.Context(), key)
		if !errors.Is(err, ledger.ErrUnavailable) || time.Now().After(end) {
			return p, err
		}
	}
}

// story is what the gateways of TestCrashes were told of one payment.
type story struct {
	mu sync.Mutex
	// settling counts who was told that it may ask for money.
	settling int
	// maybe counts who was told nothing.
	maybe  int
	latest ledger.State
}

// TestCrashes: the database crashes and comes back, again and again, while three
// gateways sell the same payments.
func TestCrashes(t *testing.T) {
	s := ownServer(t)
	schema := "public"
	crashes, keys := 4, 60
	if testing.Short() {
		crashes = 2
	}
	var stories sync.Map
	stop := make(chan struct{})
	var all sync.WaitGroup
	var errs sync.Map
	for g := range 3 {
		l := s.gateway(t, schema, Options{})
		for w := range 12 {
			random := rand.New(rand.NewPCG(uint64(g), uint64(w)))
			all.Go(func() {
				for round := 0; ; round++ {
					select {
					case <-stop:
						return
					default:
					}
					// All work at the same few keys, and then at the next ones.
					k := uint64(round/40*keys + random.IntN(keys))
					told, _ := stories.LoadOrStore(k, &story{})
					if err := dare(l, k, told.(*story)); err != nil {
						errs.Store(err.Error(), true)
						time.Sleep(5 * time.Millisecond)
					}
				}
			})
		}
	}
	for range crashes {
		time.Sleep(300 * time.Millisecond)
		s.stop(syscall.SIGQUIT)
		time.Sleep(100 * time.Millisecond)
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(300 * time.Millisecond)
	close(stop)
	all.Wait()

	l := s.gateway(t, schema, Options{})
	asked, unsure := 0, 0
	stories.Range(func(k, v any) bool {
		told := v.(*story)
		if told.settling > 1 {
			t.Errorf("payment %d: %d gateways may ask for money", k, told.settling)
		}
		unsure += told.maybe
		if told.settling == 0 {
			return true
		}
		asked++
		p, err := getAgain(t, l, sample(k.(uint64)).Key)
		if err != nil || !p.State.Open() && p.State != ledger.Delivered {
			t.Errorf("payment %d, which was asked for and came to %s, is %s: %v", k, told.latest, p.State, err)
		}
		return true
	})
	t.Logf("%d payments were asked for, %d moves had an unknown outcome", asked, unsure)
	if asked < 100 {
		t.Errorf("only %d payments were asked for: the gateways do not recover", asked)
	}
	if t.Failed() {
		errs.Range(func(k, _ any) bool { t.Log(k); return true })
	}
}

// dare takes a payment as far as it goes.
func dare(l *Ledger, k uint64, told *story) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := l.Claim(ctx, sample(k), lease)
	if _, taken := errors.AsType[*ledger.TakenError](err); taken {
		return nil
	}
	if err != nil {
		return err
	}
	for _, ch := range sale {
		_, err := l.Move(ctx, c, ch)
		told.mu.Lock()
		switch {
		case err == nil:
			told.latest = ch.To
			if ch.To == ledger.Settling {
				told.settling++
			}
		case !errors.Is(err, ledger.ErrUnavailable) && !errors.Is(err, ledger.ErrLost):
			told.maybe++
		}
		told.mu.Unlock()
		if err != nil {
			return fmt.Errorf("to %s: %w", ch.To, err)
		}
	}
	return nil
}
