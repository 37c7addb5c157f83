package paywall_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/ledger/sqlite"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Stock clients never send a payment twice: they sign anew. A fresh signature
// of the same payer redeems what is owed, and is not settled.
func TestFreshSignatureRedeems(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01 {\n settle first\n}")
	w.up.on(says(500, "broken"))
	p := newPayer(t)
	pay := func(path string) answerOf {
		return w.get(path, "PAYMENT-SIGNATURE", p.sign(t, w.challenge(http.MethodGet, path).Accepts[0], time.Now()).v2(t))
	}
	first := pay("/paid/x")
	if first.StatusCode != 500 || w.fac.transfers() != 1 {
		t.Fatalf("%d, %d transfers", first.StatusCode, w.fac.transfers())
	}
	w.up.on(nil)
	// Another payer, and another URL, buy their own.
	w.expect(w.pay(http.MethodGet, "/paid/x"), 200, "")
	w.expect(pay("/paid/y"), 200, "")
	if w.fac.transfers() != 3 {
		t.Fatal(w.fac.transfers())
	}
	// This one is owed.
	res := pay("/paid/x")
	w.expect(res, 200, "")
	if w.fac.transfers() != 3 || receiptOf(t, res).Transaction != receiptOf(t, first).Transaction {
		t.Errorf("%d transfers, receipts %s and %s", w.fac.transfers(), receiptOf(t, res).Transaction, receiptOf(t, first).Transaction)
	}
	// And nothing any more.
	w.expect(pay("/paid/x"), 200, "")
	if w.fac.transfers() != 4 {
		t.Error(w.fac.transfers())
	}
}

// A forged signature redeems nothing, whoever it names.
func TestForgedSignatureRedeemsNothing(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01 {\n settle first\n}")
	w.up.on(says(500, "broken"))
	p := newPayer(t)
	c := w.challenge(http.MethodGet, "/paid/x")
	if res := w.get("/paid/x", "PAYMENT-SIGNATURE", p.sign(t, c.Accepts[0], time.Now()).v2(t)); res.StatusCode != 500 {
		t.Fatal(res.StatusCode)
	}
	w.up.on(nil)
	w.fac.onVerify(says(200, `{"isValid":false,"invalidReason":"invalid_exact_evm_signature"}`))
	forged := newPayer(t).sign(t, c.Accepts[0], time.Now())
	forged.authorization["from"] = p.address.Hex()
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", forged.v2(t)), 402, "invalid_exact_evm_signature")
	if w.up.hits.Load() != 1 {
		t.Error("the forger was served")
	}
	// A contract wallet, which only the facilitator can judge, is served.
	w.fac.onVerify(nil)
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", forged.v2(t)), 200, "")
	if w.fac.transfers() != 1 {
		t.Error(w.fac.transfers())
	}
}

// While the earlier purchase is unknown, a fresh signature is not settled: it
// could pay twice.
func TestFreshSignatureWaitsForTheUnknown(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	w.fac.onSettle(drop)
	p := newPayer(t)
	c := w.challenge(http.MethodGet, "/paid/x")
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", p.sign(t, c.Accepts[0], time.Now()).v2(t)), 503, "settlement_pending")
	settled := w.fac.settled.Load()
	w.fac.onSettle(nil)
	if res := w.get("/paid/x", "PAYMENT-SIGNATURE", p.sign(t, c.Accepts[0], time.Now()).v2(t)); res.StatusCode == 200 && w.fac.transfers() != 1 || res.StatusCode == 402 {
		t.Errorf("%d, %d settles before, %d after", res.StatusCode, settled, w.fac.settled.Load())
	}
	// The reconciler finds out, and then it is served without another charge.
	w.until(func() bool {
		return w.get("/paid/x", "PAYMENT-SIGNATURE", p.sign(t, c.Accepts[0], time.Now()).v2(t)).StatusCode == 200
	})
	if w.fac.transfers() != 1 {
		t.Error(w.fac.transfers())
	}
}

// withIdentifier is a payment that names the purchase.
func (s *signed) withIdentifier(t *testing.T, id string) string {
	t.Helper()
	return encode(t, map[string]any{
		"x402Version": 2,
		"accepted":    s.requirement,
		"payload":     map[string]any{"signature": s.signature, "authorization": s.authorization},
		"extensions":  map[string]any{"payment-identifier": map[string]any{"info": map[string]any{"required": false, "id": id}}},
	})
}

func TestPaymentIdentifier(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01 {\n settle first\n}")
	if c := w.challenge(http.MethodGet, "/paid/x"); !strings.Contains(string(c.Extensions), `"payment-identifier"`) {
		t.Fatalf("not declared: %s", c.Extensions)
	}
	p := newPayer(t)
	pay := func(path, id string) answerOf {
		s := p.sign(t, w.challenge(http.MethodGet, path).Accepts[0], time.Now())
		return w.get(path, "PAYMENT-SIGNATURE", s.withIdentifier(t, id))
	}
	const id = "pay_0123456789abcdef"
	w.expect(pay("/paid/x", "bad id"), 402, string(x402.CodeExtensionEchoMismatch))
	w.up.on(says(500, "broken"))
	if res := pay("/paid/x", id); res.StatusCode != 500 {
		t.Fatal(res.StatusCode)
	}
	w.up.on(nil)
	w.expect(pay("/paid/y", id), 409, "payment_identifier_conflict")
	w.expect(pay("/paid/x", id), 200, "")
	// The same name for the same request: the same outcome, no other charge.
	res := w.again(func() answerOf { return pay("/paid/x", id) })
	w.expect(res, 402, "payment_already_used")
	if !receiptOf(t, res).Success || w.fac.transfers() != 1 {
		t.Errorf("%d transfers", w.fac.transfers())
	}
	// A name belongs to its payer.
	other := newPayer(t).sign(t, w.challenge(http.MethodGet, "/paid/x").Accepts[0], time.Now())
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", other.withIdentifier(t, id)), 200, "")
}

// A purchase is known by its name also when the ledger has only a hash of the query
// that it was for.
func TestPaymentIdentifierWithHashedQuery(t *testing.T) {
	w := prepareWorld(t)
	file := filepath.Join(t.TempDir(), "payments.db")
	w.load(strings.Replace(w.caddyfile("price /paid/* $0.01"), "ledger memory i_accept_loss", "ledger sqlite "+file+" {\n hash_queries\n}", 1))
	p := newPayer(t)
	pay := func(path string) answerOf {
		s := p.sign(t, w.challenge(http.MethodGet, path).Accepts[0], time.Now())
		return w.get(path, "PAYMENT-SIGNATURE", s.withIdentifier(t, "pay_0123456789abcdef"))
	}
	w.expect(pay("/paid/x?mail=me"), 200, "")
	// The file has the sale seconds later, and by then only its hash.
	w.until(func() bool {
		r, err := sqlite.OpenReader(file)
		if err != nil {
			return false
		}
		defer r.Close()
		for row, err := range r.List(t.Context(), ledger.Filter{}) {
			if err == nil && strings.HasPrefix(row.URL, "/paid/x?sha256=") {
				return true
			}
		}
		return false
	})
	w.expect(pay("/paid/x?mail=me"), 402, "payment_already_used")
	w.expect(pay("/paid/x?mail=you"), 409, "payment_identifier_conflict")
	if w.fac.transfers() != 1 {
		t.Error(w.fac.transfers())
	}
}

// post sends a POST with a fresh payment, and hangs up after the header if told to.
func (w *world) post(p *payer, path, body string, hangUp bool) answerOf {
	w.t.Helper()
	return w.postPaid(path, body, p.sign(w.t, w.challenge(http.MethodPost, path).Accepts[0], time.Now()).v2(w.t), hangUp)
}

func (w *world) postPaid(path, body, payment string, hangUp bool) answerOf {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.gate+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("PAYMENT-SIGNATURE", payment)
	if !hangUp {
		return w.do(r)
	}
	res, err := w.http.Do(r)
	if err != nil {
		return answerOf{err: err}
	}
	cancel()
	res.Body.Close()
	return answerOf{Response: res}
}

// An upstream that acted is not made to act again: the payer gets a copy of the
// answer that broke off.
func TestEffectsAreNotRepeated(t *testing.T) {
	w := newWorld(t, "price POST /act $0.01")
	answer := strings.Repeat("acted ", 20_000) // 120 kB
	gone := make(chan struct{}, 8)
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Act", "1")
		for i := range 20 {
			_, _ = io.WriteString(rw, answer[i*6000:(i+1)*6000])
			_ = http.NewResponseController(rw).Flush()
			time.Sleep(10 * time.Millisecond)
		}
		gone <- struct{}{}
	})
	p := newPayer(t)
	if res := w.post(p, "/act", "do it", true); res.err != nil {
		t.Fatal(res.err)
	}
	<-gone // it finished, although nobody listened
	var res answerOf
	w.until(func() bool {
		res = w.post(p, "/act", "do it", false)
		return res.StatusCode == 200
	})
	if res.body != answer || res.Header.Get("X-Act") != "1" || !receiptOf(t, res).Success {
		t.Errorf("%d bytes, %v", len(res.body), res.Header)
	}
	if w.up.hits.Load() != 1 || w.fac.transfers() != 1 {
		t.Errorf("%d hits, %d transfers", w.up.hits.Load(), w.fac.transfers())
	}
	// Delivered now: the next one is another purchase.
	w.expect(w.post(p, "/act", "do it", false), 200, "")
	if w.up.hits.Load() != 2 || w.fac.transfers() != 2 {
		t.Errorf("%d hits, %d transfers", w.up.hits.Load(), w.fac.transfers())
	}
}

// Too large to keep: it is not repeated either, and the payer is told so.
func TestLargeEffectsAreListed(t *testing.T) {
	w := newWorld(t, "price POST /act $0.01")
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		block := strings.Repeat("x", 64<<10)
		for r.Context().Err() == nil {
			if _, err := io.WriteString(rw, block); err != nil {
				return
			}
		}
	})
	p := newPayer(t)
	if res := w.post(p, "/act", "do it", true); res.err != nil {
		t.Fatal(res.err)
	}
	w.until(func() bool {
		res := w.post(p, "/act", "do it", false)
		if res.StatusCode == 409 && strings.Contains(res.body, "delivery_unconfirmed") {
			return receiptOf(t, res).Success
		}
		return false
	})
	if w.up.hits.Load() != 1 || w.fac.transfers() != 1 {
		t.Errorf("%d hits, %d transfers", w.up.hits.Load(), w.fac.transfers())
	}
	// Another order to the same address is another purchase.
	w.up.on(nil)
	w.expect(w.post(p, "/act", "do something else", false), 200, "")
	if w.fac.transfers() != 2 {
		t.Error(w.fac.transfers())
	}
}

// An upstream that answered an error has not acted: it may be asked again.
func TestFailedEffectsAreRepeated(t *testing.T) {
	w := newWorld(t, "price POST /act $0.01")
	w.up.on(says(500, "no"))
	p := newPayer(t)
	if res := w.post(p, "/act", "do it", false); res.StatusCode != 500 {
		t.Fatal(res.StatusCode)
	}
	w.up.on(nil)
	w.expect(w.post(p, "/act", "do it", false), 200, "")
	if w.up.hits.Load() != 2 || w.fac.transfers() != 1 {
		t.Errorf("%d hits, %d transfers", w.up.hits.Load(), w.fac.transfers())
	}
}

// An upstream gives what is owed a limited number of times, however often it breaks off.
func TestRunsAreLimited(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01 {\n settle first\n}")
	w.up.on(breaksOff)
	s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
	fetch := func() answerOf {
		return w.again(func() answerOf { return w.get("/paid/x", "PAYMENT-SIGNATURE", s) })
	}
	for i := range 20 {
		if res := fetch(); res.StatusCode != 200 || res.err == nil {
			t.Fatal(i, res.StatusCode, res.body)
		}
	}
	res := fetch()
	w.expect(res, 409, "delivery_unconfirmed")
	if fmt.Sprint(receiptOf(t, res).Success) != "true" || w.up.hits.Load() != 20 {
		t.Error(w.up.hits.Load())
	}
}

// The same payment redeems from another client network only under the payer's own
// name for the purchase, which nobody can read on the chain.
func TestIdentifierRedeemsFromElsewhere(t *testing.T) {
	w := prepareWorld(t)
	w.load(strings.Replace(w.caddyfile("price /paid/* $0.01 {\n settle first\n}"), "admin off",
		"admin off\nservers {\n trusted_proxies static 127.0.0.0/8\n}", 1))
	w.up.on(says(500, "broken"))
	const id = "pay_0123456789abcdef"
	p := newPayer(t)
	pay := func(path, value, from string) answerOf {
		return w.get(path, "PAYMENT-SIGNATURE", value, "X-Forwarded-For", from)
	}
	s := p.sign(t, w.challenge(http.MethodGet, "/paid/x").Accepts[0], time.Now())
	if res := pay("/paid/x", s.withIdentifier(t, id), "198.51.100.7"); res.StatusCode != 500 {
		t.Fatal(res.StatusCode, res.body)
	}
	w.up.on(nil)
	w.expect(w.again(func() answerOf { return pay("/paid/x", s.v2(t), "203.0.113.7") }), 409, "payment_bought_something_else")
	w.expect(pay("/paid/x", s.withIdentifier(t, "pay_fedcba9876543210"), "203.0.113.7"), 409, "payment_bought_something_else")
	w.expect(pay("/paid/y", s.withIdentifier(t, id), "203.0.113.7"), 409, "payment_bought_something_else")
	w.expect(pay("/paid/x", s.withIdentifier(t, id), "203.0.113.7"), 200, "")
	if w.fac.transfers() != 1 {
		t.Error(w.fac.transfers())
	}
}

// Two payments of one name that came at the same time were both settled.
func TestPaymentIdentifierAtOnce(t *testing.T) {
	w := prepareWorld(t)
	s := w.withScript()
	w.load(onScript(w.caddyfile("price /paid/* $0.01")))
	p := newPayer(t)
	pay := func() answerOf {
		signed := p.sign(t, w.challenge(http.MethodGet, "/paid/x").Accepts[0], time.Now())
		return w.get("/paid/x", "PAYMENT-SIGNATURE", signed.withIdentifier(t, "pay_0123456789abcdef"))
	}
	var both sync.WaitGroup
	both.Add(2)
	claim := func() { both.Done(); both.Wait() }
	s.beforeClaim(claim)
	answers := make(chan answerOf, 2)
	for range 2 {
		go func() { answers <- pay() }()
	}
	served := 0
	for range 2 {
		if res := <-answers; res.StatusCode == 200 {
			served++
		} else if res.StatusCode != 402 { // else the other one was over when it looked
			w.expect(res, 409, "payment_in_flight")
		}
	}
	s.beforeClaim(nil)
	w.until(func() bool {
		res := pay()
		if res.StatusCode == 200 {
			served++
		}
		return res.StatusCode == 402
	})
	if served != 1 || w.fac.transfers() != 1 {
		t.Errorf("served %d times for %d transfers", served, w.fac.transfers())
	}
}
