package paywall_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Tests of bodies that Caddy's request_body limits.

const limitedTo1MB = "request_body {\n max_size 1MB\n}"

// orderOf is a request with a body, of which nobody knows the length if it is chunked.
func (w *world) orderOf(ctx context.Context, method, path, payment, body string, chunked bool) *http.Request {
	var reader io.Reader = strings.NewReader(body)
	if chunked {
		reader = io.MultiReader(reader)
	}
	r, err := http.NewRequestWithContext(ctx, method, w.gate+path, reader)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("PAYMENT-SIGNATURE", payment)
	return r
}

func (w *world) sendOrder(method, path, payment, body string, chunked bool) answerOf {
	return w.do(w.orderOf(w.t.Context(), method, path, payment, body, chunked))
}

// withAndWithoutLength runs a test for bodies that declare their length, and for those
// that do not.
func withAndWithoutLength(t *testing.T, f func(t *testing.T, chunked bool)) {
	for name, chunked := range map[string]bool{"with a length": false, "without": true} {
		t.Run(name, func(t *testing.T) { f(t, chunked) })
	}
}

// An order whose answer broke off is fetched, and not done again: with the same payment,
// signed anew, and under its identifier.
func TestLimitedOrderIsRecognised(t *testing.T) {
	withAndWithoutLength(t, func(t *testing.T, chunked bool) {
		w := newWorld(t, "price POST /render $0.01", limitedTo1MB)
		w.up.on(w.up.slowly)
		p := newPayer(t)
		asked := w.challenge(http.MethodPost, "/render").Accepts[0]
		const id = "pay_0123456789abcdef"
		for i, c := range []struct{ first, again string }{
			{first: p.sign(t, asked, time.Now()).v2(t)},
			{p.sign(t, asked, time.Now()).v2(t), p.sign(t, asked, time.Now()).v2(t)},
			{p.sign(t, asked, time.Now()).withIdentifier(t, id), p.sign(t, asked, time.Now()).withIdentifier(t, id)},
		} {
			if c.again == "" {
				c.again = c.first
			}
			order := fmt.Sprintf(`{"order":%d}`, i)
			ctx, cancel := context.WithCancel(t.Context())
			if res, err := w.http.Do(w.orderOf(ctx, http.MethodPost, "/render", c.first, order, chunked)); err != nil {
				t.Error(err)
			} else {
				cancel() // in the middle of the answer
				res.Body.Close()
			}
			cancel()
			res := w.again(func() answerOf {
				return w.sendOrder(http.MethodPost, "/render", c.again, order, chunked)
			})
			if n := int64(i + 1); res.StatusCode != 200 || !strings.Contains(res.body, order+" 19") || w.up.hits.Load() != n || int64(w.fac.transfers()) != n {
				t.Errorf("order %d: %d %.60q, %d done, %d transfers", i, res.StatusCode, res.body, w.up.hits.Load(), w.fac.transfers())
			}
		}
	})
}

// A query whose answer broke off is answered again without another charge.
func TestLimitedQueryIsChargedOnce(t *testing.T) {
	withAndWithoutLength(t, func(t *testing.T, chunked bool) {
		w := newWorld(t, "price QUERY /q $0.01", limitedTo1MB)
		w.up.on(breaksOff)
		p := newPayer(t)
		asked := w.challenge("QUERY", "/q").Accepts[0]
		query := func() answerOf {
			return w.again(func() answerOf {
				return w.sendOrder("QUERY", "/q", p.sign(t, asked, time.Now()).v2(t), "select 1", chunked)
			})
		}
		query()
		w.up.on(nil)
		w.expect(query(), 200, "")
		if w.fac.transfers() != 1 {
			t.Error(w.fac.transfers(), "transfers")
		}
	})
}

// Different orders at once are all sold, and the same one once.
func TestLimitedOrdersAtOnceAreToldApart(t *testing.T) {
	withAndWithoutLength(t, func(t *testing.T, chunked bool) {
		w := newWorld(t, "price POST /render $0.01", limitedTo1MB)
		var good, inFlight atomic.Int64
		w.up.on(func(rw http.ResponseWriter, r *http.Request) {
			for end := time.Now().Add(10 * time.Second); inFlight.Load() < 4 && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
			}
			_, _ = io.WriteString(rw, "done")
		})
		p := newPayer(t)
		asked := w.challenge(http.MethodPost, "/render").Accepts[0]
		var all sync.WaitGroup
		for i := range 8 {
			pay := p.sign(t, asked, time.Now()).v2(t)
			all.Go(func() {
				switch res := w.sendOrder(http.MethodPost, "/render", pay, fmt.Sprintf(`{"order":%d}`, i/2), chunked); {
				case res.StatusCode == 200:
					good.Add(1)
				case strings.Contains(res.body, "payment_in_flight"):
					inFlight.Add(1)
				default:
					t.Errorf("%d %s", res.StatusCode, res.body)
				}
			})
		}
		all.Wait()
		if good.Load() != 4 || inFlight.Load() != 4 || w.fac.transfers() != 4 {
			t.Errorf("%d sold, %d in flight, %d transfers", good.Load(), inFlight.Load(), w.fac.transfers())
		}
	})
}

// A body that the site does not take is not charged for, whether it declares its length
// or not.
func TestTooLargeOrderIsNotCharged(t *testing.T) {
	withAndWithoutLength(t, func(t *testing.T, chunked bool) {
		w := newWorld(t, "price POST /act $0.01", "request_body {\n max_size 1KB\n}")
		p := newPayer(t)
		asked := w.challenge(http.MethodPost, "/act").Accepts[0]
		send := func(n int) answerOf {
			return w.sendOrder(http.MethodPost, "/act", p.sign(t, asked, time.Now()).v2(t), strings.Repeat("x", n), chunked)
		}
		if res := send(5000); res.StatusCode != 413 || w.fac.transfers() != 0 || w.up.hits.Load() != 0 {
			t.Errorf("%d %q, %d transfers, %d runs", res.StatusCode, res.body, w.fac.transfers(), w.up.hits.Load())
		}
		w.expect(send(1000), 200, "")
	})
}

// A longer body of unknown length goes on to the upstream as it comes.
func TestLongLimitedBodyPasses(t *testing.T) {
	w := newWorld(t, "price POST /act $0.01", limitedTo1MB)
	body := strings.Repeat("0123456789", 30_000)
	pay := newPayer(t).sign(t, w.challenge(http.MethodPost, "/act").Accepts[0], time.Now()).v2(t)
	w.expect(w.sendOrder(http.MethodPost, "/act", pay, body, true), 200, "")
	if _, got := w.up.seen(); got != body {
		t.Errorf("%d of %d bytes", len(got), len(body))
	}
}

// A body of unknown length that turns out to exceed the limit after it was sold buys what
// comes with a shorter one.
func TestTooLongAfterTheSaleIsOwed(t *testing.T) {
	w := newWorld(t, "price POST /act $0.01", limitedTo1MB)
	p := newPayer(t)
	asked := w.challenge(http.MethodPost, "/act").Accepts[0]
	send := func(n int) answerOf {
		return w.again(func() answerOf {
			return w.sendOrder(http.MethodPost, "/act", p.sign(t, asked, time.Now()).v2(t), strings.Repeat("x", n), true)
		})
	}
	if res := send(2 << 20); res.StatusCode != 413 || w.fac.transfers() != 1 || res.Header.Get("PAYMENT-RESPONSE") == "" {
		t.Errorf("%d %q, %d transfers", res.StatusCode, res.body, w.fac.transfers())
	}
	w.expect(send(1000), 200, "")
	if w.fac.transfers() != 1 {
		t.Error(w.fac.transfers(), "transfers")
	}
}
