package promises

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// away makes a facilitator give no answers: nobody listens, it hangs up, or it
// says 5xx or 429 to everything. back ends that.
var away = map[string]func(w *gate.World) (back func()){
	"not listening": func(w *gate.World) func() {
		address, handler := strings.TrimPrefix(w.Facilitator.URL, "http://"), w.Facilitator.Config.Handler
		w.Facilitator.Server.Close()
		return func() { gate.Serve(w.T, address, handler) }
	},
	"500": func(w *gate.World) func() { return w.Facilitator.AnswersAll(gate.Says(500, "oops")) },
	"429": func(w *gate.World) func() { return w.Facilitator.AnswersAll(gate.Says(429, "slow down")) },
	"silence": func(w *gate.World) func() {
		release := make(chan struct{})
		back := w.Facilitator.AnswersAll(func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
			panic(http.ErrAbortHandler)
		})
		return func() { back(); close(release) }
	},
	"hang up": func(w *gate.World) func() {
		return w.Facilitator.AnswersAll(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	},
}

// While the only facilitator gives no answers, nobody is asked to sign: priced
// paths answer 503 with Retry-After, free ones do not notice, what is owed is
// handed out to the payment that bought it, and it comes good by itself.
func TestOutageClosesPrices(t *testing.T) {
	for name, leave := range away {
		t.Run(name, func(t *testing.T) {
			w := gate.Prepare(t)
			config := strings.Replace(w.Caddyfile("price /paid/* $0.01"), w.Facilitator.URL, w.Facilitator.URL+" {\n timeout 1s\n}", 1)
			w.Load(config)
			w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Length", "100")
				_, _ = rw.Write([]byte("part"))
				_ = http.NewResponseController(rw).Flush()
				panic(http.ErrAbortHandler)
			})
			redeem := w.Sign(http.MethodGet, "/paid/owed", gate.NewPayer(t)).V2(t)
			_ = w.Get("/paid/owed", "PAYMENT-SIGNATURE", redeem)
			w.Until(func() bool { return w.Facilitator.Transfers() == 1 })
			w.Upstream.On(nil)

			var late []string
			for range 4 {
				late = append(late, w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t))
			}
			back := leave(w)
			verified := w.Facilitator.Verified.Load()
			var all sync.WaitGroup
			for _, payment := range late[:3] {
				all.Go(func() {
					res := w.Get("/paid/x", "PAYMENT-SIGNATURE", payment)
					if res.Err != nil || res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || res.Header.Get("Payment-Required") != "" {
						t.Errorf("%v %v %s", res.Response, res.Err, res.Text)
					}
				})
			}
			all.Wait()
			res := w.Get("/paid/x")
			w.ExpectBusy(res, 503, "facilitator_unavailable")
			if seconds, err := strconv.Atoi(res.Header.Get("Retry-After")); err != nil || seconds < 1 || seconds > 60 {
				t.Errorf("Retry-After %q", res.Header.Get("Retry-After"))
			}
			w.ExpectBusy(w.Get("/paid/x", "PAYMENT-SIGNATURE", late[3]), 503, "facilitator_unavailable")
			for range 20 {
				w.Get("/paid/x")
			}
			w.WaitForLog("nothing is offered, so")
			if log, _ := os.ReadFile(w.LogFile); strings.Count(string(log), "nothing is offered, so") != 1 {
				t.Error("each request has a line in the log")
			}
			w.Expect(w.Get("/free"), 200, "")
			w.Expect(w.Get("/paid/owed", "PAYMENT-SIGNATURE", redeem), 200, "")
			w.Reload(config)
			w.ExpectBusy(w.Get("/paid/x"), 503, "facilitator_unavailable") // a reload does not forget
			if w.Facilitator.Transfers() != 1 || w.Facilitator.Verified.Load() != verified {
				t.Errorf("%d transfers, verified %d times", w.Facilitator.Transfers(), w.Facilitator.Verified.Load()-verified)
			}

			back()
			start := time.Now()
			w.ComesGood(func() bool { return w.Get("/paid/x").Is(402) })
			t.Logf("closed for %s after it was back", time.Since(start).Round(10*time.Millisecond))
			w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", late[0]), 200, "") // the same payment redeems
		})
	}
}

// With a second facilitator nobody notices: it is asked in the place of the first.
func TestSecondFacilitatorStandsInForTheFirst(t *testing.T) {
	w := gate.Prepare(t)
	second := gate.NewFacilitator(t)
	w.Load(strings.Replace(w.Caddyfile("facilitator fake second\nprice /paid/* $0.01"), "ledger memory", "facilitator second "+second.URL+"\nledger memory", 1))
	w.Until(func() bool { return second.Supported.Load() > 0 })
	back := w.Facilitator.AnswersAll(gate.Says(503, ""))
	for range 5 {
		w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
	}
	if got := second.Transfers(); got != 5 {
		t.Errorf("%d transfers by the second", got)
	}
	back()
	w.ComesGood(func() bool {
		w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
		return w.Facilitator.Transfers() == 1
	})
}

// Where the second facilitator needs another requirement than the first, such as
// another fee payer, the challenge says so; a facilitator that is down for one
// network serves the others.
func TestOutageChangesTheOffer(t *testing.T) {
	w := gate.Prepare(t)
	second := gate.NewFacilitator(t)
	kinds := func(feePayer, more string) string {
		return `{"kinds":[{"x402Version":2,"scheme":"exact","network":"` + solanaDevnet + `","extra":{"feePayer":"` + feePayer + `"}}` + more + `],"extensions":[],"signers":{}}`
	}
	const feePayer1, feePayer2 = "2wKupLR9q6wXYppw8Gr2NvWxKBUqm4PPJKkQfoxHDBg4", "EwWqGE4ZFKLofuestmU4LDdK7XM1N4ALgdZccwYugwGd"
	w.Facilitator.Kinds.Store(kinds(feePayer1, `,{"x402Version":2,"scheme":"exact","network":"eip155:84532"}`))
	second.Kinds.Store(kinds(feePayer2, ""))
	w.Load(gate.BehindProxy(strings.Replace(w.Caddyfile("facilitator fake second\naccept solana-devnet usdc "+solanaPayTo+"\naccept base-sepolia usdc "+gate.PayTo+"\nprice /paid/* $0.01"),
		"ledger memory", "facilitator second "+second.URL+"\nledger memory", 1)))
	offers := func(feePayer string) bool {
		c := w.Challenge(http.MethodGet, "/paid/x")
		return len(c.Accepts) == 2 && strings.Contains(string(c.Accepts[0].Extra), feePayer) && c.Accepts[1].Network == "eip155:84532"
	}
	w.Until(func() bool {
		return second.Supported.Load() > 0 && w.Get("/paid/x").Is(402) && offers(feePayer1)
	})
	payFrom := func(network int) gate.Answer {
		transaction := append([]byte{1}, random(t, 64)...)
		transaction = append(append(transaction, 1, 0, 1, 2), random(t, 96)...)
		transaction = append(transaction, 1, 1, 1, 0, 1, 9)
		return w.Get("/paid/x", "PAYMENT-SIGNATURE", solanaPayment(t, w.Challenge(http.MethodGet, "/paid/x"), transaction),
			"X-Forwarded-For", fmt.Sprintf("198.51.%d.7", network))
	}
	pay := func() gate.Answer { return payFrom(0) }
	settled := gate.Says(200, `{"success":true,"transaction":"`+solanaTx+`","network":"`+solanaDevnet+`"}`)
	second.OnSettle(settled)
	w.Facilitator.OnSettle(settled)
	w.Expect(pay(), 200, "")
	back := w.Facilitator.AnswersAll(gate.Says(503, ""))
	for network := range 3 { // what was signed does not say who pays, so each counts once
		w.Expect(payFrom(network), 503, "facilitator_unavailable")
	}
	if !offers(feePayer2) {
		t.Fatalf("%+v", w.Challenge(http.MethodGet, "/paid/x").Accepts)
	}
	w.Expect(pay(), 200, "")
	if second.Settled.Load() != 1 || w.Facilitator.Settled.Load() != 1 {
		t.Errorf("%d and %d settles", w.Facilitator.Settled.Load(), second.Settled.Load())
	}
	back()
	w.ComesGood(func() bool { return offers(feePayer1) })
}
