package promises

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// With `charge 200` a range of the goods is charged too.
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

// What any client can send is no tunnel: `Upgrade: h2c` makes no GET settle first,
// and a broken body is no tunnel that has ended.
func TestUpgradeOfAnyClientIsNoTunnel(t *testing.T) {
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

// A handler that hijacks without a status line, as the common websocket libraries do,
// opens the tunnel that was paid for.
func TestHijackWithoutAStatusLineIsDelivered(t *testing.T) {
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
			w := gate.New(t, "price /paid/* $0.01")
			stopped := make(chan struct{})
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
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
			w.Facilitator.OnSettle(gate.Says(200, `{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}`))
			res := w.Pay(http.MethodGet, "/paid/x")
			w.Expect(res, 402, "insufficient_funds")
			dump := fmt.Sprint(res.Header, res.Text, res.Trailer)
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

// A redirect that leads away may hand out the goods: a signed URL. Whether it leads
// away the site's own config says, and not the request.
func TestRedirectsThatLeaveAreCharged(t *testing.T) {
	for name, tc := range map[string]struct {
		site, host, location string // PORT is the gate's
		options              string
		charged              bool
	}{
		"another host":                     {"http://www.shop.example:PORT", "www.shop.example", "https://cdn.example/file?signature=secret", "", true},
		"a host that the client names":     {"http://:PORT", "bucket.example", "https://bucket.example/file?signature=secret", "", true},
		"a host of a wildcard":             {"http://*.shop.example:PORT", "cdn.shop.example", "http://cdn.shop.example:PORT/file", "", true},
		"another port":                     {"http://www.shop.example:PORT", "www.shop.example", "https://www.shop.example:9000/file", "", true},
		"a port by the scheme":             {"http://www.shop.example:PORT", "www.shop.example", "https://www.shop.example/file", "", true},
		"a host without a scheme":          {"http://www.shop.example:PORT", "www.shop.example", "//cdn.example/file", "", true},
		"a host after three slashes":       {"http://www.shop.example:PORT", "www.shop.example", "///cdn.example/file", "", true},
		"a host after a backslash":         {"http://www.shop.example:PORT", "www.shop.example", `/\cdn.example/file`, "", true},
		"another scheme without slashes":   {"http://www.shop.example:PORT", "www.shop.example", "magnet:?xt=1", "", true},
		"an address of public_url's host":  {"http://:PORT", "x", "https://shop.example:9000/file", "public_url https://shop.example", true},
		"a path":                           {"http://:PORT", "x", "/login", "", false},
		"a path from here":                 {"http://:PORT", "x", "../login?next=https://cdn.example/", "", false},
		"the site's name and port":         {"http://www.shop.example:PORT", "www.shop.example", "http://www.shop.example:PORT/login", "", false},
		"the site's name, in large":        {"http://www.shop.example:PORT", "www.shop.example", "http://WWW.shop.example:PORT/login", "", false},
		"another of the site's names":      {"http://www.shop.example:PORT http://shop.example:PORT", "www.shop.example", "http://shop.example:PORT/login", "", false},
		"the origin of public_url":         {"http://:PORT", "x", "https://shop.example/login", "public_url https://shop.example", false},
		"public_url's, with its port said": {"http://:PORT", "x", "https://shop.example:443/login", "public_url https://shop.example", false},
		"public_url's, without a scheme":   {"http://:PORT", "x", "//shop.example/login", "public_url https://shop.example", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.Prepare(t)
			address := loopback.FreeAddress(t)
			port := address[strings.LastIndex(address, ":")+1:]
			file := w.Caddyfile("price /downloads/* $0.01\n" + tc.options)
			w.Load(strings.Replace(file, w.URL+" {", strings.ReplaceAll(tc.site, "PORT", port)+" {", 1))
			location := strings.ReplaceAll(tc.location, "PORT", port)
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header()["Location"] = []string{location}
				rw.WriteHeader(http.StatusFound)
			})
			origin := "http://" + address
			pay := gate.NewPayer(t).Sign(t, offerIn(t, askAt(w, origin, tc.host, "/downloads/x")), time.Now()).V2(t)
			res := askAt(w, origin, tc.host, "/downloads/x", "PAYMENT-SIGNATURE", pay)
			if charged := w.Facilitator.Transfers() == 1; charged != tc.charged || res.StatusCode != 302 {
				t.Errorf("%d to %q: charged %v", res.StatusCode, location, charged)
			}
		})
	}
}
