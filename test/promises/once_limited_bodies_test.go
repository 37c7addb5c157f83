package promises

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// Tests of bodies that Caddy's request_body limits.

const limitedTo1MB = "request_body {\n max_size 1MB\n}"

func sendOrder(w *gate.World, method, path, payment, body string, chunked bool) gate.Answer {
	return w.Do(w.OrderOf(w.T.Context(), method, path, payment, body, chunked))
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
		w := gate.New(t, "price POST /render $0.01", limitedTo1MB)
		w.Upstream.On(w.Upstream.Slowly)
		p := gate.NewPayer(t)
		asked := w.Challenge(http.MethodPost, "/render").Accepts[0]
		const id = "pay_0123456789abcdef"
		for i, c := range []struct{ first, again string }{
			{first: p.Sign(t, asked, time.Now()).V2(t)},
			{p.Sign(t, asked, time.Now()).V2(t), p.Sign(t, asked, time.Now()).V2(t)},
			{p.Sign(t, asked, time.Now()).WithIdentifier(t, id), p.Sign(t, asked, time.Now()).WithIdentifier(t, id)},
		} {
			if c.again == "" {
				c.again = c.first
			}
			order := fmt.Sprintf(`{"order":%d}`, i)
			ctx, cancel := context.WithCancel(t.Context())
			if res, err := w.HTTP.Do(w.OrderOf(ctx, http.MethodPost, "/render", c.first, order, chunked)); err != nil {
				t.Error(err)
			} else {
				cancel() // in the middle of the answer
				res.Body.Close()
			}
			cancel()
			res := w.Again(func() gate.Answer {
				return sendOrder(w, http.MethodPost, "/render", c.again, order, chunked)
			})
			if n := int64(i + 1); res.StatusCode != 200 || !strings.Contains(res.Text, order+" 19") || w.Upstream.Hits.Load() != n || int64(w.Facilitator.Transfers()) != n {
				t.Errorf("order %d: %d %.60q, %d done, %d transfers", i, res.StatusCode, res.Text, w.Upstream.Hits.Load(), w.Facilitator.Transfers())
			}
		}
	})
}

// A query whose answer broke off is answered again without another charge.
func TestLimitedQueryIsChargedOnce(t *testing.T) {
	withAndWithoutLength(t, func(t *testing.T, chunked bool) {
		w := gate.New(t, "price QUERY /q $0.01", limitedTo1MB)
		w.Upstream.On(gate.BreaksOff)
		p := gate.NewPayer(t)
		asked := w.Challenge("QUERY", "/q").Accepts[0]
		query := func() gate.Answer {
			return w.Again(func() gate.Answer {
				return sendOrder(w, "QUERY", "/q", p.Sign(t, asked, time.Now()).V2(t), "select 1", chunked)
			})
		}
		query()
		w.Upstream.On(nil)
		w.Expect(query(), 200, "")
		if w.Facilitator.Transfers() != 1 {
			t.Error(w.Facilitator.Transfers(), "transfers")
		}
	})
}

// Different orders at once are all sold, and the same one once.
func TestLimitedOrdersAtOnceAreToldApart(t *testing.T) {
	withAndWithoutLength(t, func(t *testing.T, chunked bool) {
		w := gate.New(t, "price POST /render $0.01", limitedTo1MB)
		var s sales
		w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
			for end := time.Now().Add(10 * time.Second); s.inFlight.Load() < 4 && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
			}
			_, _ = io.WriteString(rw, "done")
		})
		s.atOnce(t, w, 8, func(i int) string { return fmt.Sprintf(`{"order":%d}`, i/2) }, chunked)
		if s.sold.Load() != 4 || s.inFlight.Load() != 4 || w.Facilitator.Transfers() != 4 {
			t.Errorf("%d sold, %d in flight, %d transfers", s.sold.Load(), s.inFlight.Load(), w.Facilitator.Transfers())
		}
	})
}

// A body that the site does not take is not charged for, whether it declares its length
// or not.
func TestTooLargeOrderIsNotCharged(t *testing.T) {
	withAndWithoutLength(t, func(t *testing.T, chunked bool) {
		w := gate.New(t, "price POST /act $0.01", "request_body {\n max_size 1KB\n}")
		p := gate.NewPayer(t)
		asked := w.Challenge(http.MethodPost, "/act").Accepts[0]
		send := func(n int) gate.Answer {
			return sendOrder(w, http.MethodPost, "/act", p.Sign(t, asked, time.Now()).V2(t), strings.Repeat("x", n), chunked)
		}
		if res := send(5000); res.StatusCode != 413 || w.Facilitator.Transfers() != 0 || w.Upstream.Hits.Load() != 0 {
			t.Errorf("%d %q, %d transfers, %d runs", res.StatusCode, res.Text, w.Facilitator.Transfers(), w.Upstream.Hits.Load())
		}
		w.Expect(send(1000), 200, "")
	})
}

// A longer body of unknown length goes on to the upstream as it comes.
func TestLongLimitedBodyPasses(t *testing.T) {
	w := gate.New(t, "price POST /act $0.01", limitedTo1MB)
	body := strings.Repeat("0123456789", 30_000)
	pay := gate.NewPayer(t).Sign(t, w.Challenge(http.MethodPost, "/act").Accepts[0], time.Now()).V2(t)
	w.Expect(sendOrder(w, http.MethodPost, "/act", pay, body, true), 200, "")
	if _, got := w.Upstream.Seen(); got != body {
		t.Errorf("%d of %d bytes", len(got), len(body))
	}
}

// A body of unknown length that turns out to exceed the limit after it was sold buys what
// comes with a shorter one.
func TestTooLongAfterTheSaleIsOwed(t *testing.T) {
	w := gate.New(t, "price POST /act $0.01", limitedTo1MB)
	p := gate.NewPayer(t)
	asked := w.Challenge(http.MethodPost, "/act").Accepts[0]
	send := func(n int) gate.Answer {
		return w.Again(func() gate.Answer {
			return sendOrder(w, http.MethodPost, "/act", p.Sign(t, asked, time.Now()).V2(t), strings.Repeat("x", n), true)
		})
	}
	if res := send(2 << 20); res.StatusCode != 413 || w.Facilitator.Transfers() != 1 || res.Header.Get("PAYMENT-RESPONSE") == "" {
		t.Errorf("%d %q, %d transfers", res.StatusCode, res.Text, w.Facilitator.Transfers())
	}
	w.Expect(send(1000), 200, "")
	if w.Facilitator.Transfers() != 1 {
		t.Error(w.Facilitator.Transfers(), "transfers")
	}
}
