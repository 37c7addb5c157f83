package promises

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// Tests of orders: requests with effects that differ by their body.

// Order 456 does not get the answer of 123, though it is as long.
func TestAnotherOrderOfTheSameLengthIsSold(t *testing.T) {
	for name, size := range map[string]int{"short": 0, "long": 100_000} {
		t.Run(name, func(t *testing.T) {
			w := gate.New(t, "price POST /render $0.01")
			w.Upstream.On(w.Upstream.Slowly)
			p := gate.NewPayer(t)
			order := func(id int) string { return fmt.Sprintf(`{"id":%d}%s`, id, strings.Repeat(" ", size)) }
			w.Post(p, "/render", order(123), true)
			w.Until(func() bool { return w.Upstream.Hits.Load() == 1 })
			time.Sleep(200 * time.Millisecond)
			res := w.Again(func() gate.Answer { return w.Post(p, "/render", order(456), false) })
			switch {
			case strings.Contains(res.Text, "123"):
				t.Errorf("asked for 456, got %.40q", res.Text)
			case size == 0 && (res.StatusCode != 200 || w.Facilitator.Transfers() != 2):
				t.Errorf("%d %.80s, %d transfers", res.StatusCode, res.Text, w.Facilitator.Transfers())
			}
			res = w.Again(func() gate.Answer { return w.Post(p, "/render", order(123), false) })
			if res.StatusCode != 200 || !strings.Contains(res.Text, "123") {
				t.Errorf("the same order again: %d %.80q", res.StatusCode, res.Text)
			}
		})
	}
}

// Different orders of one payer do not wait for each other, whatever they declare.
func TestDifferentOrdersAtOnceAreAllSold(t *testing.T) {
	withAndWithoutLength(t, func(t *testing.T, chunked bool) {
		w := gate.New(t, "price POST /render $0.01")
		w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
			time.Sleep(100 * time.Millisecond)
			_, _ = io.WriteString(rw, "done")
		})
		const n = 10
		var s sales
		s.atOnce(t, w, n, func(i int) string { return fmt.Sprintf(`{"id":%d}`, i) }, chunked)
		if s.sold.Load() != n || w.Facilitator.Transfers() != n || w.Upstream.Hits.Load() != n {
			t.Errorf("%d sold, %d transfers, %d runs", s.sold.Load(), w.Facilitator.Transfers(), w.Upstream.Hits.Load())
		}
	})
}

// The same order, signed anew while it is sold, is sold once; also where its length
// is not declared.
func TestSameOrderAtOnceIsSoldOnce(t *testing.T) {
	withAndWithoutLength(t, func(t *testing.T, chunked bool) {
		w := gate.New(t, "price POST /render $0.01")
		w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
			time.Sleep(300 * time.Millisecond)
			_, _ = io.WriteString(rw, "done")
		})
		var s sales
		s.atOnce(t, w, 5, func(int) string { return `{"id":1}` }, chunked)
		if s.sold.Load() != 1 || s.inFlight.Load() != 4 || w.Facilitator.Transfers() != 1 {
			t.Errorf("%d sold, %d in flight, %d transfers", s.sold.Load(), s.inFlight.Load(), w.Facilitator.Transfers())
		}
	})
}

// A payer who has read all of the answer may order the same again at once, though the end
// of the first order is not on record yet.
func TestSameOrderAgainIsSoldOnceItIsRead(t *testing.T) {
	for _, test := range []struct {
		settle string
		status int
		times  int
	}{
		{"first", http.StatusOK, 3},
		{"first", http.StatusNotFound, 3},
		{"on_success", http.StatusOK, 3},
		{"on_success", http.StatusNotFound, 2}, // a third has to be paid for first
	} {
		t.Run(fmt.Sprint(test.settle, test.status), func(t *testing.T) {
			status := test.status
			w := gate.Prepare(t)
			s := w.WithLedger()
			w.Load(gate.OnLedger(w.Caddyfile("price POST /render $0.01 {\n settle " + test.settle + "\n}")))
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Content-Length", "4")
				rw.WriteHeader(status)
				_, _ = io.WriteString(rw, "done")
				_ = http.NewResponseController(rw).Flush()
			})
			s.OnMove(func(_ ledger.Claim, ch ledger.Change) error {
				if ch.To == ledger.Delivered || ch.To == ledger.Released {
					time.Sleep(300 * time.Millisecond)
				}
				return nil
			})
			p := gate.NewPayer(t)
			for i := range test.times {
				if res := sendOrder(w, http.MethodPost, "/render", w.Sign(http.MethodPost, "/render", p).V2(t), "again", false); res.StatusCode != status {
					t.Errorf("order %d: %d %s", i+1, res.StatusCode, res.Text)
				}
				w.HTTP.CloseIdleConnections() // its connection waits for the end
			}
		})
	}
}

// Whose answer is half out has not read it: the same order waits.
func TestSameOrderIsSoldOnceWhileTheAnswerGoesOut(t *testing.T) {
	for name, header := range map[string][2]string{
		"of an unknown length": {"X-Any", "x"},
		"of a known length":    {"Content-Length", "4"},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.New(t, "price POST /render $0.01")
			half, goOn := make(chan struct{}, 9), make(chan struct{})
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set(header[0], header[1])
				_, _ = io.WriteString(rw, "do")
				_ = http.NewResponseController(rw).Flush()
				half <- struct{}{}
				<-goOn
				_, _ = io.WriteString(rw, "ne")
			})
			p := gate.NewPayer(t)
			first, second := w.Sign(http.MethodPost, "/render", p).V2(t), w.Sign(http.MethodPost, "/render", p).V2(t)
			done := make(chan gate.Answer, 1)
			go func() { done <- sendOrder(w, http.MethodPost, "/render", first, "order", false) }()
			<-half
			w.Expect(sendOrder(w, http.MethodPost, "/render", second, "order", false), 409, "payment_in_flight")
			close(goOn)
			w.Expect(<-done, 200, "")
			if w.Facilitator.Transfers() != 1 {
				t.Error(w.Facilitator.Transfers())
			}
		})
	}
}

// Who fetches an order with the same payment, and has signed it anew besides, gets it once.
func TestFetchedOrderIsNotSoldBesideItself(t *testing.T) {
	for name, fail := range map[string]error{"that could not be reached": errors.New("dial: refused"), "that refused early": nil} {
		t.Run(name, func(t *testing.T) {
			w := gate.New(t, "price POST /render $0.01", "in_process")
			var runs atomic.Int64
			running, goOn := make(chan struct{}), make(chan struct{})
			gate.OnInProcess(func(rw http.ResponseWriter, r *http.Request) error {
				if runs.Add(1) == 1 { // it has not read the body
					if fail == nil {
						rw.WriteHeader(500)
					}
					return fail
				}
				_, _ = io.Copy(io.Discard, r.Body)
				close(running)
				<-goOn
				_, _ = io.WriteString(rw, "done")
				return nil
			})
			p := gate.NewPayer(t)
			asked := w.Challenge(http.MethodPost, "/render").Accepts[0]
			pay, anew := p.Sign(t, asked, time.Now()).V2(t), p.Sign(t, asked, time.Now()).V2(t)
			if res := sendOrder(w, http.MethodPost, "/render", pay, "order", false); res.StatusCode < 500 {
				t.Fatal(res)
			}
			done := make(chan gate.Answer, 1)
			w.Until(func() bool { // its claim ends a moment after its answer
				go func() { done <- sendOrder(w, http.MethodPost, "/render", pay, "order", false) }()
				select {
				case <-running:
					return true
				case <-done:
					return false
				}
			})
			w.Expect(sendOrder(w, http.MethodPost, "/render", anew, "order", false), 409, "payment_in_flight")
			close(goOn)
			w.Expect(<-done, 200, "")
			if w.Facilitator.Transfers() != 1 || runs.Load() != 2 {
				t.Errorf("%d transfers, %d runs", w.Facilitator.Transfers(), runs.Load())
			}
		})
	}
}

// sales count the orders that were sold, and those that were told to wait.
type sales struct{ sold, inFlight atomic.Int64 }

// atOnce sends so many orders of one payer at once, each signed anew. There is no
// answer but the two that are counted.
func (s *sales) atOnce(t *testing.T, w *gate.World, n int, order func(i int) string, chunked bool) {
	t.Helper()
	p := gate.NewPayer(t)
	asked := w.Challenge(http.MethodPost, "/render").Accepts[0]
	var all sync.WaitGroup
	for i := range n {
		pay := p.Sign(t, asked, time.Now()).V2(t)
		all.Go(func() {
			switch res := sendOrder(w, http.MethodPost, "/render", pay, order(i), chunked); {
			case res.StatusCode == http.StatusOK:
				s.sold.Add(1)
			case strings.Contains(res.Text, "payment_in_flight"):
				s.inFlight.Add(1)
			default:
				t.Errorf("%d %s", res.StatusCode, res.Text)
			}
		})
	}
	all.Wait()
}

// An order without a declared length whose answer broke off is not charged and done
// again when it is signed anew.
func TestChunkedOrderIsDoneOnce(t *testing.T) {
	w := gate.New(t, "price POST /act $0.01")
	w.Upstream.On(w.Upstream.Slowly)
	p := gate.NewPayer(t)
	post := func(hangUp bool) string {
		conn, host := w.Dial()
		defer conn.Close()
		pay := p.Sign(t, w.Challenge(http.MethodPost, "/act").Accepts[0], time.Now()).V2(t)
		fmt.Fprintf(conn, "POST /act HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nPAYMENT-SIGNATURE: %s\r\n\r\n5\r\ndo it\r\n0\r\n\r\n", host, pay)
		if hangUp {
			_, _ = conn.Read(make([]byte, 512))
			return ""
		}
		all, _ := io.ReadAll(conn)
		return string(all)
	}
	post(true)
	var res string
	w.Until(func() bool {
		res = post(false)
		return !strings.Contains(res, "payment_in_flight")
	})
	if w.Upstream.Hits.Load() != 1 || w.Facilitator.Transfers() != 1 || !strings.Contains(res, "done do it 19") {
		t.Errorf("done %d times, %d transfers, %.200q", w.Upstream.Hits.Load(), w.Facilitator.Transfers(), res)
	}
}

// A signature of somebody else does not hold a payer's orders up.
func TestForgedOrderBlocksNobody(t *testing.T) {
	w := gate.New(t, "price POST /render $0.01")
	asking := make(chan struct{})
	w.Facilitator.OnVerify(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(string(gate.Body(r)), "deadbeef") {
			close(asking)
			<-r.Context().Done()
			return
		}
		gate.Says(200, `{"isValid":true}`)(rw, r)
	})
	victim := gate.NewPayer(t)
	asked := w.Challenge(http.MethodPost, "/render").Accepts[0]
	forged := gate.NewPayer(t).Sign(t, asked, time.Now())
	forged.Authorization["from"] = victim.Address.Hex()
	forged.Authorization["nonce"] = "0xdeadbeef" + strings.Repeat("00", 28)
	go w.PostPaid("/render", "0123456789", forged.V2(t), true)
	<-asking
	w.Expect(w.PostPaid("/render", "0123456789", victim.Sign(t, asked, time.Now()).V2(t), false), 200, "")
}

// Several users may pay with one wallet. The answer that was kept for one of them is not
// another's, who gives his order a name and is served; without a name nobody can tell him
// from the first, whose session may be another by now.
func TestNamedOrderOfAnotherUserIsSold(t *testing.T) {
	for _, c := range []struct {
		size      int
		bob       string // what another user is told
		alice     int
		aliceGets string
	}{
		{3000, "other_credentials", 200, "for alice"},
		{400_000, "delivery_unconfirmed", 409, `{"error":"delivery_unconfirmed",`}, // too long to be kept
	} {
		t.Run(fmt.Sprint(c.size), func(t *testing.T) {
			w := gate.New(t, "price POST /act $0.01")
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(rw, "for "+r.Header.Get("Authorization"))
				_ = http.NewResponseController(rw).Flush()
				time.Sleep(50 * time.Millisecond)
				_, _ = io.WriteString(rw, strings.Repeat(".", c.size))
			})
			p := gate.NewPayer(t)
			asked := w.Challenge("POST", "/act").Accepts[0]
			w.Leaves("POST", "/act", p.Sign(t, asked, time.Now()).V2(t), "report", "Authorization", "alice")
			send := func(payment, user string) gate.Answer {
				return w.Again(func() gate.Answer {
					return w.SendBody(t.Context(), "POST", "/act", payment, "report", "Authorization", user)
				})
			}
			w.Expect(send(p.Sign(t, asked, time.Now()).V2(t), "bob"), 409, c.bob)
			res := send(p.Sign(t, asked, time.Now()).WithIdentifier(t, "pay_0123456789abcdef"), "bob")
			if !strings.HasPrefix(res.Text, "for bob") || w.Upstream.Hits.Load() != 2 || w.Facilitator.Transfers() != 2 {
				t.Errorf("bob: %d %.40q, %d done, %d transfers", res.StatusCode, res.Text, w.Upstream.Hits.Load(), w.Facilitator.Transfers())
			}
			res = send(p.Sign(t, asked, time.Now()).V2(t), "alice")
			if res.StatusCode != c.alice || !strings.HasPrefix(res.Text, c.aliceGets) || w.Upstream.Hits.Load() != 2 || w.Facilitator.Transfers() != 2 {
				t.Errorf("alice: %d %.40q, %d done, %d transfers", res.StatusCode, res.Text, w.Upstream.Hits.Load(), w.Facilitator.Transfers())
			}
		})
	}
}

// Credentials that were renewed between two tries make no other purchase of what the
// upstream has refused, or not given whole.
func TestRenewedCredentialsRedeem(t *testing.T) {
	for _, settle := range []string{"first", "on_success"} {
		t.Run(settle, func(t *testing.T) {
			w := gate.New(t, "price /act $0.01 {\n settle "+settle+"\n}")
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "new" {
					rw.WriteHeader(http.StatusUnauthorized)
					return
				}
				_, _ = io.WriteString(rw, "done")
			})
			p := gate.NewPayer(t)
			asked := w.Challenge("POST", "/act").Accepts[0]
			for _, token := range []string{"old", "new"} {
				payment := p.Sign(t, asked, time.Now()).V2(t)
				res := w.Again(func() gate.Answer {
					return w.SendBody(t.Context(), "POST", "/act", payment, "order", "Authorization", token, "Cookie", token)
				})
				if want := map[string]int{"old": 401, "new": 200}[token]; res.StatusCode != want {
					t.Errorf("%s: %d %s", token, res.StatusCode, res.Text)
				}
			}
			if w.Facilitator.Transfers() != 1 {
				t.Error(w.Facilitator.Transfers(), "transfers")
			}
		})
	}
}

// An order that was answered before its body was read, and is owed, blocks no other
// order of its payer at that address.
func TestOrderThatWasNotReadBlocksNoOther(t *testing.T) {
	w := gate.New(t, "price POST /act $0.01", "in_process")
	first := true
	gate.OnInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		if first {
			first = false
			rw.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(rw, "part")
			_ = http.NewResponseController(rw).Flush()
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(rw, "done")
		return nil
	})
	p := gate.NewPayer(t)
	_ = w.Post(p, "/act", "order 1", false)
	res := w.Again(func() gate.Answer { return w.Post(p, "/act", "another order, of another length", false) })
	t.Log(res.StatusCode, res.Text)
	if res.StatusCode != 200 {
		t.Errorf("another order of the payer is refused for a day: %d %s", res.StatusCode, res.Text)
	}
}

// losesTheFirst loses every answer about the payment that is settled first, from release on
// and until found, if its money moves at all; others are settled at once. begun is closed when
// it is asked for.
func losesTheFirst(w *gate.World, moves bool) (begun <-chan struct{}, release func(), found *atomic.Bool) {
	began, held := make(chan struct{}), make(chan struct{})
	found = new(atomic.Bool)
	var first atomic.Pointer[string]
	w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
		body := string(gate.Body(r))
		if first.CompareAndSwap(nil, &body) {
			close(began)
			<-held
		}
		if body == *first.Load() && !found.Load() {
			if moves {
				w.Facilitator.Move(httptest.NewRecorder(), []byte(body))
			}
			panic(http.ErrAbortHandler)
		}
		w.Facilitator.Move(rw, []byte(body))
	})
	return began, sync.OnceFunc(func() { close(held) }), found
}

// An order that was done and whose answer is kept is known beside another one of the same
// payer of which nobody knows what became, or what it was: it is fetched, and not done again
// in the place of that.
func TestOrderThatWasDoneIsKnownBesideOneInDoubt(t *testing.T) {
	for name, size := range map[string]int{"short": 1 << 10, "long": 100 << 10} {
		for end, moves := range map[string]bool{"in doubt": false, "found paid": true} {
			t.Run(name+" "+end, func(t *testing.T) {
				w := gate.Prepare(t)
				s := w.WithLedger()
				s.Visible.Store(true)
				w.Load(gate.OnLedger(w.Caddyfile("price POST /render $0.01")))
				begun, release, found := losesTheFirst(w, moves)
				goOn := make(chan struct{})
				var acts [2]atomic.Int64
				w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
					_, body := w.Upstream.Seen()
					which := int(body[0] - '0')
					acts[which].Add(1)
					_, _ = fmt.Fprint(rw, "done ", which)
					_ = http.NewResponseController(rw).Flush()
					<-goOn
				})
				p := gate.NewPayer(t)
				asked := w.Challenge(http.MethodPost, "/render").Accepts[0]
				payments := []string{p.Sign(t, asked, time.Now()).V2(t), p.Sign(t, asked, time.Now()).V2(t)}
				order := func(i int) string { return fmt.Sprint(i, strings.Repeat("x", size)) }
				first := make(chan gate.Answer)
				go func() { first <- w.PostPaid("/render", order(0), payments[0], false) }()
				<-begun
				w.PostPaid("/render", order(1), payments[1], true)
				time.Sleep(100 * time.Millisecond) // until the server has noticed
				close(goOn)
				settled := func() (n int) {
					for row, err := range s.List(t.Context(), ledger.Filter{States: []ledger.State{ledger.Settled}}) {
						if err == nil && !ledger.Held(row, time.Now()) {
							n++
						}
					}
					return n
				}
				w.Until(func() bool { return settled() == 1 })
				release()
				w.Expect(<-first, 503, "settlement_pending")
				if moves {
					found.Store(true)
					w.Until(func() bool { return settled() == 2 })
				}
				res := w.Again(func() gate.Answer { return w.PostPaid("/render", order(1), p.Sign(t, asked, time.Now()).V2(t), false) })
				if res.StatusCode != 200 || res.Text != "done 1" || acts[1].Load() != 1 {
					t.Errorf("%d %.60q, done %d times", res.StatusCode, res.Text, acts[1].Load())
				}
				if !moves {
					return
				}
				res = w.Again(func() gate.Answer { return w.PostPaid("/render", order(0), payments[0], false) })
				if res.StatusCode != 200 || res.Text != "done 0" || w.Facilitator.Transfers() != 2 {
					t.Errorf("the other: %d %.60q, %d transfers", res.StatusCode, res.Text, w.Facilitator.Transfers())
				}
			})
		}
	}
}

// What is known of the body of an order in doubt is recorded, so that other orders of its
// payer are sold meanwhile.
func TestOtherOrderIsSoldBesideOneInDoubt(t *testing.T) {
	w := gate.New(t, "price POST /render $0.01")
	begun, release, _ := losesTheFirst(w, false)
	p := gate.NewPayer(t)
	first := make(chan gate.Answer)
	go func() { first <- w.Post(p, "/render", "order 1", false) }()
	<-begun
	w.Expect(w.Post(p, "/render", "order 2", false), 200, "") // to tell them apart, the first one is read
	release()
	w.Expect(<-first, 503, "settlement_pending")
	w.Expect(w.Post(p, "/render", "order 3", false), 200, "")
	w.Expect(w.Again(func() gate.Answer { return w.Post(p, "/render", "order 1", false) }), 503, "settlement_pending")
}
