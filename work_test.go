package paywall_test

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
)

// Tests of what a payer may cost us without being charged.

// One payment that is never charged does not make the facilitator work again and again,
// and after a while its payer pays first.
func TestOneUnspentPaymentCostsLittle(t *testing.T) {
	forgetPayers()
	w := newWorld(t, "price /paid/* $0.01")
	w.up.on(says(404, "no such page"))
	payment := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
	for i := range 300 {
		w.get(fmt.Sprintf("/paid/none-%d", i), "PAYMENT-SIGNATURE", payment)
	}
	if v, u := w.fac.verified.Load(), w.up.hits.Load(); v > 30 || u > 60 || w.fac.transfers() != 1 {
		t.Errorf("%d calls of verify, %d runs of the upstream, %d transfers", v, u, w.fac.transfers())
	}
}

// Who leaves before the answer comes, again and again, pays first; and what he has
// paid for he does not leave again and again either.
func TestHangingUpIsNotForNothing(t *testing.T) {
	forgetPayers()
	w := newWorld(t, "price /paid/* $0.01")
	var worked atomic.Int64
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		time.Sleep(60 * time.Millisecond) // dear work, which does not end with its client
		worked.Add(1)
		_, _ = rw.Write([]byte(sample))
	})
	advance := clock(t)
	p := newPayer(t)
	asked := w.challenge(http.MethodGet, "/paid/x").Accepts[0]
	for range 40 {
		conn, host := w.dial()
		fmt.Fprintf(conn, "GET /paid/x HTTP/1.1\r\nHost: %s\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", host, p.sign(t, asked, time.Now()).v2(t))
		time.Sleep(40 * time.Millisecond)
		conn.Close()
	}
	w.until(func() bool { return unsettled() == 0 })
	if worked.Load() > 20 || w.fac.transfers() == 0 {
		t.Errorf("the upstream worked %d times, %d transfers", worked.Load(), w.fac.transfers())
	}
	// He gets what he has paid for when he stays.
	w.up.on(nil)
	advance(time.Hour)
	w.expect(w.again(func() answerOf {
		return w.get("/paid/x", "PAYMENT-SIGNATURE", p.sign(t, asked, time.Now().Add(time.Hour)).v2(t))
	}), 200, "")
}

// Who breaks the body of an order off, again and again, has so many runs of an upstream
// that acts before it has all of it; and then his order.
func TestBreakingBodiesOffIsNotForNothing(t *testing.T) {
	w := newWorld(t, "price POST /act $0.01")
	advance := clock(t)
	pay := w.sign(http.MethodPost, "/act", newPayer(t)).v2(t)
	order := strings.Repeat("y", 1000)
	for i := range 30 {
		conn, host := w.dial()
		fmt.Fprintf(conn, "POST /act HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nPAYMENT-SIGNATURE: %s\r\n\r\n%s", host, len(order), pay, order[i+1:])
		time.Sleep(20 * time.Millisecond)
		conn.Close()
		time.Sleep(10 * time.Millisecond)
	}
	if w.up.hits.Load() > 10 || w.fac.transfers() != 1 {
		t.Errorf("%d runs, %d transfers", w.up.hits.Load(), w.fac.transfers())
	}
	w.expect(w.again(func() answerOf { return w.postPaid("/act", order, pay, false) }), 429, "too_many_hang_ups")
	advance(time.Hour)
	w.expect(w.again(func() answerOf { return w.postPaid("/act", order, pay, false) }), 200, "")
}

// What the upstream does not give, though it is paid for, is fetched so often and then now
// and then; it stays the payer's.
func TestFetchingInVainIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		line   string
		method string
		fails  http.HandlerFunc
	}{
		"an order that fails":            {"price POST /act $0.01", http.MethodPost, says(500, "no")},
		"a page that is not there":       {"price GET /act $0.01 {\n settle first\n}", http.MethodGet, says(404, "no")},
		"an upstream that says nothing":  {"price POST /act $0.01", http.MethodPost, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		"an upstream that wants payment": {"price POST /act $0.01", http.MethodPost, says(402, "")},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.line)
			w.up.on(c.fails)
			advance := clock(t)
			p := newPayer(t)
			asked := w.challenge(c.method, "/act").Accepts[0]
			pay := p.sign(t, asked, time.Now()).v2(t)
			send := func(payment string) answerOf {
				return w.again(func() answerOf { return w.sendBody(t.Context(), c.method, "/act", payment, "order") })
			}
			for i := range 100 {
				if i%2 == 1 {
					pay = p.sign(t, asked, time.Now()).v2(t)
				}
				send(pay)
			}
			if w.up.hits.Load() > 60 || w.fac.transfers() != 1 {
				t.Errorf("%d runs, %d transfers", w.up.hits.Load(), w.fac.transfers())
			}
			res := send(p.sign(t, asked, time.Now()).v2(t))
			w.expect(res, 429, "too_many_fetches")
			if res.Header.Get("Retry-After") == "" || !receiptOf(t, res).Success {
				t.Errorf("%v", res.Header)
			}
			w.up.on(nil)
			advance(2 * time.Minute)
			w.expect(send(p.sign(t, asked, time.Now().Add(2*time.Minute)).v2(t)), 200, "")
		})
	}
}

// One payer who sends a facilitator more than it allows does not close the shop.
func TestOnePayerClosesNoShop(t *testing.T) {
	forgetPayers()
	w := prepareWorld(t)
	w.load(behindProxy(w.caddyfile("price /paid/* $0.01")))
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "none") {
			rw.WriteHeader(404)
			return
		}
		_, _ = rw.Write([]byte(sample))
	})
	var mu sync.Mutex
	var second int64
	calls := 0
	w.fac.onVerify(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		if now := time.Now().Unix(); now != second {
			second, calls = now, 0
		}
		calls++
		over := calls > 50
		mu.Unlock()
		if over {
			rw.Header().Set("Retry-After", "1")
			says(429, `{"error":"rate limit"}`)(rw, r)
			return
		}
		says(200, `{"isValid":true}`)(rw, r)
	})
	asked := w.challenge(http.MethodGet, "/paid/x").Accepts[0]
	payment := newPayer(t).sign(t, asked, time.Now()).v2(t)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				w.get(fmt.Sprintf("/paid/none-%d", i), "PAYMENT-SIGNATURE", payment, "X-Forwarded-For", elsewhere)
			}
		}
	}()
	refused := map[string]int{}
	const n = 10
	for range n {
		res := w.get("/paid/x", "PAYMENT-SIGNATURE", newPayer(t).sign(t, asked, time.Now()).v2(t), "X-Forwarded-For", here)
		if res.StatusCode != 200 {
			refused[fmt.Sprint(res.StatusCode, " ", res.body)]++
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
	forgetPayers()
	w := prepareWorld(t)
	w.load(behindProxy(w.caddyfile("price /paid/* $0.01")))
	asked := w.challenge(http.MethodGet, "/paid/x").Accepts[0]
	var odd atomic.Value
	odd.Store("none")
	w.fac.onVerify(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(string(w.fac.keep(r)), odd.Load().(string)) {
			says(500, `{"error":"internal"}`)(rw, r)
			return
		}
		says(200, `{"isValid":true}`)(rw, r)
	})
	attack := func() {
		p := newPayer(t)
		odd.Store(p.address.Hex())
		w.get("/paid/x", "PAYMENT-SIGNATURE", p.sign(t, asked, time.Now()).v2(t), "X-Forwarded-For", elsewhere)
	}
	for range 3 {
		attack()
	}
	w.comesGood(func() bool { return w.get("/paid/x").is(402) })
	refused := 0
	for range 10 {
		for range 6 {
			attack()
		}
		if res := w.get("/paid/x", "PAYMENT-SIGNATURE", newPayer(t).sign(t, asked, time.Now()).v2(t), "X-Forwarded-For", here); res.StatusCode != 200 {
			refused++
		}
	}
	if refused > 0 {
		t.Errorf("%d of 10 honest payers refused", refused)
	}
}

// Somebody's bad signatures do not keep the contract wallets of others out.
func TestContractWalletsHaveAShare(t *testing.T) {
	forgetPayers()
	w := prepareWorld(t)
	w.load(behindProxy(w.caddyfile("price /paid/* $0.01")))
	w.fac.onVerify(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(string(w.fac.keep(r)), "deadbeef") {
			says(200, `{"isValid":false,"invalidReason":"invalid_exact_evm_signature"}`)(rw, r)
			return
		}
		says(200, `{"isValid":true}`)(rw, r)
	})
	asked := w.challenge(http.MethodGet, "/paid/x").Accepts[0]
	wallet, signer, sent := newPayer(t), newPayer(t), 0
	sign := func(nonce string) string {
		s := signer.sign(t, asked, time.Now())
		s.authorization["from"] = wallet.address.Hex()
		if nonce != "" {
			s.authorization["nonce"] = nonce
		}
		return s.v2(t)
	}
	junk := func(n int) (limited int) {
		for range n {
			sent++
			if w.get("/paid/x", "PAYMENT-SIGNATURE", sign(fmt.Sprintf("0xdeadbeef%056x", sent)), "X-Forwarded-For", elsewhere).StatusCode == 503 {
				limited++
			}
		}
		return limited
	}
	if junk(3*admission.StrangersAtOnce) == 0 {
		t.Error("bad signatures have no bound")
	}
	w.load(behindProxy(w.caddyfile("price /paid/* $0.01")))
	if junk(admission.StrangersAtOnce/2) == 0 {
		t.Error("a reload gives new tries")
	}
	for i := range 10 {
		w.expect(w.get(fmt.Sprintf("/paid/%d", i), "PAYMENT-SIGNATURE", sign(""), "X-Forwarded-For", here), 200, "")
	}
}

// Wallets without a payment to their name hold so many places, and who has paid finds
// one.
func TestUnspentWalletsLeavePlaces(t *testing.T) {
	forgetPayers()
	w := prepareWorld(t)
	w.load(behindProxy(w.caddyfile("price /paid/* $0.01\nprice /slow/* $0.01")))
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/slow") {
			<-r.Context().Done()
			return
		}
		_, _ = rw.Write([]byte(sample))
	})
	customer := newPayer(t)
	asked := w.challenge(http.MethodGet, "/paid/x").Accepts[0]
	buy := func(p *payer) answerOf {
		return w.get("/paid/x", "PAYMENT-SIGNATURE", p.sign(t, asked, time.Now()).v2(t), "X-Forwarded-For", here)
	}
	w.expect(buy(customer), 200, "")
	t.Cleanup(setMost(t, 20, 5, 8, 10))
	holding := 0
	for i := range 30 {
		conn, host := w.dial()
		t.Cleanup(func() { conn.Close() })
		fmt.Fprintf(conn, "GET /slow/%d HTTP/1.1\r\nHost: %s\r\nX-Forwarded-For: 203.0.%d.9\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", i, host, i%3, newPayer(t).sign(t, asked, time.Now()).v2(t))
	}
	w.until(func() bool {
		holding = unsettled()
		return holding == 15
	})
	w.expectBusy(buy(newPayer(t)), 503, "too_busy")
	w.expect(buy(customer), 200, "")
}

// A payment is not held for ever by an upstream that does not answer.
func TestPaymentIsNotHeldForEver(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	w.up.on(func(rw http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for _, g := range gates(t) {
		g.ForTest().HoldWithin = 200 * time.Millisecond
	}
	payment := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", payment), 504, "upstream_too_slow")
	if unsettled() != 0 || w.fac.transfers() != 0 {
		t.Errorf("%d unsettled, %d transfers", unsettled(), w.fac.transfers())
	}
	w.up.on(nil)
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", payment), 200, "")
}

// A forged payment does not take a payer's standing away.
func TestForgeryTakesNobodysStanding(t *testing.T) {
	forgetPayers()
	w := prepareWorld(t)
	w.load(behindProxy(w.caddyfile("price /paid/* $0.01")))
	asked := w.challenge(http.MethodGet, "/paid/x").Accepts[0]
	customer := newPayer(t)
	buy := func(p *payer, from string) answerOf {
		return w.get("/paid/x", "PAYMENT-SIGNATURE", p.sign(t, asked, time.Now()).v2(t), "X-Forwarded-For", from)
	}
	w.expect(buy(customer, here), 200, "")
	w.fac.onVerify(says(200, `{"isValid":false,"invalidReason":"invalid_exact_evm_signature"}`))
	forged := newPayer(t).sign(t, asked, time.Now())
	forged.authorization["from"] = customer.address.Hex()
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", forged.v2(t), "X-Forwarded-For", elsewhere), 402, "invalid_exact_evm_signature")
	w.fac.onVerify(says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`))
	limited := false
	for range 2 * admission.TriesAtOnce { // somebody in the same network, with empty wallets
		if buy(newPayer(t), here).StatusCode == 429 {
			limited = true
			break
		}
	}
	if !limited {
		t.Fatal("bad payments have no bound")
	}
	w.fac.onVerify(nil)
	w.expect(buy(customer, here), 200, "")
}

// A version 1 payment names no token. It is tried against a handful, and not against
// every price.
func TestVersionOneIsTriedAgainstFewTokens(t *testing.T) {
	var b strings.Builder
	for i := range 300 {
		fmt.Fprintf(&b, "price /articles/%d $0.%02d1\n", i, i%100)
	}
	w := newWorld(t, b.String())
	for _, g := range gates(t) {
		if n := len(g.ForTest().Candidates["eip155:84532"]); n != 1 {
			t.Errorf("%d candidates for one token at 300 prices", n)
		}
	}
	_ = w
}

// What anybody can send for nothing does not fill the log.
func TestJunkFillsNoLog(t *testing.T) {
	forgetPayers()
	w := newWorld(t, "price /paid/* $0.01")
	w.fac.onVerify(says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`))
	asked := w.challenge(http.MethodGet, "/paid/x").Accepts[0]
	for range 150 {
		w.get("/paid/x", "PAYMENT-SIGNATURE", newPayer(t).sign(t, asked, time.Now()).v2(t))
	}
	if lines := w.logged(`"outcome":"invalid"`); lines == 0 || lines > 30 {
		t.Errorf("%d lines for 150 payments without money behind them", lines)
	}
}

// A settlement that is refused when its payer has long been told to come back costs him
// the same as one that he waits for: he pays first from then on.
func TestLateRefusalsAreRemembered(t *testing.T) {
	for name, late := range map[string]bool{"in time": false, "late": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "price /paid/* $0.01")
			if late {
				for _, g := range gates(t) {
					g.ForTest().AnswerWithin = 30 * time.Millisecond
				}
			}
			w.fac.onSettle(func(rw http.ResponseWriter, r *http.Request) {
				time.Sleep(60 * time.Millisecond)
				refusedSettle(rw, r)
			})
			p := newPayer(t)
			asked := w.challenge("GET", "/paid/x").Accepts[0]
			for range 12 {
				w.get("/paid/x", "PAYMENT-SIGNATURE", p.sign(t, asked, time.Now()).v2(t))
				w.until(func() bool { return unsettled() == 0 })
			}
			if w.up.hits.Load() != 1 || w.fac.transfers() != 0 {
				t.Errorf("%d runs for nothing, %d transfers", w.up.hits.Load(), w.fac.transfers())
			}
		})
	}
}

// The looks of a network into the ledger are bounded, also with what was used.
func TestUsedPaymentsReachTheLedgerSeldom(t *testing.T) {
	w := prepareWorld(t)
	s := w.withScript()
	w.load(onScript(w.caddyfile("price /paid/* $0.01")))
	pay := w.sign("GET", "/paid/x", newPayer(t)).v2(t)
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", pay), 200, "")
	before, since := s.claims.Load(), time.Now()
	for range 2000 {
		w.get("/paid/x", "PAYMENT-SIGNATURE", pay)
	}
	// What is beyond the looks costs tries, of which there are as many.
	if n, most := s.claims.Load()-before, 2*(200+20*int64(time.Since(since)/time.Second+1)); n > most {
		t.Errorf("2000 replays are %d calls of the ledger, want %d at most", n, most)
	}
}

// Who signs for a shorter time than he is asked for, so that the gate must cut the
// upstream off, has left before the answer.
func TestShortLifeCountsAsLeaving(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(5 * time.Second):
		}
	})
	p := newPayer(t)
	asked := w.challenge("GET", "/paid/x").Accepts[0]
	round := func() (slow int) {
		codes := make(chan int)
		for range 5 {
			a := p.sign(t, asked, time.Now()).authorization
			a["validBefore"] = strconv.FormatInt(time.Now().Unix()+21, 10)
			payment := p.signWith(t, asked, a).v2(t)
			go func() { codes <- w.get("/paid/x", "PAYMENT-SIGNATURE", payment).StatusCode }()
		}
		for range 5 {
			if <-codes == http.StatusGatewayTimeout {
				slow++
			}
		}
		return slow
	}
	if n := round(); n != 5 || w.fac.transfers() != 0 {
		t.Errorf("%d were cut off, %d transfers", n, w.fac.transfers())
	}
	w.up.on(nil)
	w.up.on(says(http.StatusNotFound, "none"))
	w.get("/paid/none", "PAYMENT-SIGNATURE", p.sign(t, asked, time.Now()).v2(t))
	if w.fac.transfers() != 1 {
		t.Error("he does not pay first")
	}
}

// A customer's payment stands on the chain, and a stranger sends it again and again. That
// costs the stranger's network, and none of what is the customer's.
func TestReplaysCostTheCustomerNothing(t *testing.T) {
	w := prepareWorld(t)
	w.load(behindProxy(w.caddyfile("price /paid/* $0.01")))
	customer := newPayer(t)
	public := w.sign(http.MethodGet, "/paid/a", customer).v2(t)
	w.expect(w.get("/paid/a", "PAYMENT-SIGNATURE", public, "X-Forwarded-For", here), 200, "")
	replay := func() int {
		return w.get("/paid/a", "PAYMENT-SIGNATURE", public, "X-Forwarded-For", elsewhere).StatusCode
	}
	for n := 0; replay() != http.StatusTooManyRequests; n++ {
		if n == 2000 {
			t.Fatal("the stranger is not stopped")
		}
	}
	asked := w.challenge(http.MethodGet, "/paid/a").Accepts[0]
	for range 20 {
		for range 20 {
			replay()
		}
		w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", customer.sign(t, asked, time.Now()).v2(t), "X-Forwarded-For", here), 200, "")
	}
}

// What a customer has paid with elsewhere is public too. That a facilitator calls it used
// is not his doing.
func TestUsedElsewhereTakesNobodysStanding(t *testing.T) {
	w := prepareWorld(t)
	w.load(behindProxy(w.caddyfile("price /paid/* $0.01")))
	customer := newPayer(t)
	asked := w.challenge(http.MethodGet, "/paid/a").Accepts[0]
	buy := func(path, from string) answerOf {
		return w.get(path, "PAYMENT-SIGNATURE", customer.sign(t, asked, time.Now()).v2(t), "X-Forwarded-For", from)
	}
	w.expect(buy("/paid/a", here), 200, "")
	t.Cleanup(setMost(t, 1, 1, 1, 1)) // all are for payers who have paid
	w.fac.onVerify(says(200, `{"isValid":false,"invalidReason":"invalid_exact_evm_nonce_already_used"}`))
	w.expect(buy("/paid/c", elsewhere), 402, "invalid_exact_evm_nonce_already_used")
	w.fac.onVerify(nil)
	w.expect(buy("/paid/d", here), 200, "")
	w.fac.onVerify(says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`))
	w.expect(buy("/paid/e", here), 402, "insufficient_funds")
	w.fac.onVerify(nil)
	w.expect(buy("/paid/f", here), 503, "too_busy")
}
