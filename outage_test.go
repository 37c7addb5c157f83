package paywall_test

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// away makes a facilitator give no answers: nobody listens, it hangs up, or it
// says 5xx or 429 to everything. back ends that.
var away = map[string]func(w *world) (back func()){
	"not listening": func(w *world) func() {
		address, handler := strings.TrimPrefix(w.fac.URL, "http://"), w.fac.Config.Handler
		w.fac.Server.Close()
		return func() { serve(w.t, address, handler) }
	},
	"500": func(w *world) func() { return w.answersAll(says(500, "oops")) },
	"429": func(w *world) func() { return w.answersAll(says(429, "slow down")) },
	"silence": func(w *world) func() {
		release := make(chan struct{})
		back := w.answersAll(func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
			panic(http.ErrAbortHandler)
		})
		return func() { back(); close(release) }
	},
	"hang up": func(w *world) func() {
		return w.answersAll(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	},
}

// answersAll lets h answer for the facilitator, until it is back.
func (w *world) answersAll(h http.HandlerFunc) (back func()) {
	w.fac.onAll(h)
	return func() { w.fac.onAll(nil) }
}

// comesGood waits for longer than the longest pause between two probes.
func (w *world) comesGood(so func() bool) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if so() {
			return
		}
	}
	w.t.Fatal("it did not come good")
}

// While the only facilitator gives no answers, nobody is asked to sign: priced
// paths answer 503 with Retry-After, free ones do not notice, what is owed is
// handed out to the payment that bought it, and it comes good by itself.
func TestOutageClosesPrices(t *testing.T) {
	for name, leave := range away {
		t.Run(name, func(t *testing.T) {
			w := prepareWorld(t)
			config := strings.Replace(w.caddyfile("price /paid/* $0.01"), w.fac.URL, w.fac.URL+" {\n timeout 1s\n}", 1)
			w.load(config)
			w.up.on(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Length", "100")
				_, _ = rw.Write([]byte("part"))
				_ = http.NewResponseController(rw).Flush()
				panic(http.ErrAbortHandler)
			})
			redeem := w.sign(http.MethodGet, "/paid/owed", newPayer(t)).v2(t)
			_ = w.get("/paid/owed", "PAYMENT-SIGNATURE", redeem)
			w.until(func() bool { return w.fac.transfers() == 1 })
			w.up.on(nil)

			var late []string
			for range 4 {
				late = append(late, w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t))
			}
			back := leave(w)
			verified := w.fac.verified.Load()
			var all sync.WaitGroup
			for _, payment := range late[:3] {
				all.Go(func() {
					res := w.get("/paid/x", "PAYMENT-SIGNATURE", payment)
					if res.err != nil || res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || res.Header.Get("Payment-Required") != "" {
						t.Errorf("%v %v %s", res.Response, res.err, res.body)
					}
				})
			}
			all.Wait()
			res := w.get("/paid/x")
			w.expectBusy(res, 503, "facilitator_unavailable")
			if seconds, err := strconv.Atoi(res.Header.Get("Retry-After")); err != nil || seconds < 1 || seconds > 60 {
				t.Errorf("Retry-After %q", res.Header.Get("Retry-After"))
			}
			w.expectBusy(w.get("/paid/x", "PAYMENT-SIGNATURE", late[3]), 503, "facilitator_unavailable")
			for range 20 {
				w.get("/paid/x")
			}
			w.waitForLog("nothing is offered, so")
			if log, _ := os.ReadFile(w.log); strings.Count(string(log), "nothing is offered, so") != 1 {
				t.Error("each request has a line in the log")
			}
			w.expect(w.get("/free"), 200, "")
			w.expect(w.get("/paid/owed", "PAYMENT-SIGNATURE", redeem), 200, "")
			w.reload(config)
			w.expectBusy(w.get("/paid/x"), 503, "facilitator_unavailable") // a reload does not forget
			if w.fac.transfers() != 1 || w.fac.verified.Load() != verified {
				t.Errorf("%d transfers, verified %d times", w.fac.transfers(), w.fac.verified.Load()-verified)
			}

			back()
			start := time.Now()
			w.comesGood(func() bool { return w.get("/paid/x").is(402) })
			t.Logf("closed for %s after it was back", time.Since(start).Round(10*time.Millisecond))
			w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", late[0]), 200, "") // the same payment redeems
		})
	}
}

// With a second facilitator nobody notices: it is asked in the place of the first.
func TestOutageOfOneOfTwo(t *testing.T) {
	w := prepareWorld(t)
	second := newFakeFacilitator(t)
	w.load(strings.Replace(w.caddyfile("facilitator fake second\nprice /paid/* $0.01"), "ledger memory", "facilitator second "+second.URL+"\nledger memory", 1))
	w.until(func() bool { return second.supported.Load() > 0 })
	back := w.answersAll(says(503, ""))
	for range 5 {
		w.expect(w.pay(http.MethodGet, "/paid/x"), 200, "")
	}
	if got := second.transfers(); got != 5 {
		t.Errorf("%d transfers by the second", got)
	}
	back()
	w.comesGood(func() bool {
		w.expect(w.pay(http.MethodGet, "/paid/x"), 200, "")
		return w.fac.transfers() == 1
	})
}

// Where the second facilitator needs another requirement than the first, such as
// another fee payer, the challenge says so; a facilitator that is down for one
// network serves the others.
func TestOutageChangesTheOffer(t *testing.T) {
	w := prepareWorld(t)
	second := newFakeFacilitator(t)
	kinds := func(feePayer, more string) string {
		return `{"kinds":[{"x402Version":2,"scheme":"exact","network":"` + solanaDevnet + `","extra":{"feePayer":"` + feePayer + `"}}` + more + `],"extensions":[],"signers":{}}`
	}
	const feePayer1, feePayer2 = "2wKupLR9q6wXYppw8Gr2NvWxKBUqm4PPJKkQfoxHDBg4", "EwWqGE4ZFKLofuestmU4LDdK7XM1N4ALgdZccwYugwGd"
	w.fac.kinds.Store(kinds(feePayer1, `,{"x402Version":2,"scheme":"exact","network":"eip155:84532"}`))
	second.kinds.Store(kinds(feePayer2, ""))
	w.load(behindProxy(strings.Replace(w.caddyfile("facilitator fake second\naccept solana-devnet usdc "+solanaPayTo+"\naccept base-sepolia usdc "+payTo+"\nprice /paid/* $0.01"),
		"ledger memory", "facilitator second "+second.URL+"\nledger memory", 1)))
	offers := func(feePayer string) bool {
		c := w.challenge(http.MethodGet, "/paid/x")
		return len(c.Accepts) == 2 && strings.Contains(string(c.Accepts[0].Extra), feePayer) && c.Accepts[1].Network == "eip155:84532"
	}
	w.until(func() bool {
		return second.supported.Load() > 0 && w.get("/paid/x").is(402) && offers(feePayer1)
	})
	payFrom := func(network int) answerOf {
		transaction := append([]byte{1}, random(t, 64)...)
		transaction = append(append(transaction, 1, 0, 1, 2), random(t, 96)...)
		transaction = append(transaction, 1, 1, 1, 0, 1, 9)
		return w.get("/paid/x", "PAYMENT-SIGNATURE", solanaPayment(t, w.challenge(http.MethodGet, "/paid/x"), transaction),
			"X-Forwarded-For", fmt.Sprintf("198.51.%d.7", network))
	}
	pay := func() answerOf { return payFrom(0) }
	settled := says(200, `{"success":true,"transaction":"`+solanaTx+`","network":"`+solanaDevnet+`"}`)
	second.onSettle(settled)
	w.fac.onSettle(settled)
	w.expect(pay(), 200, "")
	back := w.answersAll(says(503, ""))
	for network := range 3 { // what was signed does not say who pays, so each counts once
		w.expect(payFrom(network), 503, "facilitator_unavailable")
	}
	if !offers(feePayer2) {
		t.Fatalf("%+v", w.challenge(http.MethodGet, "/paid/x").Accepts)
	}
	w.expect(pay(), 200, "")
	if second.settled.Load() != 1 || w.fac.settled.Load() != 1 {
		t.Errorf("%d and %d settles", w.fac.settled.Load(), second.settled.Load())
	}
	back()
	w.comesGood(func() bool { return offers(feePayer1) })
}
