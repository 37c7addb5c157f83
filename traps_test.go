package paywall_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// The traps that Caddy sets to a handler that guards money. Each has a test.

// An error route must not turn a refusal into an answer.
func TestErrorRoutesDoNotSeeRefusals(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01", "handle_errors {\n respond sorry 200\n}")
	w.expect(w.get("/paid/x"), 402, string(x402.CodePaymentRequired))
	w.fac.onSettle(says(200, `{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}`))
	res := w.pay(http.MethodGet, "/paid/x")
	w.expect(res, 402, "insufficient_funds")
}

// A failing upstream is its error routes' business, and costs nothing.
func TestUpstreamDown(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01", "handle_errors {\n respond sorry 502\n}")
	get := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
	post := w.sign(http.MethodPost, "/paid/x", newPayer(t)).v2(t)
	w.up.Close()
	res := w.get("/paid/x", "PAYMENT-SIGNATURE", get)
	if res.StatusCode != 502 || res.body != "sorry" || res.Header.Get("PAYMENT-RESPONSE") != "" || w.fac.transfers() != 0 {
		t.Fatalf("held: %d %q %v, %d transfers", res.StatusCode, res.body, res.Header, w.fac.transfers())
	}
	// Settled first: the payer learns that it paid, and can come again.
	res = w.do(w.request(http.MethodPost, "/paid/x", "PAYMENT-SIGNATURE", post))
	if res.StatusCode != 502 || w.fac.transfers() != 1 {
		t.Fatalf("first: %d, %d transfers", res.StatusCode, w.fac.transfers())
	}
	if !receiptOf(t, res).Success {
		t.Error("no receipt")
	}
}

// Nobody pays for a dead upstream: after three bad gateways a price that
// settles first asks for no more money, until a probe comes through.
func TestDeadUpstreamIsNotSold(t *testing.T) {
	w := newWorld(t, "price POST /paid/* $0.01")
	w.up.on(says(503, "down"))
	for range 3 {
		if res := w.pay(http.MethodPost, "/paid/x"); res.StatusCode != 503 || !receiptOf(t, res).Success {
			t.Fatal(res.StatusCode)
		}
	}
	res := w.pay(http.MethodPost, "/paid/x")
	w.expect(res, 503, "upstream_unavailable")
	if w.fac.transfers() != 3 || res.Header.Get("Retry-After") != "10" {
		t.Fatalf("%d transfers, %v", w.fac.transfers(), res.Header)
	}
}

// An upstream that breaks off after its header: the money has moved, so the
// payer can fetch the rest with the same payment.
func TestBrokenBodyIsRedelivered(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Length", "1000")
		_, _ = rw.Write([]byte("half"))
		_ = http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	})
	s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
	res := w.get("/paid/x", "PAYMENT-SIGNATURE", s)
	if res.err == nil {
		t.Fatalf("a broken body arrived whole: %d %q", res.StatusCode, res.body)
	}
	w.up.handler.Store(nil)
	w.until(func() bool { return w.get("/paid/x", "PAYMENT-SIGNATURE", s).StatusCode == 200 })
	if w.fac.transfers() != 1 || w.fac.settled.Load() != 1 {
		t.Fatalf("%d transfers, %d settles", w.fac.transfers(), w.fac.settled.Load())
	}
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", s), 402, "payment_already_used")
}

// The same header for another URL, or by another method, does not fetch it.
func TestRedeliveryIsBound(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01 {\n settle first\n}")
	w.up.on(says(500, "broken"))
	s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
	if res := w.get("/paid/x", "PAYMENT-SIGNATURE", s); res.StatusCode != 500 || !receiptOf(t, res).Success {
		t.Fatal(res.StatusCode)
	}
	w.up.handler.Store(nil)
	hits := w.up.hits.Load()
	w.expect(w.get("/paid/y", "PAYMENT-SIGNATURE", s), 409, "payment_bought_something_else")
	w.expect(w.get("/paid/x?more=1", "PAYMENT-SIGNATURE", s), 409, "payment_bought_something_else")
	w.expect(w.do(w.request(http.MethodPost, "/paid/x", "PAYMENT-SIGNATURE", s)), 409, "payment_bought_something_else")
	if w.up.hits.Load() != hits {
		t.Error("the upstream ran")
	}
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", s), 200, "")
	w.counts(2, 1, 1)
}

// A settlement that fails after the upstream has begun an endless stream: a
// clean 402, nothing of the stream, and the upstream is stopped.
func TestFailedSettlementStopsStream(t *testing.T) {
	for name, start := range map[string]func(http.ResponseWriter){
		"write": func(rw http.ResponseWriter) { _, _ = rw.Write([]byte("secret")) },
		"flush": func(rw http.ResponseWriter) { _ = http.NewResponseController(rw).Flush() },
		"103": func(rw http.ResponseWriter) {
			rw.Header().Set("Link", "</secret.css>")
			rw.WriteHeader(103)
			_, _ = rw.Write([]byte("secret"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "price /paid/* $0.01")
			stopped := make(chan struct{})
			w.up.on(func(rw http.ResponseWriter, r *http.Request) {
				defer close(stopped)
				rw.Header().Set("Set-Cookie", "secret=1")
				rw.Header().Set("ETag", `"secret"`)
				rw.Header().Set("Trailer", "X-Secret")
				start(rw)
				for r.Context().Err() == nil {
					if _, err := rw.Write([]byte("secret")); err != nil {
						return
					}
					time.Sleep(5 * time.Millisecond)
				}
			})
			w.fac.onSettle(says(200, `{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}`))
			res := w.pay(http.MethodGet, "/paid/x")
			w.expect(res, 402, "insufficient_funds")
			dump := fmt.Sprint(res.Header, res.body, res.Trailer)
			if strings.Contains(dump, "secret") || strings.Contains(dump, "Secret") {
				t.Errorf("leaked: %s", dump)
			}
			select {
			case <-stopped:
			case <-time.After(10 * time.Second):
				t.Error("the upstream runs on")
			}
		})
	}
}

// A stream flows while it is made, with its receipt in front.
func TestStreamFlows(t *testing.T) {
	for _, settle := range []string{"first", "on_success"} {
		t.Run(settle, func(t *testing.T) {
			w := newWorld(t, "price /paid/* $0.01 {\n settle "+settle+"\n}")
			next := make(chan struct{})
			w.up.on(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Content-Type", "text/event-stream")
				for i := range 3 {
					_, _ = fmt.Fprintf(rw, "data: %d\n\n", i)
					_ = http.NewResponseController(rw).Flush()
					<-next
				}
			})
			s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
			res, err := w.http.Do(w.request(http.MethodGet, "/paid/x", "PAYMENT-SIGNATURE", s))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if !receiptOf(t, answerOf{Response: res}).Success {
				t.Fatal("no receipt before the stream")
			}
			in := bufio.NewReader(res.Body)
			for i := range 3 {
				// Each event arrives before the next one is made.
				line, err := in.ReadString('\n')
				if err != nil || line != fmt.Sprintf("data: %d\n", i) {
					t.Fatalf("event %d: %q %v", i, line, err)
				}
				_, _ = in.ReadString('\n')
				next <- struct{}{}
			}
		})
	}
}

// 1xx answers are dropped while an answer is held, and pass when it is paid.
func TestInformational(t *testing.T) {
	for settle, want := range map[string]int{"first": 1, "on_success": 0} {
		t.Run(settle, func(t *testing.T) {
			w := newWorld(t, "price /paid/* $0.01 {\n settle "+settle+"\n}")
			w.up.on(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Link", "</x.css>")
				rw.WriteHeader(http.StatusEarlyHints)
				rw.Header().Del("Link")
				_, _ = rw.Write([]byte(sample))
			})
			s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
			conn, err := net.Dial("tcp", strings.TrimPrefix(w.gate, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "GET /paid/x HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", strings.TrimPrefix(w.gate, "http://"), s)
			raw, err := io.ReadAll(conn)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Count(string(raw), "HTTP/1.1 103"); got != want {
				t.Errorf("%d early hints, want %d in\n%s", got, want, raw)
			}
			if !strings.Contains(string(raw), "HTTP/1.1 200") || !strings.HasSuffix(strings.TrimSpace(string(raw)), sample) && !strings.Contains(string(raw), sample) {
				t.Errorf("%s", raw)
			}
		})
	}
}

// Trailers, announced and not, survive.
func TestTrailers(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Trailer", "X-Announced")
		_, _ = rw.Write([]byte(sample))
		rw.Header().Set("X-Announced", "a")
		rw.Header().Set(http.TrailerPrefix+"X-Late", "b")
	})
	res := w.pay(http.MethodGet, "/paid/x")
	w.expect(res, 200, "")
	if res.Trailer.Get("X-Announced") != "a" || res.Trailer.Get("X-Late") != "b" {
		t.Errorf("trailers %v", res.Trailer)
	}
}

// An upgrade settles first: 101 is goods.
func TestUpgrade(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01 {\n settle on_success\n}")
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		conn, brw, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(brw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = brw.Flush()
		_, _ = io.Copy(conn, brw)
	})
	dial := func(header string) (net.Conn, *bufio.Reader, *http.Response) {
		t.Helper()
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.gate, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "GET /paid/x HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: echo\r\n%s\r\n", strings.TrimPrefix(w.gate, "http://"), header)
		in := bufio.NewReader(conn)
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		return conn, in, res
	}
	conn, _, res := dial("")
	conn.Close()
	if res.StatusCode != 402 || w.up.hits.Load() != 0 {
		t.Fatalf("unpaid upgrade: %d, %d hits", res.StatusCode, w.up.hits.Load())
	}
	c, err := x402.DecodeChallenge(res.Header.Get("PAYMENT-REQUIRED"))
	if err != nil || !strings.Contains(string(c.Accepts[0].Extra), `"paymentFlow":"upfront"`) {
		t.Fatalf("%v %+v", err, c)
	}

	w.fac.onSettle(says(200, `{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}`))
	s := newPayer(t).sign(t, c.Accepts[0], time.Now()).v2(t)
	conn, _, res = dial("PAYMENT-SIGNATURE: " + s + "\r\n")
	conn.Close()
	if res.StatusCode != 402 || w.up.hits.Load() != 0 {
		t.Fatalf("upgrade with failed settlement: %d, %d hits", res.StatusCode, w.up.hits.Load())
	}

	w.fac.settle.Store(nil)
	conn, in, res := dial("PAYMENT-SIGNATURE: " + s + "\r\n")
	defer conn.Close()
	if res.StatusCode != 101 || res.Header.Get("PAYMENT-RESPONSE") == "" {
		t.Fatalf("paid upgrade: %d %v", res.StatusCode, res.Header)
	}
	fmt.Fprint(conn, "hello\n")
	if line, err := in.ReadString('\n'); err != nil || line != "hello\n" {
		t.Fatalf("tunnel: %q %v", line, err)
	}
	conn.Close()
	w.until(func() bool {
		return w.get("/paid/x", "Connection", "Upgrade", "Upgrade", "echo", "PAYMENT-SIGNATURE", s).StatusCode == 402
	})
	if w.fac.transfers() != 1 {
		t.Error(w.fac.transfers())
	}
}

// A payer who hangs up: what was not settled is not charged, what was settled
// is recorded and can be fetched.
func TestPayerHangsUp(t *testing.T) {
	for name, tc := range map[string]struct {
		settle    string
		during    string
		transfers int
	}{
		"held, during verify":   {"on_success", "verify", 0},
		"held, during upstream": {"on_success", "upstream", 0},
		"held, during settle":   {"on_success", "settle", 1},
		"first, during settle":  {"first", "settle", 1},
		"first, in upstream":    {"first", "upstream", 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "price /paid/* $0.01 {\n settle "+tc.settle+"\n}")
			ctx, hangUp := context.WithCancel(context.Background())
			defer hangUp()
			stage := func(at string) {
				if at == tc.during && ctx.Err() == nil {
					hangUp()
					time.Sleep(100 * time.Millisecond) // let the news travel
				}
			}
			w.fac.onVerify(func(rw http.ResponseWriter, r *http.Request) {
				stage("verify")
				says(200, `{"isValid":true}`)(rw, r)
			})
			w.fac.onSettle(func(rw http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				stage("settle")
				if r.Context().Err() != nil {
					t.Error("the settlement was cut short")
				}
				w.fac.move(rw, body)
			})
			w.up.on(func(rw http.ResponseWriter, r *http.Request) {
				stage("upstream")
				_, _ = rw.Write([]byte(sample))
			})
			s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
			res := w.do(w.request(http.MethodGet, "/paid/x", "PAYMENT-SIGNATURE", s).WithContext(ctx))
			if !errors.Is(res.err, context.Canceled) {
				t.Fatalf("the request ended otherwise: %v", res.err)
			}
			time.Sleep(200 * time.Millisecond)
			if got := w.fac.transfers(); got != tc.transfers {
				t.Errorf("%d transfers, want %d", got, tc.transfers)
			}
			// Coming back with the same payment brings the goods, once.
			w.until(func() bool { return w.get("/paid/x", "PAYMENT-SIGNATURE", s).StatusCode == 200 })
			if got := w.fac.transfers(); got != 1 {
				t.Errorf("%d transfers in the end", got)
			}
			w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", s), 402, "payment_already_used")
		})
	}
}

// A reload does not wait for requests, cancels the old config's context and
// cleans its modules up; a purchase under way does not notice.
func TestReloadDuringPurchase(t *testing.T) {
	for _, during := range []string{"verify", "upstream", "settle"} {
		t.Run(during, func(t *testing.T) {
			w := newWorld(t, "price /paid/* $0.01")
			caddyfile := w.caddyfile("price /paid/* $0.02\nprice /new $0.01")
			reload := func(at string) {
				if at == during {
					w.load(caddyfile)
				}
			}
			w.fac.onVerify(func(rw http.ResponseWriter, r *http.Request) {
				reload("verify")
				says(200, `{"isValid":true}`)(rw, r)
			})
			w.fac.onSettle(func(rw http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				reload("settle")
				w.fac.move(rw, body)
			})
			w.up.on(func(rw http.ResponseWriter, r *http.Request) {
				reload("upstream")
				_, _ = rw.Write([]byte(sample))
			})
			s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
			res := w.get("/paid/x", "PAYMENT-SIGNATURE", s)
			w.expect(res, 200, "")
			if res.body != sample || w.fac.transfers() != 1 {
				t.Fatalf("%q, %d transfers", res.body, w.fac.transfers())
			}
			// The ledger survived: the payment is used under the new config too.
			res = w.get("/paid/x", "PAYMENT-SIGNATURE", s)
			w.expect(res, 402, "payment_already_used")
			if c := w.challenge(http.MethodGet, "/paid/x"); c.Accepts[0].Amount != "20000" {
				t.Error("the new price is not in force")
			}
		})
	}
}

// Two blocks: the second one prices what the first let through, and refuses
// what the first has charged.
func TestTwoBlocks(t *testing.T) {
	w := newWorld(t, "price /a/* $0.01", `
		route {
			paywall {
				accept base-sepolia usdc `+payTo+`
				facilitator fake
				price /a/* $0.01
				price /b/* $0.02
			}
		}`)
	// route comes after paywall, so the block in it is the second one.
	if c := w.challenge(http.MethodGet, "/b/x"); c.Accepts[0].Amount != "20000" {
		t.Fatalf("%+v", c.Accepts)
	}
	w.expect(w.pay(http.MethodGet, "/b/x"), 200, "")
	res := w.pay(http.MethodGet, "/a/x")
	w.expect(res, 500, "priced_twice")
	w.counts(1, 2, 1)
}

// An upstream that speaks x402 itself, or forges our headers.
func TestUpstreamSpeaksX402(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01\n price POST /first $0.01")
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("PAYMENT-RESPONSE", "forged")
		rw.Header().Set("X-PAYMENT-RESPONSE", "forged")
		rw.Header().Set("PAYMENT-REQUIRED", "forged")
		rw.Header().Set("Settlement-Overrides", `{"amount":"0"}`)
		if r.Method == http.MethodPost {
			rw.WriteHeader(402)
		}
		_, _ = rw.Write([]byte(sample))
	})
	res := w.pay(http.MethodGet, "/paid/x")
	w.expect(res, 200, "")
	if !receiptOf(t, res).Success || strings.Contains(fmt.Sprint(res.Header), "forged") || res.Header.Get("Settlement-Overrides") != "" {
		t.Errorf("%v", res.Header)
	}
	// Money has moved: no 402, whatever the upstream says.
	res = w.pay(http.MethodPost, "/first")
	w.expect(res, 502, "upstream_wants_payment")
	if !receiptOf(t, res).Success {
		t.Error("no receipt")
	}
}

func TestPaidAnswersStayPrivate(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Cache-Control", "public, max-age=60, s-maxage=600")
		rw.Header().Set("Surrogate-Control", "max-age=600")
		rw.Header().Set("CDN-Cache-Control", "max-age=600")
		_, _ = rw.Write([]byte(sample))
	})
	res := w.pay(http.MethodGet, "/paid/x")
	if got := res.Header.Get("Cache-Control"); got != "private, max-age=60" {
		t.Errorf("Cache-Control %q", got)
	}
	if res.Header.Get("Surrogate-Control") != "" || res.Header.Get("CDN-Cache-Control") != "" {
		t.Errorf("%v", res.Header)
	}
}

// Payment headers that nobody can understand get a fresh challenge and a
// reason, never a 5xx, and nobody is asked about them.
func TestBadPayments(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	good := w.sign(http.MethodGet, "/paid/x", newPayer(t))
	v2, v1 := good.v2(t), good.v1(t)
	for name, tc := range map[string]struct {
		headers []string
		code    string
	}{
		"not base64":           {[]string{"PAYMENT-SIGNATURE", "%%%"}, "payment_malformed"},
		"not JSON":             {[]string{"PAYMENT-SIGNATURE", "aGVsbG8="}, "payment_malformed"},
		"null":                 {[]string{"PAYMENT-SIGNATURE", "bnVsbA=="}, "payment_malformed"},
		"empty":                {[]string{"PAYMENT-SIGNATURE", ""}, "payment_malformed"},
		"raw JSON":             {[]string{"PAYMENT-SIGNATURE", `{"x402Version":2}`}, "payment_malformed"},
		"too large":            {[]string{"PAYMENT-SIGNATURE", strings.Repeat("A", 17<<10)}, "payment_too_large"},
		"two":                  {[]string{"PAYMENT-SIGNATURE", v2, "PAYMENT-SIGNATURE", v2}, "ambiguous_payment"},
		"both versions":        {[]string{"PAYMENT-SIGNATURE", v2, "X-PAYMENT", v1}, "ambiguous_payment"},
		"list":                 {[]string{"PAYMENT-SIGNATURE", v2 + ", " + v2}, "ambiguous_payment"},
		"v1 in the v2 header":  {[]string{"PAYMENT-SIGNATURE", v1}, "unsupported_version"},
		"v2 in the v1 header":  {[]string{"X-PAYMENT", v2}, "unsupported_version"},
		"other payee":          {[]string{"PAYMENT-SIGNATURE", bent(t, w, "payTo", "0x0000000000000000000000000000000000000001")}, "no_matching_requirements"},
		"other amount":         {[]string{"PAYMENT-SIGNATURE", bent(t, w, "amount", "1")}, "no_matching_requirements"},
		"signed payee differs": {[]string{"PAYMENT-SIGNATURE", signedAs(t, w, "to", "0x0000000000000000000000000000000000000001")}, "invalid_exact_evm_recipient_mismatch"},
		"signed value less":    {[]string{"PAYMENT-SIGNATURE", signedAs(t, w, "value", "9999")}, "invalid_exact_evm_payload_authorization_value_mismatch"},
		"signed value more":    {[]string{"PAYMENT-SIGNATURE", signedAs(t, w, "value", "10001")}, "invalid_exact_evm_payload_authorization_value_mismatch"},
		"expired":              {[]string{"PAYMENT-SIGNATURE", signedAs(t, w, "validBefore", "1000")}, "invalid_exact_evm_payload_authorization_valid_before"},
		"not yet":              {[]string{"PAYMENT-SIGNATURE", signedAs(t, w, "validAfter", fmt.Sprint(time.Now().Unix()+60))}, "invalid_exact_evm_payload_authorization_valid_after"},
		"lives for ever":       {[]string{"PAYMENT-SIGNATURE", signedAs(t, w, "validBefore", "99999999999")}, "authorization_lifetime_too_long"},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			r := w.request(http.MethodGet, "/paid/x")
			for i := 0; i < len(tc.headers); i += 2 {
				r.Header.Add(tc.headers[i], tc.headers[i+1])
			}
			res := w.do(r)
			w.expect(res, 402, tc.code)
			c, err := x402.DecodeChallenge(res.Header.Get("PAYMENT-REQUIRED"))
			if err != nil || len(c.Accepts) != 1 {
				t.Errorf("no complete challenge: %v", err)
			}
			w.counts(0, 0, 0)
		})
	}
	// Where HTTP itself is broken, HTTP says so.
	res := w.get("/paid/x", "PAYMENT-SIGNATURE", strings.Repeat("A", 64<<10))
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("64 kB of header: %d", res.StatusCode)
	}
	w.t = t
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", v2), 200, "")
}

// bent changes a member of the accepted requirement, after signing.
func bent(t *testing.T, w *world, member, value string) string {
	t.Helper()
	s := w.sign(http.MethodGet, "/paid/x", newPayer(t))
	switch member {
	case "payTo":
		s.requirement.PayTo = value
	case "amount":
		s.requirement.Amount = value
	}
	return s.v2(t)
}

// signedAs changes a member of what is signed.
func signedAs(t *testing.T, w *world, member, value string) string {
	t.Helper()
	p := newPayer(t)
	c := w.challenge(http.MethodGet, "/paid/x")
	good := p.sign(t, c.Accepts[0], time.Now())
	good.authorization[member] = value
	return p.signWith(t, c.Accepts[0], good.authorization).v2(t)
}

// Payments and secrets do not reach the log, even at debug level.
func TestPaymentsAreNotLogged(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	s := w.sign(http.MethodGet, "/paid/x", newPayer(t))
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", s.v2(t)), 200, "")
	var log []byte
	w.until(func() bool { // the line comes after the answer
		log, _ = os.ReadFile(w.log)
		return strings.Contains(string(log), `"outcome":"delivered"`)
	})
	if strings.Contains(string(log), s.signature) || strings.Contains(string(log), s.v2(t)) {
		t.Errorf("the payment is in the log:\n%s", log)
	}
}

func TestUpstreamHeaders(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01 {\n settle first\n}\n upstream_headers")
	p := newPayer(t)
	w.get("/free", "Paywall-Payer", "mallory", "paywall-transaction", "forged")
	r, _ := w.up.seen()
	if r.Header.Get("Paywall-Payer") != "" || r.Header.Get("Paywall-Transaction") != "" {
		t.Errorf("forged headers reach the upstream: %v", r.Header)
	}
	s := w.sign(http.MethodGet, "/paid/x", p).v2(t)
	res := w.get("/paid/x", "PAYMENT-SIGNATURE", s, "Paywall-Payer", "mallory")
	w.expect(res, 200, "")
	r, _ = w.up.seen()
	if got := r.Header.Values("Paywall-Payer"); len(got) != 1 || got[0] != p.address.Hex() || r.Header.Get("Paywall-Transaction") != receiptOf(t, res).Transaction || r.Header.Get("Paywall-Amount") != "10000" {
		t.Errorf("%v", r.Header)
	}
}

func TestCORS(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	preflight := []string{"Origin", "https://app.example", "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "payment-signature,x-own"}
	w.up.on(says(404, "secret"))
	res := w.do(w.request(http.MethodOptions, "/paid/x", preflight...))
	if res.StatusCode != 204 || res.body != "" || res.Header.Get("Access-Control-Allow-Origin") != "*" ||
		!strings.Contains(res.Header.Get("Access-Control-Allow-Headers"), "x-own") ||
		!strings.Contains(res.Header.Get("Access-Control-Allow-Headers"), "PAYMENT-SIGNATURE") {
		t.Errorf("%d %q %v", res.StatusCode, res.body, res.Header)
	}
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Access-Control-Allow-Origin", "https://app.example")
		rw.Header().Set("Access-Control-Allow-Headers", "X-Own")
		rw.Header().Set("Access-Control-Expose-Headers", "X-Own")
		rw.Header().Set("Set-Cookie", "secret=1")
		_, _ = rw.Write([]byte("secret"))
	})
	res = w.do(w.request(http.MethodOptions, "/paid/x", preflight...))
	if res.StatusCode != 200 || res.body != "" || res.Header.Get("Access-Control-Allow-Origin") != "https://app.example" || res.Header.Get("Set-Cookie") != "" {
		t.Errorf("%d %q %v", res.StatusCode, res.body, res.Header)
	}
	// The challenge and the paid answer can be read too; nothing is doubled.
	res = w.get("/paid/x", "Origin", "https://app.example")
	if res.StatusCode != 402 || res.Header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(res.Header.Get("Access-Control-Expose-Headers"), "PAYMENT-REQUIRED") {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	s := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
	res = w.get("/paid/x", "PAYMENT-SIGNATURE", s, "Origin", "https://app.example")
	if got := res.Header.Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != "https://app.example" {
		t.Errorf("%v", got)
	}
	if got := res.Header.Get("Access-Control-Expose-Headers"); got != "X-Own, "+"PAYMENT-REQUIRED, PAYMENT-RESPONSE, X-PAYMENT-RESPONSE" {
		t.Errorf("%q", got)
	}
	// An OPTIONS that is no preflight costs what the price says.
	if res := w.do(w.request(http.MethodOptions, "/paid/x")); res.StatusCode != 402 {
		t.Errorf("OPTIONS: %d", res.StatusCode)
	}
	// With `cors off` a preflight is a request like any other.
	w = newWorld(t, "price /paid/* $0.01\n cors off")
	if res := w.do(w.request(http.MethodOptions, "/paid/x", preflight...)); res.StatusCode != 402 || res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
}

// until repeats until something is so; a test that cannot get there fails.
func (w *world) until(so func() bool) {
	w.t.Helper()
	for range 200 {
		if so() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.t.Fatal("it did not come to be")
}
