package promises

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// Upto by the byte: what its payer ends himself is delivered, and buys no other part
// at the charge of the first.
func TestUptoPartEndedByItsPayerIsDelivered(t *testing.T) {
	w, b := newUptoWorld(t, "price /export upto $0.50")
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		var from, to int
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); err != nil {
			rw.Header().Set("Settlement-Overrides", amountOf(maximum))
			return
		}
		n := to - from + 1
		rw.Header().Set("Settlement-Overrides", amountOf(fmt.Sprint(n)))
		rw.Header().Set("Content-Length", fmt.Sprint(n))
		rw.WriteHeader(206)
		_, _ = io.WriteString(rw, strings.Repeat(string(rune('a'+from/1000)), n-1))
		_ = http.NewResponseController(rw).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-time.After(300 * time.Millisecond):
		}
		_, _ = io.WriteString(rw, "!")
	})
	p := gate.NewPayer(t)
	payment := w.PermitFor(http.MethodGet, "/export", p).V2(t)
	parts := ""
	for i := range 5 {
		var text string
		w.Until(func() bool {
			conn, host := w.Dial()
			defer conn.Close()
			fmt.Fprintf(conn, "GET /export HTTP/1.1\r\nHost: %s\r\nRange: bytes=%d-%d\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", host, i*1000, i*1000+999, payment)
			text = ""
			buf := make([]byte, 4096)
			for !strings.Contains(text, strings.Repeat(string(rune('a'+i)), 999)) && !strings.Contains(text, "error") {
				n, err := conn.Read(buf)
				text += string(buf[:n])
				if err != nil {
					break
				}
			}
			return !strings.Contains(text, "payment_in_flight")
		})
		if !strings.Contains(text, strings.Repeat(string(rune('a'+i)), 999)) {
			t.Logf("%d: %.80s", i, text)
			break
		}
		parts += string(rune('a' + i))
	}
	if len(parts) > 1 {
		t.Errorf("parts %q of 999 bytes each at one unit a byte, charged %v", parts, b.Amounts())
	}
}

// Same and fresh payments, hang-ups, HEAD and GET and POST at once, reloads in the
// middle: never more goods or acts than money.
func TestNobodyGetsMoreThanWasPaidFor(t *testing.T) {
	for name, price := range map[string]string{
		"POST first": "price POST /x/* $0.01", "POST on_success": "price POST /x/* $0.01 {\n settle on_success\n}",
		"GET": "price GET /x/* $0.01", "GET first": "price GET /x/* $0.01 {\n settle first\n}",
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.New(t, price)
			method, _, _ := strings.Cut(name, " ")
			var mu sync.Mutex
			acts := map[string]int{}
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
				_ = body
				mu.Lock()
				acts[r.URL.Path]++
				mu.Unlock()
				rw.Header().Set("Content-Length", "5000")
				for range 5 {
					_, _ = io.WriteString(rw, strings.Repeat("x", 1000))
					_ = http.NewResponseController(rw).Flush()
					time.Sleep(2 * time.Millisecond)
				}
			})
			w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
				body := gate.Body(r)
				time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
				w.Facilitator.Move(rw, body)
			})
			asked := w.Challenge(method, "/x/0").Accepts[0]
			var good atomic.Int64
			var all sync.WaitGroup
			for i := range 6 {
				path := fmt.Sprintf("/x/%d", i)
				p := gate.NewPayer(t)
				w.Challenge(method, path)
				shared := p.Sign(t, asked, time.Now()).V2(t)
				for j := range 4 {
					all.Go(func() {
						for range 8 {
							payment := shared
							if j%2 == 0 {
								payment = p.Sign(t, asked, time.Now()).V2(t)
							}
							ctx, cancel := context.WithTimeout(context.Background(), time.Duration(5+rand.IntN(150))*time.Millisecond)
							r, _ := http.NewRequestWithContext(ctx, method, w.URL+path, nil)
							if method == "POST" {
								r, _ = http.NewRequestWithContext(ctx, method, w.URL+path, strings.NewReader("the order"))
							}
							r.Header.Set("PAYMENT-SIGNATURE", payment)
							if res := w.Do(r); res.Err == nil && res.StatusCode == 200 && len(res.Text) == 5000 {
								good.Add(1)
							}
							cancel()
						}
					})
				}
			}
			all.Wait()
			time.Sleep(300 * time.Millisecond)
			runs := 0
			mu.Lock()
			defer mu.Unlock()
			for _, n := range acts {
				runs += n
			}
			t.Logf("%d whole answers, %d runs, %d transfers", good.Load(), runs, w.Facilitator.Transfers())
			if good.Load() > int64(w.Facilitator.Transfers()) {
				t.Errorf("more whole answers than transfers")
			}
			if name == "POST first" && runs > w.Facilitator.Transfers() {
				t.Errorf("more acts than transfers")
			}
		})
	}
}
