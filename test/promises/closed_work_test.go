package promises

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// Tests of what a payer may cost us without being charged.

// One payment that is never charged does not make the facilitator work again and again,
// and after a while its payer pays first.
func TestOneUnspentPaymentCostsLittle(t *testing.T) {
	gate.ForgetPayers()
	w := gate.New(t, "price /paid/* $0.01")
	w.Upstream.On(gate.Says(404, "no such page"))
	payment := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	for i := range 300 {
		w.Get(fmt.Sprintf("/paid/none-%d", i), "PAYMENT-SIGNATURE", payment)
	}
	if v, u := w.Facilitator.Verified.Load(), w.Upstream.Hits.Load(); v > 30 || u > 60 || w.Facilitator.Transfers() != 1 {
		t.Errorf("%d calls of verify, %d runs of the upstream, %d transfers", v, u, w.Facilitator.Transfers())
	}
}

// Who leaves before the answer comes, again and again, pays first; and what he has
// paid for he does not leave again and again either.
func TestHangingUpIsNotForNothing(t *testing.T) {
	gate.ForgetPayers()
	w := gate.New(t, "price /paid/* $0.01")
	var worked atomic.Int64
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		time.Sleep(60 * time.Millisecond) // dear work, which does not end with its client
		worked.Add(1)
		_, _ = rw.Write([]byte(gate.Goods))
	})
	advance := gate.Clock(t)
	p := gate.NewPayer(t)
	asked := w.Challenge(http.MethodGet, "/paid/x").Accepts[0]
	for range 40 {
		conn, host := w.Dial()
		fmt.Fprintf(conn, "GET /paid/x HTTP/1.1\r\nHost: %s\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", host, p.Sign(t, asked, time.Now()).V2(t))
		time.Sleep(40 * time.Millisecond)
		conn.Close()
	}
	w.Until(func() bool { return gate.Unsettled() == 0 })
	if worked.Load() > 20 || w.Facilitator.Transfers() == 0 {
		t.Errorf("the upstream worked %d times, %d transfers", worked.Load(), w.Facilitator.Transfers())
	}
	// He gets what he has paid for when he stays.
	w.Upstream.On(nil)
	advance(time.Hour)
	w.Expect(w.Again(func() gate.Answer {
		return w.Get("/paid/x", "PAYMENT-SIGNATURE", p.Sign(t, asked, time.Now().Add(time.Hour)).V2(t))
	}), 200, "")
}

// Who breaks the body of an order off, again and again, has so many runs of an upstream
// that acts before it has all of it; and then his order.
func TestBreakingBodiesOffIsNotForNothing(t *testing.T) {
	w := gate.New(t, "price POST /act $0.01")
	advance := gate.Clock(t)
	pay := w.Sign(http.MethodPost, "/act", gate.NewPayer(t)).V2(t)
	order := strings.Repeat("y", 1000)
	for i := range 30 {
		conn, host := w.Dial()
		fmt.Fprintf(conn, "POST /act HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nPAYMENT-SIGNATURE: %s\r\n\r\n%s", host, len(order), pay, order[i+1:])
		time.Sleep(20 * time.Millisecond)
		conn.Close()
		time.Sleep(10 * time.Millisecond)
	}
	if w.Upstream.Hits.Load() > 10 || w.Facilitator.Transfers() != 1 {
		t.Errorf("%d runs, %d transfers", w.Upstream.Hits.Load(), w.Facilitator.Transfers())
	}
	w.Expect(w.Again(func() gate.Answer { return w.PostPaid("/act", order, pay, false) }), 429, "too_many_hang_ups")
	advance(time.Hour)
	w.Expect(w.Again(func() gate.Answer { return w.PostPaid("/act", order, pay, false) }), 200, "")
}

// What the upstream does not give, though it is paid for, is fetched so often and then now
// and then; it stays the payer's.
func TestFetchingInVainIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		line   string
		method string
		fails  http.HandlerFunc
	}{
		"an order that fails":            {"price POST /act $0.01", http.MethodPost, gate.Says(500, "no")},
		"a page that is not there":       {"price GET /act $0.01 {\n settle first\n}", http.MethodGet, gate.Says(404, "no")},
		"an upstream that says nothing":  {"price POST /act $0.01", http.MethodPost, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		"an upstream that wants payment": {"price POST /act $0.01", http.MethodPost, gate.Says(402, "")},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.New(t, c.line)
			w.Upstream.On(c.fails)
			advance := gate.Clock(t)
			p := gate.NewPayer(t)
			asked := w.Challenge(c.method, "/act").Accepts[0]
			pay := p.Sign(t, asked, time.Now()).V2(t)
			send := func(payment string) gate.Answer {
				return w.Again(func() gate.Answer { return w.SendBody(t.Context(), c.method, "/act", payment, "order") })
			}
			for i := range 100 {
				if i%2 == 1 {
					pay = p.Sign(t, asked, time.Now()).V2(t)
				}
				send(pay)
			}
			if w.Upstream.Hits.Load() > 60 || w.Facilitator.Transfers() != 1 {
				t.Errorf("%d runs, %d transfers", w.Upstream.Hits.Load(), w.Facilitator.Transfers())
			}
			res := send(p.Sign(t, asked, time.Now()).V2(t))
			w.Expect(res, 429, "too_many_fetches")
			if res.Header.Get("Retry-After") == "" || !gate.ReceiptOf(t, res).Success {
				t.Errorf("%v", res.Header)
			}
			w.Upstream.On(nil)
			advance(2 * time.Minute)
			w.Expect(send(p.Sign(t, asked, time.Now().Add(2*time.Minute)).V2(t)), 200, "")
		})
	}
}

// One payer who sends a facilitator more than it allows does not close the shop.
func TestOnePayerClosesNoShop(t *testing.T) {
	gate.ForgetPayers()
	w := gate.Prepare(t)
	w.Load(gate.BehindProxy(w.Caddyfile("price /paid/* $0.01")))
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "none") {
			rw.WriteHeader(404)
			return
		}
		_, _ = rw.Write([]byte(gate.Goods))
	})
	var mu sync.Mutex
	var second int64
	calls := 0
	w.Facilitator.OnVerify(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		if now := time.Now().Unix(); now != second {
			second, calls = now, 0
		}
		calls++
		over := calls > 50
		mu.Unlock()
		if over {
			rw.Header().Set("Retry-After", "1")
			gate.Says(429, `{"error":"rate limit"}`)(rw, r)
			return
		}
		gate.Says(200, `{"isValid":true}`)(rw, r)
	})
	asked := w.Challenge(http.MethodGet, "/paid/x").Accepts[0]
	payment := gate.NewPayer(t).Sign(t, asked, time.Now()).V2(t)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				w.Get(fmt.Sprintf("/paid/none-%d", i), "PAYMENT-SIGNATURE", payment, "X-Forwarded-For", elsewhere)
			}
		}
	}()
	refused := map[string]int{}
	const n = 10
	for range n {
		res := w.Get("/paid/x", "PAYMENT-SIGNATURE", gate.NewPayer(t).Sign(t, asked, time.Now()).V2(t), "X-Forwarded-For", here)
		if res.StatusCode != 200 {
			refused[fmt.Sprint(res.StatusCode, " ", res.Text)]++
		}
		time.Sleep(50 * time.Millisecond)
	}
	close(stop)
	<-stopped
	if len(refused) > 0 {
		t.Errorf("of %d honest payers: %v", n, refused)
	}
}

// A stranger with payments that the facilitator cannot stand, many wallets and one
// network closes the shop for a moment, once, and then no more.
func TestOneNetworkClosesNoShop(t *testing.T) {
	gate.ForgetPayers()
	w := gate.Prepare(t)
	w.Load(gate.BehindProxy(w.Caddyfile("price /paid/* $0.01")))
	asked := w.Challenge(http.MethodGet, "/paid/x").Accepts[0]
	var odd atomic.Value
	odd.Store("none")
	w.Facilitator.OnVerify(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(string(gate.Body(r)), odd.Load().(string)) {
			gate.Says(500, `{"error":"internal"}`)(rw, r)
			return
		}
		gate.Says(200, `{"isValid":true}`)(rw, r)
	})
	attack := func() {
		p := gate.NewPayer(t)
		odd.Store(p.Address.Hex())
		w.Get("/paid/x", "PAYMENT-SIGNATURE", p.Sign(t, asked, time.Now()).V2(t), "X-Forwarded-For", elsewhere)
	}
	for range 3 {
		attack()
	}
	w.ComesGood(func() bool { return w.Get("/paid/x").Is(402) })
	refused := 0
	for range 10 {
		for range 6 {
			attack()
		}
		if res := w.Get("/paid/x", "PAYMENT-SIGNATURE", gate.NewPayer(t).Sign(t, asked, time.Now()).V2(t), "X-Forwarded-For", here); res.StatusCode != 200 {
			refused++
		}
	}
	if refused > 0 {
		t.Errorf("%d of 10 honest payers refused", refused)
	}
}

// Somebody's bad signatures do not keep the contract wallets of others out.
func TestContractWalletsHaveAShare(t *testing.T) {
	gate.ForgetPayers()
	w := gate.Prepare(t)
	w.Load(gate.BehindProxy(w.Caddyfile("price /paid/* $0.01")))
	w.Facilitator.OnVerify(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(string(gate.Body(r)), "deadbeef") {
			gate.Says(200, `{"isValid":false,"invalidReason":"invalid_exact_evm_signature"}`)(rw, r)
			return
		}
		gate.Says(200, `{"isValid":true}`)(rw, r)
	})
	asked := w.Challenge(http.MethodGet, "/paid/x").Accepts[0]
	wallet, signer, sent := gate.NewPayer(t), gate.NewPayer(t), 0
	sign := func(nonce string) string {
		s := signer.Sign(t, asked, time.Now())
		s.Authorization["from"] = wallet.Address.Hex()
		if nonce != "" {
			s.Authorization["nonce"] = nonce
		}
		return s.V2(t)
	}
	junk := func(n int) (limited int) {
		for range n {
			sent++
			if w.Get("/paid/x", "PAYMENT-SIGNATURE", sign(fmt.Sprintf("0xdeadbeef%056x", sent)), "X-Forwarded-For", elsewhere).StatusCode == 503 {
				limited++
			}
		}
		return limited
	}
	if junk(3*admission.StrangersAtOnce) == 0 {
		t.Error("bad signatures have no bound")
	}
	w.Load(gate.BehindProxy(w.Caddyfile("price /paid/* $0.01")))
	if junk(admission.StrangersAtOnce/2) == 0 {
		t.Error("a reload gives new tries")
	}
	for i := range 10 {
		w.Expect(w.Get(fmt.Sprintf("/paid/%d", i), "PAYMENT-SIGNATURE", sign(""), "X-Forwarded-For", here), 200, "")
	}
}

// Wallets without a payment to their name hold so many places, and who has paid finds
// one.
func TestUnspentWalletsLeavePlaces(t *testing.T) {
	gate.ForgetPayers()
	w := gate.Prepare(t)
	w.Load(gate.BehindProxy(w.Caddyfile("price /paid/* $0.01\nprice /slow/* $0.01")))
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/slow") {
			<-r.Context().Done()
			return
		}
		_, _ = rw.Write([]byte(gate.Goods))
	})
	customer := gate.NewPayer(t)
	asked := w.Challenge(http.MethodGet, "/paid/x").Accepts[0]
	buy := func(p *gate.Payer) gate.Answer {
		return w.Get("/paid/x", "PAYMENT-SIGNATURE", p.Sign(t, asked, time.Now()).V2(t), "X-Forwarded-For", here)
	}
	w.Expect(buy(customer), 200, "")
	t.Cleanup(gate.SetMost(t, 20, 5, 8, 10))
	holding := 0
	for i := range 30 {
		conn, host := w.Dial()
		t.Cleanup(func() { conn.Close() })
		fmt.Fprintf(conn, "GET /slow/%d HTTP/1.1\r\nHost: %s\r\nX-Forwarded-For: 203.0.%d.9\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", i, host, i%3, gate.NewPayer(t).Sign(t, asked, time.Now()).V2(t))
	}
	w.Until(func() bool {
		holding = gate.Unsettled()
		return holding == 15
	})
	w.ExpectBusy(buy(gate.NewPayer(t)), 503, "too_busy")
	w.Expect(buy(customer), 200, "")
}

// A payment is not held for ever by an upstream that does not answer.
func TestPaymentIsNotHeldForEver(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for _, g := range gate.Handlers(t) {
		g.ForTest().HoldWithin = 200 * time.Millisecond
	}
	payment := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", payment), 504, "upstream_too_slow")
	if gate.Unsettled() != 0 || w.Facilitator.Transfers() != 0 {
		t.Errorf("%d unsettled, %d transfers", gate.Unsettled(), w.Facilitator.Transfers())
	}
	w.Upstream.On(nil)
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", payment), 200, "")
}

// A forged payment does not take a payer's standing away.
func TestForgeryTakesNobodysStanding(t *testing.T) {
	gate.ForgetPayers()
	w := gate.Prepare(t)
	w.Load(gate.BehindProxy(w.Caddyfile("price /paid/* $0.01")))
	asked := w.Challenge(http.MethodGet, "/paid/x").Accepts[0]
	customer := gate.NewPayer(t)
	buy := func(p *gate.Payer, from string) gate.Answer {
		return w.Get("/paid/x", "PAYMENT-SIGNATURE", p.Sign(t, asked, time.Now()).V2(t), "X-Forwarded-For", from)
	}
	w.Expect(buy(customer, here), 200, "")
	w.Facilitator.OnVerify(gate.Says(200, `{"isValid":false,"invalidReason":"invalid_exact_evm_signature"}`))
	forged := gate.NewPayer(t).Sign(t, asked, time.Now())
	forged.Authorization["from"] = customer.Address.Hex()
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", forged.V2(t), "X-Forwarded-For", elsewhere), 402, "invalid_exact_evm_signature")
	w.Facilitator.OnVerify(gate.Says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`))
	limited := false
	for range 2 * admission.TriesAtOnce { // somebody in the same network, with empty wallets
		if buy(gate.NewPayer(t), here).StatusCode == 429 {
			limited = true
			break
		}
	}
	if !limited {
		t.Fatal("bad payments have no bound")
	}
	w.Facilitator.OnVerify(nil)
	w.Expect(buy(customer, here), 200, "")
}

// A version 1 payment names no token. It is tried against a handful, and not against
// every price.
func TestVersionOneIsTriedAgainstFewTokens(t *testing.T) {
	var b strings.Builder
	for i := range 300 {
		fmt.Fprintf(&b, "price /articles/%d $0.%02d1\n", i, i%100)
	}
	w := gate.New(t, b.String())
	for _, g := range gate.Handlers(t) {
		if n := len(g.ForTest().Candidates["eip155:84532"]); n != 1 {
			t.Errorf("%d candidates for one token at 300 prices", n)
		}
	}
	_ = w
}

// What anybody can send for nothing does not fill the log.
func TestJunkFillsNoLog(t *testing.T) {
	gate.ForgetPayers()
	w := gate.New(t, "price /paid/* $0.01")
	w.Facilitator.OnVerify(gate.Says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`))
	asked := w.Challenge(http.MethodGet, "/paid/x").Accepts[0]
	for range 150 {
		w.Get("/paid/x", "PAYMENT-SIGNATURE", gate.NewPayer(t).Sign(t, asked, time.Now()).V2(t))
	}
	if lines := w.Logged(`"outcome":"invalid"`); lines == 0 || lines > 30 {
		t.Errorf("%d lines for 150 payments without money behind them", lines)
	}
}

// A settlement that is refused when its payer has long been told to come back costs him
// the same as one that he waits for: he pays first from then on.
func TestLateRefusalsAreRemembered(t *testing.T) {
	for name, late := range map[string]bool{"in time": false, "late": true} {
		t.Run(name, func(t *testing.T) {
			w := gate.New(t, "price /paid/* $0.01")
			if late {
				for _, g := range gate.Handlers(t) {
					g.ForTest().AnswerWithin = 30 * time.Millisecond
				}
			}
			w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
				time.Sleep(60 * time.Millisecond)
				gate.RefusedSettle(rw, r)
			})
			p := gate.NewPayer(t)
			asked := w.Challenge("GET", "/paid/x").Accepts[0]
			for range 12 {
				w.Get("/paid/x", "PAYMENT-SIGNATURE", p.Sign(t, asked, time.Now()).V2(t))
				w.Until(func() bool { return gate.Unsettled() == 0 })
			}
			if w.Upstream.Hits.Load() != 1 || w.Facilitator.Transfers() != 0 {
				t.Errorf("%d runs for nothing, %d transfers", w.Upstream.Hits.Load(), w.Facilitator.Transfers())
			}
		})
	}
}

// The looks of a network into the ledger are bounded, also with what was used.
func TestUsedPaymentsReachTheLedgerSeldom(t *testing.T) {
	w := gate.Prepare(t)
	s := w.WithLedger()
	w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01")))
	pay := w.Sign("GET", "/paid/x", gate.NewPayer(t)).V2(t)
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", pay), 200, "")
	before, since := s.Claims.Load(), time.Now()
	for range 2000 {
		w.Get("/paid/x", "PAYMENT-SIGNATURE", pay)
	}
	// What is beyond the looks costs tries, of which there are as many.
	if n, most := s.Claims.Load()-before, 2*(200+20*int64(time.Since(since)/time.Second+1)); n > most {
		t.Errorf("2000 replays are %d calls of the ledger, want %d at most", n, most)
	}
}

// Who signs for a shorter time than he is asked for, so that the gate must cut the
// upstream off, has left before the answer.
func TestShortLifeCountsAsLeaving(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(5 * time.Second):
		}
	})
	p := gate.NewPayer(t)
	asked := w.Challenge("GET", "/paid/x").Accepts[0]
	round := func() (slow int) {
		codes := make(chan int)
		for range 5 {
			a := p.Sign(t, asked, time.Now()).Authorization
			a["validBefore"] = strconv.FormatInt(time.Now().Unix()+21, 10)
			payment := p.SignWith(t, asked, a).V2(t)
			go func() { codes <- w.Get("/paid/x", "PAYMENT-SIGNATURE", payment).StatusCode }()
		}
		for range 5 {
			if <-codes == http.StatusGatewayTimeout {
				slow++
			}
		}
		return slow
	}
	if n := round(); n != 5 || w.Facilitator.Transfers() != 0 {
		t.Errorf("%d were cut off, %d transfers", n, w.Facilitator.Transfers())
	}
	w.Upstream.On(nil)
	w.Upstream.On(gate.Says(http.StatusNotFound, "none"))
	w.Get("/paid/none", "PAYMENT-SIGNATURE", p.Sign(t, asked, time.Now()).V2(t))
	if w.Facilitator.Transfers() != 1 {
		t.Error("he does not pay first")
	}
}

// A customer's payment stands on the chain, and a stranger sends it again and again. That
// costs the stranger's network, and none of what is the customer's.
func TestReplaysCostTheCustomerNothing(t *testing.T) {
	w := gate.Prepare(t)
	w.Load(gate.BehindProxy(w.Caddyfile("price /paid/* $0.01")))
	customer := gate.NewPayer(t)
	public := w.Sign(http.MethodGet, "/paid/a", customer).V2(t)
	w.Expect(w.Get("/paid/a", "PAYMENT-SIGNATURE", public, "X-Forwarded-For", here), 200, "")
	replay := func() int {
		return w.Get("/paid/a", "PAYMENT-SIGNATURE", public, "X-Forwarded-For", elsewhere).StatusCode
	}
	for n := 0; replay() != http.StatusTooManyRequests; n++ {
		if n == 2000 {
			t.Fatal("the stranger is not stopped")
		}
	}
	asked := w.Challenge(http.MethodGet, "/paid/a").Accepts[0]
	for range 20 {
		for range 20 {
			replay()
		}
		w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", customer.Sign(t, asked, time.Now()).V2(t), "X-Forwarded-For", here), 200, "")
	}
}

// What a customer has paid with elsewhere is public too. That a facilitator calls it used
// is not his doing.
func TestUsedElsewhereTakesNobodysStanding(t *testing.T) {
	w := gate.Prepare(t)
	w.Load(gate.BehindProxy(w.Caddyfile("price /paid/* $0.01")))
	customer := gate.NewPayer(t)
	asked := w.Challenge(http.MethodGet, "/paid/a").Accepts[0]
	buy := func(path, from string) gate.Answer {
		return w.Get(path, "PAYMENT-SIGNATURE", customer.Sign(t, asked, time.Now()).V2(t), "X-Forwarded-For", from)
	}
	w.Expect(buy("/paid/a", here), 200, "")
	t.Cleanup(gate.SetMost(t, 1, 1, 1, 1)) // all are for payers who have paid
	w.Facilitator.OnVerify(gate.Says(200, `{"isValid":false,"invalidReason":"invalid_exact_evm_nonce_already_used"}`))
	w.Expect(buy("/paid/c", elsewhere), 402, "invalid_exact_evm_nonce_already_used")
	w.Facilitator.OnVerify(nil)
	w.Expect(buy("/paid/d", here), 200, "")
	w.Facilitator.OnVerify(gate.Says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`))
	w.Expect(buy("/paid/e", here), 402, "insufficient_funds")
	w.Facilitator.OnVerify(nil)
	w.Expect(buy("/paid/f", here), 503, "too_busy")
}
