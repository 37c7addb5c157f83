package promises

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// A stream flows while it is made, with its receipt in front.
func TestStreamFlows(t *testing.T) {
	for _, settle := range []string{"first", "on_success"} {
		t.Run(settle, func(t *testing.T) {
			w := gate.New(t, "price /paid/* $0.01 {\n settle "+settle+"\n}")
			next := make(chan struct{})
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Content-Type", "text/event-stream")
				for i := range 3 {
					_, _ = fmt.Fprintf(rw, "data: %d\n\n", i)
					_ = http.NewResponseController(rw).Flush()
					<-next
				}
			})
			s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
			res, err := w.HTTP.Do(w.Request(http.MethodGet, "/paid/x", "PAYMENT-SIGNATURE", s))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if !gate.ReceiptOf(t, gate.Answer{Response: res}).Success {
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
func TestInformationalAnswersPassWhenPaid(t *testing.T) {
	forged := []string{"Payment-Response", "X-Payment-Response", "Payment-Required", "Settlement-Overrides"}
	for settle, want := range map[string]int{"first": 1, "on_success": 0} {
		t.Run(settle, func(t *testing.T) {
			w := gate.New(t, "price /paid/* $0.01 {\n settle "+settle+"\n}")
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Link", "</x.css>")
				for _, name := range forged {
					rw.Header().Set(name, "forged")
				}
				rw.WriteHeader(http.StatusEarlyHints)
				rw.Header().Del("Link")
				_, _ = rw.Write([]byte(gate.Goods))
			})
			s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
			conn, err := net.Dial("tcp", strings.TrimPrefix(w.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "GET /paid/x HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", strings.TrimPrefix(w.URL, "http://"), s)
			raw, err := io.ReadAll(conn)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Count(string(raw), "HTTP/1.1 103"); got != want {
				t.Errorf("%d early hints, want %d in\n%s", got, want, raw)
			}
			if got := strings.Count(string(raw), "</x.css>"); got != want {
				t.Errorf("%d links, want %d in\n%s", got, want, raw)
			}
			if strings.Contains(string(raw), "forged") || strings.Contains(string(raw), "Settlement-Overrides") {
				t.Errorf("receipts of the upstream in\n%s", raw)
			}
			if !strings.Contains(string(raw), "HTTP/1.1 200") || !strings.HasSuffix(strings.TrimSpace(string(raw)), gate.Goods) && !strings.Contains(string(raw), gate.Goods) {
				t.Errorf("%s", raw)
			}
		})
	}
}

// Trailers, announced and not, survive.
func TestTrailersSurvive(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Trailer", "X-Announced")
		_, _ = rw.Write([]byte(gate.Goods))
		rw.Header().Set("X-Announced", "a")
		rw.Header().Set(http.TrailerPrefix+"X-Late", "b")
	})
	res := w.Pay(http.MethodGet, "/paid/x")
	w.Expect(res, 200, "")
	if res.Trailer.Get("X-Announced") != "a" || res.Trailer.Get("X-Late") != "b" {
		t.Errorf("trailers %v", res.Trailer)
	}
}

// An upgrade settles first: 101 is goods.
func TestUpgradesSettleFirst(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01 {\n settle on_success\n}")
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
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
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "GET /paid/x HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: echo\r\n%s\r\n", strings.TrimPrefix(w.URL, "http://"), header)
		in := bufio.NewReader(conn)
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		return conn, in, res
	}
	conn, _, res := dial("")
	conn.Close()
	if res.StatusCode != 402 || w.Upstream.Hits.Load() != 0 {
		t.Fatalf("unpaid upgrade: %d, %d hits", res.StatusCode, w.Upstream.Hits.Load())
	}
	c, err := x402.DecodeChallenge(res.Header.Get("Payment-Required"))
	if err != nil || !strings.Contains(string(c.Accepts[0].Extra), `"paymentFlow":"upfront"`) {
		t.Fatalf("%v %+v", err, c)
	}

	w.Facilitator.OnSettle(gate.Says(200, `{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}`))
	s := gate.NewPayer(t).Sign(t, c.Accepts[0], time.Now()).V2(t)
	conn, _, res = dial("PAYMENT-SIGNATURE: " + s + "\r\n")
	conn.Close()
	if res.StatusCode != 402 || w.Upstream.Hits.Load() != 0 {
		t.Fatalf("upgrade with failed settlement: %d, %d hits", res.StatusCode, w.Upstream.Hits.Load())
	}

	w.Facilitator.OnSettle(nil)
	conn, in, res := dial("PAYMENT-SIGNATURE: " + s + "\r\n")
	defer conn.Close()
	if res.StatusCode != 101 || res.Header.Get("Payment-Response") == "" {
		t.Fatalf("paid upgrade: %d %v", res.StatusCode, res.Header)
	}
	fmt.Fprint(conn, "hello\n")
	if line, err := in.ReadString('\n'); err != nil || line != "hello\n" {
		t.Fatalf("tunnel: %q %v", line, err)
	}
	conn.Close()
	w.Until(func() bool {
		return w.Get("/paid/x", "Connection", "Upgrade", "Upgrade", "echo", "PAYMENT-SIGNATURE", s).StatusCode == 402
	})
	if w.Facilitator.Transfers() != 1 {
		t.Error(w.Facilitator.Transfers())
	}
}

// An upstream that speaks x402 itself, or forges our headers.
func TestUpstreamDoesNotSpeakForTheGate(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01\n price POST /first $0.01")
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Payment-Response", "forged")
		rw.Header().Set("X-Payment-Response", "forged")
		rw.Header().Set("Payment-Required", "forged")
		rw.Header().Set("Settlement-Overrides", `{"amount":"0"}`)
		if r.Method == http.MethodPost {
			rw.WriteHeader(402)
		}
		_, _ = rw.Write([]byte(gate.Goods))
	})
	res := w.Pay(http.MethodGet, "/paid/x")
	w.Expect(res, 200, "")
	if !gate.ReceiptOf(t, res).Success || strings.Contains(fmt.Sprint(res.Header), "forged") || res.Header.Get("Settlement-Overrides") != "" {
		t.Errorf("%v", res.Header)
	}
	// Money has moved: no 402, whatever the upstream says.
	res = w.Pay(http.MethodPost, "/first")
	w.Expect(res, 502, "upstream_wants_payment")
	if !gate.ReceiptOf(t, res).Success {
		t.Error("no receipt")
	}
}

func TestPaidAnswersStayPrivate(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Cache-Control", "public, max-age=60, s-maxage=600")
		rw.Header().Set("Surrogate-Control", "max-age=600")
		rw.Header().Set("CDN-Cache-Control", "max-age=600")
		_, _ = rw.Write([]byte(gate.Goods))
	})
	res := w.Pay(http.MethodGet, "/paid/x")
	if got := res.Header.Get("Cache-Control"); got != "private, max-age=60" {
		t.Errorf("Cache-Control %q", got)
	}
	if res.Header.Get("Surrogate-Control") != "" || res.Header.Get("CDN-Cache-Control") != "" {
		t.Errorf("%v", res.Header)
	}
}

func TestUpstreamHeaders(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01 {\n settle first\n}\n upstream_headers")
	p := gate.NewPayer(t)
	w.Get("/free", "Paywall-Payer", "mallory", "paywall-transaction", "forged")
	r, _ := w.Upstream.Seen()
	if r.Header.Get("Paywall-Payer") != "" || r.Header.Get("Paywall-Transaction") != "" {
		t.Errorf("forged headers reach the upstream: %v", r.Header)
	}
	s := w.Sign(http.MethodGet, "/paid/x", p).V2(t)
	res := w.Get("/paid/x", "PAYMENT-SIGNATURE", s, "Paywall-Payer", "mallory")
	w.Expect(res, 200, "")
	r, _ = w.Upstream.Seen()
	if got := r.Header.Values("Paywall-Payer"); len(got) != 1 || got[0] != p.Address.Hex() || r.Header.Get("Paywall-Transaction") != gate.ReceiptOf(t, res).Transaction || r.Header.Get("Paywall-Amount") != "10000" {
		t.Errorf("%v", r.Header)
	}
}

func TestBrowsersOfOtherOriginsSeeTheChallenge(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01\n cors upstream")
	preflight := []string{"Origin", "https://app.example", "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "payment-signature,x-own"}
	w.Upstream.On(gate.Says(404, "secret"))
	res := w.Do(w.Request(http.MethodOptions, "/paid/x", preflight...))
	if res.StatusCode != 204 || res.Text != "" || res.Header.Get("Access-Control-Allow-Origin") != "*" ||
		!strings.Contains(res.Header.Get("Access-Control-Allow-Headers"), "x-own") ||
		!strings.Contains(res.Header.Get("Access-Control-Allow-Headers"), "PAYMENT-SIGNATURE") {
		t.Errorf("%d %q %v", res.StatusCode, res.Text, res.Header)
	}
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Access-Control-Allow-Origin", "https://app.example")
		rw.Header().Set("Access-Control-Allow-Headers", "X-Own")
		rw.Header().Set("Access-Control-Expose-Headers", "X-Own")
		rw.Header().Set("Set-Cookie", "secret=1")
		_, _ = rw.Write([]byte("secret"))
	})
	res = w.Do(w.Request(http.MethodOptions, "/paid/x", preflight...))
	if res.StatusCode != 200 || res.Text != "" || res.Header.Get("Access-Control-Allow-Origin") != "https://app.example" || res.Header.Get("Set-Cookie") != "" {
		t.Errorf("%d %q %v", res.StatusCode, res.Text, res.Header)
	}
	// The challenge and the paid answer can be read too; nothing is doubled.
	res = w.Get("/paid/x", "Origin", "https://app.example")
	if res.StatusCode != 402 || res.Header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(res.Header.Get("Access-Control-Expose-Headers"), "PAYMENT-REQUIRED") {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	res = w.Get("/paid/x", "PAYMENT-SIGNATURE", s, "Origin", "https://app.example")
	if got := res.Header.Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != "https://app.example" {
		t.Errorf("%v", got)
	}
	if got := res.Header.Get("Access-Control-Expose-Headers"); got != "X-Own, "+"PAYMENT-REQUIRED, PAYMENT-RESPONSE, X-PAYMENT-RESPONSE" {
		t.Errorf("%q", got)
	}
	// An OPTIONS that is no preflight costs what the price says.
	if res := w.Do(w.Request(http.MethodOptions, "/paid/x")); res.StatusCode != 402 {
		t.Errorf("OPTIONS: %d", res.StatusCode)
	}
	// With `cors off` a preflight is a request like any other.
	w = gate.New(t, "price /paid/* $0.01\n cors off")
	if res := w.Do(w.Request(http.MethodOptions, "/paid/x", preflight...)); res.StatusCode != 402 || res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
}

// A preflight asks for one method. A list of them, however long, is none.
func TestListOfMethodsIsNoPreflight(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	for method, want := range map[string]int{"PUT": 204, "PUT,DELETE": 402, strings.Repeat("A", 41): 402} {
		res := w.Do(w.Request(http.MethodOptions, "/paid/x", "Origin", "https://shop.example", "Access-Control-Request-Method", method))
		if res.StatusCode != want || strings.Contains(res.Header.Get("Access-Control-Allow-Methods"), ",DELETE") {
			t.Errorf("%s: %d", method, res.StatusCode)
		}
	}
}
