package promises

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/internal/settlement"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

var errBlip = errors.New("the disk is full")

// failsOnce makes the first change fail that is like this.
func failsOnce(s *gate.Ledger, like func(ledger.Claim, ledger.Change) bool) (failed *atomic.Int64) {
	failed = new(atomic.Int64)
	s.OnMove(func(c ledger.Claim, ch ledger.Change) error {
		if like(c, ch) && failed.Add(1) == 1 {
			return errBlip
		}
		return nil
	})
	return failed
}

// failsFor makes all changes fail that are like this, for some time from the first on.
func failsFor(s *gate.Ledger, d time.Duration, like func(ledger.Claim, ledger.Change) bool) (failed *atomic.Int64) {
	failed = new(atomic.Int64)
	var end atomic.Int64
	s.OnMove(func(c ledger.Claim, ch ledger.Change) error {
		if now := time.Now(); like(c, ch) && (end.CompareAndSwap(0, now.Add(d).UnixNano()) || now.UnixNano() < end.Load()) {
			failed.Add(1)
			return errBlip
		}
		return nil
	})
	return failed
}

// A ledger that is away while an upstream acts is told later what was done. Until then
// nobody makes the upstream act again for the same money, whoever comes, and the exit
// waits.
func TestActOfWhichTheLedgerHearsLaterIsDoneOnce(t *testing.T) {
	for _, settle := range []string{"first", "on_success"} {
		t.Run(settle, func(t *testing.T) {
			w := gate.Prepare(t)
			s := w.WithLedger()
			w.Load(gate.OnLedger(w.Caddyfile("price POST /render $0.01 {\n settle " + settle + "\n}")))
			advance := gate.Clock(t)
			var acts atomic.Int64
			var away atomic.Bool
			w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
				acts.Add(1)
				_, _ = io.WriteString(rw, "acted")
			})
			var tries atomic.Int64 // since it is away
			s.OnMove(func(_ ledger.Claim, ch ledger.Change) error {
				if ch.To == ledger.Delivering && ch.Status != 0 && ch.Status != ledger.StatusBegan {
					away.Store(true)
				}
				if away.Load() {
					tries.Add(1)
					return errBlip
				}
				return nil
			})
			p := gate.NewPayer(t)
			asked := w.Challenge("POST", "/render").Accepts[0]
			payment := p.Sign(t, asked, time.Now()).V2(t)
			send := func(payment string) gate.Answer {
				return w.SendBody(t.Context(), "POST", "/render", payment, "render")
			}
			w.Expect(send(payment), 503, "ledger_unavailable")
			w.Until(func() bool { return tries.Load() >= 2 }) // the request has let go
			// A lease later.
			advance(2 * ledger.LeaseFor)
			s.Ahead.Store(int64(2 * ledger.LeaseFor))
			w.Expect(send(payment), 409, "payment_in_flight")
			w.Expect(send(p.Sign(t, asked, time.Now().Add(2*ledger.LeaseFor)).V2(t)), 409, "payment_in_flight")
			w.Until(func() bool { // the exit waits, once the request has let go
				short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				settlement.Drain(short)
				return short.Err() != nil
			})
			away.Store(false)
			s.OnMove(func(ledger.Claim, ledger.Change) error { return nil })
			settlement.Drain(t.Context())
			res := w.Again(func() gate.Answer { return send(payment) })
			if res.StatusCode != 200 || res.Text != "acted" || acts.Load() != 1 || w.Facilitator.Transfers() != 1 {
				t.Errorf("then %d %s, acted %d times, %d transfers", res.StatusCode, res.Text, acts.Load(), w.Facilitator.Transfers())
			}
		})
	}
}

// A ledger that fails costs the payer no answer of an upstream that has acted, whichever
// call it is: he has it at once where it fails once, however long it is, and else when he
// comes again.
func TestAFailingLedgerLosesNoAnswer(t *testing.T) {
	status := func(_ ledger.Claim, ch ledger.Change) bool { return ch.To == ledger.Delivering && ch.Status != 0 }
	money := func(_ ledger.Claim, ch ledger.Change) bool { return ch.To == ledger.Settled && ch.Status == 0 }
	const long = 300 << 10 // more than is kept
	for name, tc := range map[string]struct {
		like   func(ledger.Claim, ledger.Change) bool
		leaves bool
		lasts  time.Duration
		answer int
	}{
		"once, that records the status":           {like: status},
		"once, before a long answer":              {like: status, answer: long},
		"once, that records that the money moved": {like: money, answer: long},
		"for a while, that records the status":    {like: status, lasts: 2500 * time.Millisecond},
		"once, that keeps the answer": {leaves: true, like: func(_ ledger.Claim, ch ledger.Change) bool {
			return ch.To == ledger.Settled && ch.Status != 0
		}},
	} {
		for _, settle := range []string{"first", "on_success"} {
			t.Run(name+", settle "+settle, func(t *testing.T) {
				w := gate.Prepare(t)
				s := w.WithLedger()
				w.Load(gate.OnLedger(w.Caddyfile("price POST /render $0.01 {\n settle " + settle + "\n}")))
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				var acts atomic.Int64
				left := make(chan struct{})
				w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
					acts.Add(1)
					_, _ = io.WriteString(rw, "act")
					_ = http.NewResponseController(rw).Flush()
					if tc.leaves {
						<-left
					}
					_, _ = io.WriteString(rw, "ed"+strings.Repeat(".", tc.answer))
				})
				failed := failsFor(s, tc.lasts, tc.like)
				payment := gate.NewPayer(t).Sign(t, w.Challenge("POST", "/render").Accepts[0], time.Now()).V2(t)
				send := func(ctx context.Context) gate.Answer {
					return w.SendBody(ctx, "POST", "/render", payment, "render")
				}
				var res gate.Answer
				switch {
				case tc.lasts > 0:
					w.Expect(send(ctx), 503, "ledger_unavailable")
					w.Until(func() bool { res = send(ctx); return res.StatusCode == 200 })
				case !tc.leaves:
					res = send(ctx)
				default:
					r := w.OrderOf(ctx, "POST", "/render", payment, "render", false)
					res, err := w.HTTP.Do(r)
					if err != nil {
						t.Fatal(err)
					}
					leave()
					res.Body.Close()
					time.Sleep(50 * time.Millisecond) // the server hears of it
					close(left)
					w.Until(func() bool { return failed.Load() > 0 })
				}
				if res.Response == nil {
					res = w.Again(func() gate.Answer { return send(t.Context()) })
				}
				if res.StatusCode != 200 || !strings.HasPrefix(res.Text, "acted") || len(res.Text) != len("acted")+tc.answer || acts.Load() != 1 || w.Facilitator.Transfers() != 1 || failed.Load() == 0 {
					t.Errorf("%d %.60s, acted %d times, %d transfers", res.StatusCode, res.Text, acts.Load(), w.Facilitator.Transfers())
				}
			})
		}
	}
}

// What has arrived is not given again because one call of the ledger failed.
func TestGoodsOfWhichTheLedgerHearsLaterAreGivenOnce(t *testing.T) {
	for _, settle := range []string{"first", "on_success"} {
		t.Run(settle, func(t *testing.T) {
			w := gate.Prepare(t)
			s := w.WithLedger()
			w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01 {\n settle " + settle + "\n}")))
			failsOnce(s, func(_ ledger.Claim, ch ledger.Change) bool { return ch.To == ledger.Delivered })
			pay := w.Sign("GET", "/paid/x", gate.NewPayer(t)).V2(t)
			w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", pay), 200, "")
			w.Expect(w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", pay) }), 402, "payment_already_used")
			if w.Upstream.Hits.Load() != 1 || w.Facilitator.Transfers() != 1 {
				t.Errorf("%d runs, %d transfers", w.Upstream.Hits.Load(), w.Facilitator.Transfers())
			}
		})
	}
}

// Nothing is asked of the facilitator for a payer who has left before it could be, also
// where one call of the ledger fails that says so: the reconciler would charge him.
func TestWhoLeavesBeforeTheMoneyMovesIsNotChargedLater(t *testing.T) {
	w := gate.Prepare(t)
	s := w.WithLedger()
	w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01", "in_process")))
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	gone := make(chan (<-chan struct{}), 1)
	gate.OnInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		gone <- r.Context().Done()
		_, err := io.WriteString(rw, gate.Goods)
		return err
	})
	var failed atomic.Bool
	s.OnMove(func(c ledger.Claim, ch ledger.Change) error {
		switch {
		case c.Payment.State == ledger.Claimed && ch.To == ledger.Settling:
			leave()
			<-<-gone
		case ch.To == ledger.Released && failed.CompareAndSwap(false, true):
			return errBlip
		}
		return nil
	})
	p := gate.NewPayer(t)
	if res, err := w.HTTP.Do(w.Request("GET", "/paid/x", "PAYMENT-SIGNATURE", w.Sign("GET", "/paid/x", p).V2(t)).WithContext(ctx)); err == nil {
		res.Body.Close()
	}
	w.Until(failed.Load)
	w.Until(func() bool {
		for range s.Ledger.List(t.Context(), ledger.Filter{States: []ledger.State{ledger.Settling}}) {
			return false
		}
		return true
	})
	s.OnMove(func(ledger.Claim, ledger.Change) error { return nil })
	gate.OnInProcess(func(rw http.ResponseWriter, _ *http.Request) error {
		_, err := io.WriteString(rw, gate.Goods)
		return err
	})
	pay := w.Sign("GET", "/paid/x", p).V2(t)
	w.Expect(w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", pay) }), 200, "")
	if w.Facilitator.Transfers() != 1 {
		t.Errorf("%d transfers", w.Facilitator.Transfers())
	}
}

// Who has paid first, reads in the header that there are no goods, and signs anew while
// the rest of the error is on its way, is told to wait, and not charged again.
func TestErrorStillOnItsWayIsChargedOnce(t *testing.T) {
	for name, rest := range map[string]func(rw http.ResponseWriter, over <-chan struct{}){
		"it comes slowly": func(rw http.ResponseWriter, over <-chan struct{}) {
			_ = http.NewResponseController(rw).Flush()
			<-over
		},
		"nobody reads it": func(rw http.ResponseWriter, _ <-chan struct{}) {
			_, _ = io.WriteString(rw, strings.Repeat("<p>trace</p>", 1_000_000))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.New(t, "price /paid/* $0.01 {\n settle first\n}")
			var fails atomic.Bool
			fails.Store(true)
			over, end := context.WithCancel(t.Context())
			defer end()
			w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
				if !fails.Load() {
					_, _ = io.WriteString(rw, gate.Goods)
					return
				}
				rw.WriteHeader(500)
				rest(rw, over.Done())
			})
			p := gate.NewPayer(t)
			asked := w.Challenge("GET", "/paid/x").Accepts[0]
			fresh := func() string { return p.Sign(t, asked, time.Now()).V2(t) }
			res, err := w.HTTP.Do(w.Request("GET", "/paid/x", "PAYMENT-SIGNATURE", fresh()))
			if err != nil || res.StatusCode != 500 {
				t.Fatal(res, err)
			}
			for range 3 {
				w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", fresh()), 409, "payment_in_flight")
			}
			fails.Store(false)
			end()
			res.Body.Close()
			w.Expect(w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", fresh()) }), 200, "")
			if w.Facilitator.Transfers() != 1 {
				t.Errorf("%d transfers", w.Facilitator.Transfers())
			}
		})
	}
}

// A HEAD buys one GET also while its handler goes on behind its header.
func TestHeadThatGoesOnBuysItsGet(t *testing.T) {
	for _, settle := range []string{"first", "on_success"} {
		t.Run(settle, func(t *testing.T) {
			w := gate.New(t, "price /paid/* $0.01 {\n settle "+settle+"\n}", "in_process")
			over, end := context.WithCancel(t.Context())
			defer end()
			gate.OnInProcess(func(rw http.ResponseWriter, r *http.Request) error {
				rw.WriteHeader(200)
				_ = http.NewResponseController(rw).Flush()
				if r.Method == http.MethodHead {
					<-over.Done()
				}
				_, err := io.WriteString(rw, gate.Goods)
				return err
			})
			p := gate.NewPayer(t)
			asked := w.Challenge("GET", "/paid/x").Accepts[0]
			fresh := func() string { return p.Sign(t, asked, time.Now()).V2(t) }
			conn, host := w.Dial()
			fmt.Fprintf(conn, "HEAD /paid/x HTTP/1.1\r\nHost: %s\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", host, fresh())
			if _, err := conn.Read(make([]byte, 4000)); err != nil {
				t.Fatal(err)
			}
			w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", fresh()), 409, "payment_in_flight")
			end()
			w.Expect(w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", fresh()) }), 200, "")
			if w.Facilitator.Transfers() != 1 {
				t.Errorf("%d transfers for a HEAD and its GET", w.Facilitator.Transfers())
			}
		})
	}
}

// A payer with many upto purchases under way when the facilitator is away for a moment is
// a customer again when it is back: he could not pay first.
func TestUptoPayerIsServedAfterAnOutage(t *testing.T) {
	w, b := newUptoWorld(t, "")
	const many = 8
	goOn, end := context.WithCancel(t.Context())
	defer end()
	var running atomic.Int64
	w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
		running.Add(1)
		<-goOn.Done()
		rw.Header().Set("Settlement-Overrides", amountOf("1234"))
		_, _ = io.WriteString(rw, gate.Goods)
	})
	p := gate.NewPayer(t)
	answers := make(chan gate.Answer, many)
	for i := range many {
		path := fmt.Sprint("/chat/", i)
		pay := w.PermitFor(http.MethodPost, path, p).V2(t)
		go func() { answers <- w.PayWith(http.MethodPost, path, pay) }()
	}
	w.Until(func() bool { return running.Load() == many })
	address, handler := w.Facilitator.Listener.Addr().String(), w.Facilitator.Config.Handler
	w.Facilitator.Listener.Close()
	w.Facilitator.CloseClientConnections()
	time.Sleep(200 * time.Millisecond) // until the gate knows that its connections are gone
	end()
	for range many {
		w.Expect(<-answers, 503, "facilitator_unavailable")
	}
	gate.Serve(t, address, handler)
	var res gate.Answer
	w.Until(func() bool {
		res = w.PayWith(http.MethodPost, "/chat/9", w.PermitFor(http.MethodPost, "/chat/9", p).V2(t))
		return res.StatusCode != 503
	})
	if w.Expect(res, 200, ""); len(b.Amounts()) != 1 {
		t.Errorf("charged %v", b.Amounts())
	}
}

// Where the ledger has a hiccup when the money is about to be asked for, an upstream that
// has acted waits for it, and is not made to act again.
func TestActWaitsForTheLedger(t *testing.T) {
	w := gate.Prepare(t)
	s := w.WithLedger()
	w.Load(gate.OnLedger(w.Caddyfile("price POST /render $0.01 {\n settle on_success\n}")))
	var acts atomic.Int64
	w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
		acts.Add(1)
		_, _ = io.WriteString(rw, "acted")
	})
	failed := failsOnce(s, func(_ ledger.Claim, ch ledger.Change) bool { return ch.To == ledger.Settling })
	payment := gate.NewPayer(t).Sign(t, w.Challenge("POST", "/render").Accepts[0], time.Now()).V2(t)
	w.Expect(w.SendBody(t.Context(), "POST", "/render", payment, "render"), 200, "")
	if failed.Load() == 0 || acts.Load() != 1 || w.Facilitator.Transfers() != 1 {
		t.Errorf("acted %d times for %d transfers", acts.Load(), w.Facilitator.Transfers())
	}
}

// That the ledger is away when the money is about to be asked for is nobody's debt: an
// honest payer by use, who cannot pay first, is served when it is back.
func TestUptoPayerIsServedAfterTheLedgerWasAway(t *testing.T) {
	w, s := newScriptedUptoWorld(t)
	const many = 50
	goOn := make(chan struct{})
	var running atomic.Int64
	w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
		running.Add(1)
		<-goOn
		rw.Header().Set("Settlement-Overrides", amountOf("1234"))
		_, _ = io.WriteString(rw, gate.Goods)
	})
	p := gate.NewPayer(t)
	answers := make(chan gate.Answer, many)
	for i := range many {
		path := fmt.Sprint("/chat/", i)
		pay := w.PermitFor(http.MethodPost, path, p).V2(t)
		go func() { answers <- w.PayWith(http.MethodPost, path, pay) }()
		if i%15 == 14 {
			w.Until(func() bool { return running.Load() == int64(i+1) })
			gate.ForgetPayers() // his tries
		}
	}
	w.Until(func() bool { return running.Load() == many })
	s.OnMove(func(_ ledger.Claim, ch ledger.Change) error {
		if ch.To == ledger.Settling {
			return errBlip
		}
		return nil
	})
	close(goOn)
	for range many {
		w.Expect(<-answers, 503, "ledger_unavailable")
	}
	s.OnMove(nil)
	w.Expect(w.Again(func() gate.Answer {
		return w.PayWith(http.MethodPost, "/chat/x", w.PermitFor(http.MethodPost, "/chat/x", p).V2(t))
	}), 200, "")
}

// A settlement that went on alone lets go of its payment also when the ledger does not
// take that at once: its payer need not wait for the end of the lease.
func TestPayerNeedNotWaitForTheLease(t *testing.T) {
	w := gate.Prepare(t)
	s := w.WithLedger()
	w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01 {\n settle first\n}")))
	for _, g := range gate.Handlers(t) {
		g.ForTest().AnswerWithin = 50 * time.Millisecond
	}
	w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
		body := gate.Body(r)
		time.Sleep(300 * time.Millisecond)
		w.Facilitator.Move(rw, body)
	})
	var toSettled atomic.Int64
	s.OnMove(func(_ ledger.Claim, ch ledger.Change) error {
		if ch.To == ledger.Settled && toSettled.Add(1) == 2 { // the first records it, the second lets go
			return errBlip
		}
		return nil
	})
	pay := w.Sign("GET", "/paid/x", gate.NewPayer(t)).V2(t)
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", pay), 503, "settlement_pending")
	settlement.Drain(t.Context())
	w.Expect(w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", pay) }), 200, "")
	if w.Facilitator.Transfers() != 1 || toSettled.Load() < 3 {
		t.Errorf("%d transfers, %d moves to settled", w.Facilitator.Transfers(), toSettled.Load())
	}
}

// A payment that bought nothing is free again soon, though the ledger has failed to take that
// at once: its payer, and what he signs anew, need not wait for the lease.
func TestFailedReleaseKeepsNobodyOut(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		t.Run(map[bool]string{true: "fresh", false: "same"}[fresh], func(t *testing.T) {
			w := gate.Prepare(t)
			s := w.WithLedger()
			w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01")))
			failed := failsOnce(s, func(_ ledger.Claim, ch ledger.Change) bool { return ch.To == ledger.Released })
			p := gate.NewPayer(t)
			payment := w.Sign(http.MethodGet, "/paid/x", p).V2(t)
			w.Upstream.On(gate.Says(404, ""))
			w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", payment), 404, "")
			w.Upstream.On(nil)
			w.Expect(w.Again(func() gate.Answer {
				if fresh {
					payment = w.Sign(http.MethodGet, "/paid/x", p).V2(t)
				}
				return w.Get("/paid/x", "PAYMENT-SIGNATURE", payment)
			}), 200, "")
			if failed.Load() == 0 || w.Facilitator.Transfers() != 1 {
				t.Errorf("%d failures, %d transfers", failed.Load(), w.Facilitator.Transfers())
			}
		})
	}
}
