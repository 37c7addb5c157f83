package promises

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// A chain family that we cannot read: only with `settle first`, and a
// transaction of its chain buys once.
func TestTransactionOfAnUnreadableFamilyBuysOnce(t *testing.T) {
	const accept = "accept stellar:testnet CBIELTK6YBZJU5UP2WWQEUCYKLPU6AUNZ2BQ4WWFEIE3USCIHMXQDAMA GDNOTREADBYUSATALLBUTLOOKSLIKEANACCOUNTOFSOMEONEWHOEARNS {\n decimals 7\n peg usd\n}\n"
	const options = accept + "price /paid/* $0.01 {\n settle first\n}"
	w := gate.Prepare(t)
	w.Facilitator.Kinds.Store(`{"kinds":[{"x402Version":2,"scheme":"exact","network":"stellar:testnet","extra":{"areFeesSponsored":true}}],"extensions":[],"signers":{}}`)
	w.Load(w.Caddyfile(options))
	w.Until(func() bool { return w.Get("/paid/x").StatusCode == 402 })
	c := w.Challenge(http.MethodGet, "/paid/x")
	if c.Accepts[0].Amount != "100000" || !strings.Contains(string(c.Accepts[0].Extra), `"areFeesSponsored":true`) {
		t.Fatalf("%+v", c.Accepts)
	}
	pay := func(text string) string {
		return gate.Encode(t, map[string]any{"x402Version": 2, "accepted": c.Accepts[0], "payload": map[string]string{"transaction": text}})
	}
	// The facilitator answers with one transaction whatever comes.
	w.Facilitator.OnSettle(gate.Says(200, `{"success":true,"transaction":"one-and-only","network":"stellar:testnet"}`))
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", pay("a")), 200, "")
	w.Expect(w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", pay("a")) }), 402, "payment_already_used")
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", pay("b")), 409, "payment_bought_something_else")
	w.Expect(w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", pay("b")) }), 402, "payment_already_used")
	if w.Upstream.Hits.Load() != 1 {
		t.Error(w.Upstream.Hits.Load())
	}
}

// newOpaqueWorld sells for a token on a chain whose authorizations cannot be
// recognised. pay is a payment; each text is another one.
func newOpaqueWorld(t *testing.T) (w *gate.World, s *gate.Ledger, pay func(text string) gate.Answer) {
	t.Helper()
	w = gate.Prepare(t)
	s = w.WithLedger()
	w.Facilitator.Kinds.Store(`{"kinds":[{"x402Version":2,"scheme":"exact","network":"stellar:testnet","extra":{"areFeesSponsored":true}}],"extensions":[],"signers":{}}`)
	w.Load(gate.OnLedger(w.Caddyfile("accept stellar:testnet CBIELTK6YBZJU5UP2WWQEUCYKLPU6AUNZ2BQ4WWFEIE3USCIHMXQDAMA GDNOTREADBYUSATALLBUTLOOKSLIKEANACCOUNTOFSOMEONEWHOEARNS {\n decimals 7\n peg usd\n}\n" +
		"price /paid/* $0.01 {\n settle first\n}")))
	w.Until(func() bool { return w.Get("/paid/x").StatusCode == 402 })
	c := w.Challenge(http.MethodGet, "/paid/x")
	w.Facilitator.OnSettle(oneTransaction)
	return w, s, func(text string) gate.Answer {
		w.T.Helper()
		return w.Get("/paid/x", "PAYMENT-SIGNATURE", gate.Encode(t, map[string]any{
			"x402Version": 2, "accepted": c.Accepts[0], "payload": map[string]string{"transaction": text},
		}))
	}
}

// oneTransaction has been paid once, whatever it is asked to settle.
var oneTransaction = gate.Says(200, `{"success":true,"transaction":"one-and-only","network":"stellar:testnet"}`)

// One transaction buys once, also when the second settlement ends after its payer was
// told to come back.
func TestOneTransactionBuysOnceAlsoLate(t *testing.T) {
	w, _, pay := newOpaqueWorld(t)
	w.Expect(pay("a"), 200, "")
	for _, g := range gate.Handlers(t) {
		g.ForTest().AnswerWithin = 20 * time.Millisecond
	}
	release := make(chan struct{})
	w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
		<-release
		oneTransaction(rw, r)
	})
	w.Expect(pay("b"), 503, "settlement_pending")
	w.Expect(pay("b"), 409, "payment_in_flight")
	close(release)
	w.Expect(w.Again(func() gate.Answer { return pay("b") }), 409, "payment_bought_something_else")
	w.Expect(pay("b"), 402, "payment_already_used")
	if w.Upstream.Hits.Load() != 1 {
		t.Errorf("one transaction bought %d times", w.Upstream.Hits.Load())
	}
}

// A ledger that fails at the first change of a transaction's record does not make it
// free again a lease later.
func TestTransactionBuysOnceAlsoAfterAHiccup(t *testing.T) {
	w, s, pay := newOpaqueWorld(t)
	var failed atomic.Bool
	s.OnMove(func(c ledger.Claim, ch ledger.Change) error {
		if strings.HasPrefix(string(c.Payment.Key), "transaction:") && ch.To == ledger.Settling && failed.CompareAndSwap(false, true) {
			return ledger.ErrUnavailable
		}
		return nil
	})
	w.Expect(pay("a"), 503, "ledger_unavailable")
	w.Expect(pay("a"), 200, "")
	s.Ahead.Store(int64(61 * time.Second)) // leaseFor is 60
	w.Expect(pay("b"), 409, "payment_bought_something_else")
}
