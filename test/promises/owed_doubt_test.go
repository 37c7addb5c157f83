package promises

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// The settlement of an order is in doubt after its upstream has answered. The answer
// is kept, for the money may move: its payer fetches it.
func TestAnswerIsKeptWhileASettlementIsInDoubt(t *testing.T) {
	for name, price := range map[string]string{"fixed": "price POST /act $0.01 {\n settle on_success\n}", "upto": "price POST /act upto $0.50"} {
		t.Run(name, func(t *testing.T) {
			w, b := newUptoWorld(t, price)
			w.Upstream.Charges(amountOf("77"))
			var back atomic.Bool
			w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
				if !back.Load() {
					b.Lost(rw, r)
					return
				}
				b.Settle(rw, r)
			})
			p := gate.NewPayer(t)
			asked := w.Challenge(http.MethodPost, "/act").Accepts[0]
			sign := func() string {
				if asked.Scheme == "upto" {
					return p.Permit(t, asked).V2(t)
				}
				return p.Sign(t, asked, time.Now()).V2(t)
			}
			payment := sign()
			res := w.SendBody(t.Context(), "POST", "/act", payment, "a prompt")
			t.Log(res.StatusCode, res.Text)
			back.Store(true)
			w.Until(func() bool {
				res = w.SendBody(t.Context(), "POST", "/act", payment, "a prompt")
				return !strings.Contains(res.Text, "settlement_pending") && !strings.Contains(res.Text, "in_flight")
			})
			t.Log("same payment:", res.StatusCode, res.Text)
			fresh := w.Again(func() gate.Answer { return w.SendBody(t.Context(), "POST", "/act", sign(), "a prompt") })
			t.Log("fresh:", fresh.StatusCode, fresh.Text)
			if res.StatusCode != 200 && fresh.StatusCode != 200 {
				t.Errorf("charged (%d transfers, %v), and the payer can never have it; runs %d", w.Facilitator.Transfers(), b.Amounts(), w.Upstream.Hits.Load())
			}
		})
	}
}

// What an upstream has failed to finish is kept for nobody as the whole answer.
func TestHalfAnAnswerIsNotKept(t *testing.T) {
	w := gate.New(t, "price POST /act $0.01 {\n settle on_success\n}", "in_process")
	gate.OnInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		_, _ = io.WriteString(rw, "half of ")
		return errors.New("the file is broken")
	})
	var back atomic.Bool
	w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
		if back.Load() {
			w.Facilitator.Settle(rw, r)
			return
		}
		w.Facilitator.Lost(rw, r)
	})
	p := gate.NewPayer(t)
	send := func() gate.Answer {
		return w.SendBody(t.Context(), "POST", "/act", w.Sign(http.MethodPost, "/act", p).V2(t), "order")
	}
	w.Expect(send(), 503, "settlement_pending")
	back.Store(true)
	var res gate.Answer
	w.Until(func() bool {
		res = send()
		return res.StatusCode != 503 && !strings.Contains(res.Text, "payment_in_flight")
	})
	w.Expect(res, 409, "delivery_unconfirmed")
}

// The ledger cannot take the mark of doubt. The payer who left and signs anew is not
// charged again all the same.
func TestDoubtThatIsNotRecordedIsRemembered(t *testing.T) {
	w := gate.Prepare(t)
	s := w.WithLedger()
	w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01")))
	s.OnMove(func(c ledger.Claim, ch ledger.Change) error {
		if c.Payment.State == ledger.Settling && ch.To == ledger.Settling {
			return ledger.ErrUnavailable
		}
		return nil
	})
	slow := make(chan struct{})
	var calls atomic.Int64
	w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
		body := gate.Body(r)
		if calls.Add(1) == 1 {
			<-slow
		}
		w.Facilitator.Move(rw, body)
	})
	p := gate.NewPayer(t)
	asked := w.Challenge(http.MethodGet, "/paid/x").Accepts[0]
	conn, host := w.Dial()
	fmt.Fprintf(conn, "GET /paid/x HTTP/1.1\r\nHost: %s\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", host, p.Sign(t, asked, time.Now()).V2(t))
	w.Until(func() bool { return calls.Load() == 1 })
	conn.Close()
	time.Sleep(100 * time.Millisecond)
	res := w.Get("/paid/x", "PAYMENT-SIGNATURE", p.Sign(t, asked, time.Now()).V2(t))
	close(slow)
	t.Log(res.StatusCode, res.Text)
	w.Until(func() bool { return w.Facilitator.Transfers() > 0 })
	time.Sleep(200 * time.Millisecond)
	if w.Facilitator.Transfers() > 1 {
		t.Errorf("%d transfers for one request of an honest payer", w.Facilitator.Transfers())
	}
}

// A HEAD at a fixed price does not buy the GET when the price is by use meanwhile.
func TestFixedHeadBuysNoUptoGet(t *testing.T) {
	w, b := newUptoWorld(t, "price /chat/* $0.01")
	w.Facilitator.OnSettle(nil)
	p := gate.NewPayer(t)
	payment := w.Sign(http.MethodHead, "/chat/x", p).V2(t)
	w.Do(w.Request(http.MethodHead, "/chat/x", "PAYMENT-SIGNATURE", payment))
	w.Reload(w.Caddyfile("price /chat/* upto $0.50"))
	w.Facilitator.OnSettle(b.Settle)
	w.Upstream.Charges(amountOf(maximum))
	res := w.Again(func() gate.Answer { return w.Get("/chat/x", "PAYMENT-SIGNATURE", payment) })
	t.Log(res.StatusCode, res.Text)
	if res.StatusCode == 200 {
		t.Errorf("%d transfers, %v", w.Facilitator.Transfers(), b.Amounts())
	}
}

// Two gateways on one ledger see each other's fresh signatures for one request, which
// are both claimed and not yet settled: one is sold.
func TestTwoGatewaysDoNotSellOnePurchaseTwice(t *testing.T) {
	w := gate.Prepare(t)
	s := w.WithLedger()
	s.Elsewhere.Store(true)
	w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01")))
	p := gate.NewPayer(t)
	asked := w.Challenge(http.MethodGet, "/paid/x").Accepts[0]
	var in atomic.Int64
	w.Facilitator.OnVerify(func(rw http.ResponseWriter, r *http.Request) {
		in.Add(1)
		for range 200 {
			if in.Load() >= 2 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		gate.Says(200, `{"isValid":true}`)(rw, r)
	})
	answers := make(chan gate.Answer, 2)
	for range 2 {
		payment := p.Sign(t, asked, time.Now()).V2(t)
		go func() { answers <- w.Get("/paid/x", "PAYMENT-SIGNATURE", payment) }()
	}
	for range 2 {
		res := <-answers
		t.Log(res.StatusCode, res.Text)
	}
	if w.Facilitator.Transfers() > 1 {
		t.Errorf("%d transfers at once; README: two purchases of one payer for one URL do not overlap at two gateways", w.Facilitator.Transfers())
	}
}

// What the upstream adds to its answer while nobody knows whether it is paid for does not
// follow ours as trailers.
func TestDoubtfulAnswerLeavesNoTrailers(t *testing.T) {
	w := gate.Prepare(t)
	w.Load(gate.WithH2C(w.Caddyfile("price POST /act $0.01 {\n settle on_success\n}")))
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Trailer", "X-Announced")
		_, _ = io.WriteString(rw, "begin")
		_ = http.NewResponseController(rw).Flush()
		time.Sleep(100 * time.Millisecond)
		rw.Header().Set("X-Announced", gate.Goods)
		rw.Header().Set(http.TrailerPrefix+"X-Goods", gate.Goods)
		rw.Header().Set(http.TrailerPrefix+"Payment-Response", "forged")
	})
	w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) { gate.Body(r); panic(http.ErrAbortHandler) })
	for name, client := range map[string]*http.Client{"HTTP/1.1": w.HTTP, "HTTP/2": w.H2C()} {
		res, err := client.Do(w.Request("POST", "/act", "PAYMENT-SIGNATURE", w.Sign("POST", "/act", gate.NewPayer(t)).V2(t)))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 503 || len(res.Trailer) > 0 || strings.Contains(string(body), gate.Goods) {
			t.Errorf("%s: %d %q %v", name, res.StatusCode, body, res.Trailer)
		}
	}
}

// An order may be answered before it is read, and then nobody may know whether it is paid
// for. Another order of the same length does not get its answer, and is done for itself.
func TestDoubtfulOrderThatWasNotReadIsNoOther(t *testing.T) {
	w := gate.Prepare(t)
	var acted atomic.Int64
	up := twoWayUpstream(t, func(rw http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		acted.Add(1)
		_, _ = fmt.Fprintf(rw, "answer to %s", b)
	})
	w.Load(strings.Replace(w.Caddyfile("price POST /act $0.01 {\n settle on_success\n}"), strings.TrimPrefix(w.Upstream.URL, "http://"), up, 1))
	w.Facilitator.OnSettle(w.Facilitator.Lost)
	p := gate.NewPayer(t)
	asked := w.Challenge("POST", "/act").Accepts[0]
	conn, host := w.Dial()
	fmt.Fprintf(conn, "POST /act HTTP/1.1\r\nHost: %s\r\nContent-Length: 9\r\nPAYMENT-SIGNATURE: %s\r\n\r\nord", host, p.Sign(t, asked, time.Now()).V2(t))
	b := make([]byte, 12)
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "HTTP/1.1 503" {
		t.Fatalf("%q %v", b, err)
	}
	w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) { w.Facilitator.Move(rw, gate.Body(r)) })
	w.Expect(w.SendBody(t.Context(), "POST", "/act", p.Sign(t, asked, time.Now()).V2(t), "order 456"), 503, "settlement_pending")
	_, _ = io.WriteString(conn, "er 123")
	w.Until(func() bool { return acted.Load() == 1 })
	for _, order := range []string{"order 456", "order 123"} {
		var res gate.Answer
		w.Until(func() bool {
			res = w.SendBody(t.Context(), "POST", "/act", p.Sign(t, asked, time.Now()).V2(t), order)
			return res.StatusCode != 503 && !strings.Contains(res.Text, "payment_in_flight")
		})
		if res.StatusCode != 200 || res.Text != "answer to "+order {
			t.Errorf("%s: %d %.60q", order, res.StatusCode, res.Text)
		}
	}
	if acted.Load() != 2 || w.Facilitator.Transfers() != 2 {
		t.Errorf("%d orders done, %d transfers", acted.Load(), w.Facilitator.Transfers())
	}
}
