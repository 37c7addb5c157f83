package promises

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

const twoNetworks = `{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:84532"},{"x402Version":2,"scheme":"exact","network":"eip155:8453"}],"extensions":[],"signers":{}}`

// A payment in doubt is asked about whatever is offered now: in the same words, at
// the one that was asked. The money may have moved, so there is no 402.
func TestDoubtOutlivesTheConfig(t *testing.T) {
	for name, tc := range map[string]struct {
		header string
		change func(w *gate.World, advance func(time.Duration)) // between the two requests
	}{
		"nothing changed": {"PAYMENT-SIGNATURE", func(*gate.World, func(time.Duration)) {}},
		"another price": {"PAYMENT-SIGNATURE", func(w *gate.World, _ func(time.Duration)) {
			w.Reload(gate.OnLedger(w.Caddyfile("price /paid/* $0.02")))
			w.Challenge(http.MethodGet, "/paid/x") // and the old quote is forgotten
		}},
		"nearly expired": {"PAYMENT-SIGNATURE", func(_ *gate.World, advance func(time.Duration)) { advance(290 * time.Second) }},
		"expired":        {"PAYMENT-SIGNATURE", func(_ *gate.World, advance func(time.Duration)) { advance(400 * time.Second) }},
		"version 1, another price": {"X-PAYMENT", func(w *gate.World, _ func(time.Duration)) {
			w.Reload(gate.OnLedger(w.Caddyfile("price /paid/* $0.02")))
			w.Challenge(http.MethodGet, "/paid/x")
		}},
		"version 1, its network left": {"X-PAYMENT", func(w *gate.World, _ func(time.Duration)) {
			w.Reload(gate.OnLedger(w.Caddyfile("accept base usdc " + gate.PayTo + "\nprice /paid/* $0.01")))
			w.Challenge(http.MethodGet, "/paid/x")
		}},
		"another facilitator first": {"PAYMENT-SIGNATURE", func(w *gate.World, _ func(time.Duration)) {
			other := gate.NewFacilitator(w.T)
			other.Kinds.Store(twoNetworks)
			other.OnSettle(gate.Says(200, `{"success":false,"errorReason":"nonce_already_used","transaction":"","network":"eip155:84532"}`))
			config := gate.OnLedger(w.Caddyfile("facilitator other fake\nprice /paid/* $0.01"))
			w.Reload(strings.Replace(config, "ledger test", "facilitator other "+other.URL+"\nledger test", 1))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.Prepare(t)
			w.Facilitator.Kinds.Store(twoNetworks)
			w.WithLedger()
			w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01")))
			advance := gate.Clock(t)
			w.Facilitator.OnSettle(w.Facilitator.Lost)
			s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t))
			value := s.V2(t)
			if tc.header == "X-PAYMENT" {
				value = s.V1(t)
			}
			pay := func() gate.Answer { return w.Get("/paid/x", tc.header, value) }
			w.Expect(pay(), 503, "settlement_pending")
			tc.change(w, advance)

			w.Facilitator.OnSettle(gate.RefusedSettle) // which proves nothing any more
			w.Expect(pay(), 503, "settlement_pending")
			w.Facilitator.OnSettle(nil)
			w.Expect(pay(), 200, "")
			w.Expect(w.Again(pay), 402, "payment_already_used")
			calls := w.Facilitator.Settlements()
			for _, call := range calls {
				if call.Body != calls[0].Body {
					t.Errorf("asked in other words:\n%s\n%s", calls[0].Body, call.Body)
				}
			}
			if len(calls) != 4 || w.Facilitator.Transfers() != 1 || w.Facilitator.Verified.Load() != 1 {
				t.Errorf("%d settles, %d transfers, %d verifies", len(calls), w.Facilitator.Transfers(), w.Facilitator.Verified.Load())
			}
		})
	}
}

// A second facilitator that has settled is asked again, although the first is back,
// which truly says that the nonce was used.
func TestRetakeAsksTheOneThatWasAsked(t *testing.T) {
	w := gate.Prepare(t)
	second := gate.NewFacilitator(t)
	w.WithLedger()
	w.Load(strings.Replace(gate.OnLedger(w.Caddyfile("facilitator fake second\nprice /paid/* $0.01")),
		"ledger test", "facilitator second "+second.URL+"\nledger test", 1))
	w.Until(func() bool { return second.Supported.Load() > 0 })
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	first := strings.TrimPrefix(w.Facilitator.URL, "http://")
	w.Facilitator.Close()
	second.OnSettle(second.Lost)
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", s), 503, "settlement_pending")

	back := http.NewServeMux()
	back.HandleFunc("/", gate.Says(200, `{"success":false,"errorReason":"nonce_already_used","transaction":"","network":"eip155:84532"}`))
	gate.Serve(t, first, back)
	second.OnSettle(nil)
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", s), 200, "")
	if second.Transfers() != 1 {
		t.Error(second.Transfers())
	}
}

// What an order did before its settlement was in doubt, it does not do again.
func TestDoubtfulOrderActsOnce(t *testing.T) {
	w := gate.Prepare(t)
	w.WithLedger()
	w.Load(gate.OnLedger(w.Caddyfile("price POST /order $0.01 {\n settle on_success\n}")))
	w.Facilitator.OnSettle(w.Facilitator.Lost)
	p := gate.NewPayer(t)
	s := w.Sign(http.MethodPost, "/order", p).V2(t)
	w.Expect(w.Do(w.Request(http.MethodPost, "/order", "PAYMENT-SIGNATURE", s)), 503, "settlement_pending")
	w.Facilitator.OnSettle(nil)
	// Asked again, it is found settled, and the answer of the upstream was kept.
	res := w.Again(func() gate.Answer { return w.Do(w.Request(http.MethodPost, "/order", "PAYMENT-SIGNATURE", s)) })
	if w.Expect(res, 200, ""); res.Text != gate.Goods || !gate.ReceiptOf(t, res).Success {
		t.Errorf("%q, %+v", res.Text, gate.ReceiptOf(t, res))
	}
	if w.Upstream.Hits.Load() != 1 || w.Facilitator.Transfers() != 1 {
		t.Errorf("the upstream acted %d times for %d transfers", w.Upstream.Hits.Load(), w.Facilitator.Transfers())
	}
}

// While the reconciler asks about a payment its row is held. A fresh signature is no
// other purchase: it waits.
func TestFreshSignatureWaitsForTheReconciler(t *testing.T) {
	w := gate.Prepare(t)
	s := w.WithLedger()
	w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01")))
	p := gate.NewPayer(t)
	pay := func() gate.Answer {
		return w.Get("/paid/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/x", p).V2(t))
	}
	w.Facilitator.OnSettle(w.Facilitator.Lost)
	w.Expect(pay(), 503, "settlement_pending")
	asked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
		body := gate.Body(r)
		once.Do(func() { close(asked); <-release })
		w.Facilitator.Move(rw, body)
	})
	s.Visible.Store(true)
	<-asked
	res := pay()
	close(release)
	w.Expect(res, 503, "settlement_pending")
	w.Until(func() bool { return pay().StatusCode == 200 })
	if w.Facilitator.Transfers() != 1 {
		t.Error(w.Facilitator.Transfers())
	}
}

// A ledger that fails for a moment while the transaction is recorded does not make
// the payment a used one: nothing was delivered for it.
func TestLedgerHiccupKeepsThePurchase(t *testing.T) {
	for _, at := range []ledger.State{ledger.Settling, ledger.Settled, ledger.Delivering, ledger.Delivered} {
		t.Run(string(at), func(t *testing.T) {
			w, s, pay := newOpaqueWorld(t)
			var failed atomic.Bool
			s.OnMove(func(c ledger.Claim, ch ledger.Change) error {
				if strings.HasPrefix(string(c.Payment.Key), "transaction:") && ch.To == at && failed.CompareAndSwap(false, true) {
					return ledger.ErrUnavailable
				}
				return nil
			})
			res := pay("a")
			w.Expect(res, 503, "ledger_unavailable")
			if !gate.ReceiptOf(t, res).Success {
				t.Error("no receipt, though the money has moved")
			}
			w.Expect(pay("a"), 200, "")
			w.Expect(w.Again(func() gate.Answer { return pay("a") }), 402, "payment_already_used")
			w.Expect(pay("b"), 409, "payment_bought_something_else")
			if w.Upstream.Hits.Load() != 1 || w.Facilitator.Settled.Load() != 2 {
				t.Errorf("%d hits, %d settles", w.Upstream.Hits.Load(), w.Facilitator.Settled.Load())
			}
		})
	}
}

// A settlement is recorded outside of the request, where a panic of the ledger would
// end the process, and with it this test.
func TestLedgerPanicIsAnError(t *testing.T) {
	w := gate.Prepare(t)
	s := w.WithLedger()
	w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01")))
	var panics atomic.Int32
	s.OnMove(func(_ ledger.Claim, ch ledger.Change) error {
		if ch.To == ledger.Settled {
			panics.Add(1)
			panic("a bug in the ledger")
		}
		return nil
	})
	res := w.Pay(http.MethodGet, "/paid/x")
	w.Expect(res, 503, "ledger_unavailable")
	if strings.Contains(res.Text, gate.Goods) || panics.Load() == 0 {
		t.Errorf("%q, %d panics", res.Text, panics.Load())
	}
	// Nor does it end the reconciler's.
	w.Facilitator.OnSettle(w.Facilitator.Lost)
	w.Expect(w.Pay(http.MethodGet, "/paid/y"), 503, "settlement_pending")
	w.Facilitator.OnSettle(nil)
	before := panics.Load()
	s.Visible.Store(true)
	w.Until(func() bool { return panics.Load() > before })
	s.OnMove(nil)
	w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
}

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

// The reconciler's own Take and List are guarded as its Move is: a panic in them
// would end the process, and with it this test.
func TestReconcilerSurvivesAPanicOfTheLedger(t *testing.T) {
	w := gate.Prepare(t)
	s := w.WithLedger()
	w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01")))
	w.Facilitator.OnSettle(w.Facilitator.Lost)
	w.Expect(w.Pay(http.MethodGet, "/paid/x"), 503, "settlement_pending")
	w.Facilitator.OnSettle(nil)
	s.TakePanics.Store(true)
	s.Visible.Store(true)
	w.Until(func() bool { return !s.TakePanics.Load() })
	w.Expect(w.Pay(http.MethodGet, "/paid/y"), 200, "")
}

// newlySigned pays anew for /paid/x, as stock clients do when told to come back.
func newlySigned(w *gate.World, p *gate.Payer) gate.Answer {
	w.T.Helper()
	return w.Get("/paid/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/x", p).V2(w.T))
}

// While the first settlement goes on alone, after its payer was told to come back,
// its row is held without doubt. A fresh signature is not charged.
func TestFreshSignatureWaitsForTheLateSettlement(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	for _, g := range gate.Handlers(t) {
		g.ForTest().AnswerWithin = 500 * time.Millisecond
	}
	release := make(chan struct{})
	var calls atomic.Int32
	w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
		body := gate.Body(r)
		if calls.Add(1) == 1 {
			<-release
		}
		w.Facilitator.Move(rw, body)
	})
	p := gate.NewPayer(t)
	w.Expect(newlySigned(w, p), 503, "settlement_pending")
	res := newlySigned(w, p)
	close(release)
	w.Until(func() bool { return newlySigned(w, p).StatusCode == 200 })
	if w.Facilitator.Transfers() != 1 {
		t.Errorf("%d, and %d transfers", res.StatusCode, w.Facilitator.Transfers())
	}
}
