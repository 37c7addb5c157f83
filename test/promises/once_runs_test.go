package promises

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

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// One payment buys one order, where the upstream answers 303 to a page of its own
// (Post/Redirect/Get).
func TestRedirectAfterAnOrderUsesItUp(t *testing.T) {
	w := gate.New(t, "price POST /orders $0.01")
	var acted atomic.Int64
	var last atomic.Value
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		_, body := w.Upstream.Seen()
		if body == "bad" {
			rw.WriteHeader(400)
			return
		}
		last.Store(body)
		rw.Header().Set("Location", fmt.Sprintf("/orders/%d", acted.Add(1)))
		rw.WriteHeader(http.StatusSeeOther)
	})
	payment := gate.NewPayer(t).Sign(t, w.Challenge(http.MethodPost, "/orders").Accepts[0], time.Now()).V2(t)
	res := w.SendBody(t.Context(), "POST", "/orders", payment, "bad")
	t.Log("first:", res.StatusCode, res.Text)
	for i := range 30 {
		res = w.Again(func() gate.Answer {
			return w.SendBody(t.Context(), "POST", "/orders", payment, fmt.Sprintf("order %d", i))
		})
		if res.StatusCode != 303 {
			t.Logf("order %d: %d %s", i, res.StatusCode, res.Text)
			break
		}
	}
	if acted.Load() > 1 {
		t.Errorf("%d orders done (the last is %q) for %d transfers", acted.Load(), last.Load(), w.Facilitator.Transfers())
	}
}

// An honest payer whose connection broke signs the same order anew: a 303 counts as
// an act, and it is not done again.
func TestOrderAnsweredByARedirectIsDoneOnce(t *testing.T) {
	w := gate.New(t, "price POST /orders $0.01")
	var acted atomic.Int64
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		n := acted.Add(1)
		time.Sleep(300 * time.Millisecond)
		rw.Header().Set("Location", fmt.Sprintf("/orders/%d", n))
		rw.WriteHeader(http.StatusSeeOther)
	})
	p := gate.NewPayer(t)
	sign := func() string {
		return p.Sign(t, w.Challenge(http.MethodPost, "/orders").Accepts[0], time.Now()).V2(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	w.SendBody(ctx, "POST", "/orders", sign(), "one widget")
	time.Sleep(500 * time.Millisecond)
	for range 3 {
		res := w.Again(func() gate.Answer { return w.SendBody(t.Context(), "POST", "/orders", sign(), "one widget") })
		t.Log(res.StatusCode, res.Header.Get("Location"))
	}
	if acted.Load() != int64(w.Facilitator.Transfers()) {
		t.Errorf("the order was done %d times for %d transfers", acted.Load(), w.Facilitator.Transfers())
	}
}

// The same with on_success and `charge 303`, hanging up.
func TestChargedRedirectIsDoneOnce(t *testing.T) {
	w := gate.New(t, "price POST /orders $0.01 {\n settle on_success\n charge 200 303\n}")
	var acted atomic.Int64
	slow := make(chan struct{})
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Location", fmt.Sprintf("/orders/%d", acted.Add(1)))
		rw.WriteHeader(http.StatusSeeOther)
	})
	w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
		body := gate.Body(r)
		<-slow
		w.Facilitator.Move(rw, body)
	})
	p := gate.NewPayer(t)
	sign := func() string {
		return p.Sign(t, w.Challenge(http.MethodPost, "/orders").Accepts[0], time.Now()).V2(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	w.SendBody(ctx, "POST", "/orders", sign(), "one widget")
	time.Sleep(100 * time.Millisecond)
	close(slow)
	time.Sleep(200 * time.Millisecond)
	res := w.Again(func() gate.Answer { return w.SendBody(t.Context(), "POST", "/orders", sign(), "one widget") })
	t.Log(res.StatusCode, res.Header.Get("Location"), res.Text)
	if acted.Load() != int64(w.Facilitator.Transfers()) {
		t.Errorf("the order was done %d times for %d transfers", acted.Load(), w.Facilitator.Transfers())
	}
}

// Long bodies are compared only when the upstream has acted on them. A redirect
// that leaves is charged and is no act.
func TestLongOrdersAreDoneOncePerPayment(t *testing.T) {
	w := gate.New(t, "price POST /render $0.01")
	var acted atomic.Int64
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		n := acted.Add(1)
		if n == 1 {
			time.Sleep(300 * time.Millisecond)
		}
		rw.Header().Set("Location", fmt.Sprintf("https://cdn.example/file?n=%d", n))
		rw.WriteHeader(http.StatusFound)
	})
	payment := gate.NewPayer(t).Sign(t, w.Challenge(http.MethodPost, "/render").Accepts[0], time.Now()).V2(t)
	order := func(i int) string { return fmt.Sprintf("%05d%s", i, strings.Repeat("x", 100_000)) }
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	w.SendBody(ctx, "POST", "/render", payment, order(0))
	time.Sleep(400 * time.Millisecond)
	for i := range 25 {
		res := w.Again(func() gate.Answer { return w.SendBody(t.Context(), "POST", "/render", payment, order(i+1)) })
		if i == 0 || i == 24 {
			t.Log(res.StatusCode, res.Text)
		}
	}
	if acted.Load() > 1 {
		t.Errorf("%d different orders were done for %d transfers", acted.Load(), w.Facilitator.Transfers())
	}
}

// The upstream works for other long bodies of one payment only so often.
func TestLongQueriesAreBounded(t *testing.T) {
	w := gate.New(t, "price QUERY /search $0.05")
	w.Upstream.On(gate.BreaksOff)
	payment := gate.NewPayer(t).Sign(t, w.Challenge("QUERY", "/search").Accepts[0], time.Now()).V2(t)
	query := func(i int) string { return fmt.Sprintf("%05d%s", i, strings.Repeat("x", 100_000)) }
	w.SendBody(t.Context(), "QUERY", "/search", payment, query(0))
	w.Upstream.On(nil)
	codes := map[string]int{}
	for i := range 40 {
		res := w.Again(func() gate.Answer { return w.SendBody(t.Context(), "QUERY", "/search", payment, query(i+1)) })
		codes[fmt.Sprint(res.StatusCode, " ", strings.TrimSpace(res.Text))]++
	}
	t.Log(codes)
	if w.Upstream.Hits.Load() > 21 {
		t.Errorf("%d runs of the upstream for %d transfers; the bound is 20", w.Upstream.Hits.Load(), w.Facilitator.Transfers())
	}
}

// One payment opens one tunnel, also on a line with `charge 200`.
func TestOnePaymentOpensOneTunnel(t *testing.T) {
	w := gate.New(t, "price /ws $0.01 {\n charge 200\n}")
	var tunnels atomic.Int64
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
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
	payment := w.Sign(http.MethodHead, "/ws", gate.NewPayer(t)).V2(t)
	res := w.Do(w.Request(http.MethodHead, "/ws", "PAYMENT-SIGNATURE", payment))
	t.Log("HEAD", res.StatusCode)
	good := 0
	for range 30 {
		var all []byte
		w.Until(func() bool {
			conn, host := w.Dial()
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
		t.Errorf("%d tunnels for %d transfers", good, w.Facilitator.Transfers())
	}
}

// A GET that is settled first and answered with redirects that stay has so many
// answers for one payment, with a fresh signature too.
func TestRedirectsThatStayUseUpWhatWasPaidFirst(t *testing.T) {
	w := gate.New(t, "price GET /download $0.01 {\n settle first\n}")
	n := 0
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		if n++; n == 1 {
			rw.WriteHeader(500)
			return
		}
		rw.Header().Set("Location", "/signed/once-"+strings.Repeat("i", n))
		rw.WriteHeader(302)
	})
	payment := w.Sign(http.MethodGet, "/download", gate.NewPayer(t)).V2(t)
	good := 0
	for range 40 {
		if res := w.Again(func() gate.Answer { return w.Get("/download", "PAYMENT-SIGNATURE", payment) }); res.StatusCode == 302 {
			good++
		}
	}
	if good > 3 {
		t.Errorf("%d links for %d transfers", good, w.Facilitator.Transfers())
	}
}
