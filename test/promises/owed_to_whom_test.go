package promises

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Tests of who may fetch what was paid for, and how often.

const (
	here      = "198.51.100.7"
	elsewhere = "203.0.113.9"
)

// forgedLike is a payment with a signature of nobody.
func forgedLike(s *gate.Payment) *gate.Payment {
	return &gate.Payment{Requirement: s.Requirement, Authorization: s.Authorization, Signature: "0x" + strings.Repeat("11", 65)}
}

// A payment that has bought something stands on the chain, with its signature. It is
// no word of its payer any more.
func TestUsedPaymentRedeemsNothing(t *testing.T) {
	w := gate.Prepare(t)
	w.Load(gate.BehindProxy(w.Caddyfile("price /paid/* $0.01")))
	victim := gate.NewPayer(t)
	public := w.Sign(http.MethodGet, "/paid/a", victim).V2(t)
	w.Expect(w.Get("/paid/a", "PAYMENT-SIGNATURE", public, "X-Forwarded-For", here), 200, "")
	w.Upstream.On(gate.BreaksOff)
	owed := w.Sign(http.MethodGet, "/paid/b", victim).V2(t)
	_ = w.Get("/paid/b", "PAYMENT-SIGNATURE", owed, "X-Forwarded-For", here)
	w.Upstream.On(nil)

	hits := w.Upstream.Hits.Load()
	for _, payment := range []string{owed, public} {
		for _, from := range []string{elsewhere, here} {
			if payment == owed && from == here {
				continue
			}
			res := w.Again(func() gate.Answer {
				return w.Get("/paid/b", "PAYMENT-SIGNATURE", payment, "X-Forwarded-For", from)
			})
			if res.StatusCode == 200 {
				t.Errorf("from %s: %q", from, res.Text)
			}
		}
	}
	if w.Upstream.Hits.Load() != hits {
		t.Error("the upstream was asked")
	}
	w.Expect(w.Get("/paid/b", "PAYMENT-SIGNATURE", owed, "X-Forwarded-For", here), 200, "")
	if w.Facilitator.Transfers() != 2 {
		t.Error(w.Facilitator.Transfers(), "transfers")
	}
}

// Nor does one that the gate has never seen, if the facilitator says that it is used.
func TestPaymentUsedElsewhereRedeemsNothing(t *testing.T) {
	w := gate.Prepare(t)
	w.Load(gate.BehindProxy(w.Caddyfile("price /paid/* $0.01")))
	victim := gate.NewPayer(t)
	used := w.Sign(http.MethodGet, "/paid/b", victim).V2(t)
	w.Upstream.On(gate.BreaksOff)
	_ = w.Get("/paid/b", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/b", victim).V2(t), "X-Forwarded-For", here)
	w.Upstream.On(nil)
	w.Facilitator.OnVerify(gate.Says(200, `{"isValid":false,"invalidReason":"invalid_exact_evm_nonce_already_used"}`))
	hits := w.Upstream.Hits.Load()
	res := w.Get("/paid/b", "PAYMENT-SIGNATURE", used, "X-Forwarded-For", elsewhere)
	if res.StatusCode != 402 || w.Upstream.Hits.Load() != hits {
		t.Errorf("%d %s", res.StatusCode, res.Text)
	}
}

// The answer to an order is the payer's. Who has one of his old payments does not read
// it, whatever lengths he tries.
func TestKeptAnswerIsThePayers(t *testing.T) {
	w := gate.Prepare(t)
	w.Load(gate.BehindProxy(w.Caddyfile("price POST /chat $0.01")))
	victim := gate.NewPayer(t)
	asked := w.Challenge(http.MethodPost, "/chat").Accepts[0]
	post := func(body, payment, from string, hangUp bool) string {
		conn, host := w.Dial()
		defer conn.Close()
		fmt.Fprintf(conn, "POST /chat HTTP/1.1\r\nHost: %s\r\nX-Forwarded-For: %s\r\nConnection: close\r\nContent-Length: %d\r\nPAYMENT-SIGNATURE: %s\r\n\r\n%s", host, from, len(body), payment, body)
		if hangUp {
			_, _ = conn.Read(make([]byte, 512))
			return ""
		}
		all, _ := io.ReadAll(conn)
		return string(all)
	}
	public := victim.Sign(t, asked, time.Now()).V2(t)
	if res := post(`{"q":"hi"}`, public, here, false); !strings.Contains(res, "200 OK") {
		t.Fatal(res)
	}
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		_, body := w.Upstream.Seen()
		for range 30 {
			_, _ = io.WriteString(rw, "SECRET answer to "+body+"\n"+strings.Repeat("x", 4000))
			_ = http.NewResponseController(rw).Flush()
			time.Sleep(5 * time.Millisecond)
		}
	})
	const order = `{"q":"my medical history"}`
	owed := victim.Sign(t, asked, time.Now())
	post(order, owed.V2(t), here, true)
	for n := range len(order) + 3 {
		for _, payment := range []string{public, owed.V2(t), forgedLike(owed).V2(t)} {
			if res := post(strings.Repeat("?", n), payment, elsewhere, false); strings.Contains(res, "SECRET") {
				t.Fatalf("%d bytes: %.80q", n, res)
			}
		}
	}
	// The payer has it, with the same payment or a fresh one, for the same order.
	hits := w.Upstream.Hits.Load()
	var res string
	w.Until(func() bool {
		res = post(order, victim.Sign(t, asked, time.Now()).V2(t), elsewhere, false)
		return !strings.Contains(res, "payment_in_flight")
	})
	if !strings.Contains(res, "SECRET answer to "+order) || w.Upstream.Hits.Load() != hits || w.Facilitator.Transfers() != 2 {
		t.Errorf("%.200q, %d runs more, %d transfers", res, w.Upstream.Hits.Load()-hits, w.Facilitator.Transfers())
	}
}

// Several users may pay with one wallet. The answer that was kept for one of them is read
// by no other, with a fresh signature or with the same payment; he himself gets it.
func TestKeptAnswerIsTheUsers(t *testing.T) {
	secret := func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(rw, "SECRET of "+r.Header.Get("Authorization"))
		_ = http.NewResponseController(rw).Flush()
		time.Sleep(100 * time.Millisecond)
		_, _ = io.WriteString(rw, strings.Repeat("x", 3000))
	}
	for name, c := range map[string]struct {
		settle string
		buy    func(w *gate.World, payment string)
	}{
		"broken off": {"first", func(w *gate.World, payment string) {
			w.Leaves(http.MethodPost, "/export", payment, "{}", "Authorization", "Bearer alice", "Cookie", "a=1")
		}},
		"in doubt": {"on_success", func(w *gate.World, payment string) {
			w.Facilitator.OnSettle(w.Facilitator.Lost)
			w.Expect(w.SendBody(w.T.Context(), http.MethodPost, "/export", payment, "{}", "Authorization", "Bearer alice", "Cookie", "a=1"), 503, "settlement_pending")
			w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) { w.Facilitator.Move(rw, gate.Body(r)) })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.New(t, "price POST /export $0.01 {\n settle "+c.settle+"\n}")
			w.Upstream.On(secret)
			p := gate.NewPayer(t)
			asked := w.Challenge(http.MethodPost, "/export").Accepts[0]
			bought := p.Sign(t, asked, time.Now()).V2(t)
			c.buy(w, bought)
			fetch := func(payment string, header ...string) (res gate.Answer) {
				w.Until(func() bool {
					res = w.Again(func() gate.Answer {
						return w.SendBody(t.Context(), http.MethodPost, "/export", payment, "{}", header...)
					})
					return !strings.Contains(res.Text, "settlement_pending")
				})
				return res
			}
			for _, payment := range []string{bought, ""} {
				for _, header := range [][]string{
					{},
					{"Authorization", "Bearer bob", "Cookie", "a=1"},
					{"Authorization", "Bearer alice", "Cookie", "a=2"},
					{"Authorization", "Bearer alice"},
					{"Authorization", "Bearer alice", "Cookie", "a=1", "X-Api-Key", "bob"},
					{"Authorization", "Bearer alice", "Cookie", "a=1", "X-Auth-Token", "bob"},
					{"Authorization", "Bearer alice", "Cookie", "a=1", "X-Goog-Api-Key", "bob"},
					{"Authorization", "Bearer alice", "Cookie", "a=1", "Client-Cert", "bob"},
					{"Authorization", "Bearer alice", "Cookie", "a=1", "X-Tenant-Id", "bob"},
					{"Authorization", "Bearer alice", "Cookie", "a=1", "Cf-Access-Jwt-Assertion", "bob"},
					{"Authorization", "Bearer alice", "Cookie", "a=1", "Remote-Email", "bob"},
					{"Authorization", "Bearer alice", "Cookie", "a=1", "From", "bob"},
				} {
					sent := payment
					if sent == "" {
						sent = p.Sign(t, asked, time.Now()).V2(t)
					}
					res := fetch(sent, header...)
					if strings.Contains(res.Text, "SECRET") || res.Header.Get("PAYMENT-RESPONSE") == "" {
						t.Errorf("%v: %.60q", header, res.Text)
					}
					w.Expect(res, 409, "other_credentials")
				}
			}
			res := fetch(p.Sign(t, asked, time.Now()).V2(t), "Authorization", "Bearer alice", "Cookie", "a=1", "User-Agent", "another", "Idempotency-Key", "another")
			if res.StatusCode != 200 || !strings.HasPrefix(res.Text, "SECRET of Bearer alice") || w.Upstream.Hits.Load() != 1 || w.Facilitator.Transfers() != 1 {
				t.Errorf("alice: %d %.60q, %d runs, %d transfers", res.StatusCode, res.Text, w.Upstream.Hits.Load(), w.Facilitator.Transfers())
			}
		})
	}
}

// The nonce of a used payment stands in the token's events. With it alone nobody
// fetches anything, also from the payer's own network.
func TestSameNonceWithoutTheSignatureRedeemsNothing(t *testing.T) {
	w := gate.Prepare(t)
	w.Load(gate.BehindProxy(w.Caddyfile("price /paid/* $0.01 {\n settle first\n}")))
	w.Upstream.On(gate.Says(500, "broken"))
	payment := gate.NewPayer(t).Sign(t, w.Challenge(http.MethodGet, "/paid/x").Accepts[0], time.Now())
	w.Get("/paid/x", "PAYMENT-SIGNATURE", payment.V2(t), "X-Forwarded-For", "2001:db8:1:1::1")
	w.Upstream.On(nil)
	for _, from := range []string{"2001:db8:1:1::1", "2001:db8:1:ffff::9"} {
		w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", forgedLike(payment).V2(t), "X-Forwarded-For", from), 409, "payment_bought_something_else")
	}
	// A neighbour of the same /48 is another customer.
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", payment.V2(t), "X-Forwarded-For", "2001:db8:1:ffff::9"), 409, "payment_bought_something_else")
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", payment.V2(t), "X-Forwarded-For", "2001:db8:1:1::2"), 200, "")
}

// A contract wallet's payment, which only a facilitator can judge, redeems by being
// the same.
func TestContractWalletsPaymentComesAgain(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01 {\n settle first\n}")
	w.Upstream.On(gate.Says(500, "broken"))
	payment := gate.NewPayer(t).Sign(t, w.Challenge(http.MethodGet, "/paid/x").Accepts[0], time.Now())
	payment.Authorization["from"] = gate.NewPayer(t).Address.Hex()
	w.Get("/paid/x", "PAYMENT-SIGNATURE", payment.V2(t))
	w.Upstream.On(nil)
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", forgedLike(payment).V2(t)), 409, "payment_bought_something_else")
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", payment.V2(t)), 200, "")
	if w.Facilitator.Transfers() != 1 {
		t.Error(w.Facilitator.Transfers(), "transfers")
	}
}

// Told to wait for an earlier purchase, a contract wallet finds its own payment free
// when it comes again.
func TestWhoIsToldToWaitMeetsNoClaimOfHisOwn(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	w.Facilitator.OnSettle(gate.Drop)
	asked := w.Challenge(http.MethodGet, "/paid/x").Accepts[0]
	wallet, signer := gate.NewPayer(t), gate.NewPayer(t)
	sign := func() string {
		s := signer.Sign(t, asked, time.Now())
		s.Authorization["from"] = wallet.Address.Hex()
		return s.V2(t)
	}
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", sign()), 503, "settlement_pending")
	second := sign()
	for range 3 {
		res := w.Get("/paid/x", "PAYMENT-SIGNATURE", second)
		if res.StatusCode == 409 {
			t.Fatalf("%d %s", res.StatusCode, res.Text)
		}
	}
}

// Of what costs by use, only what was charged is owed.
func TestUptoRedeemsWhatWasCharged(t *testing.T) {
	t.Run("nothing charged, nothing owed", func(t *testing.T) {
		w, _ := newUptoWorld(t, "price /chat/* upto $0.50")
		w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				rw.Header().Set("Settlement-Overrides", amountOf("0"))
				return
			}
			rw.Header().Set("Settlement-Overrides", amountOf(maximum))
			_, _ = io.WriteString(rw, gate.Goods)
		})
		head := w.PermitFor(http.MethodHead, "/chat/x", gate.NewPayer(t)).V2(t)
		w.PayWith(http.MethodHead, "/chat/x", head)
		if res := w.PayWith(http.MethodGet, "/chat/x", head); res.StatusCode == 200 {
			t.Errorf("%q for nothing", res.Text)
		}
	})
	t.Run("HEAD buys no GET", func(t *testing.T) {
		w, _ := newUptoWorld(t, "price /chat/* upto $0.50")
		w.Upstream.Charges(amountOf("10"))
		p := gate.NewPayer(t)
		w.PayWith(http.MethodHead, "/chat/x", w.PermitFor(http.MethodHead, "/chat/x", p).V2(t))
		settled := w.Facilitator.Settled.Load()
		w.Expect(w.PayWith(http.MethodGet, "/chat/x", w.PermitFor(http.MethodGet, "/chat/x", p).V2(t)), 200, "")
		if w.Facilitator.Settled.Load() != settled+1 {
			t.Error("the GET was not charged")
		}
	})
	t.Run("a little charged buys a little", func(t *testing.T) {
		w, _ := newUptoWorld(t, "price /chat/* upto $0.50")
		w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				rw.Header().Set("Settlement-Overrides", amountOf("1"))
				rw.WriteHeader(206)
				_, _ = io.WriteString(rw, "t")
				_ = http.NewResponseController(rw).Flush()
				panic(http.ErrAbortHandler)
			}
			if r.Header.Get("X-Silent") == "" {
				rw.Header().Set("Settlement-Overrides", amountOf(maximum))
			} // else no word, which means the same
			_, _ = io.WriteString(rw, gate.Goods)
		})
		p := gate.NewPayer(t)
		pay := w.PermitFor(http.MethodGet, "/chat/x", p).V2(t)
		conn, host := w.Dial()
		fmt.Fprintf(conn, "GET /chat/x HTTP/1.1\r\nHost: %s\r\nRange: bytes=0-0\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", host, pay)
		_, _ = io.ReadAll(conn) // it is the upstream that breaks off
		conn.Close()
		res := w.Again(func() gate.Answer { return w.PayWith(http.MethodGet, "/chat/x", pay) })
		w.Expect(res, 409, "usage_above_charge")
		res = w.Again(func() gate.Answer { return w.Get("/chat/x", "PAYMENT-SIGNATURE", pay, "X-Silent", "yes") })
		w.Expect(res, 409, "usage_above_charge")
		// Who signs anew buys it.
		settled := w.Facilitator.Settled.Load()
		w.Expect(w.PayWith(http.MethodGet, "/chat/x", w.PermitFor(http.MethodGet, "/chat/x", p).V2(t)), 200, "")
		if w.Facilitator.Settled.Load() != settled+1 {
			t.Error("not charged")
		}
	})
}

// Who stops before the last byte has had what he came for. Two more tries are his.
func TestWhoEndsAnAnswerHimselfHasTwoMore(t *testing.T) {
	for name, tc := range map[string]struct {
		method, header string
		body           func(i int) string
		answers        int // to one payment
	}{
		"GET":                      {"GET", "", func(int) string { return "" }, 3},
		"GET with a body":          {"GET", "", func(i int) string { return fmt.Sprint("query ", i) }, 1},
		"QUERY with other bodies":  {"QUERY", "", func(i int) string { return fmt.Sprint("query ", i) }, 1},
		"QUERY with the same body": {"QUERY", "", func(int) string { return "query" }, 3},
		"a GET that acts":          {"GET", "X-HTTP-Method-Override: POST\r\n", func(i int) string { return fmt.Sprint("to user ", i) }, 1},
		"a POST that asks for an upgrade": {
			"POST", "Connection: Upgrade\r\nUpgrade: websocket\r\n", func(i int) string { return fmt.Sprint("to user ", i) }, 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.New(t, "price /search $0.05 {\n settle on_success\n}")
			var given atomic.Int64
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				_, _ = fmt.Fprintf(rw, "answer %d %s", given.Add(1), strings.Repeat(".", 6000))
				_ = http.NewResponseController(rw).Flush()
				select { // one that acts is not cut off with its payer
				case <-r.Context().Done():
				case <-time.After(300 * time.Millisecond):
				}
			})
			p := gate.NewPayer(t)
			r := w.Request(tc.method, "/search")
			if name, value, ok := strings.Cut(strings.TrimSpace(tc.header), ": "); ok && strings.HasPrefix(name, "X-") {
				r.Header.Set(name, value)
			} else if tc.method == "POST" {
				r.Header.Set("Connection", "Upgrade")
				r.Header.Set("Upgrade", "websocket")
			}
			asked := offerIn(t, w.Do(r))
			const tries = 7
			for i := range tries {
				conn, host := w.Dial()
				body := tc.body(i)
				fmt.Fprintf(conn, "%s /search HTTP/1.1\r\nHost: %s\r\n%sContent-Length: %d\r\nPAYMENT-SIGNATURE: %s\r\n\r\n%s",
					tc.method, host, tc.header, len(body), p.Sign(t, asked, time.Now()).V2(t), body)
				_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
				_, _ = conn.Read(make([]byte, 8192))
				conn.Close()
				time.Sleep(100 * time.Millisecond)
			}
			if most := int64(tc.answers * w.Facilitator.Transfers()); given.Load() > most || given.Load() == 0 {
				t.Errorf("%d answers for %d payments", given.Load(), w.Facilitator.Transfers())
			}
		})
	}
}

// Tries while the upstream is away use nothing up of what is owed.
func TestOutageUsesNothingUp(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	w.Upstream.On(gate.BreaksOff)
	payment := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	w.Get("/paid/x", "PAYMENT-SIGNATURE", payment)
	address := w.Upstream.Listener.Addr().String()
	w.Upstream.Listener.Close()
	w.Upstream.CloseClientConnections()
	for range 30 {
		res := w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", payment) })
		w.Expect(res, 502, "upstream_failed")
		if res.Header.Get("Retry-After") == "" {
			t.Fatal("no Retry-After")
		}
	}
	gate.Serve(t, address, gate.Says(200, gate.Goods))
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", payment), 200, "")
	if w.Facilitator.Transfers() != 1 {
		t.Error(w.Facilitator.Transfers(), "transfers")
	}
}

// The key under which an upstream keeps answers cannot be computed from the chain, and
// a client cannot choose it. It is the same for every run.
func TestIdempotencyKeyIsOurs(t *testing.T) {
	w := gate.New(t, "price POST /chat $0.01 {\n settle first\n}\nupstream_headers")
	var keys, clients []string
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		clients = append(clients, r.Header.Get("Paywall-Client-Idempotency-Key"))
		rw.WriteHeader(500)
	})
	asked := w.Challenge(http.MethodPost, "/chat").Accepts[0]
	payment := gate.NewPayer(t).Sign(t, asked, time.Now())
	public, err := x402.Decode(http.Header{"Payment-Signature": {payment.V2(t)}})
	if err != nil {
		t.Fatal(err)
	}
	auth, err := public.Authorization(asked)
	if err != nil {
		t.Fatal(err)
	}
	send := func(payment, key string) {
		r, _ := http.NewRequest(http.MethodPost, w.URL+"/chat", strings.NewReader("x"))
		r.Header.Set("PAYMENT-SIGNATURE", payment)
		if key != "" {
			r.Header.Set("Idempotency-Key", key)
		}
		w.Again(func() gate.Answer { return w.Do(r.Clone(t.Context())) })
	}
	send(payment.V2(t), "")
	send(payment.V2(t), "")
	guess := ledger.ID(ledger.Key(auth.Key))
	send(gate.NewPayer(t).Sign(t, asked, time.Now()).V2(t), guess)
	if len(keys) != 3 || keys[0] == "" || keys[0] != keys[1] || keys[2] == keys[0] || keys[2] == guess || keys[0] == guess || clients[2] != guess {
		t.Errorf("keys %q, the clients' %q", keys, clients)
	}
}

// Behind a proxy that adds to X-Forwarded-For what it sees, a client may write before
// that what it likes: its network is what the proxy says. With and without
// trusted_proxies_strict.
func TestClientDoesNotChooseItsNetwork(t *testing.T) {
	for name, word := range map[string]string{"trusted_proxies": "", "trusted_proxies_strict": "\ntrusted_proxies_strict"} {
		through := func(w *gate.World) string {
			return strings.Replace(gate.BehindProxy(w.Caddyfile("price /paid/* $0.01")), "127.0.0.0/8", "127.0.0.0/8 10.0.0.0/8"+word, 1)
		}
		for _, last := range []string{elsewhere + ", 10.1.1.1:80", " [2001:db8::9]:443", "[2001:db8::9]", "unknown"} {
			t.Run(name+"/to pass the bounds with "+last, func(t *testing.T) {
				gate.ForgetPayers()
				w := gate.Prepare(t)
				w.Load(through(w))
				w.Facilitator.OnVerify(gate.Says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`))
				asked := w.Challenge(http.MethodGet, "/paid/x").Accepts[0]
				refused := 0
				for i := range 400 {
					forwarded := fmt.Sprintf("11.%d.1.1, %s", i%250, last)
					if w.Get("/paid/x", "PAYMENT-SIGNATURE", gate.NewPayer(t).Sign(t, asked, time.Now()).V2(t), "X-Forwarded-For", forwarded).StatusCode == http.StatusTooManyRequests {
						refused++
					}
				}
				if refused == 0 {
					t.Error("400 payments of empty wallets from one client passed")
				}
				w.Facilitator.OnVerify(gate.Says(200, `{"isValid":true}`))
				w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t), "X-Forwarded-For", "11.1.1.1, "+here), 200, "")
			})
		}
		t.Run(name+"/to use up what another has", func(t *testing.T) {
			gate.ForgetPayers()
			w := gate.Prepare(t)
			w.Load(through(w))
			w.Facilitator.OnVerify(gate.Says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`))
			asked := w.Challenge(http.MethodGet, "/paid/x").Accepts[0]
			for range 300 {
				w.Get("/paid/x", "PAYMENT-SIGNATURE", gate.NewPayer(t).Sign(t, asked, time.Now()).V2(t), "X-Forwarded-For", here+", "+elsewhere)
			}
			w.Facilitator.OnVerify(gate.Says(200, `{"isValid":true}`))
			w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", gate.NewPayer(t).Sign(t, asked, time.Now()).V2(t), "X-Forwarded-For", here), 200, "")
		})
		t.Run(name+"/to fetch what another has bought", func(t *testing.T) {
			w := gate.Prepare(t)
			w.Load(through(w))
			w.Upstream.On(gate.BreaksOff)
			payment := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
			_ = w.Get("/paid/x", "PAYMENT-SIGNATURE", payment, "X-Forwarded-For", here)
			w.Upstream.On(nil)
			for _, forwarded := range []string{
				elsewhere, here + ", " + elsewhere, here + "," + elsewhere + ",10.1.1.1", here + ", 10.2.2.2, " + elsewhere + ", ::ffff:10.1.1.1",
				here + ", [2001:db8::9]:443", here + ", [2001:db8::9]", here + ", unknown", here + ", unix:", here + `, "[2001:db8::9]:443"`, here + ",",
			} {
				res := w.Again(func() gate.Answer {
					return w.Get("/paid/x", "PAYMENT-SIGNATURE", payment, "X-Forwarded-For", forwarded)
				})
				if res.StatusCode == 200 {
					t.Errorf("with X-Forwarded-For: %s it is handed out", forwarded)
				}
			}
			w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", payment, "X-Forwarded-For", "11.1.1.1, "+here+", 10.1.1.1"), 200, "")
		})
	}
}

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
