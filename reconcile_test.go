package paywall_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// A facilitator that gave no answers kept the payments of another one in doubt for
// as long.
func TestReconcilerWaitsForNobody(t *testing.T) {
	w := gate.Prepare(t)
	s := w.WithLedger()
	slow := gate.NewFacilitator(t)
	w.Load(strings.Replace(gate.OnLedger(w.Caddyfile("facilitator fake\nprice /paid/* $0.01\nprice /slow/* $0.01 {\n facilitator slow\n}")),
		"ledger test", "facilitator slow "+slow.URL+"\nledger test", 1))
	w.Until(func() bool { return slow.Supported.Load() > 0 })
	p := gate.NewPayer(t)
	pay := func(path string) gate.Answer {
		return w.Get(path, "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, path, p).V2(t))
	}
	w.Facilitator.OnSettle(w.Facilitator.Lost)
	slow.OnSettle(slow.Lost)
	w.Expect(pay("/slow/x"), 503, "settlement_pending")
	w.Expect(pay("/paid/x"), 503, "settlement_pending")
	asked, end := make(chan struct{}, 10), make(chan struct{})
	defer close(end)
	slow.OnSettle(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-end:
		case <-r.Context().Done():
		}
	})
	w.Facilitator.OnSettle(nil)
	s.Visible.Store(true)
	<-asked
	w.Until(func() bool { return pay("/paid/x").StatusCode == 200 })
	w.Expect(pay("/slow/x"), 503, "settlement_pending")
	if w.Facilitator.Transfers() != 1 || slow.Transfers() != 1 {
		t.Errorf("%d and %d transfers", w.Facilitator.Transfers(), slow.Transfers())
	}
}
