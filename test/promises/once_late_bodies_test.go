package promises

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// withheld begins so many requests, each with the payment and all of its body but the last
// byte: the gate looks what the payment has bought, and waits.
func withheld(w *gate.World, n int, method, path, payment, header string) []net.Conn {
	time.Sleep(300 * time.Millisecond) // until the request before has let go of the payment
	conns := make([]net.Conn, n)
	for i := range conns {
		conn, host := w.Dial()
		w.T.Cleanup(func() { conn.Close() })
		fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nPAYMENT-SIGNATURE: %s\r\n%sContent-Length: 6\r\n\r\nrende", method, path, host, payment, header)
		conns[i] = conn
	}
	time.Sleep(500 * time.Millisecond)
	return conns
}

// A purchase is judged by what it is when it is taken over, and not by what it was when
// its payer came and kept the rest of his body back. What has acted does not act again.
func TestOrderThatWaitsForItsBodyIsDoneOnce(t *testing.T) {
	w := gate.New(t, "price POST /render $0.01")
	var acts atomic.Int64
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		acts.Add(1)
		time.Sleep(60 * time.Millisecond)
		_, _ = io.WriteString(rw, strings.Repeat("x", 400_000)) // too long to be kept
	})
	payment := gate.NewPayer(t).Sign(t, w.Challenge("POST", "/render").Accepts[0], time.Now()).V2(t)
	w.Expect(w.SendBody(t.Context(), "POST", "/render", payment, "render"), 401, "")
	for _, conn := range withheld(w, 4, "POST", "/render", payment, "Authorization: a\r\n") {
		_, _ = io.WriteString(conn, "r")
		w.Until(func() bool { return acts.Load() > 0 }) // and the first one leaves before its answer
		time.Sleep(40 * time.Millisecond)
		conn.Close()
		time.Sleep(200 * time.Millisecond)
	}
	if acts.Load() != 1 || w.Facilitator.Transfers() != 1 {
		t.Errorf("done %d times, %d transfers", acts.Load(), w.Facilitator.Transfers())
	}
}

// The same with the bound on heads.
func TestHeadsThatWaitForTheirBodiesAreBounded(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	w.Upstream.On(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	payment := gate.NewPayer(t).Sign(t, w.Challenge("HEAD", "/paid/x").Accepts[0], time.Now()).V2(t)
	w.SendBody(t.Context(), "HEAD", "/paid/x", payment, "render")
	for _, conn := range withheld(w, 30, "HEAD", "/paid/x", payment, "") {
		_, _ = io.WriteString(conn, "r")
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = conn.Read(make([]byte, 2000))
		time.Sleep(20 * time.Millisecond)
	}
	if n := w.Upstream.Hits.Load(); n != 10 || w.Facilitator.Transfers() != 1 {
		t.Errorf("%d heads for %d transfers", n, w.Facilitator.Transfers())
	}
}
