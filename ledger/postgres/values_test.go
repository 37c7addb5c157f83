package postgres

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// TestSpoiled: a payment that the database does not take does not take others
// with it.
func TestSpoiled(t *testing.T) {
	s := theServer(t)
	schema := s.newSchema(t)
	l := s.gateway(t, schema, Options{})
	if _, err := l.Get(t.Context(), "open"); !errors.Is(err, ledger.ErrNotFound) {
		t.Fatal(err)
	}
	s.exec(t, schema, "ALTER TABLE paywall_payments ADD CHECK (host <> 'bad.example')")
	var all sync.WaitGroup
	for i := range uint64(100) {
		all.Go(func() {
			p := sample(i)
			if i%10 != 0 {
				if _, err := l.Claim(context.Background(), p, lease); err != nil {
					t.Errorf("Claim %d: %v", i, err)
				}
				return
			}
			p.Host = "bad.example"
			if _, err := l.Claim(context.Background(), p, lease); !errors.Is(err, ledger.ErrInvalid) {
				t.Errorf("Claim %d: %v", i, err)
			}
		})
	}
	all.Wait()
}

// TestWorldsTexts: no text of the world can spoil a batch.
func TestWorldsTexts(t *testing.T) {
	l := open(t, Options{})
	bad := "a\x00b\xff" + strings.Repeat("long", 1000)
	p := sample(1)
	p.Payer, p.Host, p.Identifier, p.Client, p.Method = bad, bad, bad, bad, bad
	p.ValidBefore = time.Unix(1<<60, 0)
	c, err := l.Claim(t.Context(), p, 1<<62)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settling, Transaction: bad, Facilitator: bad, Status: 1 << 40, Runs: 1 << 40}); err != nil {
		t.Fatal(err)
	}
	for _, f := range []ledger.Filter{{Payer: bad}, {Host: bad}, {Identifier: bad}, {Method: bad}} {
		n := 0
		for _, err := range l.List(t.Context(), f) {
			if err != nil {
				t.Error(err)
			}
			n++
		}
		if n != 1 {
			t.Errorf("%d rows", n)
		}
	}
	if _, err := l.Claim(t.Context(), ledger.Payment{Key: "\x00"}, lease); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("Claim of a key that is no text: %v", err)
	}
	if _, err := l.Get(t.Context(), "\x00"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("Get of a key that is no text: %v", err)
	}
}
