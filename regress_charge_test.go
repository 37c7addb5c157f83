package paywall_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// `charge 200` let `Range: bytes=0-` have the goods for nothing.
func TestChargeOf200ChargesRanges(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01 {\n charge 200\n}")
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		http.ServeContent(rw, r, "x.txt", time.Unix(1e9, 0), strings.NewReader(sample))
	})
	s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
	pay := func() answerOf { return w.get("/paid/x", "PAYMENT-SIGNATURE", s, "Range", "bytes=0-") }
	res := pay()
	if res.StatusCode != 206 || res.body != sample || w.fac.transfers() != 1 {
		t.Fatalf("%d %q, %d transfers", res.StatusCode, res.body, w.fac.transfers())
	}
	w.expect(w.again(pay), 402, "payment_already_used")
}

// What any client can send is no tunnel: `Upgrade: h2c` made a GET settle first,
// so that a 404 was charged, and took a broken body for a tunnel that ended.
func TestUpgradeThatIsNoTunnel(t *testing.T) {
	broken := func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Length", "1000")
		_, _ = rw.Write([]byte("half"))
		_ = http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	}
	for name, header := range map[string][]string{
		"h2c":                {"Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "HTTP2-Settings", "AAMAAABkAAQAAP__"},
		"without Connection": {"Upgrade", "echo"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "price /paid/* $0.01")
			c, err := x402.DecodeChallenge(w.get("/paid/x", header...).Header.Get(x402.HeaderPaymentRequired))
			if err != nil || strings.Contains(string(c.Accepts[0].Extra), "upfront") {
				t.Fatalf("%v, %+v", err, c.Accepts)
			}
			s := newPayer(t).sign(t, c.Accepts[0], time.Now()).v2(t)
			pay := func() answerOf { return w.get("/paid/x", append([]string{"PAYMENT-SIGNATURE", s}, header...)...) }
			w.up.on(says(404, "no"))
			w.expect(pay(), 404, "")
			if w.fac.transfers() != 0 {
				t.Error("a 404 was charged")
			}
			w.up.on(broken)
			if res := w.again(pay); res.err == nil {
				t.Fatalf("a broken body arrived whole: %d %q", res.StatusCode, res.body)
			}
			w.up.on(nil)
			w.until(func() bool { return pay().StatusCode == 200 })
			if w.fac.transfers() != 1 {
				t.Error(w.fac.transfers())
			}
		})
	}
}

// Who has left before the status line was charged for an answer that nobody
// reads: a handler in this process goes on writing.
func TestPayerWhoLeftIsNotCharged(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01", "in_process")
	written := make(chan struct{})
	started := make(chan struct{})
	onInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		close(started)
		<-r.Context().Done()
		_, err := io.WriteString(rw, sample)
		close(written)
		return err
	})
	s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
	conn, host := w.dial()
	fmt.Fprintf(conn, "GET /paid/x HTTP/1.1\r\nHost: %s\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", host, s)
	<-started
	conn.Close()
	<-written // held until it was settled or refused
	w.counts(0, 1, 0)
	// Nothing has moved, so the same payment buys when its payer comes again.
	onInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		_, err := io.WriteString(rw, sample)
		return err
	})
	w.until(func() bool { return w.get("/paid/x", "PAYMENT-SIGNATURE", s).StatusCode == 200 })
	if w.fac.transfers() != 1 {
		t.Error(w.fac.transfers())
	}
}

// dial opens a connection to the gate.
func (w *world) dial() (conn net.Conn, host string) {
	w.t.Helper()
	host = strings.TrimPrefix(w.gate, "http://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn, host
}

// A handler that hijacks without a status line, as the common websocket
// libraries do, was refused although the tunnel was paid for.
func TestHijackWithoutStatusLine(t *testing.T) {
	w := newWorld(t, "price /ws $0.01", "in_process")
	onInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		conn, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
		return err
	})
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket"}
	c, err := x402.DecodeChallenge(w.get("/ws", upgrade...).Header.Get(x402.HeaderPaymentRequired))
	if err != nil {
		t.Fatal(err)
	}
	s := newPayer(t).sign(t, c.Accepts[0], time.Now()).v2(t)
	conn, host := w.dial()
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", host, s)
	raw, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(raw), "HTTP/1.1 101") || !strings.HasSuffix(string(raw), "hello") || w.fac.transfers() != 1 {
		t.Fatalf("%q %v, %d transfers", raw, err, w.fac.transfers())
	}
	// A tunnel that came about is delivered.
	w.until(func() bool {
		return w.get("/ws", append(upgrade, "PAYMENT-SIGNATURE", s)...).StatusCode == 402
	})
}

// The breaker's one probe was used up by payments that never reached the
// upstream, so that junk kept a price shut after the upstream was well again.
func TestJunkDoesNotEatTheProbe(t *testing.T) {
	for name, junk := range map[string]func(*fakeFacilitator){
		"refused by verify": func(f *fakeFacilitator) {
			f.onVerify(says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`))
		},
		"refused by settle": func(f *fakeFacilitator) { f.onSettle(refusedSettle) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "price POST /paid/* $0.01")
			advance := clock(t)
			w.up.on(says(502, "dead"))
			for range 3 {
				w.expect(w.pay(http.MethodPost, "/paid/x"), 502, "")
			}
			w.up.on(nil)
			w.expect(w.pay(http.MethodPost, "/paid/x"), 503, "upstream_unavailable")
			advance(11 * time.Second)
			junk(w.fac)
			w.expect(w.pay(http.MethodPost, "/paid/x"), 402, "insufficient_funds")
			w.fac.onVerify(nil)
			w.fac.onSettle(nil)
			w.expect(w.pay(http.MethodPost, "/paid/x"), 200, "")
			w.expect(w.pay(http.MethodPost, "/paid/x"), 200, "") // closed again
		})
	}
}

// Two lines with one price shared one breaker: one dead upstream shut the other
// line too.
func TestEachLineHasItsBreaker(t *testing.T) {
	w := newWorld(t, "price POST /dead/* $0.01\nprice POST /well/* $0.01")
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/dead") {
			rw.WriteHeader(http.StatusBadGateway)
		}
	})
	for range 3 {
		w.expect(w.pay(http.MethodPost, "/dead/x"), 502, "")
	}
	w.expect(w.pay(http.MethodPost, "/dead/x"), 503, "upstream_unavailable")
	w.expect(w.pay(http.MethodPost, "/well/x"), 200, "")
}

// What a first payer is not charged for used up a purchase that was owed.
func TestRedirectDoesNotUseUpWhatIsOwed(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01 {\n settle first\n}")
	s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
	pay := func() answerOf { return w.get("/paid/x", "PAYMENT-SIGNATURE", s) }
	w.up.on(says(500, "broken"))
	w.expect(pay(), 500, "")
	w.up.on(func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, "/maintenance", http.StatusFound) })
	w.expect(w.again(pay), 302, "")
	w.up.on(nil)
	w.expect(w.again(pay), 200, "")
	if w.fac.transfers() != 1 {
		t.Error(w.fac.transfers())
	}
}
