package promises

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// A version 1 payment does not say its amount, so it always fits the offer of today;
// its earlier quote is looked for all the same.
func TestEarlierQuoteStaysPayableInVersion1(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V1(t)
	w.Reload(w.Caddyfile("price /paid/* $0.02"))
	w.Expect(w.Get("/paid/x", "X-PAYMENT", s), 200, "")
}

// Another client's question after the reload does not make the gate forget the quote.
func TestEarlierQuoteSurvivesOtherClients(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	w.Reload(w.Caddyfile("price /paid/* $0.02"))
	w.Challenge(http.MethodGet, "/paid/x")
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", s), 200, "")
}

// A second reload, also one that changes nothing, does not make the gate forget what
// was asked for before the first.
func TestEarlierQuoteSurvivesMoreReloads(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	advance := func(time.Duration) {}
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	asked := w.Challenge(http.MethodGet, "/paid/x").Accepts[0]
	for _, price := range []string{"0.02", "0.02", "0.02", "0.03", "0.03", "0.04"} {
		w.Reload(w.Caddyfile("price /paid/* $" + price))
		advance = gate.Clock(t)
		w.Challenge(http.MethodGet, "/paid/x")
	}
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", s), 200, "")
	advance(400 * time.Second) // and no longer than it was said
	late := gate.NewPayer(t).Sign(t, asked, time.Now().Add(400*time.Second)).V2(t)
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", late), 402, "no_matching_requirements")
}

// Whoever was quoted a price before a reload pays it.
func TestEarlierQuoteStaysPayable(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t))
	w.Reload(w.Caddyfile("price /paid/* $0.02\nprice /paid/other/* $0.02"))
	w.Expect(w.Get("/paid/other/x", "PAYMENT-SIGNATURE", s.V2(t)), 402, "no_matching_requirements")
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", s.V2(t)), 200, "")
	if w.Facilitator.Transfers() != 1 {
		t.Error(w.Facilitator.Transfers())
	}
	// For as long as the quote says.
	s = w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t))
	w.Reload(w.Caddyfile("price /paid/* $0.03"))
	gate.Clock(t)(400 * time.Second)
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", s.V2(t)), 402, "no_matching_requirements")
}

// A gateway whose clock is off does not blame payers whose times are good.
func TestClockThatIsOffBlamesNoPayer(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	const ahead = -10 * time.Minute // of everybody else
	tells := func(d time.Duration) {
		w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Date", time.Now().Add(d).UTC().Format(http.TimeFormat))
			w.Facilitator.Settle(rw, r)
		})
		w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
	}
	asked := w.Challenge(http.MethodGet, "/paid/x").Accepts[0]
	theirs := func() string { return gate.NewPayer(t).Sign(t, asked, time.Now().Add(ahead)).V2(t) }
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", theirs()), 402, "invalid_exact_evm_payload_authorization_valid_before")
	tells(ahead)
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", theirs()), 503, "server_clock_off")
	if s := gate.Series(t)["clock_ahead_seconds"]; s < -610 || s > -590 {
		t.Error(s)
	}
	tells(0)
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", theirs()), 402, "invalid_exact_evm_payload_authorization_valid_before")
}

// What was offered by use is payable after a reload to a fixed price that is paid first, and
// one at a fixed price after a reload to a price by use.
func TestQuoteOfAnotherSchemeStaysPayable(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		for _, upto := range []bool{true, false} {
			t.Run(fmt.Sprint(method, " upto ", upto), func(t *testing.T) {
				from, to := "price /chat/* $0.50", uptoPrice
				if upto {
					from, to = to, from
				}
				w, f := newUptoWorld(t, from)
				p := gate.NewPayer(t)
				var payment string
				if upto {
					payment = w.PermitFor(method, "/chat/x", p).V2(t)
				} else {
					payment = w.Sign(method, "/chat/x", p).V2(t)
				}
				w.Reload(w.Caddyfile(to))
				w.Upstream.Charges(amountOf("100"))
				w.Expect(w.PayWith(method, "/chat/x", payment), 200, "")
				if upto {
					f.ExpectMoved(t, "100")
				} else {
					f.ExpectMoved(t, "500000")
				}
			})
		}
	}
}
