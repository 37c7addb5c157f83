package paywall_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// sendBody sends one request with a payment and a body.
func (w *world) sendBody(ctx context.Context, method, path, payment, body string, header ...string) answerOf {
	r, err := http.NewRequestWithContext(ctx, method, w.gate+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("PAYMENT-SIGNATURE", payment)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return w.do(r)
}

// One payment, any number of orders. `first`, POST, an upstream that answers
// 303 to a page of its own (Post/Redirect/Get).
func TestRedirectAfterAnOrderUsesItUp(t *testing.T) {
	w := newWorld(t, "price POST /orders $0.01")
	var acted atomic.Int64
	var last atomic.Value
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		_, body := w.up.seen()
		if body == "bad" {
			rw.WriteHeader(400)
			return
		}
		last.Store(body)
		rw.Header().Set("Location", fmt.Sprintf("/orders/%d", acted.Add(1)))
		rw.WriteHeader(http.StatusSeeOther)
	})
	payment := newPayer(t).sign(t, w.challenge(http.MethodPost, "/orders").Accepts[0], time.Now()).v2(t)
	res := w.sendBody(t.Context(), "POST", "/orders", payment, "bad")
	t.Log("first:", res.StatusCode, res.body)
	for i := range 30 {
		res = w.again(func() answerOf {
			return w.sendBody(t.Context(), "POST", "/orders", payment, fmt.Sprintf("order %d", i))
		})
		if res.StatusCode != 303 {
			t.Logf("order %d: %d %s", i, res.StatusCode, res.body)
			break
		}
	}
	if acted.Load() > 1 {
		t.Errorf("%d orders done (the last is %q) for %d transfers", acted.Load(), last.Load(), w.fac.transfers())
	}
}

// An honest payer whose connection broke signs the same order anew: it is
// done again, since a 303 does not count as an act.
func TestOrderAnsweredByARedirectIsDoneOnce(t *testing.T) {
	w := newWorld(t, "price POST /orders $0.01")
	var acted atomic.Int64
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		n := acted.Add(1)
		time.Sleep(300 * time.Millisecond)
		rw.Header().Set("Location", fmt.Sprintf("/orders/%d", n))
		rw.WriteHeader(http.StatusSeeOther)
	})
	p := newPayer(t)
	sign := func() string {
		return p.sign(t, w.challenge(http.MethodPost, "/orders").Accepts[0], time.Now()).v2(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	w.sendBody(ctx, "POST", "/orders", sign(), "one widget")
	time.Sleep(500 * time.Millisecond)
	for range 3 {
		res := w.again(func() answerOf { return w.sendBody(t.Context(), "POST", "/orders", sign(), "one widget") })
		t.Log(res.StatusCode, res.Header.Get("Location"))
	}
	if acted.Load() != int64(w.fac.transfers()) {
		t.Errorf("the order was done %d times for %d transfers", acted.Load(), w.fac.transfers())
	}
}

// The same with on_success and `charge 303`, hanging up.
func TestChargedRedirectIsDoneOnce(t *testing.T) {
	w := newWorld(t, "price POST /orders $0.01 {\n settle on_success\n charge 200 303\n}")
	var acted atomic.Int64
	slow := make(chan struct{})
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Location", fmt.Sprintf("/orders/%d", acted.Add(1)))
		rw.WriteHeader(http.StatusSeeOther)
	})
	w.fac.onSettle(func(rw http.ResponseWriter, r *http.Request) {
		body := w.fac.keep(r)
		<-slow
		w.fac.move(rw, body)
	})
	p := newPayer(t)
	sign := func() string {
		return p.sign(t, w.challenge(http.MethodPost, "/orders").Accepts[0], time.Now()).v2(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	w.sendBody(ctx, "POST", "/orders", sign(), "one widget")
	time.Sleep(100 * time.Millisecond)
	close(slow)
	time.Sleep(200 * time.Millisecond)
	res := w.again(func() answerOf { return w.sendBody(t.Context(), "POST", "/orders", sign(), "one widget") })
	t.Log(res.StatusCode, res.Header.Get("Location"), res.body)
	if acted.Load() != int64(w.fac.transfers()) {
		t.Errorf("the order was done %d times for %d transfers", acted.Load(), w.fac.transfers())
	}
}

// Long bodies are compared only when the upstream has acted on them. A redirect
// that leaves is charged and is no act.
func TestLongOrdersAreDoneOncePerPayment(t *testing.T) {
	w := newWorld(t, "price POST /render $0.01")
	var acted atomic.Int64
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		n := acted.Add(1)
		if n == 1 {
			time.Sleep(300 * time.Millisecond)
		}
		rw.Header().Set("Location", fmt.Sprintf("https://cdn.example/file?n=%d", n))
		rw.WriteHeader(http.StatusFound)
	})
	payment := newPayer(t).sign(t, w.challenge(http.MethodPost, "/render").Accepts[0], time.Now()).v2(t)
	order := func(i int) string { return fmt.Sprintf("%05d%s", i, strings.Repeat("x", 100_000)) }
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	w.sendBody(ctx, "POST", "/render", payment, order(0))
	time.Sleep(400 * time.Millisecond)
	for i := range 25 {
		res := w.again(func() answerOf { return w.sendBody(t.Context(), "POST", "/render", payment, order(i+1)) })
		if i == 0 || i == 24 {
			t.Log(res.StatusCode, res.body)
		}
	}
	if acted.Load() > 1 {
		t.Errorf("%d different orders were done for %d transfers", acted.Load(), w.fac.transfers())
	}
}

// The upstream works for other long bodies without a bound, for one payment.
func TestLongQueriesAreBounded(t *testing.T) {
	w := newWorld(t, "price QUERY /search $0.05")
	w.up.on(breaksOff)
	payment := newPayer(t).sign(t, w.challenge("QUERY", "/search").Accepts[0], time.Now()).v2(t)
	query := func(i int) string { return fmt.Sprintf("%05d%s", i, strings.Repeat("x", 100_000)) }
	w.sendBody(t.Context(), "QUERY", "/search", payment, query(0))
	w.up.on(nil)
	codes := map[string]int{}
	for i := range 40 {
		res := w.again(func() answerOf { return w.sendBody(t.Context(), "QUERY", "/search", payment, query(i+1)) })
		codes[fmt.Sprint(res.StatusCode, " ", strings.TrimSpace(res.body))]++
	}
	t.Log(codes)
	if w.up.hits.Load() > 21 {
		t.Errorf("%d runs of the upstream for %d transfers; the bound is 20", w.up.hits.Load(), w.fac.transfers())
	}
}

// A line with `charge 200`: tunnels redeem without end.
func TestOnePaymentOpensOneTunnel(t *testing.T) {
	w := newWorld(t, "price /ws $0.01 {\n charge 200\n}")
	var tunnels atomic.Int64
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			_, _ = io.WriteString(rw, "hello")
			return
		}
		conn, brw, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		n := tunnels.Add(1)
		fmt.Fprintf(brw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\ngoods %d", n)
		_ = brw.Flush()
	})
	payment := w.sign(http.MethodHead, "/ws", newPayer(t)).v2(t)
	res := w.do(w.request(http.MethodHead, "/ws", "PAYMENT-SIGNATURE", payment))
	t.Log("HEAD", res.StatusCode)
	good := 0
	for range 30 {
		var all []byte
		w.until(func() bool {
			conn, host := w.dial()
			defer conn.Close()
			fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: echo\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", host, payment)
			_ = conn.SetReadDeadline(time.Now().Add(time.Second))
			all, _ = io.ReadAll(conn)
			return !bytes.Contains(all, []byte("payment_in_flight"))
		})
		if !bytes.Contains(all, []byte("goods")) {
			t.Logf("%.300s", all)
			break
		}
		good++
	}
	if good > 1 {
		t.Errorf("%d tunnels for %d transfers", good, w.fac.transfers())
	}
}
