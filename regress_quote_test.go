package paywall_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// A version 1 payment does not say its amount, so it always fits the offer of
// today, and its earlier quote was never looked for.
func TestEarlierQuoteStaysPayableInVersion1(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V1(t)
	w.Reload(w.Caddyfile("price /paid/* $0.02"))
	w.Expect(w.Get("/paid/x", "X-PAYMENT", s), 200, "")
}

// Another client's question after the reload made the gate forget the quote.
func TestEarlierQuoteSurvivesOtherClients(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	w.Reload(w.Caddyfile("price /paid/* $0.02"))
	w.Challenge(http.MethodGet, "/paid/x")
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", s), 200, "")
}

// A second reload made the gate forget what was asked for before the first, also
// one that changed nothing.
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

// The record of a transaction stayed a mere claim when the ledger failed at its
// first change, and was free again a lease later.
func TestTransactionBuysOnceAfterAHiccup(t *testing.T) {
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

// More ways to read one spelling of the path.
func TestMoreMatchersThatReadThePath(t *testing.T) {
	for _, matcher := range []string{
		"expression `{http.request.uri_escaped}.startsWith('%2Fpublic')`",
		"vars {http.request.uri_escaped} %2Fpublic",
		"vars {http.request.orig_uri_escaped} %2Fpublic",
		"url_pattern /public/*",
		"not url_pattern /public/*",
		"expression `url_pattern('/public/*')`",
	} {
		err := gate.Validate(siteWith("@m "+matcher, "price /paid/* $0.01\nfree @m /paid/*"))
		if err == nil || !strings.Contains(err.Error(), "one spelling of a path") {
			t.Errorf("%s: %v", matcher, err)
		}
	}
}

// What `free @m` above gives away.
func TestEscapedURIGivesNothingAway(t *testing.T) {
	w := gate.Prepare(t)
	if gate.Load(w.Caddyfile("price /paid/* $0.01\nfree @m /paid/*", "@m expression `{http.request.uri_escaped}.startsWith('%2Fpublic')`")) != nil {
		return
	}
	conn, host := w.Dial()
	_, _ = conn.Write([]byte("GET /public/../paid/x HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"))
	head := make([]byte, len("HTTP/1.1 200"))
	if _, _ = conn.Read(head); string(head) == "HTTP/1.1 200" {
		t.Error("served for nothing")
	}
}

// The reconciler's own Take and List are not guarded as its Move is: a panic in
// them ends the process, and with it this test.
func TestReconcilerSurvivesAPanicInTake(t *testing.T) {
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

// While the first settlement goes on alone, after its payer was told to come
// back, its row is held without doubt, and a fresh signature is charged again.
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
