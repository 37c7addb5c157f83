package postgres

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// TestGatewaysRace: three gateways are shown one payment two hundred times.
func TestGatewaysRace(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	var gateways []*Ledger
	for range 3 {
		gateways = append(gateways, s.gateway(t, schema, Options{}))
	}
	for k := range uint64(5) {
		p := sample(k)
		var won atomic.Int32
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				c, err := gateways[i%len(gateways)].Claim(context.Background(), p, lease)
				taken, ok := errors.AsType[*ledger.TakenError](err)
				switch {
				case err == nil && c.Token != "":
					won.Add(1)
				case !ok || taken.Payment.State != ledger.Claimed || taken.Payment.Key != p.Key:
					t.Errorf("Claim: %v", err)
				}
			})
		}
		all.Wait()
		if won.Load() != 1 {
			t.Errorf("%d of 200 won", won.Load())
		}
	}
}

// TestGatewaysSell: three gateways sell to the same payers at once, and any of
// them carries on what another has begun.
func TestGatewaysSell(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	const keys = 40
	var sold atomic.Int32
	var all sync.WaitGroup
	for range 3 {
		l := s.gateway(t, schema, Options{})
		other := s.gateway(t, schema, Options{})
		for k := range uint64(keys) {
			all.Go(func() {
				c, err := l.Claim(context.Background(), sample(k), lease)
				if err != nil {
					return
				}
				sold.Add(1)
				for i, ch := range sale {
					holder := []*Ledger{l, other}[i%2]
					if _, err := holder.Move(context.Background(), c, ch); err != nil {
						t.Errorf("to %s: %v", ch.To, err)
					}
				}
			})
		}
	}
	all.Wait()
	if sold.Load() != keys {
		t.Errorf("%d of %d keys sold", sold.Load(), keys)
	}
	if n := s.rows(t, schema, "state = 'delivered' AND request IS NULL AND token IS NULL"); n != keys {
		t.Errorf("%d of %d delivered", n, keys)
	}
}

// TestHeldHere: a gateway knows what it holds itself, to the end.
func TestHeldHere(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	l, other := s.gateway(t, schema, Options{}), s.gateway(t, schema, Options{})
	p := sample(1)
	want := func(here, there bool) {
		t.Helper()
		if got := l.HeldHere(p.Key); got != here {
			t.Errorf("held here: %t", got)
		}
		if got := other.HeldHere(p.Key); got != there {
			t.Errorf("held there: %t", got)
		}
	}
	want(false, false)
	c, err := l.Claim(t.Context(), p, lease)
	if err != nil {
		t.Fatal(err)
	}
	for _, ch := range sale {
		want(true, false)
		if _, err := l.Move(t.Context(), c, ch); err != nil {
			t.Fatal(err)
		}
	}
	want(false, false)
}

// TestDatabaseClock: leases go by the clock of the database, whatever that of the
// gateway says. Here the two are the same machine's, so the test is that the
// database has written the times.
func TestDatabaseClock(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	l := s.gateway(t, schema, Options{})
	c, err := l.Claim(t.Context(), sample(1), lease)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Payment.Lease.Sub(c.Payment.Created); got != lease {
		t.Errorf("the lease lasts %s", got)
	}
	// Another gateway lets the lease end, for the database.
	s.exec(t, schema, "UPDATE paywall_payments SET lease = now() - interval '1 microsecond'")
	if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settling}); !errors.Is(err, ledger.ErrLost) {
		t.Errorf("Move after the end of the lease: %v", err)
	}
	if err := l.Renew(t.Context(), c, lease); err != nil {
		t.Errorf("Renew: %v", err)
	}
	if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settling}); err != nil {
		t.Errorf("Move after Renew: %v", err)
	}
}

// TestCallsOfOneTransaction: calls that share a transaction see what those before them have
// done, though the row is written once.
func TestCallsOfOneTransaction(t *testing.T) {
	l := open(t, Options{})
	first, err := l.Claim(t.Context(), sample(1), lease)
	if err != nil {
		t.Fatal(err)
	}
	claim := func(token ledger.Token) *call {
		return &call{key: sample(1).Key, token: token, holds: true, anew: true, apply: func(row ledger.Payment, now time.Time) (ledger.Payment, error) {
			return ledger.ApplyClaim(row, sample(1), now, lease)
		}}
	}
	move := func(token ledger.Token, to ledger.State) *call {
		return &call{key: sample(1).Key, token: token, apply: func(row ledger.Payment, now time.Time) (ledger.Payment, error) {
			return ledger.ApplyMove(row, ledger.Change{To: to, Answer: []byte("answer")}, now)
		}}
	}
	const a, b = "0123456789abcdef0123456789abcdef", "123456789abcdef0123456789abcdef0"
	for _, c := range []struct {
		name  string
		calls []*call
		want  string // how they end, and the state of the row
	}{
		{"one lets go, and two come", []*call{claim(a), move(first.Token, ledger.Released), claim(a), claim(b)}, "taken, done, done, taken: claimed"},
		{"one goes on, others try", []*call{move(b, ledger.Settling), move(a, ledger.Settling), claim(b), move(a, ledger.Settled)}, "lost, done, taken, done: settled"},
		{"to the end", []*call{move(a, ledger.Delivering), move(a, ledger.Delivered), move(a, ledger.Delivered)}, "done, done, lost: delivered"},
	} {
		for _, one := range c.calls {
			one.id, one.done = ledger.ID(one.key), make(chan struct{})
		}
		l.start(c.calls, true)
		var got []string
		for _, one := range c.calls {
			<-one.done
			switch _, taken := errors.AsType[*ledger.TakenError](one.err); {
			case one.err == nil:
				got = append(got, "done")
			case errors.Is(one.err, ledger.ErrLost):
				got = append(got, "lost")
			case taken:
				got = append(got, "taken")
			default:
				got = append(got, one.err.Error())
			}
		}
		p, err := l.Get(t.Context(), sample(1).Key)
		if got := strings.Join(got, ", ") + ": " + string(p.State); got != c.want || err != nil {
			t.Errorf("%s: %s, %v; want %s", c.name, got, err, c.want)
		}
		if gone := p.State == ledger.Delivered; gone != (len(p.Request)+len(p.Answer) == 0) {
			t.Errorf("%s: it has %d and %d bytes", c.name, len(p.Request), len(p.Answer))
		}
	}
}

// TestTransactions: what a sale costs, and what copies of a payment cost.
func TestTransactions(t *testing.T) {
	l := open(t, Options{})
	if _, err := l.Get(t.Context(), "open"); !errors.Is(err, ledger.ErrNotFound) {
		t.Fatal(err)
	}
	if err := sell(l, sample(2)); err != nil {
		t.Fatal(err)
	}
	for hears := false; !hears; time.Sleep(time.Millisecond) { // it has sent itself a message over the pool
		l.peers.mu.Lock()
		hears = l.peers.hears
		l.peers.mu.Unlock()
	}
	transactions := func() int64 { return l.pool.Stat().AcquireCount() }
	before := transactions()
	if err := sell(l, sample(1)); err != nil {
		t.Fatal(err)
	}
	if got := transactions() - before; got != 5 {
		t.Errorf("a sale took %d transactions, want one for each call", got)
	}
	before = transactions()
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() { _, _ = l.Claim(context.Background(), sample(1), lease) })
	}
	all.Wait()
	if got := transactions() - before; got > 20 {
		t.Errorf("200 copies took %d transactions", got)
	}
	before = transactions()
	for i := range 200 {
		all.Go(func() { _, _ = l.Claim(context.Background(), sample(uint64(100+i)), lease) })
	}
	all.Wait()
	if got := transactions() - before; got > 40 {
		t.Errorf("200 payments at once took %d transactions", got)
	}
	for _, g := range []*group[*call]{&l.swift, &l.durable} {
		g.mu.Lock()
		if n := len(g.waiting); n != 0 {
			t.Errorf("%d calls are left", n)
		}
		g.mu.Unlock()
	}
}

// TestHoldersAreBounded: claims that nobody ends leave nothing in memory.
func TestHoldersAreBounded(t *testing.T) {
	l := open(t, Options{})
	for i := range uint64(10) {
		if _, err := l.Claim(t.Context(), sample(i), time.Nanosecond); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Claim(t.Context(), sample(10), lease); err != nil {
		t.Fatal(err)
	}
	if time.Sleep(time.Millisecond); !l.live() || len(l.holders) != 1 {
		t.Errorf("%d claims are known", len(l.holders))
	}
}
