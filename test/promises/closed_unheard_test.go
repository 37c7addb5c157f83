package promises

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// TestRedirectingFacilitatorClosesPrices: its address has moved, as that of x402.org has. Nobody
// is asked to sign, the redirect is not followed, and the log has the new address.
func TestRedirectingFacilitatorClosesPrices(t *testing.T) {
	w := gate.Prepare(t)
	elsewhere := gate.NewFacilitator(t)
	back := w.Facilitator.AnswersAll(func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, elsewhere.URL+r.URL.Path+"?canary", http.StatusPermanentRedirect)
	})
	config := w.Caddyfile("price /paid/* $0.01")
	w.Load(config)
	for range 3 {
		w.ExpectBusy(w.Get("/paid/x"), 503, "facilitator_unavailable")
	}
	w.Expect(w.Get("/free"), 200, "")
	w.WaitForLog("facilitator is elsewhere")
	w.Reload(config)
	w.ExpectBusy(w.Get("/paid/x"), 503, "facilitator_unavailable")
	if w.Logged(elsewhere.URL) == 0 || w.Logged("canary") > 0 {
		t.Error("the log does not name the new address, or more than that")
	}
	if n := w.Logged("facilitator is elsewhere"); n > 2 {
		t.Errorf("%d lines in the log for two configs", n)
	}
	if n := elsewhere.Supported.Load() + elsewhere.Calls(); n != 0 {
		t.Errorf("the redirect was followed %d times", n)
	}
	if up := gate.Series(t)["facilitator_up facilitator=fake"]; up != 0 {
		t.Errorf("facilitator_up %v", up)
	}
	back()
	w.ComesGood(func() bool { return w.Get("/paid/x").Is(402) })
	w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
}

// TestFacilitatorThatMovesClosesPrices: it was well, and its calls redirect from then on. Payers
// who have signed pay nothing, and after the third nobody is asked to sign.
func TestFacilitatorThatMovesClosesPrices(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	var signed []string
	for range 3 {
		signed = append(signed, w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t))
	}
	back := w.Facilitator.AnswersAll(func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, "https://new.example"+r.URL.Path, http.StatusPermanentRedirect)
	})
	for _, payment := range signed {
		w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", payment), 502, "facilitator_invalid_answer")
	}
	w.ExpectBusy(w.Get("/paid/x"), 503, "facilitator_unavailable")
	back()
	w.ComesGood(func() bool { return w.Get("/paid/x").Is(402) })
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", signed[0]), 200, "")
}

// TestUnheardFacilitatorIsClosed: a facilitator that has never said what it can do is not
// offered, however it keeps silent; what was heard counts over a reload.
func TestUnheardFacilitatorIsClosed(t *testing.T) {
	for name, leave := range away {
		t.Run(name, func(t *testing.T) {
			w := gate.Prepare(t)
			config := w.Caddyfile("price /paid/* $0.01")
			back := leave(w)
			w.Load(config)
			w.ExpectBusy(w.Get("/paid/x"), 503, "facilitator_unavailable")
			w.Expect(w.Get("/free"), 200, "")
			back()
			w.ComesGood(func() bool { return w.Get("/paid/x").Is(402) })
			w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
			leave(w) // what follows is a reload while it is away
			w.Reload(config)
			if res := w.Get("/paid/x"); !res.Is(402) {
				t.Errorf("a reload has forgotten it: %d %s", res.StatusCode, res.Text)
			}
		})
	}
}

// TestSecondFacilitatorStandsInForAnUnheardFirst: what one has not said, another has.
func TestSecondFacilitatorStandsInForAnUnheardFirst(t *testing.T) {
	w := gate.Prepare(t)
	second := gate.NewFacilitator(t)
	w.Facilitator.AnswersAll(gate.Says(503, ""))
	w.Load(strings.Replace(w.Caddyfile("facilitator fake second\nprice /paid/* $0.01"), "ledger memory", "facilitator second "+second.URL+"\nledger memory", 1))
	w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
	if second.Transfers() != 1 {
		t.Errorf("%d transfers by the second", second.Transfers())
	}
}

// TestFirstRequestWaitsForTheFacilitator: a facilitator that takes a moment to answer costs who
// asks just after a start that moment, and no 503.
func TestFirstRequestWaitsForTheFacilitator(t *testing.T) {
	w := gate.Prepare(t)
	var asked atomic.Int32
	kinds := w.Facilitator.Kinds.Load().(string)
	back := w.Facilitator.AnswersAll(func(rw http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		time.Sleep(300 * time.Millisecond)
		_, _ = rw.Write([]byte(kinds))
	})
	if err := gate.Load(w.Caddyfile("price /paid/* $0.01")); err != nil {
		t.Fatal(err)
	}
	if res := w.Get("/paid/x"); !res.Is(402) || asked.Load() != 1 {
		t.Errorf("%d %s, asked %d times", res.StatusCode, res.Text, asked.Load())
	}
	back()
	w.Load(w.Caddyfile("price /paid/* $0.01")) // so that it ends with the test
}
