package paywall_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// The traps that Caddy sets to a handler that guards money. Each has a test.

// An error route must not turn a refusal into an answer.
func TestErrorRoutesDoNotSeeRefusals(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01", "handle_errors {\n respond sorry 200\n}")
	w.Expect(w.Get("/paid/x"), 402, string(x402.CodePaymentRequired))
	w.Facilitator.OnSettle(gate.Says(200, `{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}`))
	res := w.Pay(http.MethodGet, "/paid/x")
	w.Expect(res, 402, "insufficient_funds")
}

// A failing upstream costs nothing, and no error route answers in its place.
func TestUpstreamDown(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01", "handle_errors {\n respond sorry 502\n}")
	get := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	post := w.Sign(http.MethodPost, "/paid/x", gate.NewPayer(t)).V2(t)
	w.Upstream.Close()
	res := w.Get("/paid/x", "PAYMENT-SIGNATURE", get)
	w.Expect(res, 502, "upstream_failed")
	if res.Header.Get("Payment-Response") != "" || w.Facilitator.Transfers() != 0 {
		t.Fatalf("held: %d %q %v, %d transfers", res.StatusCode, res.Text, res.Header, w.Facilitator.Transfers())
	}
	// Settled first: the payer learns that it paid, and can come again.
	res = w.Do(w.Request(http.MethodPost, "/paid/x", "PAYMENT-SIGNATURE", post))
	if res.StatusCode != 502 || w.Facilitator.Transfers() != 1 {
		t.Fatalf("first: %d, %d transfers", res.StatusCode, w.Facilitator.Transfers())
	}
	if !gate.ReceiptOf(t, res).Success {
		t.Error("no receipt")
	}
}

// Nobody pays for a dead upstream: after three bad gateways a price that
// settles first asks for no more money, until a probe comes through.
func TestDeadUpstreamIsNotSold(t *testing.T) {
	w := gate.New(t, "price POST /paid/* $0.01")
	w.Upstream.On(gate.Says(503, "down"))
	for range 3 {
		if res := w.Pay(http.MethodPost, "/paid/x"); res.StatusCode != 503 || !gate.ReceiptOf(t, res).Success {
			t.Fatal(res.StatusCode)
		}
	}
	res := w.Pay(http.MethodPost, "/paid/x")
	w.Expect(res, 503, "upstream_unavailable")
	if w.Facilitator.Transfers() != 3 || res.Header.Get("Retry-After") != "10" {
		t.Fatalf("%d transfers, %v", w.Facilitator.Transfers(), res.Header)
	}
}

// crashingShop is a line that settles first, behind a proxy, with an upstream that is dead
// below /api/crash. buy sends a payment from a client network, and later lets time pass.
func crashingShop(t *testing.T) (buy func(p *gate.Payer, path, from string) int, later func(time.Duration)) {
	t.Helper()
	w := gate.Prepare(t)
	w.Load(gate.BehindProxy(w.Caddyfile("price POST /api/* $0.01")))
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/crash") {
			panic(http.ErrAbortHandler)
		}
		_, _ = rw.Write([]byte(gate.Goods))
	})
	advance := gate.Clock(t)
	now := time.Now()
	buy = func(p *gate.Payer, path, from string) int {
		asked := w.Challenge(http.MethodPost, path).Accepts[0]
		return w.Do(w.Request(http.MethodPost, path, "PAYMENT-SIGNATURE", p.Sign(t, asked, now).V2(t), "X-Forwarded-For", from)).StatusCode
	}
	return buy, func(d time.Duration) {
		advance(d)
		now = now.Add(d)
	}
}

// Who pays for what gives a bad gateway keeps a line closed for nobody else: not by one
// URL, not with two wallets in turn, and not by taking each probe.
func TestBadGatewaysCloseNoLineForOthers(t *testing.T) {
	for name, tc := range map[string]struct {
		wallets int
		path    func(i int) string
	}{
		"one URL":       {100, func(int) string { return "/api/crash" }},
		"one, by query": {100, func(i int) string { return fmt.Sprintf("/api/crash?%d", i) }},
		"two wallets":   {2, func(i int) string { return fmt.Sprintf("/api/crash/%d", i) }},
		"many of both":  {100, func(i int) string { return fmt.Sprintf("/api/crash/%d", i) }},
	} {
		t.Run(name, func(t *testing.T) {
			gate.ForgetPayers()
			buy, later := crashingShop(t)
			var wallets []*gate.Payer
			for range tc.wallets {
				wallets = append(wallets, gate.NewPayer(t))
			}
			tried := 0
			attack := func() {
				buy(wallets[tried%tc.wallets], tc.path(tried), elsewhere)
				tried++
			}
			for range 3 {
				attack()
			}
			refused := 0
			for range 20 {
				for range 2 {
					if buy(gate.NewPayer(t), "/api/ok", here) != 200 {
						refused++
					}
				}
				later(10100 * time.Millisecond)
				for range 3 {
					attack()
				}
			}
			if refused > 0 {
				t.Errorf("%d of 40 honest payers refused", refused)
			}
		})
	}
}

// Nor do those who come from another network each time, where the payer has paid before.
func TestTakenProbesCloseNoLineForCustomers(t *testing.T) {
	gate.ForgetPayers()
	buy, later := crashingShop(t)
	customer := gate.NewPayer(t)
	if got := buy(customer, "/api/ok", here); got != 200 {
		t.Fatal(got)
	}
	refused := 0
	for i := range 6 {
		for j := range 4 {
			buy(gate.NewPayer(t), fmt.Sprintf("/api/crash/%d/%d", i, j), fmt.Sprintf("192.%d.%d.9", i, j))
		}
		later(10100 * time.Millisecond)
		for j := range 2 {
			buy(gate.NewPayer(t), fmt.Sprintf("/api/crash/x%d-%d", i, j), fmt.Sprintf("193.%d.%d.9", i, j))
		}
		if buy(customer, "/api/ok", here) != 200 {
			refused++
		}
	}
	if refused > 0 {
		t.Errorf("%d of 6 refused", refused)
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

// A settlement that fails after the upstream has begun an endless stream: a
// clean 402, nothing of the stream, and the upstream is stopped.
func TestFailedSettlementStopsStream(t *testing.T) {
	for name, start := range map[string]func(http.ResponseWriter){
		"write": func(rw http.ResponseWriter) { _, _ = rw.Write([]byte("secret")) },
		"flush": func(rw http.ResponseWriter) { _ = http.NewResponseController(rw).Flush() },
		"103": func(rw http.ResponseWriter) {
			rw.Header().Set("Link", "</secret.css>")
			rw.WriteHeader(103)
			_, _ = rw.Write([]byte("secret"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.New(t, "price /paid/* $0.01")
			stopped := make(chan struct{})
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				defer close(stopped)
				rw.Header().Set("Set-Cookie", "secret=1")
				rw.Header().Set("ETag", `"secret"`)
				rw.Header().Set("Trailer", "X-Secret")
				start(rw)
				for r.Context().Err() == nil {
					if _, err := rw.Write([]byte("secret")); err != nil {
						return
					}
					time.Sleep(5 * time.Millisecond)
				}
			})
			w.Facilitator.OnSettle(gate.Says(200, `{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}`))
			res := w.Pay(http.MethodGet, "/paid/x")
			w.Expect(res, 402, "insufficient_funds")
			dump := fmt.Sprint(res.Header, res.Text, res.Trailer)
			if strings.Contains(dump, "secret") || strings.Contains(dump, "Secret") {
				t.Errorf("leaked: %s", dump)
			}
			select {
			case <-stopped:
			case <-time.After(10 * time.Second):
				t.Error("the upstream runs on")
			}
		})
	}
}

// A payer who hangs up: what was not settled is not charged, what was settled
// is recorded and can be fetched.
func TestPayerHangsUp(t *testing.T) {
	for name, tc := range map[string]struct {
		settle    string
		during    string
		transfers int
	}{
		"held, during verify":   {"on_success", "verify", 0},
		"held, during upstream": {"on_success", "upstream", 0},
		"held, during settle":   {"on_success", "settle", 1},
		"first, during settle":  {"first", "settle", 1},
		"first, in upstream":    {"first", "upstream", 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.New(t, "price /paid/* $0.01 {\n settle "+tc.settle+"\n}")
			ctx, hangUp := context.WithCancel(context.Background())
			defer hangUp()
			stage := func(at string) {
				if at == tc.during && ctx.Err() == nil {
					hangUp()
					time.Sleep(100 * time.Millisecond) // let the news travel
				}
			}
			w.Facilitator.OnVerify(func(rw http.ResponseWriter, r *http.Request) {
				stage("verify")
				gate.Says(200, `{"isValid":true}`)(rw, r)
			})
			w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				stage("settle")
				if r.Context().Err() != nil {
					t.Error("the settlement was cut short")
				}
				w.Facilitator.Move(rw, body)
			})
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				stage("upstream")
				_, _ = rw.Write([]byte(gate.Goods))
			})
			s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
			res := w.Do(w.Request(http.MethodGet, "/paid/x", "PAYMENT-SIGNATURE", s).WithContext(ctx))
			if !errors.Is(res.Err, context.Canceled) {
				t.Fatalf("the request ended otherwise: %v", res.Err)
			}
			time.Sleep(200 * time.Millisecond)
			if got := w.Facilitator.Transfers(); got != tc.transfers {
				t.Errorf("%d transfers, want %d", got, tc.transfers)
			}
			// Coming back with the same payment brings the goods, once.
			w.Until(func() bool { return w.Get("/paid/x", "PAYMENT-SIGNATURE", s).StatusCode == 200 })
			if got := w.Facilitator.Transfers(); got != 1 {
				t.Errorf("%d transfers in the end", got)
			}
			w.Expect(w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", s) }), 402, "payment_already_used")
		})
	}
}

// A reload does not wait for requests, cancels the old config's context and
// cleans its modules up; a purchase under way does not notice.
func TestReloadDuringPurchase(t *testing.T) {
	for _, during := range []string{"verify", "upstream", "settle"} {
		t.Run(during, func(t *testing.T) {
			w := gate.New(t, "price /paid/* $0.01")
			caddyfile := w.Caddyfile("price /paid/* $0.02\nprice /new $0.01")
			reload := func(at string) {
				if at == during {
					w.Load(caddyfile)
				}
			}
			w.Facilitator.OnVerify(func(rw http.ResponseWriter, r *http.Request) {
				reload("verify")
				gate.Says(200, `{"isValid":true}`)(rw, r)
			})
			w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				reload("settle")
				w.Facilitator.Move(rw, body)
			})
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				reload("upstream")
				_, _ = rw.Write([]byte(gate.Goods))
			})
			s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
			res := w.Get("/paid/x", "PAYMENT-SIGNATURE", s)
			w.Expect(res, 200, "")
			if res.Text != gate.Goods || w.Facilitator.Transfers() != 1 {
				t.Fatalf("%q, %d transfers", res.Text, w.Facilitator.Transfers())
			}
			// The ledger survived: the payment is used under the new config too.
			res = w.Again(func() gate.Answer {
				return w.Reconnecting(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", s) })
			})
			w.Expect(res, 402, "payment_already_used")
			// And the new price is in force.
			w.Until(func() bool {
				res := w.Reconnecting(func() gate.Answer { return w.Get("/paid/x") })
				w.Expect(res, 402, "")
				c, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired))
				return err == nil && c.Accepts[0].Amount == "20000"
			})
		})
	}
}

// Two blocks: the second one prices what the first let through, and refuses
// what the first has charged.
func TestTwoBlocks(t *testing.T) {
	w := gate.New(t, "price /a/* $0.01", `
		route {
			paywall {
				accept base-sepolia usdc `+gate.PayTo+`
				facilitator fake
				price /a/* $0.01
				price /b/* $0.02
			}
		}`)
	// route comes after paywall, so the block in it is the second one.
	if c := w.Challenge(http.MethodGet, "/b/x"); c.Accepts[0].Amount != "20000" {
		t.Fatalf("%+v", c.Accepts)
	}
	w.Expect(w.Pay(http.MethodGet, "/b/x"), 200, "")
	res := w.Pay(http.MethodGet, "/a/x")
	w.Expect(res, 500, "priced_twice")
	w.Counts(1, 2, 1)
}

// Payments and secrets do not reach the log, even at debug level.
func TestPaymentsAreNotLogged(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t))
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", s.V2(t)), 200, "")
	var log []byte
	w.Until(func() bool { // the line comes after the answer
		log, _ = os.ReadFile(w.LogFile)
		return strings.Contains(string(log), `"outcome":"delivered"`)
	})
	if strings.Contains(string(log), s.Signature) || strings.Contains(string(log), s.V2(t)) {
		t.Errorf("the payment is in the log:\n%s", log)
	}
}
