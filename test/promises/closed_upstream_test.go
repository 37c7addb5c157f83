package promises

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// A failing upstream costs nothing, and no error route answers in its place.
func TestFailingUpstreamCostsNothing(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01", "handle_errors {\n respond sorry 502\n}")
	get := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	post := w.Sign(http.MethodPost, "/paid/x", gate.NewPayer(t)).V2(t)
	w.Upstream.Close()
	res := w.Get("/paid/x", "PAYMENT-SIGNATURE", get)
	w.Expect(res, 502, "upstream_failed")
	if res.Header.Get("Payment-Response") != "" || w.Facilitator.Transfers() != 0 {
		t.Fatalf("held: %d %q %v, %d transfers", res.StatusCode, res.Text, res.Header, w.Facilitator.Transfers())
	}
	// Settled first: the payer learns that it paid, and can come again.
	res = w.Do(w.Request(http.MethodPost, "/paid/x", "PAYMENT-SIGNATURE", post))
	if res.StatusCode != 502 || w.Facilitator.Transfers() != 1 {
		t.Fatalf("first: %d, %d transfers", res.StatusCode, w.Facilitator.Transfers())
	}
	if !gate.ReceiptOf(t, res).Success {
		t.Error("no receipt")
	}
}

// Nobody pays for a dead upstream: after three bad gateways a price that
// settles first asks for no more money, until a probe comes through.
func TestDeadUpstreamIsNotSold(t *testing.T) {
	w := gate.New(t, "price POST /paid/* $0.01")
	w.Upstream.On(gate.Says(503, "down"))
	for range 3 {
		if res := w.Pay(http.MethodPost, "/paid/x"); res.StatusCode != 503 || !gate.ReceiptOf(t, res).Success {
			t.Fatal(res.StatusCode)
		}
	}
	res := w.Pay(http.MethodPost, "/paid/x")
	w.Expect(res, 503, "upstream_unavailable")
	if w.Facilitator.Transfers() != 3 || res.Header.Get("Retry-After") != "10" {
		t.Fatalf("%d transfers, %v", w.Facilitator.Transfers(), res.Header)
	}
}

// crashingShop is a line that settles first, behind a proxy, with an upstream that is dead
// below /api/crash. buy sends a payment from a client network, and later lets time pass.
func crashingShop(t *testing.T) (buy func(p *gate.Payer, path, from string) int, later func(time.Duration)) {
	t.Helper()
	w := gate.Prepare(t)
	w.Load(gate.BehindProxy(w.Caddyfile("price POST /api/* $0.01")))
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/crash") {
			panic(http.ErrAbortHandler)
		}
		_, _ = rw.Write([]byte(gate.Goods))
	})
	advance := gate.Clock(t)
	now := time.Now()
	buy = func(p *gate.Payer, path, from string) int {
		asked := w.Challenge(http.MethodPost, path).Accepts[0]
		return w.Do(w.Request(http.MethodPost, path, "PAYMENT-SIGNATURE", p.Sign(t, asked, now).V2(t), "X-Forwarded-For", from)).StatusCode
	}
	return buy, func(d time.Duration) {
		advance(d)
		now = now.Add(d)
	}
}

// Who pays for what gives a bad gateway keeps a line closed for nobody else: not by one
// URL, not with two wallets in turn, and not by taking each probe.
func TestBadGatewaysCloseNoLineForOthers(t *testing.T) {
	for name, tc := range map[string]struct {
		wallets int
		path    func(i int) string
	}{
		"one URL":       {100, func(int) string { return "/api/crash" }},
		"one, by query": {100, func(i int) string { return fmt.Sprintf("/api/crash?%d", i) }},
		"two wallets":   {2, func(i int) string { return fmt.Sprintf("/api/crash/%d", i) }},
		"many of both":  {100, func(i int) string { return fmt.Sprintf("/api/crash/%d", i) }},
	} {
		t.Run(name, func(t *testing.T) {
			gate.ForgetPayers()
			buy, later := crashingShop(t)
			var wallets []*gate.Payer
			for range tc.wallets {
				wallets = append(wallets, gate.NewPayer(t))
			}
			tried := 0
			attack := func() {
				buy(wallets[tried%tc.wallets], tc.path(tried), elsewhere)
				tried++
			}
			for range 3 {
				attack()
			}
			refused := 0
			for range 20 {
				for range 2 {
					if buy(gate.NewPayer(t), "/api/ok", here) != 200 {
						refused++
					}
				}
				later(10100 * time.Millisecond)
				for range 3 {
					attack()
				}
			}
			if refused > 0 {
				t.Errorf("%d of 40 honest payers refused", refused)
			}
		})
	}
}

// Nor do those who come from another network each time, where the payer has paid before.
func TestTakenProbesCloseNoLineForCustomers(t *testing.T) {
	gate.ForgetPayers()
	buy, later := crashingShop(t)
	customer := gate.NewPayer(t)
	if got := buy(customer, "/api/ok", here); got != 200 {
		t.Fatal(got)
	}
	refused := 0
	for i := range 6 {
		for j := range 4 {
			buy(gate.NewPayer(t), fmt.Sprintf("/api/crash/%d/%d", i, j), fmt.Sprintf("192.%d.%d.9", i, j))
		}
		later(10100 * time.Millisecond)
		for j := range 2 {
			buy(gate.NewPayer(t), fmt.Sprintf("/api/crash/x%d-%d", i, j), fmt.Sprintf("193.%d.%d.9", i, j))
		}
		if buy(customer, "/api/ok", here) != 200 {
			refused++
		}
	}
	if refused > 0 {
		t.Errorf("%d of 6 refused", refused)
	}
}

// Payments that never reach the upstream do not use up the breaker's one probe: the
// price opens once the upstream is well again.
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

// Two lines with one price have a breaker each: one dead upstream does not shut the
// other line.
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

// That a client breaks its body off says nothing of the upstream.
func TestBrokenBodiesCloseNoLine(t *testing.T) {
	w := gate.New(t, "price POST /render $0.01")
	asked := w.Challenge(http.MethodPost, "/render").Accepts[0]
	var kept []string
	for range 3 {
		conn, host := w.Dial()
		pay := gate.NewPayer(t).Sign(t, asked, time.Now()).V2(t)
		kept = append(kept, pay)
		fmt.Fprintf(conn, "POST /render HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\nPAYMENT-SIGNATURE: %s\r\n\r\n5\r\ndo it\r\nZZZ\r\n", host, pay)
		b := make([]byte, 300)
		_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, _ := conn.Read(b)
		t.Logf("poison: %.60q", b[:n])
		conn.Close()
	}
	time.Sleep(200 * time.Millisecond)
	closed := 0
	for range 3 {
		res := w.SendBody(t.Context(), "POST", "/render", gate.NewPayer(t).Sign(t, asked, time.Now()).V2(t), "fine")
		t.Log(res.StatusCode, res.Text)
		if res.StatusCode == 503 {
			closed++
		}
	}
	back := 0
	for _, pay := range kept {
		if res := w.SendBody(t.Context(), "POST", "/render", pay, "do it"); res.StatusCode == 200 {
			back++
		}
	}
	if closed > 0 {
		t.Errorf("%d of 3 honest payers turned away; the attacker then fetched %d of his 3 goods", closed, back)
	}
}

// One payer who asks for what gives bad gateways closes a line for nobody.
func TestOnePayersBadGatewaysCloseNoLine(t *testing.T) {
	w := gate.New(t, "price /scrape/* $0.01 {\n settle first\n}")
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "dead") {
			rw.WriteHeader(502)
			return
		}
		_, _ = rw.Write([]byte(gate.Goods))
	})
	p := gate.NewPayer(t)
	asked := w.Challenge(http.MethodGet, "/scrape/ok").Accepts[0]
	w.Expect(w.Get("/scrape/ok", "PAYMENT-SIGNATURE", gate.NewPayer(t).Sign(t, asked, time.Now()).V2(t)), 200, "")
	for i := range 3 {
		path := fmt.Sprintf("/scrape/dead-%d", i)
		res := w.Get(path, "PAYMENT-SIGNATURE", p.Sign(t, asked, time.Now()).V2(t))
		w.Expect(res, 502, "")
	}
	refused := 0
	for i := range 5 {
		res := w.Get(fmt.Sprintf("/scrape/ok-%d", i), "PAYMENT-SIGNATURE", gate.NewPayer(t).Sign(t, asked, time.Now()).V2(t))
		if res.StatusCode != 200 {
			refused++
		}
	}
	if refused > 0 {
		t.Errorf("%d honest payers of a healthy upstream refused; %d transfers", refused, w.Facilitator.Transfers())
	}
}

// A payer for whom the upstream has failed three times in a row does not pay it again,
// while it is open to others.
func TestDeadUpstreamIsNotSoldToTheSamePayer(t *testing.T) {
	w := gate.New(t, "price /scrape/* $0.01 {\n settle first\n}")
	w.Upstream.On(gate.Says(502, ""))
	p := gate.NewPayer(t)
	asked := w.Challenge(http.MethodGet, "/scrape/x").Accepts[0]
	buy := func(i int, p *gate.Payer) gate.Answer {
		return w.Get(fmt.Sprintf("/scrape/%d", i), "PAYMENT-SIGNATURE", p.Sign(t, asked, time.Now()).V2(t))
	}
	for i := range 3 {
		w.Expect(buy(i, p), 502, "")
	}
	w.Expect(buy(3, p), 503, "upstream_unavailable")
	w.Expect(buy(4, gate.NewPayer(t)), 502, "")
	if w.Facilitator.Transfers() != 4 {
		t.Error(w.Facilitator.Transfers(), "transfers")
	}
}

// The bad gateways of one payment count once, however often it is fetched: they do
// not close the price for others.
func TestWhatIsFetchedClosesNoPrice(t *testing.T) {
	w := gate.New(t, "price POST /render $0.01")
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		if _, body := w.Upstream.Seen(); body == "poison" {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(rw, "done")
	})
	asked := w.Challenge(http.MethodPost, "/render").Accepts[0]
	bad := gate.NewPayer(t).Sign(t, asked, time.Now()).V2(t)
	for range 4 {
		res := w.Again(func() gate.Answer { return w.SendBody(t.Context(), "POST", "/render", bad, "poison") })
		t.Log(res.StatusCode, res.Text)
	}
	closed := 0
	for range 5 {
		res := w.SendBody(t.Context(), "POST", "/render", gate.NewPayer(t).Sign(t, asked, time.Now()).V2(t), "fine")
		t.Log(res.StatusCode, res.Text)
		if res.StatusCode == 503 {
			closed++
		}
		_ = w.Again(func() gate.Answer { return w.SendBody(t.Context(), "POST", "/render", bad, "poison") })
	}
	if closed > 0 {
		t.Errorf("%d of 5 honest payers turned away, by one payment", closed)
	}
}
