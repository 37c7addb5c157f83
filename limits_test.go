package paywall_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/internal/admission"
)

// expectBusy wants a refusal that asks to come back.
func (w *world) expectBusy(res answerOf, status int, code string) {
	w.t.Helper()
	w.expect(res, status, code)
	if res.Header.Get("Retry-After") == "" {
		w.t.Fatalf("%s without Retry-After", code)
	}
	if strings.Contains(res.Header.Get("Payment-Required"), "e") {
		w.t.Fatal("who is to wait is asked to sign anew")
	}
}

// is says whether there was an answer, and with which status: right after a
// reload a connection may be reset.
func (a answerOf) is(status int) bool { return a.err == nil && a.StatusCode == status }

// gateOf holds what comes to it until it is opened.
type gateOf struct {
	come chan struct{}
	open chan struct{}
	once sync.Once
}

func newGateOf() *gateOf {
	return &gateOf{come: make(chan struct{}, 1000), open: make(chan struct{})}
}

func (g *gateOf) pass()    { g.come <- struct{}{}; <-g.open }
func (g *gateOf) release() { g.once.Do(func() { close(g.open) }) }

// A payer, and all payers together, have only so many payments unsettled,
// whatever they wait for; who comes on top is told to wait before anybody is
// asked, and nothing of it is left when they are done.
func TestUnsettledPaymentsAreBounded(t *testing.T) {
	for _, where := range []string{"verify", "upstream", "settle"} {
		t.Run(where, func(t *testing.T) {
			w := newWorld(t, "price /paid/* $0.01")
			t.Cleanup(setMost(t, 3, 0, 2, 4))
			hold := newGateOf()
			t.Cleanup(hold.release)
			switch where {
			case "verify":
				w.fac.onVerify(func(rw http.ResponseWriter, r *http.Request) { hold.pass(); says(200, `{"isValid":true}`)(rw, r) })
			case "upstream":
				w.up.on(func(rw http.ResponseWriter, r *http.Request) { hold.pass(); _, _ = rw.Write([]byte(sample)) })
			case "settle":
				w.fac.onSettle(func(rw http.ResponseWriter, r *http.Request) {
					body := w.fac.keep(r)
					hold.pass()
					w.fac.move(rw, body)
				})
			}
			busy, other := newPayer(t), newPayer(t)
			pay := func(p *payer) answerOf {
				return w.get("/paid/x", "PAYMENT-SIGNATURE", w.sign(http.MethodGet, "/paid/x", p).v2(t))
			}
			var all sync.WaitGroup
			for _, p := range []*payer{busy, busy, other} {
				all.Go(func() { w.expect(pay(p), 200, "") })
				<-hold.come
			}
			if got := unsettled(); got != 3 {
				t.Errorf("%d unsettled", got)
			}
			asked := w.fac.verified.Load()
			w.expectBusy(pay(busy), 429, "too_many_unsettled_payments")
			w.expectBusy(pay(newPayer(t)), 503, "too_busy")
			if w.fac.verified.Load() != asked {
				t.Error("a facilitator was asked about a payment that was too many")
			}
			hold.release()
			all.Wait()
			w.until(func() bool { return unsettled() == 0 })
			w.expect(pay(busy), 200, "")
		})
	}
}

// A payer who is told to come back has not settled; a payment of which the
// upstream's answer flows, or which came to nothing, no longer counts.
func TestWhatCountsAsUnsettled(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	for _, g := range gates(t) {
		g.ForTest().AnswerWithin = 50 * time.Millisecond
	}
	hold := newGateOf()
	t.Cleanup(hold.release)
	w.fac.onSettle(func(rw http.ResponseWriter, r *http.Request) {
		body := w.fac.keep(r)
		hold.pass()
		w.fac.move(rw, body)
	})
	s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", s), 503, "settlement_pending")
	if got := unsettled(); got != 1 {
		t.Errorf("%d unsettled while a settlement goes on alone", got)
	}
	hold.release()
	w.until(func() bool { return unsettled() == 0 })
	w.fac.onSettle(nil)
	for _, g := range gates(t) {
		g.ForTest().AnswerWithin = 15 * time.Second
	}

	for _, status := range []int{200, 404} { // charged and uncharged, and both endless
		end := newGateOf()
		w.up.on(func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(status)
			_ = http.NewResponseController(rw).Flush()
			end.pass()
		})
		res, err := w.http.Do(w.request(http.MethodGet, "/paid/y", "PAYMENT-SIGNATURE", w.sign(http.MethodGet, "/paid/y", newPayer(t)).v2(t)))
		if err != nil {
			t.Fatal(err)
		}
		if got := unsettled(); res.StatusCode != status || got != 0 {
			t.Errorf("status %d, %d unsettled while the answer flows", res.StatusCode, got)
		}
		end.release()
		res.Body.Close()
	}
	w.fac.onVerify(says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`))
	w.expect(w.pay(http.MethodGet, "/paid/z"), 402, "insufficient_funds")
	if got := unsettled(); got != 0 {
		t.Errorf("%d unsettled after a refusal", got)
	}
}

// A payment that verifies and then does not settle has had the upstream run for
// it. Once: the next one of that payer moves its money first, whatever was
// offered and however the payer spells the address, and for nobody else.
func TestWhoCouldNotSettlePaysFirst(t *testing.T) {
	forgetPayers()
	w := newWorld(t, "price /paid/* $0.01")
	advance := clock(t)
	w.fac.onSettle(refusedSettle)
	p := newPayer(t)
	pay := func(p *payer, spell func(string) string) answerOf {
		c := w.challenge(http.MethodGet, "/paid/x")
		s := p.sign(t, c.Accepts[0], time.Now())
		s.authorization["from"] = spell(p.address.Hex())
		return w.get("/paid/x", "PAYMENT-SIGNATURE", s.v2(t))
	}
	same := func(s string) string { return s }
	before := w.challenge(http.MethodGet, "/paid/x")
	w.expect(pay(p, same), 402, "insufficient_funds")
	w.counts(1, 1, 1)
	for i, spell := range []func(string) string{same, strings.ToLower, func(s string) string { return "0x" + strings.ToUpper(s[2:]) }} {
		w.expect(pay(p, spell), 402, "insufficient_funds")
		w.counts(1, int64(2+i), int64(2+i)) // the upstream did not run again
	}
	if after := w.challenge(http.MethodGet, "/paid/x"); string(after.Accepts[0].Extra) != string(before.Accepts[0].Extra) {
		t.Error("the offer has changed for everybody")
	}
	w.expect(pay(newPayer(t), same), 402, "insufficient_funds")
	w.counts(2, 5, 5)

	w.fac.onSettle(nil)
	w.up.on(says(500, "broken"))
	res := pay(p, same) // settled before the upstream could fail: owed now
	if res.StatusCode != 500 || !receiptOf(t, res).Success {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	w.up.on(nil)
	w.expect(pay(p, same), 200, "")
	if got := w.fac.transfers(); got != 1 {
		t.Errorf("%d transfers for one purchase that failed once", got)
	}

	w.fac.onSettle(refusedSettle)
	advance(3 * admission.RememberFor)
	hits := w.up.hits.Load()
	c := w.challenge(http.MethodGet, "/paid/x")
	s := p.sign(t, c.Accepts[0], time.Now().Add(3*admission.RememberFor)).v2(t)
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", s), 402, "insufficient_funds")
	if w.up.hits.Load() != hits+1 {
		t.Error("it is not forgotten")
	}
}
