package paywall_test

import (
	"net/http"
	"strings"
	"testing"
)

// A facilitator that gave no answers kept the payments of another one in doubt for
// as long.
func TestReconcilerWaitsForNobody(t *testing.T) {
	w := prepareWorld(t)
	s := w.withScript()
	slow := newFakeFacilitator(t)
	w.load(strings.Replace(onScript(w.caddyfile("facilitator fake\nprice /paid/* $0.01\nprice /slow/* $0.01 {\n facilitator slow\n}")),
		"ledger test", "facilitator slow "+slow.URL+"\nledger test", 1))
	w.until(func() bool { return slow.supported.Load() > 0 })
	p := newPayer(t)
	pay := func(path string) answerOf {
		return w.get(path, "PAYMENT-SIGNATURE", w.sign(http.MethodGet, path, p).v2(t))
	}
	w.fac.onSettle(w.fac.lost)
	slow.onSettle(slow.lost)
	w.expect(pay("/slow/x"), 503, "settlement_pending")
	w.expect(pay("/paid/x"), 503, "settlement_pending")
	asked, end := make(chan struct{}, 10), make(chan struct{})
	defer close(end)
	slow.onSettle(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-end:
		case <-r.Context().Done():
		}
	})
	w.fac.onSettle(nil)
	s.visible.Store(true)
	<-asked
	w.until(func() bool { return pay("/paid/x").StatusCode == 200 })
	w.expect(pay("/slow/x"), 503, "settlement_pending")
	if w.fac.transfers() != 1 || slow.transfers() != 1 {
		t.Errorf("%d and %d transfers", w.fac.transfers(), slow.transfers())
	}
}
