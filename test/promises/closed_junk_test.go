package promises

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// Junk does not reach the ledger, and no facilitator where we can judge it; of
// what only a facilitator can judge a bounded number reaches one. Meanwhile
// those who pay are served.
func TestJunkIsCheap(t *testing.T) {
	const n = 1500
	for name, tc := range map[string]struct {
		junk  func(m *mold, i int) string
		asked func(d time.Duration) int64 // at most, for junk that lasted d
	}{
		"garbage": {
			func(_ *mold, i int) string {
				b := fmt.Appendf(nil, `{"x402Version":%d,"accepted":%s"payload":{}`, i%4, strings.Repeat("[", i%40))
				return base64.StdEncoding.EncodeToString(b)[:4+i%20]
			},
			func(time.Duration) int64 { return 0 },
		},
		"another price": {
			func(m *mold, i int) string {
				return m.bend(i, func(s *gate.Payment) { s.Authorization["value"] = fmt.Sprint(i) })
			},
			func(time.Duration) int64 { return 0 },
		},
		"the signature of somebody else": { // or of a contract wallet
			func(m *mold, i int) string {
				return m.bend(i, func(s *gate.Payment) { s.Signature = s.Signature[:20] + fmt.Sprintf("%06x", i) + s.Signature[26:] })
			},
			func(d time.Duration) int64 {
				return admission.StrangersAtOnce + int64((d.Seconds()+1)*admission.StrangersPerSecond)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			gate.ForgetPayers()
			w := gate.Prepare(t)
			m := &mold{w: w}
			s := w.WithLedger()
			w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01")))
			w.Facilitator.OnVerify(func(rw http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if m.made(nonceOf(body)) {
					gate.Says(200, `{"isValid":false,"invalidReason":"invalid_exact_evm_signature"}`)(rw, r)
					return
				}
				gate.Says(200, `{"isValid":true}`)(rw, r)
			})
			customer := gate.NewPayer(t)
			buy := func(p *gate.Payer) {
				w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/x", p).V2(t)), 200, "")
			}
			buy(customer)
			headers := make([]string, n)
			for i := range headers {
				headers[i] = tc.junk(m, i)
			}
			verified, claims := w.Facilitator.Verified.Load(), s.Claims.Load()
			start := time.Now()
			var all sync.WaitGroup
			for part := range 8 {
				all.Go(func() {
					for i := part; i < n; i += 8 {
						res := w.Get("/paid/x", "PAYMENT-SIGNATURE", headers[i])
						if res.Err != nil || res.StatusCode != 402 && res.StatusCode != 429 && res.StatusCode != 503 {
							t.Errorf("%v %v", res.Response, res.Err)
						}
					}
				})
			}
			bought := int64(0)
			for range 5 {
				buy(customer)
				buy(gate.NewPayer(t))
				bought += 2
			}
			all.Wait()
			most := tc.asked(time.Since(start))
			asked, held := w.Facilitator.Verified.Load()-verified-bought, s.Claims.Load()-claims-bought
			if asked > most || held > most+8 { // some see the last try before one of them takes it
				t.Errorf("%d bits of junk: the facilitator was asked %d times, the ledger %d times; at most %d", n, asked, held, most)
			}
			if most > 0 && asked == 0 {
				t.Error("nobody judged what only a facilitator can")
			}
			if got := w.Upstream.Hits.Load(); got != bought+1 {
				t.Errorf("%d runs of the upstream for %d purchases", got, bought+1)
			}
		})
	}
}

// mold makes junk payments out of one good one: signing takes longer than being
// refused.
type mold struct {
	w    *gate.World
	good *gate.Payment

	mu     sync.Mutex
	nonces map[string]bool
}

// bend makes the i-th.
func (m *mold) bend(i int, how func(*gate.Payment)) string {
	m.w.T.Helper()
	if m.good == nil {
		m.good, m.nonces = m.w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(m.w.T)), map[string]bool{}
	}
	nonce := fmt.Sprintf("0x%064x", i+1)
	authorization := maps.Clone(m.good.Authorization)
	authorization["nonce"] = nonce
	m.mu.Lock()
	m.nonces[nonce] = true
	m.mu.Unlock()
	s := &gate.Payment{Requirement: m.good.Requirement, Authorization: authorization, Signature: m.good.Signature}
	how(s)
	return s.V2(m.w.T)
}

// made says whether a nonce is of a payment that it has made.
func (m *mold) made(nonce string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.nonces[nonce]
}

// Wallets are free, so a correct signature with nothing behind it costs a
// facilitator only so many calls from one network. Whoever has paid goes on.
func TestEmptyWalletsAreOnTrial(t *testing.T) {
	gate.ForgetPayers()
	t.Cleanup(gate.ForgetPayers)
	w := gate.New(t, "price /paid/* $0.01")
	customer := gate.NewPayer(t)
	pay := func(p *gate.Payer) gate.Answer {
		return w.Get("/paid/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/x", p).V2(t))
	}
	var at atomic.Int64 // the clock stands, so no try comes back
	at.Store(time.Now().UnixNano())
	for _, g := range gate.Handlers(t) {
		g.ForTest().Now = func() time.Time { return time.Unix(0, at.Load()) }
	}
	w.Expect(pay(customer), 200, "")
	empty := gate.Says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`)
	w.Facilitator.OnVerify(empty)
	before := w.Facilitator.Verified.Load()
	limited := 0
	for range admission.TriesAtOnce + 20 {
		if res := pay(gate.NewPayer(t)); res.StatusCode == 429 {
			w.ExpectBusy(res, 429, "too_many_bad_payments")
			limited++
		} else {
			w.Expect(res, 402, "insufficient_funds")
		}
	}
	if asked := w.Facilitator.Verified.Load() - before; asked != admission.TriesAtOnce || limited != 20 {
		t.Errorf("asked %d times, %d limited", asked, limited)
	}
	w.Facilitator.OnVerify(nil)
	w.Expect(pay(customer), 200, "")
	w.Expect(pay(gate.NewPayer(t)), 429, "too_many_bad_payments")
	at.Add(int64(time.Second))               // tries come back
	for range 2 * admission.TriesPerSecond { // and the good ones are not used up
		w.Expect(pay(gate.NewPayer(t)), 200, "")
	}

	// A customer whose payment is refused is one no longer.
	w.Facilitator.OnVerify(empty)
	w.Expect(pay(customer), 402, "insufficient_funds")
	for range admission.TriesPerSecond {
		w.Expect(pay(gate.NewPayer(t)), 402, "insufficient_funds")
	}
	w.Expect(pay(customer), 429, "too_many_bad_payments")
}

// A payment header is bounded before it is decoded, however long Caddy lets
// headers be.
func TestLongPaymentHeaderIsRefused(t *testing.T) {
	w := gate.Prepare(t)
	w.Load(strings.Replace(w.Caddyfile("price /paid/* $0.01"), "admin off", "admin off\nservers {\nmax_header_size 4MB\n}", 1))
	for _, name := range []string{"PAYMENT-SIGNATURE", "X-PAYMENT"} {
		w.Expect(w.Get("/paid/x", name, strings.Repeat("e30=", 1<<18)), 402, "payment_too_large")
	}
	w.Counts(0, 0, 0)
}

// sendRaw sends raw bytes to the gate.
func sendRaw(w *gate.World, text string) net.Conn {
	w.T.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.URL, "http://"))
	if err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, text); err != nil {
		w.T.Fatal(err)
	}
	return conn
}

func readAnswer(t *testing.T, conn net.Conn) (*http.Response, string) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// The gate does not read bodies: who waits for a 100 Continue is told the price
// instead of being asked for the body.
func TestBodyIsNotAskedFor(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	for _, payment := range []string{"", "Payment-Signature: e30=\r\n"} {
		conn := sendRaw(w, "POST /paid/x HTTP/1.1\r\nHost: "+strings.TrimPrefix(w.URL, "http://")+"\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n"+payment+"\r\n")
		if res, body := readAnswer(t, conn); res.StatusCode != 402 {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	}
	w.Counts(0, 0, 0)
}

// Who sends headers drop by drop has no claim, and who sends a body so has none
// for long, unless it is paid for.
func TestDripsHoldNothing(t *testing.T) {
	w := gate.Prepare(t)
	s := w.WithLedger()
	w.Load(gate.OnLedger(w.Caddyfile("price POST /paid/* $0.01 {\n settle on_success\n}\nprice POST /first/* $0.01")))
	for _, g := range gate.Handlers(t) {
		g.ForTest().UploadGrace = 150 * time.Millisecond
	}
	payment := w.Sign(http.MethodPost, "/paid/x", gate.NewPayer(t)).V2(t)
	head := func(path, payment string) string {
		return "POST " + path + " HTTP/1.1\r\nHost: " + strings.TrimPrefix(w.URL, "http://") + "\r\nContent-Length: 100\r\nPayment-Signature: " + payment + "\r\n"
	}
	drip := func(conn net.Conn, stop <-chan struct{}) {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				if _, err := io.WriteString(conn, "x"); err != nil {
					return
				}
			}
		}
	}
	stop := make(chan struct{})
	defer close(stop)

	headers := sendRaw(w, head("/paid/x", payment))
	go func() { _, _ = io.WriteString(headers, "X-Slow: "); drip(headers, stop) }()
	time.Sleep(100 * time.Millisecond)
	if s.Claims.Load() != 0 || gate.Unsettled() != 0 {
		t.Errorf("%d claims, %d unsettled by half a header", s.Claims.Load(), gate.Unsettled())
	}

	body := sendRaw(w, head("/paid/x", payment)+"\r\n")
	go drip(body, stop)
	res, text := readAnswer(t, body)
	if res.StatusCode != 408 || !strings.Contains(text, "request_body_too_slow") || gate.Unsettled() != 0 || w.Facilitator.Settled.Load() != 0 {
		t.Errorf("%d %s, %d unsettled, %d settles", res.StatusCode, text, gate.Unsettled(), w.Facilitator.Settled.Load())
	}
	// The payment is free again, and buys what it was meant for.
	w.Expect(w.Do(w.Request(http.MethodPost, "/paid/x", "PAYMENT-SIGNATURE", payment)), 200, "")

	// What is paid for may take its time.
	paid := sendRaw(w, head("/first/x", w.Sign(http.MethodPost, "/first/x", gate.NewPayer(t)).V2(t))+"\r\n")
	w.Until(func() bool { return w.Facilitator.Settled.Load() == 2 })
	w.Until(func() bool { return gate.Unsettled() == 0 })
	go drip(paid, stop)
	if res, text := readAnswer(t, paid); res.StatusCode != 200 || text != gate.Goods {
		t.Errorf("%d %s", res.StatusCode, text)
	}
}

// A refusal that cannot be sent, because the server waits for the rest of the
// body first, holds no claim either.
func TestUnreadRefusalHoldsNothing(t *testing.T) {
	w := gate.Prepare(t)
	w.Facilitator.Kinds.Store(twoNetworks)
	s := w.WithLedger()
	long := strings.Repeat("long ", 400) // more than the server keeps in its buffer
	w.Load(gate.OnLedger(w.Caddyfile("accept base-sepolia usdc " + gate.PayTo + "\naccept base usdc " + gate.PayTo + "\nprice POST /paid/* $0.01 \"" + long + "\"")))
	payment := w.Sign(http.MethodPost, "/paid/x", gate.NewPayer(t)).V2(t)
	w.Facilitator.OnVerify(gate.Says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`))
	conn := sendRaw(w, "POST /paid/x HTTP/1.1\r\nHost: "+strings.TrimPrefix(w.URL, "http://")+"\r\nContent-Length: 100\r\nPayment-Signature: "+payment+"\r\n\r\n")
	w.Until(func() bool { return w.Facilitator.Verified.Load() == 1 && s.Claims.Load() == 1 })
	w.Until(func() bool { return gate.Unsettled() == 0 })
	_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Fatalf("the server did not wait for the body: %d bytes", n)
	}
	w.Facilitator.OnVerify(nil)
	w.Expect(w.Do(w.Request(http.MethodPost, "/paid/x", "PAYMENT-SIGNATURE", payment)), 200, "") // it is not held
	_, _ = io.WriteString(conn, strings.Repeat("x", 100))
	if res, text := readAnswer(t, conn); res.StatusCode != 402 {
		t.Errorf("%d %s", res.StatusCode, text)
	}
}

// nonceOf finds the nonce in what a facilitator is asked.
func nonceOf(body []byte) string {
	_, after, _ := strings.Cut(string(body), `"nonce":"`)
	nonce, _, _ := strings.Cut(after, `"`)
	return nonce
}
