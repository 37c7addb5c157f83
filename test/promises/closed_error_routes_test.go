package promises

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// The traps that Caddy sets to a handler that guards money. Each has a test.

// An error route must not turn a refusal into an answer.
func TestErrorRoutesDoNotSeeRefusals(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01", "handle_errors {\n respond sorry 200\n}")
	w.Expect(w.Get("/paid/x"), 402, string(x402.CodePaymentRequired))
	w.Facilitator.OnSettle(gate.Says(200, `{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}`))
	res := w.Pay(http.MethodGet, "/paid/x")
	w.Expect(res, 402, "insufficient_funds")
}

// An error route knows nothing of payments. What it would serve in place of an
// upstream that failed is not served for nothing.
func TestErrorRoutesDoNotServeForTheUpstream(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01", "handle_errors {\n respond `"+gate.Goods+"` 200\n}")
	get := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	post := w.Sign(http.MethodPost, "/paid/x", gate.NewPayer(t)).V2(t)
	w.Upstream.Close()
	res := w.Get("/paid/x", "PAYMENT-SIGNATURE", get)
	w.Expect(res, 502, "upstream_failed")
	if strings.Contains(res.Text, gate.Goods) || res.Header.Get("Payment-Response") != "" || w.Facilitator.Transfers() != 0 {
		t.Errorf("held: %q %v, %d transfers", res.Text, res.Header, w.Facilitator.Transfers())
	}
	res = w.Do(w.Request(http.MethodPost, "/paid/x", "PAYMENT-SIGNATURE", post))
	w.Expect(res, 502, "upstream_failed")
	if !gate.ReceiptOf(t, res).Success {
		t.Error("settled first, and no receipt")
	}
}

// A page that is not there is the error routes' business, paid first or not.
func TestMissingFileGoesToTheErrorRoutes(t *testing.T) {
	for settle, transfers := range map[string]int{"on_success": 0, "first": 1} {
		t.Run(settle, func(t *testing.T) {
			w := newFileWorld(t, "price /paid/* $0.01 {\n settle "+settle+"\n}", "handle_errors {\n respond `no such page` {err.status_code}\n}")
			res := w.Pay(http.MethodGet, "/paid/none.txt")
			w.Expect(res, 404, "")
			if res.Text != "no such page" || w.Facilitator.Transfers() != transfers || (res.Header.Get("Payment-Response") != "") != (transfers > 0) {
				t.Errorf("%q %v, %d transfers", res.Text, res.Header, w.Facilitator.Transfers())
			}
		})
	}
}
