package paywall_test

import (
	"net/http"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// On a ledger that gateways share, a payer that bought a page and comes for it
// again at once was told to wait until the first delivery was on record.
func TestSharedLedgerSellsAgainAtOnce(t *testing.T) {
	w := prepareWorld(t)
	s := w.withScript()
	w.load(onScript(w.caddyfile("price /paid/* $0.01")))
	p := newPayer(t)
	pay := func() answerOf {
		return w.get("/paid/x", "PAYMENT-SIGNATURE", w.sign(http.MethodGet, "/paid/x", p).v2(t))
	}
	release := make(chan struct{})
	s.onMove(func(_ ledger.Claim, ch ledger.Change) error {
		if ch.To == ledger.Delivered {
			<-release
		}
		return nil
	})
	defer close(release)
	w.expect(pay(), 200, "")
	w.http.CloseIdleConnections() // its connection waits for the end of the first
	w.expect(pay(), 200, "")
	w.http.CloseIdleConnections()
	if w.fac.transfers() != 2 {
		t.Error(w.fac.transfers())
	}
	// Held by another gateway, it may be lost with it.
	s.elsewhere.Store(true)
	w.expect(pay(), 409, "payment_in_flight")
	if w.fac.transfers() != 2 {
		t.Error(w.fac.transfers())
	}
}

// What was held when it was listed may be at its end when it is looked at again.
func TestSharedLedgerLooksTwice(t *testing.T) {
	for _, end := range []ledger.State{ledger.Delivered, ledger.Settled} {
		t.Run(string(end), func(t *testing.T) {
			w := prepareWorld(t)
			s := w.withScript()
			s.elsewhere.Store(true)
			w.load(onScript(w.caddyfile("price /paid/* $0.01")))
			p := newPayer(t)
			pay := func() answerOf {
				return w.get("/paid/x", "PAYMENT-SIGNATURE", w.sign(http.MethodGet, "/paid/x", p).v2(t))
			}
			claims, release := make(chan ledger.Claim, 1), make(chan struct{})
			defer close(release)
			s.onMove(func(c ledger.Claim, ch ledger.Change) error {
				if ch.To == ledger.Delivered { // that takes its time
					claims <- c
					<-release
				}
				return nil
			})
			w.expect(pay(), 200, "")
			w.http.CloseIdleConnections() // its connection waits for the end of the first
			held := <-claims
			s.onMove(nil)
			s.onListed(func() { _, _ = s.Move(t.Context(), held, ledger.Change{To: end}) })
			w.expect(pay(), 200, "")
			want := map[ledger.State]int{ledger.Delivered: 2, ledger.Settled: 1}[end]
			if w.fac.transfers() != want {
				t.Errorf("%d transfers, want %d", w.fac.transfers(), want)
			}
		})
	}
}
