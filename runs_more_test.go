package paywall_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// Under his identifier a payer fetches from another network; not any more once
// the payment is about to end, which is minutes later.
func TestIdentifierCountsAfterThePaymentHasEnded(t *testing.T) {
	w := gate.Prepare(t)
	w.Load(gate.BehindProxy(w.Caddyfile("price /paid/* $0.01 {\n settle first\n}")))
	advance := gate.Clock(t)
	w.Upstream.On(gate.Says(500, "broken"))
	const id = "pay_0123456789abcdef"
	s := gate.NewPayer(t).Sign(t, w.Challenge(http.MethodGet, "/paid/x").Accepts[0], time.Now())
	w.Get("/paid/x", "PAYMENT-SIGNATURE", s.WithIdentifier(t, id), "X-Forwarded-For", here)
	w.Upstream.On(nil)
	advance(10 * time.Minute)
	res := w.Again(func() gate.Answer {
		return w.Get("/paid/x", "PAYMENT-SIGNATURE", s.WithIdentifier(t, id), "X-Forwarded-For", elsewhere)
	})
	t.Log(res.StatusCode, res.Text)
	if res.StatusCode != 200 {
		t.Errorf("paid, owed for 24 hours, and not had under its identifier: %d %s", res.StatusCode, res.Text)
	}
}

// GET that is settled first and answered with redirects that stay: any number of
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

// An order that was answered before its body was read, and is owed, blocks all
// other orders of its payer at that address.
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

// A safe request with a body that is settled first: the server does not learn
// that its payer has left, so there is no doubt, and who signs anew is charged again.
func TestQueryPaidFirstIsSoldOnce(t *testing.T) {
	w := gate.New(t, "price QUERY /search $0.01 {\n settle first\n}")
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
	asked := w.Challenge("QUERY", "/search").Accepts[0]
	conn, host := w.Dial()
	fmt.Fprintf(conn, "QUERY /search HTTP/1.1\r\nHost: %s\r\nContent-Length: 5\r\nPAYMENT-SIGNATURE: %s\r\n\r\nwhere", host, p.Sign(t, asked, time.Now()).V2(t))
	w.Until(func() bool { return calls.Load() == 1 })
	conn.Close()
	time.Sleep(200 * time.Millisecond)
	res := w.SendBody(t.Context(), "QUERY", "/search", p.Sign(t, asked, time.Now()).V2(t), "where")
	t.Log(res.StatusCode, res.Text)
	close(slow)
	time.Sleep(300 * time.Millisecond)
	t.Log(w.Facilitator.Transfers(), "transfers")
	if w.Facilitator.Transfers() > 1 {
		t.Errorf("charged %d times for one query", w.Facilitator.Transfers())
	}
	res = w.SendBody(t.Context(), "QUERY", "/search", p.Sign(t, asked, time.Now()).V2(t), "where")
	t.Log("a third one:", res.StatusCode, w.Facilitator.Transfers(), "transfers")
}

// An upstream that is told at which path it stands leaves it out. What is left is priced
// too.
func TestPathWithoutANamedPrefixIsPriced(t *testing.T) {
	w := gate.New(t, "price /articles/* $0.01")
	for _, name := range []string{"X-Script-Name", "X-Forwarded-Prefix", "X-Forwarded-Script-Name"} {
		for _, prefix := range []string{"/x", "/x/"} {
			r := w.Request(http.MethodGet, "/x/articles/1")
			r.Header[name] = []string{prefix}
			if res := w.Do(r); res.StatusCode != 402 {
				t.Errorf("%s: %s: %d", name, prefix, res.StatusCode)
			}
		}
	}
	w.Expect(w.Get("/x/about", "X-Forwarded-Prefix", "/x"), 200, "")
}

// gunicorn cuts SCRIPT_NAME off with all that stands before it, where Caddy is told to let it
// through.
func TestPathBehindAScriptNameIsPriced(t *testing.T) {
	w := gate.New(t, "price /articles/* $0.01")
	w.Load(strings.Replace(w.Caddyfile("price /articles/* $0.01"), "admin off", "admin off\nservers {\nexpected_underscore_headers SCRIPT_NAME\n}", 1))
	for prefix, path := range map[string]string{"/x": "/x/articles/1", "/x/": "/z/x/articles/1", "x": "/zx/articles/1", "a/": "/ab/ca/articles/1", "/": "/articles/1"} {
		r := w.Request(http.MethodGet, path)
		r.Header["SCRIPT_NAME"] = []string{prefix}
		if res := w.Do(r); res.StatusCode != 402 {
			t.Errorf("%s of %s: %d", prefix, path, res.StatusCode)
		}
	}
	r := w.Request(http.MethodGet, "/x/about")
	r.Header["SCRIPT_NAME"] = []string{"/x"}
	w.Expect(w.Do(r), 200, "")
}
