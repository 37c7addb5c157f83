package promises

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// A payer, and all payers together, have only so many payments unsettled,
// whatever they wait for; who comes on top is told to wait before anybody is
// asked, and nothing of it is left when they are done.
func TestUnsettledPaymentsAreBounded(t *testing.T) {
	for _, where := range []string{"verify", "upstream", "settle"} {
		t.Run(where, func(t *testing.T) {
			w := gate.New(t, "price /paid/* $0.01")
			t.Cleanup(gate.SetMost(t, 3, 0, 2, 4))
			hold := gate.NewBarrier()
			t.Cleanup(hold.Release)
			switch where {
			case "verify":
				w.Facilitator.OnVerify(func(rw http.ResponseWriter, r *http.Request) { hold.Pass(); gate.Says(200, `{"isValid":true}`)(rw, r) })
			case "upstream":
				w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) { hold.Pass(); _, _ = rw.Write([]byte(gate.Goods)) })
			case "settle":
				w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
					body := gate.Body(r)
					hold.Pass()
					w.Facilitator.Move(rw, body)
				})
			}
			busy, other := gate.NewPayer(t), gate.NewPayer(t)
			pay := func(p *gate.Payer) gate.Answer {
				return w.Get("/paid/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/x", p).V2(t))
			}
			var all sync.WaitGroup
			for _, p := range []*gate.Payer{busy, busy, other} {
				all.Go(func() { w.Expect(pay(p), 200, "") })
				<-hold.Come
			}
			if got := gate.Unsettled(); got != 3 {
				t.Errorf("%d unsettled", got)
			}
			asked := w.Facilitator.Verified.Load()
			w.ExpectBusy(pay(busy), 429, "too_many_unsettled_payments")
			w.ExpectBusy(pay(gate.NewPayer(t)), 503, "too_busy")
			if w.Facilitator.Verified.Load() != asked {
				t.Error("a facilitator was asked about a payment that was too many")
			}
			hold.Release()
			all.Wait()
			w.Until(func() bool { return gate.Unsettled() == 0 })
			w.Expect(pay(busy), 200, "")
		})
	}
}

// A payer who is told to come back has not settled; a payment of which the
// upstream's answer flows, or which came to nothing, no longer counts.
func TestWhatCountsAsUnsettled(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	for _, g := range gate.Handlers(t) {
		g.ForTest().AnswerWithin = 50 * time.Millisecond
	}
	hold := gate.NewBarrier()
	t.Cleanup(hold.Release)
	w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
		body := gate.Body(r)
		hold.Pass()
		w.Facilitator.Move(rw, body)
	})
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", s), 503, "settlement_pending")
	if got := gate.Unsettled(); got != 1 {
		t.Errorf("%d unsettled while a settlement goes on alone", got)
	}
	hold.Release()
	w.Until(func() bool { return gate.Unsettled() == 0 })
	w.Facilitator.OnSettle(nil)
	for _, g := range gate.Handlers(t) {
		g.ForTest().AnswerWithin = 15 * time.Second
	}

	for _, status := range []int{200, 404} { // charged and uncharged, and both endless
		end := gate.NewBarrier()
		w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(status)
			_ = http.NewResponseController(rw).Flush()
			end.Pass()
		})
		res, err := w.HTTP.Do(w.Request(http.MethodGet, "/paid/y", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/y", gate.NewPayer(t)).V2(t)))
		if err != nil {
			t.Fatal(err)
		}
		if got := gate.Unsettled(); res.StatusCode != status || got != 0 {
			t.Errorf("status %d, %d unsettled while the answer flows", res.StatusCode, got)
		}
		end.Release()
		res.Body.Close()
	}
	w.Facilitator.OnVerify(gate.Says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`))
	w.Expect(w.Pay(http.MethodGet, "/paid/z"), 402, "insufficient_funds")
	if got := gate.Unsettled(); got != 0 {
		t.Errorf("%d unsettled after a refusal", got)
	}
}

// A payment that verifies and then does not settle has had the upstream run for
// it. Once: the next one of that payer moves its money first, whatever was
// offered and however the payer spells the address, and for nobody else.
func TestWhoCouldNotSettlePaysFirst(t *testing.T) {
	gate.ForgetPayers()
	w := gate.New(t, "price /paid/* $0.01")
	advance := gate.Clock(t)
	w.Facilitator.OnSettle(gate.RefusedSettle)
	p := gate.NewPayer(t)
	pay := func(p *gate.Payer, spell func(string) string) gate.Answer {
		c := w.Challenge(http.MethodGet, "/paid/x")
		s := p.Sign(t, c.Accepts[0], time.Now())
		s.Authorization["from"] = spell(p.Address.Hex())
		return w.Get("/paid/x", "PAYMENT-SIGNATURE", s.V2(t))
	}
	same := func(s string) string { return s }
	before := w.Challenge(http.MethodGet, "/paid/x")
	w.Expect(pay(p, same), 402, "insufficient_funds")
	w.Counts(1, 1, 1)
	for i, spell := range []func(string) string{same, strings.ToLower, func(s string) string { return "0x" + strings.ToUpper(s[2:]) }} {
		w.Expect(pay(p, spell), 402, "insufficient_funds")
		w.Counts(1, int64(2+i), int64(2+i)) // the upstream did not run again
	}
	if after := w.Challenge(http.MethodGet, "/paid/x"); string(after.Accepts[0].Extra) != string(before.Accepts[0].Extra) {
		t.Error("the offer has changed for everybody")
	}
	w.Expect(pay(gate.NewPayer(t), same), 402, "insufficient_funds")
	w.Counts(2, 5, 5)

	w.Facilitator.OnSettle(nil)
	w.Upstream.On(gate.Says(500, "broken"))
	res := pay(p, same) // settled before the upstream could fail: owed now
	if res.StatusCode != 500 || !gate.ReceiptOf(t, res).Success {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	w.Upstream.On(nil)
	w.Expect(pay(p, same), 200, "")
	if got := w.Facilitator.Transfers(); got != 1 {
		t.Errorf("%d transfers for one purchase that failed once", got)
	}

	w.Facilitator.OnSettle(gate.RefusedSettle)
	advance(3 * admission.RememberFor)
	hits := w.Upstream.Hits.Load()
	c := w.Challenge(http.MethodGet, "/paid/x")
	s := p.Sign(t, c.Accepts[0], time.Now().Add(3*admission.RememberFor)).V2(t)
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", s), 402, "insufficient_funds")
	if w.Upstream.Hits.Load() != hits+1 {
		t.Error("it is not forgotten")
	}
}
