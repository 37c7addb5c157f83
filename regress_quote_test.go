package paywall_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// A version 1 payment does not say its amount, so it always fits the offer of
// today, and its earlier quote was never looked for.
func TestEarlierQuoteStaysPayableInVersion1(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v1(t)
	w.reload(w.caddyfile("price /paid/* $0.02"))
	w.expect(w.get("/paid/x", "X-PAYMENT", s), 200, "")
}

// Another client's question after the reload made the gate forget the quote.
func TestEarlierQuoteSurvivesOtherClients(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
	w.reload(w.caddyfile("price /paid/* $0.02"))
	w.challenge(http.MethodGet, "/paid/x")
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", s), 200, "")
}

// A second reload made the gate forget what was asked for before the first, also
// one that changed nothing.
func TestEarlierQuoteSurvivesMoreReloads(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	advance := func(time.Duration) {}
	s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
	asked := w.challenge(http.MethodGet, "/paid/x").Accepts[0]
	for _, price := range []string{"0.02", "0.02", "0.02", "0.03", "0.03", "0.04"} {
		w.reload(w.caddyfile("price /paid/* $" + price))
		advance = clock(t)
		w.challenge(http.MethodGet, "/paid/x")
	}
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", s), 200, "")
	advance(400 * time.Second) // and no longer than it was said
	late := newPayer(t).sign(t, asked, time.Now().Add(400*time.Second)).v2(t)
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", late), 402, "no_matching_requirements")
}

// The record of a transaction stayed a mere claim when the ledger failed at its
// first change, and was free again a lease later.
func TestTransactionBuysOnceAfterAHiccup(t *testing.T) {
	w, s, pay := newOpaqueWorld(t)
	var failed atomic.Bool
	s.onMove(func(c ledger.Claim, ch ledger.Change) error {
		if strings.HasPrefix(string(c.Payment.Key), "transaction:") && ch.To == ledger.Settling && failed.CompareAndSwap(false, true) {
			return ledger.ErrUnavailable
		}
		return nil
	})
	w.expect(pay("a"), 503, "ledger_unavailable")
	w.expect(pay("a"), 200, "")
	s.ahead.Store(int64(61 * time.Second)) // leaseFor is 60
	w.expect(pay("b"), 409, "payment_bought_something_else")
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
		err := loadOnly(siteWith("@m "+matcher, "price /paid/* $0.01\nfree @m /paid/*"))
		if err == nil || !strings.Contains(err.Error(), "one spelling of a path") {
			t.Errorf("%s: %v", matcher, err)
		}
	}
}

// What `free @m` above gives away.
func TestEscapedURIGivesNothingAway(t *testing.T) {
	w := prepareWorld(t)
	if load(w.caddyfile("price /paid/* $0.01\nfree @m /paid/*", "@m expression `{http.request.uri_escaped}.startsWith('%2Fpublic')`")) != nil {
		return
	}
	conn, host := w.dial()
	_, _ = conn.Write([]byte("GET /public/../paid/x HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"))
	head := make([]byte, len("HTTP/1.1 200"))
	if _, _ = conn.Read(head); string(head) == "HTTP/1.1 200" {
		t.Error("served for nothing")
	}
}

// Take panics once, when told to.
func (s *scripted) Take(ctx context.Context, key ledger.Key, to ledger.State, lease time.Duration) (ledger.Claim, error) {
	if s.takePanics.CompareAndSwap(true, false) {
		panic("a bug in the ledger")
	}
	return s.Ledger.Take(ctx, key, to, lease)
}

// The reconciler's own Take and List are not guarded as its Move is: a panic in
// them ends the process, and with it this test.
func TestReconcilerSurvivesAPanicInTake(t *testing.T) {
	w := prepareWorld(t)
	s := w.withScript()
	w.load(onScript(w.caddyfile("price /paid/* $0.01")))
	w.fac.onSettle(w.fac.lost)
	w.expect(w.pay(http.MethodGet, "/paid/x"), 503, "settlement_pending")
	w.fac.onSettle(nil)
	s.takePanics.Store(true)
	s.visible.Store(true)
	w.until(func() bool { return !s.takePanics.Load() })
	w.expect(w.pay(http.MethodGet, "/paid/y"), 200, "")
}

// newlySigned pays anew for /paid/x, as stock clients do when told to come back.
func (w *world) newlySigned(p *payer) answerOf {
	w.t.Helper()
	return w.get("/paid/x", "PAYMENT-SIGNATURE", w.sign(http.MethodGet, "/paid/x", p).v2(w.t))
}

// While the first settlement goes on alone, after its payer was told to come
// back, its row is held without doubt, and a fresh signature is charged again.
func TestFreshSignatureWaitsForTheLateSettlement(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	for _, g := range gates(t) {
		g.ForTest().AnswerWithin = 500 * time.Millisecond
	}
	release := make(chan struct{})
	var calls atomic.Int32
	w.fac.onSettle(func(rw http.ResponseWriter, r *http.Request) {
		body := w.fac.keep(r)
		if calls.Add(1) == 1 {
			<-release
		}
		w.fac.move(rw, body)
	})
	p := newPayer(t)
	w.expect(w.newlySigned(p), 503, "settlement_pending")
	res := w.newlySigned(p)
	close(release)
	w.until(func() bool { return w.newlySigned(p).StatusCode == 200 })
	if w.fac.transfers() != 1 {
		t.Errorf("%d, and %d transfers", res.StatusCode, w.fac.transfers())
	}
}
