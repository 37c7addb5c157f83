package paywall_test

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

const twoNetworks = `{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:84532"},{"x402Version":2,"scheme":"exact","network":"eip155:8453"}],"extensions":[],"signers":{}}`

// A payment in doubt was asked about only while it fitted what is offered now,
// and then at whoever comes first now. The money may have moved all the same, so
// it is asked in the same words at the one that was asked, and there is no 402.
func TestDoubtOutlivesTheConfig(t *testing.T) {
	for name, tc := range map[string]struct {
		header string
		change func(w *world, advance func(time.Duration)) // between the two requests
	}{
		"nothing changed": {"PAYMENT-SIGNATURE", func(*world, func(time.Duration)) {}},
		"another price": {"PAYMENT-SIGNATURE", func(w *world, _ func(time.Duration)) {
			w.reload(onScript(w.caddyfile("price /paid/* $0.02")))
			w.challenge(http.MethodGet, "/paid/x") // and the old quote is forgotten
		}},
		"nearly expired": {"PAYMENT-SIGNATURE", func(_ *world, advance func(time.Duration)) { advance(290 * time.Second) }},
		"expired":        {"PAYMENT-SIGNATURE", func(_ *world, advance func(time.Duration)) { advance(400 * time.Second) }},
		"version 1, another price": {"X-PAYMENT", func(w *world, _ func(time.Duration)) {
			w.reload(onScript(w.caddyfile("price /paid/* $0.02")))
			w.challenge(http.MethodGet, "/paid/x")
		}},
		"version 1, its network left": {"X-PAYMENT", func(w *world, _ func(time.Duration)) {
			w.reload(onScript(w.caddyfile("accept base usdc " + payTo + "\nprice /paid/* $0.01")))
			w.challenge(http.MethodGet, "/paid/x")
		}},
		"another facilitator first": {"PAYMENT-SIGNATURE", func(w *world, _ func(time.Duration)) {
			other := newFakeFacilitator(w.t)
			other.kinds.Store(twoNetworks)
			other.onSettle(says(200, `{"success":false,"errorReason":"nonce_already_used","transaction":"","network":"eip155:84532"}`))
			config := onScript(w.caddyfile("facilitator other fake\nprice /paid/* $0.01"))
			w.reload(strings.Replace(config, "ledger test", "facilitator other "+other.URL+"\nledger test", 1))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := prepareWorld(t)
			w.fac.kinds.Store(twoNetworks)
			w.withScript()
			w.load(onScript(w.caddyfile("price /paid/* $0.01")))
			advance := clock(t)
			var asked recorder
			w.fac.onSettle(asked.around(w.fac, w.fac.lost))
			s := w.sign(http.MethodGet, "/paid/x", newPayer(t))
			value := s.v2(t)
			if tc.header == "X-PAYMENT" {
				value = s.v1(t)
			}
			pay := func() answerOf { return w.get("/paid/x", tc.header, value) }
			w.expect(pay(), 503, "settlement_pending")
			tc.change(w, advance)

			w.fac.onSettle(asked.around(w.fac, refusedSettle)) // which proves nothing any more
			w.expect(pay(), 503, "settlement_pending")
			w.fac.onSettle(asked.around(w.fac, func(rw http.ResponseWriter, r *http.Request) { w.fac.move(rw, w.fac.keep(r)) }))
			w.expect(pay(), 200, "")
			w.expect(w.again(pay), 402, "payment_already_used")
			bodies := asked.all()
			for _, body := range bodies {
				if body != bodies[0] {
					t.Errorf("asked in other words:\n%s\n%s", bodies[0], body)
				}
			}
			if len(bodies) != 4 || w.fac.transfers() != 1 || w.fac.verified.Load() != 1 {
				t.Errorf("%d settles, %d transfers, %d verifies", len(bodies), w.fac.transfers(), w.fac.verified.Load())
			}
		})
	}
}

// A second facilitator that had settled was not asked again once the first was
// back, which truly said that the nonce was used.
func TestRetakeAsksTheOneThatWasAsked(t *testing.T) {
	w := prepareWorld(t)
	second := newFakeFacilitator(t)
	w.withScript()
	w.load(strings.Replace(onScript(w.caddyfile("facilitator fake second\nprice /paid/* $0.01")),
		"ledger test", "facilitator second "+second.URL+"\nledger test", 1))
	w.until(func() bool { return second.supported.Load() > 0 })
	s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
	first := strings.TrimPrefix(w.fac.URL, "http://")
	w.fac.Close()
	second.onSettle(second.lost)
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", s), 503, "settlement_pending")

	back := http.NewServeMux()
	back.HandleFunc("/", says(200, `{"success":false,"errorReason":"nonce_already_used","transaction":"","network":"eip155:84532"}`))
	serve(t, first, back)
	second.onSettle(nil)
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", s), 200, "")
	if second.transfers() != 1 {
		t.Error(second.transfers())
	}
}

// What an order did before its settlement was in doubt, it must not do again.
func TestDoubtfulOrderActsOnce(t *testing.T) {
	w := prepareWorld(t)
	w.withScript()
	w.load(onScript(w.caddyfile("price POST /order $0.01 {\n settle on_success\n}")))
	w.fac.onSettle(w.fac.lost)
	p := newPayer(t)
	s := w.sign(http.MethodPost, "/order", p).v2(t)
	w.expect(w.do(w.request(http.MethodPost, "/order", "PAYMENT-SIGNATURE", s)), 503, "settlement_pending")
	w.fac.onSettle(nil)
	// Asked again, it is found settled, and the answer of the upstream was kept.
	res := w.again(func() answerOf { return w.do(w.request(http.MethodPost, "/order", "PAYMENT-SIGNATURE", s)) })
	if w.expect(res, 200, ""); res.body != sample || !receiptOf(t, res).Success {
		t.Errorf("%q, %+v", res.body, receiptOf(t, res))
	}
	if w.up.hits.Load() != 1 || w.fac.transfers() != 1 {
		t.Errorf("the upstream acted %d times for %d transfers", w.up.hits.Load(), w.fac.transfers())
	}
}

// While the reconciler asks about a payment its row is held, and a fresh
// signature counted as another purchase: the payer paid twice.
func TestFreshSignatureWaitsForTheReconciler(t *testing.T) {
	w := prepareWorld(t)
	s := w.withScript()
	w.load(onScript(w.caddyfile("price /paid/* $0.01")))
	p := newPayer(t)
	pay := func() answerOf {
		return w.get("/paid/x", "PAYMENT-SIGNATURE", w.sign(http.MethodGet, "/paid/x", p).v2(t))
	}
	w.fac.onSettle(w.fac.lost)
	w.expect(pay(), 503, "settlement_pending")
	asked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.fac.onSettle(func(rw http.ResponseWriter, r *http.Request) {
		body := w.fac.keep(r)
		once.Do(func() { close(asked); <-release })
		w.fac.move(rw, body)
	})
	s.visible.Store(true)
	<-asked
	res := pay()
	close(release)
	w.expect(res, 503, "settlement_pending")
	w.until(func() bool { return pay().StatusCode == 200 })
	if w.fac.transfers() != 1 {
		t.Error(w.fac.transfers())
	}
}

// newOpaqueWorld sells for a token on a chain whose authorizations cannot be
// recognised. pay is a payment; each text is another one.
func newOpaqueWorld(t *testing.T) (w *world, s *scripted, pay func(text string) answerOf) {
	t.Helper()
	w = prepareWorld(t)
	s = w.withScript()
	w.fac.kinds.Store(`{"kinds":[{"x402Version":2,"scheme":"exact","network":"stellar:testnet","extra":{"areFeesSponsored":true}}],"extensions":[],"signers":{}}`)
	w.load(onScript(w.caddyfile("accept stellar:testnet CBIELTK6YBZJU5UP2WWQEUCYKLPU6AUNZ2BQ4WWFEIE3USCIHMXQDAMA GDNOTREADBYUSATALLBUTLOOKSLIKEANACCOUNTOFSOMEONEWHOEARNS {\n decimals 7\n peg usd\n}\n" +
		"price /paid/* $0.01 {\n settle first\n}")))
	w.until(func() bool { return w.get("/paid/x").StatusCode == 402 })
	c := w.challenge(http.MethodGet, "/paid/x")
	w.fac.onSettle(oneTransaction)
	return w, s, func(text string) answerOf {
		w.t.Helper()
		return w.get("/paid/x", "PAYMENT-SIGNATURE", encode(t, map[string]any{
			"x402Version": 2, "accepted": c.Accepts[0], "payload": map[string]string{"transaction": text},
		}))
	}
}

// oneTransaction has been paid once, whatever it is asked to settle.
var oneTransaction = says(200, `{"success":true,"transaction":"one-and-only","network":"stellar:testnet"}`)

// One transaction bought twice when the second settlement ended after its payer
// had been told to come back.
func TestOneTransactionBuysOnceAlsoLate(t *testing.T) {
	w, _, pay := newOpaqueWorld(t)
	w.expect(pay("a"), 200, "")
	for _, g := range gates(t) {
		g.ForTest().AnswerWithin = 20 * time.Millisecond
	}
	release := make(chan struct{})
	w.fac.onSettle(func(rw http.ResponseWriter, r *http.Request) {
		<-release
		oneTransaction(rw, r)
	})
	w.expect(pay("b"), 503, "settlement_pending")
	w.expect(pay("b"), 409, "payment_in_flight")
	close(release)
	w.expect(w.again(func() answerOf { return pay("b") }), 409, "payment_bought_something_else")
	w.expect(pay("b"), 402, "payment_already_used")
	if w.up.hits.Load() != 1 {
		t.Errorf("one transaction bought %d times", w.up.hits.Load())
	}
}

// A ledger that failed for a moment while the transaction was recorded made the
// payment a used one, though nothing was delivered for it.
func TestLedgerHiccupKeepsThePurchase(t *testing.T) {
	for _, at := range []ledger.State{ledger.Settling, ledger.Settled, ledger.Delivering, ledger.Delivered} {
		t.Run(string(at), func(t *testing.T) {
			w, s, pay := newOpaqueWorld(t)
			var failed atomic.Bool
			s.onMove(func(c ledger.Claim, ch ledger.Change) error {
				if strings.HasPrefix(string(c.Payment.Key), "transaction:") && ch.To == at && failed.CompareAndSwap(false, true) {
					return ledger.ErrUnavailable
				}
				return nil
			})
			res := pay("a")
			w.expect(res, 503, "ledger_unavailable")
			if !receiptOf(t, res).Success {
				t.Error("no receipt, though the money has moved")
			}
			w.expect(pay("a"), 200, "")
			w.expect(w.again(func() answerOf { return pay("a") }), 402, "payment_already_used")
			w.expect(pay("b"), 409, "payment_bought_something_else")
			if w.up.hits.Load() != 1 || w.fac.settled.Load() != 2 {
				t.Errorf("%d hits, %d settles", w.up.hits.Load(), w.fac.settled.Load())
			}
		})
	}
}

// A settlement is recorded outside of the request, where nobody caught a panic
// of the ledger: it ended the process, and with it this test.
func TestLedgerPanicIsAnError(t *testing.T) {
	w := prepareWorld(t)
	s := w.withScript()
	w.load(onScript(w.caddyfile("price /paid/* $0.01")))
	var panics atomic.Int32
	s.onMove(func(_ ledger.Claim, ch ledger.Change) error {
		if ch.To == ledger.Settled {
			panics.Add(1)
			panic("a bug in the ledger")
		}
		return nil
	})
	res := w.pay(http.MethodGet, "/paid/x")
	w.expect(res, 503, "ledger_unavailable")
	if strings.Contains(res.body, sample) || panics.Load() == 0 {
		t.Errorf("%q, %d panics", res.body, panics.Load())
	}
	// Nor does it end the reconciler's.
	w.fac.onSettle(w.fac.lost)
	w.expect(w.pay(http.MethodGet, "/paid/y"), 503, "settlement_pending")
	w.fac.onSettle(nil)
	before := panics.Load()
	s.visible.Store(true)
	w.until(func() bool { return panics.Load() > before })
	s.onMove(nil)
	w.expect(w.pay(http.MethodGet, "/paid/x"), 200, "")
}

// Whoever was quoted a price before a reload was told that it does not fit.
func TestEarlierQuoteStaysPayable(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	s := w.sign(http.MethodGet, "/paid/x", newPayer(t))
	w.reload(w.caddyfile("price /paid/* $0.02"))
	w.expect(w.get("/paid/never-quoted", "PAYMENT-SIGNATURE", s.v2(t)), 402, "no_matching_requirements")
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", s.v2(t)), 200, "")
	if w.fac.transfers() != 1 {
		t.Error(w.fac.transfers())
	}
	// For as long as the quote says.
	s = w.sign(http.MethodGet, "/paid/x", newPayer(t))
	w.reload(w.caddyfile("price /paid/* $0.03"))
	clock(t)(340 * time.Second)
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", s.v2(t)), 402, "no_matching_requirements")
}
