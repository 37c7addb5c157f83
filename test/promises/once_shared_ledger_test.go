package promises

import (
	"net/http"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// On a ledger that gateways share, a payer that bought a page and comes for it again
// at once is sold it, though the first delivery is not on record yet.
func TestSharedLedgerSellsAgainAtOnce(t *testing.T) {
	w := gate.Prepare(t)
	s := w.WithLedger()
	w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01")))
	p := gate.NewPayer(t)
	pay := func() gate.Answer {
		return w.Get("/paid/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/x", p).V2(t))
	}
	release := make(chan struct{})
	s.OnMove(func(_ ledger.Claim, ch ledger.Change) error {
		if ch.To == ledger.Delivered {
			<-release
		}
		return nil
	})
	defer close(release)
	w.Expect(pay(), 200, "")
	w.HTTP.CloseIdleConnections() // its connection waits for the end of the first
	w.Expect(pay(), 200, "")
	w.HTTP.CloseIdleConnections()
	if w.Facilitator.Transfers() != 2 {
		t.Error(w.Facilitator.Transfers())
	}
	// Held by another gateway, it may be lost with it.
	s.Elsewhere.Store(true)
	w.Expect(pay(), 409, "payment_in_flight")
	if w.Facilitator.Transfers() != 2 {
		t.Error(w.Facilitator.Transfers())
	}
	// Unless that one says that it serves somebody.
	s.Answers.Store(true)
	w.Expect(pay(), 200, "")
	if w.Facilitator.Transfers() != 3 {
		t.Error(w.Facilitator.Transfers())
	}
}

// What was held when it was listed may be at its end when it is looked at again.
func TestSharedLedgerLooksTwice(t *testing.T) {
	for _, end := range []ledger.State{ledger.Delivered, ledger.Settled} {
		t.Run(string(end), func(t *testing.T) {
			w := gate.Prepare(t)
			s := w.WithLedger()
			s.Elsewhere.Store(true)
			w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01")))
			p := gate.NewPayer(t)
			pay := func() gate.Answer {
				return w.Get("/paid/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/x", p).V2(t))
			}
			claims, release := make(chan ledger.Claim, 1), make(chan struct{})
			defer close(release)
			s.OnMove(func(c ledger.Claim, ch ledger.Change) error {
				if ch.To == ledger.Delivered { // that takes its time
					claims <- c
					<-release
				}
				return nil
			})
			w.Expect(pay(), 200, "")
			w.HTTP.CloseIdleConnections() // its connection waits for the end of the first
			held := <-claims
			s.OnMove(nil)
			s.OnListed(func() { _, _ = s.Move(t.Context(), held, ledger.Change{To: end}) })
			w.Expect(pay(), 200, "")
			want := map[ledger.State]int{ledger.Delivered: 2, ledger.Settled: 1}[end]
			if w.Facilitator.Transfers() != want {
				t.Errorf("%d transfers, want %d", w.Facilitator.Transfers(), want)
			}
		})
	}
}
