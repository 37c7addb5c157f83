package promises

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/ledger/sqlite"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Stock clients never send a payment twice: they sign anew. A fresh signature
// of the same payer redeems what is owed, and is not settled.
func TestFreshSignatureRedeems(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01 {\n settle first\n}")
	w.Upstream.On(gate.Says(500, "broken"))
	p := gate.NewPayer(t)
	pay := func(path string) gate.Answer {
		return w.Get(path, "PAYMENT-SIGNATURE", p.Sign(t, w.Challenge(http.MethodGet, path).Accepts[0], time.Now()).V2(t))
	}
	first := pay("/paid/x")
	if first.StatusCode != 500 || w.Facilitator.Transfers() != 1 {
		t.Fatalf("%d, %d transfers", first.StatusCode, w.Facilitator.Transfers())
	}
	w.Upstream.On(nil)
	// Another payer, and another URL, buy their own.
	w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
	w.Expect(pay("/paid/y"), 200, "")
	if w.Facilitator.Transfers() != 3 {
		t.Fatal(w.Facilitator.Transfers())
	}
	// This one is owed.
	res := pay("/paid/x")
	w.Expect(res, 200, "")
	if w.Facilitator.Transfers() != 3 || gate.ReceiptOf(t, res).Transaction != gate.ReceiptOf(t, first).Transaction {
		t.Errorf("%d transfers, receipts %s and %s", w.Facilitator.Transfers(), gate.ReceiptOf(t, res).Transaction, gate.ReceiptOf(t, first).Transaction)
	}
	// And nothing any more.
	w.Expect(pay("/paid/x"), 200, "")
	if w.Facilitator.Transfers() != 4 {
		t.Error(w.Facilitator.Transfers())
	}
}

// A forged signature redeems nothing, whoever it names.
func TestForgedSignatureRedeemsNothing(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01 {\n settle first\n}")
	w.Upstream.On(gate.Says(500, "broken"))
	p := gate.NewPayer(t)
	c := w.Challenge(http.MethodGet, "/paid/x")
	if res := w.Get("/paid/x", "PAYMENT-SIGNATURE", p.Sign(t, c.Accepts[0], time.Now()).V2(t)); res.StatusCode != 500 {
		t.Fatal(res.StatusCode)
	}
	w.Upstream.On(nil)
	w.Facilitator.OnVerify(gate.Says(200, `{"isValid":false,"invalidReason":"invalid_exact_evm_signature"}`))
	forged := gate.NewPayer(t).Sign(t, c.Accepts[0], time.Now())
	forged.Authorization["from"] = p.Address.Hex()
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", forged.V2(t)), 402, "invalid_exact_evm_signature")
	if w.Upstream.Hits.Load() != 1 {
		t.Error("the forger was served")
	}
	// A contract wallet, which only the facilitator can judge, is served.
	w.Facilitator.OnVerify(nil)
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", forged.V2(t)), 200, "")
	if w.Facilitator.Transfers() != 1 {
		t.Error(w.Facilitator.Transfers())
	}
}

// While the earlier purchase is unknown, a fresh signature is not settled: it
// could pay twice.
func TestFreshSignatureWaitsForTheUnknown(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	w.Facilitator.OnSettle(gate.Drop)
	p := gate.NewPayer(t)
	c := w.Challenge(http.MethodGet, "/paid/x")
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", p.Sign(t, c.Accepts[0], time.Now()).V2(t)), 503, "settlement_pending")
	settled := w.Facilitator.Settled.Load()
	w.Facilitator.OnSettle(nil)
	if res := w.Get("/paid/x", "PAYMENT-SIGNATURE", p.Sign(t, c.Accepts[0], time.Now()).V2(t)); res.StatusCode == 200 && w.Facilitator.Transfers() != 1 || res.StatusCode == 402 {
		t.Errorf("%d, %d settles before, %d after", res.StatusCode, settled, w.Facilitator.Settled.Load())
	}
	// The reconciler finds out, and then it is served without another charge.
	w.Until(func() bool {
		return w.Get("/paid/x", "PAYMENT-SIGNATURE", p.Sign(t, c.Accepts[0], time.Now()).V2(t)).StatusCode == 200
	})
	if w.Facilitator.Transfers() != 1 {
		t.Error(w.Facilitator.Transfers())
	}
}

func TestPurchaseIsFetchedByItsIdentifier(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01 {\n settle first\n}")
	if c := w.Challenge(http.MethodGet, "/paid/x"); !strings.Contains(string(c.Extensions), `"payment-identifier"`) {
		t.Fatalf("not declared: %s", c.Extensions)
	}
	p := gate.NewPayer(t)
	pay := func(path, id string) gate.Answer {
		s := p.Sign(t, w.Challenge(http.MethodGet, path).Accepts[0], time.Now())
		return w.Get(path, "PAYMENT-SIGNATURE", s.WithIdentifier(t, id))
	}
	const id = "pay_0123456789abcdef"
	w.Expect(pay("/paid/x", "bad id"), 402, string(x402.CodeExtensionEchoMismatch))
	w.Upstream.On(gate.Says(500, "broken"))
	if res := pay("/paid/x", id); res.StatusCode != 500 {
		t.Fatal(res.StatusCode)
	}
	w.Upstream.On(nil)
	w.Expect(pay("/paid/y", id), 409, "payment_identifier_conflict")
	w.Expect(pay("/paid/x", id), 200, "")
	// The same name for the same request: the same outcome, no other charge.
	res := w.Again(func() gate.Answer { return pay("/paid/x", id) })
	w.Expect(res, 402, "payment_already_used")
	if !gate.ReceiptOf(t, res).Success || w.Facilitator.Transfers() != 1 {
		t.Errorf("%d transfers", w.Facilitator.Transfers())
	}
	// A name belongs to its payer.
	other := gate.NewPayer(t).Sign(t, w.Challenge(http.MethodGet, "/paid/x").Accepts[0], time.Now())
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", other.WithIdentifier(t, id)), 200, "")
}

// A purchase is known by its name also when the ledger has only a hash of the query
// that it was for.
func TestIdentifierIsKnownWhereTheQueryIsHashed(t *testing.T) {
	w := gate.Prepare(t)
	file := filepath.Join(t.TempDir(), "payments.db")
	w.Load(strings.Replace(w.Caddyfile("price /paid/* $0.01"), "ledger memory i_accept_loss", "ledger sqlite "+file+" {\n hash_queries\n}", 1))
	p := gate.NewPayer(t)
	pay := func(path string) gate.Answer {
		s := p.Sign(t, w.Challenge(http.MethodGet, path).Accepts[0], time.Now())
		return w.Get(path, "PAYMENT-SIGNATURE", s.WithIdentifier(t, "pay_0123456789abcdef"))
	}
	w.Expect(pay("/paid/x?mail=me"), 200, "")
	// The file has the sale seconds later, and by then only its hash.
	w.Until(func() bool {
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
	w.Expect(pay("/paid/x?mail=me"), 402, "payment_already_used")
	w.Expect(pay("/paid/x?mail=you"), 409, "payment_identifier_conflict")
	if w.Facilitator.Transfers() != 1 {
		t.Error(w.Facilitator.Transfers())
	}
}

// An upstream that acted is not made to act again: the payer gets a copy of the
// answer that broke off.
func TestEffectsAreNotRepeated(t *testing.T) {
	w := gate.New(t, "price POST /act $0.01")
	answer := strings.Repeat("acted ", 20_000) // 120 kB
	gone := make(chan struct{}, 8)
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Act", "1")
		for i := range 20 {
			_, _ = io.WriteString(rw, answer[i*6000:(i+1)*6000])
			_ = http.NewResponseController(rw).Flush()
			time.Sleep(10 * time.Millisecond)
		}
		gone <- struct{}{}
	})
	p := gate.NewPayer(t)
	if res := w.Post(p, "/act", "do it", true); res.Err != nil {
		t.Fatal(res.Err)
	}
	<-gone // it finished, although nobody listened
	var res gate.Answer
	w.Until(func() bool {
		res = w.Post(p, "/act", "do it", false)
		return res.StatusCode == 200
	})
	if res.Text != answer || res.Header.Get("X-Act") != "1" || !gate.ReceiptOf(t, res).Success {
		t.Errorf("%d bytes, %v", len(res.Text), res.Header)
	}
	if w.Upstream.Hits.Load() != 1 || w.Facilitator.Transfers() != 1 {
		t.Errorf("%d hits, %d transfers", w.Upstream.Hits.Load(), w.Facilitator.Transfers())
	}
	// Delivered now: the next one is another purchase.
	w.Expect(w.Post(p, "/act", "do it", false), 200, "")
	if w.Upstream.Hits.Load() != 2 || w.Facilitator.Transfers() != 2 {
		t.Errorf("%d hits, %d transfers", w.Upstream.Hits.Load(), w.Facilitator.Transfers())
	}
}

// Whether an upstream has acted that was asked by a process which is gone, nobody knows: it
// is not asked again, unless it is told by which key it knows a repetition.
func TestEffectsThatMayHaveHappenedAreNotRepeated(t *testing.T) {
	for name, tt := range map[string]struct {
		option string
		status int
		code   string
		runs   int64
	}{
		"an upstream that cannot tell":        {status: 409, code: "delivery_unconfirmed", runs: 1},
		"an upstream with an Idempotency-Key": {option: "upstream_headers\n", status: 200, runs: 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.Prepare(t)
			s := w.WithLedger()
			w.Load(gate.OnLedger(w.Caddyfile(tt.option + "price POST /act $0.01")))
			advance := gate.Clock(t)
			p := gate.NewPayer(t)
			w.Upstream.On(gate.Says(500, "no"))
			payment := w.Sign(http.MethodPost, "/act", p).V2(t)
			if res := w.PostPaid("/act", "order", payment, false); res.StatusCode != 500 {
				t.Fatal(res)
			}
			w.Upstream.On(nil)
			// Another process took it up, asked the upstream, and was killed.
			var row ledger.Payment
			w.ComesGood(func() bool {
				for r, err := range s.List(t.Context(), ledger.Filter{Payer: p.Address.Hex(), States: []ledger.State{ledger.Settled}}) {
					row = r
					return err == nil
				}
				return false
			})
			taken, err := s.Take(t.Context(), row.Key, ledger.Delivering, ledger.LeaseFor)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Move(t.Context(), taken, ledger.Change{To: ledger.Delivering, Status: ledger.StatusBegan}); err != nil {
				t.Fatal(err)
			}
			advance(2 * ledger.LeaseFor)
			s.Ahead.Store(int64(2 * ledger.LeaseFor))
			w.Expect(w.PostPaid("/act", "order", payment, false), tt.status, tt.code)
			if n := w.Upstream.Hits.Load(); n != tt.runs || w.Facilitator.Transfers() != 1 {
				t.Errorf("%d runs, %d transfers", n, w.Facilitator.Transfers())
			}
			if tt.status == 200 {
				return
			}
			w.Expect(w.PostPaid("/act", "order", p.Sign(t, w.Challenge(http.MethodPost, "/act").Accepts[0], time.Now().Add(2*ledger.LeaseFor)).V2(t), false), tt.status, tt.code)
			w.Expect(w.PostPaid("/act", "another", p.Sign(t, w.Challenge(http.MethodPost, "/act").Accepts[0], time.Now().Add(2*ledger.LeaseFor)).V2(t), false), 200, "")
		})
	}
}

// An upstream that failed without an answer, and a process that lives to say so: it is
// asked again.
func TestEffectsThatFailedAreRepeatedByWhoKnows(t *testing.T) {
	w := gate.New(t, "price POST /act $0.01", "in_process")
	var runs atomic.Int64
	gate.OnInProcess(func(rw http.ResponseWriter, _ *http.Request) error {
		if runs.Add(1) == 1 {
			return nil // nobody answers
		}
		_, _ = io.WriteString(rw, "done")
		return nil
	})
	p := gate.NewPayer(t)
	payment := w.Sign(http.MethodPost, "/act", p).V2(t)
	w.Expect(w.PostPaid("/act", "order", payment, false), 502, "upstream_gave_no_answer")
	w.Expect(w.Again(func() gate.Answer { return w.PostPaid("/act", "order", payment, false) }), 200, "")
}

// Too large to keep: it is not repeated either, and the payer is told so.
func TestLargeEffectsAreListed(t *testing.T) {
	w := gate.New(t, "price POST /act $0.01")
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		block := strings.Repeat("x", 64<<10)
		for r.Context().Err() == nil {
			if _, err := io.WriteString(rw, block); err != nil {
				return
			}
		}
	})
	p := gate.NewPayer(t)
	if res := w.Post(p, "/act", "do it", true); res.Err != nil {
		t.Fatal(res.Err)
	}
	w.Until(func() bool {
		res := w.Post(p, "/act", "do it", false)
		if res.StatusCode == 409 && strings.Contains(res.Text, "delivery_unconfirmed") {
			return gate.ReceiptOf(t, res).Success
		}
		return false
	})
	if w.Upstream.Hits.Load() != 1 || w.Facilitator.Transfers() != 1 {
		t.Errorf("%d hits, %d transfers", w.Upstream.Hits.Load(), w.Facilitator.Transfers())
	}
	// Another order to the same address is another purchase.
	w.Upstream.On(nil)
	w.Expect(w.Post(p, "/act", "do something else", false), 200, "")
	if w.Facilitator.Transfers() != 2 {
		t.Error(w.Facilitator.Transfers())
	}
}

// An upstream that answered an error has not acted: it may be asked again.
func TestFailedEffectsAreRepeated(t *testing.T) {
	w := gate.New(t, "price POST /act $0.01")
	w.Upstream.On(gate.Says(500, "no"))
	p := gate.NewPayer(t)
	if res := w.Post(p, "/act", "do it", false); res.StatusCode != 500 {
		t.Fatal(res.StatusCode)
	}
	w.Upstream.On(nil)
	w.Expect(w.Post(p, "/act", "do it", false), 200, "")
	if w.Upstream.Hits.Load() != 2 || w.Facilitator.Transfers() != 1 {
		t.Errorf("%d hits, %d transfers", w.Upstream.Hits.Load(), w.Facilitator.Transfers())
	}
}

// An upstream gives what is owed a limited number of times, however often it breaks off.
func TestOwedGoodsAreRunOnlySoOften(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01 {\n settle first\n}")
	w.Upstream.On(gate.BreaksOff)
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	fetch := func() gate.Answer {
		return w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", s) })
	}
	for i := range 20 {
		if res := fetch(); res.StatusCode != 200 || res.Err == nil {
			t.Fatal(i, res.StatusCode, res.Text)
		}
	}
	res := fetch()
	w.Expect(res, 409, "delivery_unconfirmed")
	if fmt.Sprint(gate.ReceiptOf(t, res).Success) != "true" || w.Upstream.Hits.Load() != 20 {
		t.Error(w.Upstream.Hits.Load())
	}
}

// The same payment redeems from another client network only under the payer's own
// name for the purchase, which nobody can read on the chain.
func TestIdentifierRedeemsFromElsewhere(t *testing.T) {
	w := gate.Prepare(t)
	w.Load(strings.Replace(w.Caddyfile("price /paid/* $0.01 {\n settle first\n}"), "admin off",
		"admin off\nservers {\n trusted_proxies static 127.0.0.0/8\n}", 1))
	w.Upstream.On(gate.Says(500, "broken"))
	const id = "pay_0123456789abcdef"
	p := gate.NewPayer(t)
	pay := func(path, value, from string) gate.Answer {
		return w.Get(path, "PAYMENT-SIGNATURE", value, "X-Forwarded-For", from)
	}
	s := p.Sign(t, w.Challenge(http.MethodGet, "/paid/x").Accepts[0], time.Now())
	if res := pay("/paid/x", s.WithIdentifier(t, id), "198.51.100.7"); res.StatusCode != 500 {
		t.Fatal(res.StatusCode, res.Text)
	}
	w.Upstream.On(nil)
	w.Expect(w.Again(func() gate.Answer { return pay("/paid/x", s.V2(t), "203.0.113.7") }), 409, "payment_bought_something_else")
	w.Expect(pay("/paid/x", s.WithIdentifier(t, "pay_fedcba9876543210"), "203.0.113.7"), 409, "payment_bought_something_else")
	w.Expect(pay("/paid/y", s.WithIdentifier(t, id), "203.0.113.7"), 409, "payment_bought_something_else")
	w.Expect(pay("/paid/x", s.WithIdentifier(t, id), "203.0.113.7"), 200, "")
	if w.Facilitator.Transfers() != 1 {
		t.Error(w.Facilitator.Transfers())
	}
}

// Of two payments of one name that come at the same time one is settled.
func TestTwoPaymentsOfOneIdentifierAtOnceSettleOnce(t *testing.T) {
	w := gate.Prepare(t)
	s := w.WithLedger()
	w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01")))
	p := gate.NewPayer(t)
	pay := func() gate.Answer {
		signed := p.Sign(t, w.Challenge(http.MethodGet, "/paid/x").Accepts[0], time.Now())
		return w.Get("/paid/x", "PAYMENT-SIGNATURE", signed.WithIdentifier(t, "pay_0123456789abcdef"))
	}
	var both sync.WaitGroup
	both.Add(2)
	claim := func() { both.Done(); both.Wait() }
	s.BeforeClaim(claim)
	answers := make(chan gate.Answer, 2)
	for range 2 {
		go func() { answers <- pay() }()
	}
	served := 0
	for range 2 {
		if res := <-answers; res.StatusCode == 200 {
			served++
		} else if res.StatusCode != 402 { // else the other one was over when it looked
			w.Expect(res, 409, "payment_in_flight")
		}
	}
	s.BeforeClaim(nil)
	w.Until(func() bool {
		res := pay()
		if res.StatusCode == 200 {
			served++
		}
		return res.StatusCode == 402
	})
	if served != 1 || w.Facilitator.Transfers() != 1 {
		t.Errorf("served %d times for %d transfers", served, w.Facilitator.Transfers())
	}
}

// What a payer is not charged for does not use up a purchase that is owed to him.
func TestRedirectDoesNotUseUpWhatIsOwed(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01 {\n settle first\n}")
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	pay := func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", s) }
	w.Upstream.On(gate.Says(500, "broken"))
	w.Expect(pay(), 500, "")
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, "/maintenance", http.StatusFound) })
	w.Expect(w.Again(pay), 302, "")
	w.Upstream.On(nil)
	w.Expect(w.Again(pay), 200, "")
	if w.Facilitator.Transfers() != 1 {
		t.Error(w.Facilitator.Transfers())
	}
}

// An upstream that breaks off after its header: the money has moved, so the
// payer can fetch the rest with the same payment.
func TestBrokenBodyIsRedelivered(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Length", "1000")
		_, _ = rw.Write([]byte("half"))
		_ = http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	})
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	res := w.Get("/paid/x", "PAYMENT-SIGNATURE", s)
	if res.Err == nil {
		t.Fatalf("a broken body arrived whole: %d %q", res.StatusCode, res.Text)
	}
	w.Upstream.On(nil)
	w.Until(func() bool { return w.Get("/paid/x", "PAYMENT-SIGNATURE", s).StatusCode == 200 })
	if w.Facilitator.Transfers() != 1 || w.Facilitator.Settled.Load() != 1 {
		t.Fatalf("%d transfers, %d settles", w.Facilitator.Transfers(), w.Facilitator.Settled.Load())
	}
	w.Expect(w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", s) }), 402, "payment_already_used")
}

// The same header for another URL, or by another method, does not fetch it.
func TestRedeliveryIsBound(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01 {\n settle first\n}")
	w.Upstream.On(gate.Says(500, "broken"))
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	if res := w.Get("/paid/x", "PAYMENT-SIGNATURE", s); res.StatusCode != 500 || !gate.ReceiptOf(t, res).Success {
		t.Fatal(res.StatusCode)
	}
	w.Upstream.On(nil)
	hits := w.Upstream.Hits.Load()
	w.Expect(w.Get("/paid/y", "PAYMENT-SIGNATURE", s), 409, "payment_bought_something_else")
	w.Expect(w.Get("/paid/x?more=1", "PAYMENT-SIGNATURE", s), 409, "payment_bought_something_else")
	w.Expect(w.Do(w.Request(http.MethodPost, "/paid/x", "PAYMENT-SIGNATURE", s)), 409, "payment_bought_something_else")
	if w.Upstream.Hits.Load() != hits {
		t.Error("the upstream ran")
	}
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", s), 200, "")
	w.Counts(2, 1, 1)
}

// An act that we cut off, here because its claim was lost, is not begun again: whether it
// was done nobody knows.
func TestEffectsThatWeCutOffAreNotRepeated(t *testing.T) {
	w := gate.Prepare(t)
	s := w.WithLedger()
	w.Load(gate.OnLedger(w.Caddyfile("price POST /act $0.01")))
	for _, h := range gate.Handlers(t) {
		h.ForTest().RenewEvery = 50 * time.Millisecond
	}
	w.Upstream.On(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		s.Lost.Store(true)
		<-r.Context().Done()
	})
	payment := w.Sign(http.MethodPost, "/act", gate.NewPayer(t)).V2(t)
	_ = w.PostPaid("/act", "order", payment, false)
	s.Lost.Store(false)
	w.Expect(w.Again(func() gate.Answer { return w.PostPaid("/act", "order", payment, false) }), 409, "delivery_unconfirmed")
	if w.Upstream.Hits.Load() != 1 || w.Facilitator.Transfers() != 1 {
		t.Errorf("%d runs, %d transfers", w.Upstream.Hits.Load(), w.Facilitator.Transfers())
	}
}
