package paywall_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// On_success with effects, and a settlement whose answer is lost: the money
// moves, the answer is thrown away, and nobody gets it.
func TestAnswerIsKeptWhileASettlementIsInDoubt(t *testing.T) {
	for name, price := range map[string]string{"fixed": "price POST /act $0.01 {\n settle on_success\n}", "upto": "price POST /act upto $0.50"} {
		t.Run(name, func(t *testing.T) {
			w, b := newUptoWorld(t, price)
			w.up.charges(amountOf("77"))
			var back atomic.Bool
			w.fac.onSettle(func(rw http.ResponseWriter, r *http.Request) {
				if name == "upto" {
					if !back.Load() {
						b.lose(true)(rw, r)
						return
					}
					b.settle(rw, r)
					return
				}
				if !back.Load() {
					w.fac.lost(rw, r)
					return
				}
				w.fac.move(rw, w.fac.keep(r))
			})
			p := newPayer(t)
			asked := w.challenge(http.MethodPost, "/act").Accepts[0]
			sign := func() string {
				if asked.Scheme == "upto" {
					return p.permit(t, asked).v2(t)
				}
				return p.sign(t, asked, time.Now()).v2(t)
			}
			payment := sign()
			res := w.sendBody(t.Context(), "POST", "/act", payment, "a prompt")
			t.Log(res.StatusCode, res.body)
			back.Store(true)
			w.until(func() bool {
				res = w.sendBody(t.Context(), "POST", "/act", payment, "a prompt")
				return !strings.Contains(res.body, "settlement_pending") && !strings.Contains(res.body, "in_flight")
			})
			t.Log("same payment:", res.StatusCode, res.body)
			fresh := w.again(func() answerOf { return w.sendBody(t.Context(), "POST", "/act", sign(), "a prompt") })
			t.Log("fresh:", fresh.StatusCode, fresh.body)
			if res.StatusCode != 200 && fresh.StatusCode != 200 {
				t.Errorf("charged (%d transfers, %v), and the payer can never have it; runs %d", w.fac.transfers(), b.amounts(), w.up.hits.Load())
			}
		})
	}
}

// A ledger that cannot take the mark of doubt: the payer who left signs anew
// and is charged again.
func TestDoubtThatIsNotRecordedIsRemembered(t *testing.T) {
	w := prepareWorld(t)
	s := w.withScript()
	w.load(onScript(w.caddyfile("price /paid/* $0.01")))
	s.onMove(func(c ledger.Claim, ch ledger.Change) error {
		if c.Payment.State == ledger.Settling && ch.To == ledger.Settling {
			return ledger.ErrUnavailable
		}
		return nil
	})
	slow := make(chan struct{})
	var calls atomic.Int64
	w.fac.onSettle(func(rw http.ResponseWriter, r *http.Request) {
		body := w.fac.keep(r)
		if calls.Add(1) == 1 {
			<-slow
		}
		w.fac.move(rw, body)
	})
	p := newPayer(t)
	asked := w.challenge(http.MethodGet, "/paid/x").Accepts[0]
	conn, host := w.dial()
	fmt.Fprintf(conn, "GET /paid/x HTTP/1.1\r\nHost: %s\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", host, p.sign(t, asked, time.Now()).v2(t))
	w.until(func() bool { return calls.Load() == 1 })
	conn.Close()
	time.Sleep(100 * time.Millisecond)
	res := w.get("/paid/x", "PAYMENT-SIGNATURE", p.sign(t, asked, time.Now()).v2(t))
	close(slow)
	t.Log(res.StatusCode, res.body)
	w.until(func() bool { return w.fac.transfers() > 0 })
	time.Sleep(200 * time.Millisecond)
	if w.fac.transfers() > 1 {
		t.Errorf("%d transfers for one request of an honest payer", w.fac.transfers())
	}
}

// A HEAD at a fixed price, then the price is by use: the GET is free of it.
func TestFixedHeadBuysNoUptoGet(t *testing.T) {
	w, b := newUptoWorld(t, "price /chat/* $0.01")
	w.fac.onSettle(nil)
	p := newPayer(t)
	payment := w.sign(http.MethodHead, "/chat/x", p).v2(t)
	w.do(w.request(http.MethodHead, "/chat/x", "PAYMENT-SIGNATURE", payment))
	w.reload(w.caddyfile("price /chat/* upto $0.50"))
	w.fac.onSettle(b.settle)
	w.up.charges(amountOf(maximum))
	res := w.again(func() answerOf { return w.get("/chat/x", "PAYMENT-SIGNATURE", payment) })
	t.Log(res.StatusCode, res.body)
	if res.StatusCode == 200 {
		t.Errorf("PROVEN (memory ledger survived): %d transfers, %v", w.fac.transfers(), b.amounts())
	}
}

// Two gateways on one ledger: two fresh signatures for one request that are
// both claimed and not yet settled do not see each other.
func TestTwoGatewaysDoNotSellOnePurchaseTwice(t *testing.T) {
	w := prepareWorld(t)
	s := w.withScript()
	s.elsewhere.Store(true)
	w.load(onScript(w.caddyfile("price /paid/* $0.01")))
	p := newPayer(t)
	asked := w.challenge(http.MethodGet, "/paid/x").Accepts[0]
	var in atomic.Int64
	w.fac.onVerify(func(rw http.ResponseWriter, r *http.Request) {
		in.Add(1)
		for range 200 {
			if in.Load() >= 2 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		says(200, `{"isValid":true}`)(rw, r)
	})
	answers := make(chan answerOf, 2)
	for range 2 {
		payment := p.sign(t, asked, time.Now()).v2(t)
		go func() { answers <- w.get("/paid/x", "PAYMENT-SIGNATURE", payment) }()
	}
	for range 2 {
		res := <-answers
		t.Log(res.StatusCode, res.body)
	}
	if w.fac.transfers() > 1 {
		t.Errorf("%d transfers at once; README: two purchases of one payer for one URL do not overlap at two gateways", w.fac.transfers())
	}
}

// One payment closes a price for all others: its bad gateways count each time
// that it is fetched.
func TestWhatIsFetchedClosesNoPrice(t *testing.T) {
	w := newWorld(t, "price POST /render $0.01")
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		if _, body := w.up.seen(); body == "poison" {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(rw, "done")
	})
	asked := w.challenge(http.MethodPost, "/render").Accepts[0]
	bad := newPayer(t).sign(t, asked, time.Now()).v2(t)
	for range 4 {
		res := w.again(func() answerOf { return w.sendBody(t.Context(), "POST", "/render", bad, "poison") })
		t.Log(res.StatusCode, res.body)
	}
	closed := 0
	for range 5 {
		res := w.sendBody(t.Context(), "POST", "/render", newPayer(t).sign(t, asked, time.Now()).v2(t), "fine")
		t.Log(res.StatusCode, res.body)
		if res.StatusCode == 503 {
			closed++
		}
		_ = w.again(func() answerOf { return w.sendBody(t.Context(), "POST", "/render", bad, "poison") })
	}
	if closed > 0 {
		t.Errorf("%d of 5 honest payers turned away, by one payment", closed)
	}
}

// What the upstream adds to its answer while nobody knows whether it is paid for does not
// follow ours as trailers.
func TestDoubtfulAnswerLeavesNoTrailers(t *testing.T) {
	w := prepareWorld(t)
	w.load(withH2C(w.caddyfile("price POST /act $0.01 {\n settle on_success\n}")))
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Trailer", "X-Announced")
		_, _ = io.WriteString(rw, "begin")
		_ = http.NewResponseController(rw).Flush()
		time.Sleep(100 * time.Millisecond)
		rw.Header().Set("X-Announced", sample)
		rw.Header().Set(http.TrailerPrefix+"X-Goods", sample)
		rw.Header().Set(http.TrailerPrefix+"Payment-Response", "forged")
	})
	w.fac.onSettle(func(rw http.ResponseWriter, r *http.Request) { w.fac.keep(r); panic(http.ErrAbortHandler) })
	for name, client := range map[string]*http.Client{"HTTP/1.1": w.http, "HTTP/2": w.h2c()} {
		res, err := client.Do(w.request("POST", "/act", "PAYMENT-SIGNATURE", w.sign("POST", "/act", newPayer(t)).v2(t)))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 503 || len(res.Trailer) > 0 || strings.Contains(string(body), sample) {
			t.Errorf("%s: %d %q %v", name, res.StatusCode, body, res.Trailer)
		}
	}
}

// An order may be answered before it is read, and then nobody may know whether it is paid
// for. Another order of the same length does not get its answer, and is done for itself.
func TestDoubtfulOrderThatWasNotReadIsNoOther(t *testing.T) {
	w := prepareWorld(t)
	var acted atomic.Int64
	up := twoWayUpstream(t, func(rw http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		acted.Add(1)
		_, _ = fmt.Fprintf(rw, "answer to %s", b)
	})
	w.load(strings.Replace(w.caddyfile("price POST /act $0.01 {\n settle on_success\n}"), strings.TrimPrefix(w.up.URL, "http://"), up, 1))
	w.fac.onSettle(w.fac.lost)
	p := newPayer(t)
	asked := w.challenge("POST", "/act").Accepts[0]
	conn, host := w.dial()
	fmt.Fprintf(conn, "POST /act HTTP/1.1\r\nHost: %s\r\nContent-Length: 9\r\nPAYMENT-SIGNATURE: %s\r\n\r\nord", host, p.sign(t, asked, time.Now()).v2(t))
	b := make([]byte, 12)
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "HTTP/1.1 503" {
		t.Fatalf("%q %v", b, err)
	}
	w.fac.onSettle(func(rw http.ResponseWriter, r *http.Request) { w.fac.move(rw, w.fac.keep(r)) })
	w.expect(w.sendBody(t.Context(), "POST", "/act", p.sign(t, asked, time.Now()).v2(t), "order 456"), 503, "settlement_pending")
	_, _ = io.WriteString(conn, "er 123")
	w.until(func() bool { return acted.Load() == 1 })
	for _, order := range []string{"order 456", "order 123"} {
		var res answerOf
		w.until(func() bool {
			res = w.sendBody(t.Context(), "POST", "/act", p.sign(t, asked, time.Now()).v2(t), order)
			return res.StatusCode != 503 && !strings.Contains(res.body, "payment_in_flight")
		})
		if res.StatusCode != 200 || res.body != "answer to "+order {
			t.Errorf("%s: %d %.60q", order, res.StatusCode, res.body)
		}
	}
	if acted.Load() != 2 || w.fac.transfers() != 2 {
		t.Errorf("%d orders done, %d transfers", acted.Load(), w.fac.transfers())
	}
}
