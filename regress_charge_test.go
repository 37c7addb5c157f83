package paywall_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// `charge 200` let `Range: bytes=0-` have the goods for nothing.
func TestChargeOf200ChargesRanges(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01 {\n charge 200\n}")
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		http.ServeContent(rw, r, "x.txt", time.Unix(1e9, 0), strings.NewReader(gate.Goods))
	})
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	pay := func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", s, "Range", "bytes=0-") }
	res := pay()
	if res.StatusCode != 206 || res.Text != gate.Goods || w.Facilitator.Transfers() != 1 {
		t.Fatalf("%d %q, %d transfers", res.StatusCode, res.Text, w.Facilitator.Transfers())
	}
	w.Expect(w.Again(pay), 402, "payment_already_used")
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
			w := gate.New(t, "price /paid/* $0.01")
			c, err := x402.DecodeChallenge(w.Get("/paid/x", header...).Header.Get(x402.HeaderPaymentRequired))
			if err != nil || strings.Contains(string(c.Accepts[0].Extra), "upfront") {
				t.Fatalf("%v, %+v", err, c.Accepts)
			}
			s := gate.NewPayer(t).Sign(t, c.Accepts[0], time.Now()).V2(t)
			pay := func() gate.Answer { return w.Get("/paid/x", append([]string{"PAYMENT-SIGNATURE", s}, header...)...) }
			w.Upstream.On(gate.Says(404, "no"))
			w.Expect(pay(), 404, "")
			if w.Facilitator.Transfers() != 0 {
				t.Error("a 404 was charged")
			}
			w.Upstream.On(broken)
			if res := w.Again(pay); res.Err == nil {
				t.Fatalf("a broken body arrived whole: %d %q", res.StatusCode, res.Text)
			}
			w.Upstream.On(nil)
			w.Until(func() bool { return pay().StatusCode == 200 })
			if w.Facilitator.Transfers() != 1 {
				t.Error(w.Facilitator.Transfers())
			}
		})
	}
}

// Who has left before the status line was charged for an answer that nobody
// reads: a handler in this process goes on writing.
func TestPayerWhoLeftIsNotCharged(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01", "in_process")
	written := make(chan struct{})
	started := make(chan struct{})
	gate.OnInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		close(started)
		<-r.Context().Done()
		_, err := io.WriteString(rw, gate.Goods)
		close(written)
		return err
	})
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	conn, host := w.Dial()
	fmt.Fprintf(conn, "GET /paid/x HTTP/1.1\r\nHost: %s\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", host, s)
	<-started
	conn.Close()
	<-written // held until it was settled or refused
	w.Counts(0, 1, 0)
	// Nothing has moved, so the same payment buys when its payer comes again.
	gate.OnInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		_, err := io.WriteString(rw, gate.Goods)
		return err
	})
	w.Until(func() bool { return w.Get("/paid/x", "PAYMENT-SIGNATURE", s).StatusCode == 200 })
	if w.Facilitator.Transfers() != 1 {
		t.Error(w.Facilitator.Transfers())
	}
}

// A handler that hijacks without a status line, as the common websocket
// libraries do, was refused although the tunnel was paid for.
func TestHijackWithoutStatusLine(t *testing.T) {
	w := gate.New(t, "price /ws $0.01", "in_process")
	gate.OnInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		conn, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
		return err
	})
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket"}
	c, err := x402.DecodeChallenge(w.Get("/ws", upgrade...).Header.Get(x402.HeaderPaymentRequired))
	if err != nil {
		t.Fatal(err)
	}
	s := gate.NewPayer(t).Sign(t, c.Accepts[0], time.Now()).V2(t)
	conn, host := w.Dial()
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", host, s)
	raw, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(raw), "HTTP/1.1 101") || !strings.HasSuffix(string(raw), "hello") || w.Facilitator.Transfers() != 1 {
		t.Fatalf("%q %v, %d transfers", raw, err, w.Facilitator.Transfers())
	}
	// A tunnel that came about is delivered.
	w.Until(func() bool {
		return w.Get("/ws", append(upgrade, "PAYMENT-SIGNATURE", s)...).StatusCode == 402
	})
}

// The breaker's one probe was used up by payments that never reached the
// upstream, so that junk kept a price shut after the upstream was well again.
func TestJunkDoesNotEatTheProbe(t *testing.T) {
	for name, junk := range map[string]func(*gate.Facilitator){
		"refused by verify": func(f *gate.Facilitator) {
			f.OnVerify(gate.Says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`))
		},
		"refused by settle": func(f *gate.Facilitator) { f.OnSettle(gate.RefusedSettle) },
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.New(t, "price POST /paid/* $0.01")
			advance := gate.Clock(t)
			w.Upstream.On(gate.Says(502, "dead"))
			for range 3 {
				w.Expect(w.Pay(http.MethodPost, "/paid/x"), 502, "")
			}
			w.Upstream.On(nil)
			w.Expect(w.Pay(http.MethodPost, "/paid/x"), 503, "upstream_unavailable")
			advance(11 * time.Second)
			junk(w.Facilitator)
			w.Expect(w.Pay(http.MethodPost, "/paid/x"), 402, "insufficient_funds")
			w.Facilitator.OnVerify(nil)
			w.Facilitator.OnSettle(nil)
			w.Expect(w.Pay(http.MethodPost, "/paid/x"), 200, "")
			w.Expect(w.Pay(http.MethodPost, "/paid/x"), 200, "") // closed again
		})
	}
}

// Two lines with one price shared one breaker: one dead upstream shut the other
// line too.
func TestEachLineHasItsBreaker(t *testing.T) {
	w := gate.New(t, "price POST /dead/* $0.01\nprice POST /well/* $0.01")
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/dead") {
			rw.WriteHeader(http.StatusBadGateway)
		}
	})
	for range 3 {
		w.Expect(w.Pay(http.MethodPost, "/dead/x"), 502, "")
	}
	w.Expect(w.Pay(http.MethodPost, "/dead/x"), 503, "upstream_unavailable")
	w.Expect(w.Pay(http.MethodPost, "/well/x"), 200, "")
}

// What a first payer is not charged for used up a purchase that was owed.
func TestRedirectDoesNotUseUpWhatIsOwed(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01 {\n settle first\n}")
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	pay := func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", s) }
	w.Upstream.On(gate.Says(500, "broken"))
	w.Expect(pay(), 500, "")
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, "/maintenance", http.StatusFound) })
	w.Expect(w.Again(pay), 302, "")
	w.Upstream.On(nil)
	w.Expect(w.Again(pay), 200, "")
	if w.Facilitator.Transfers() != 1 {
		t.Error(w.Facilitator.Transfers())
	}
}
