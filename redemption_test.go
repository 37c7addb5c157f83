package paywall_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Tests of who may fetch what was paid for, and how often.

// behindProxy makes Caddy believe this machine what it says of the client's address.
func behindProxy(caddyfile string) string {
	return strings.Replace(caddyfile, "admin off", "admin off\nservers {\n trusted_proxies static 127.0.0.0/8\n}", 1)
}

const (
	here      = "198.51.100.7"
	elsewhere = "203.0.113.9"
)

// forgedLike is a payment with a signature of nobody.
func forgedLike(s *signed) *signed {
	return &signed{s.requirement, s.authorization, "0x" + strings.Repeat("11", 65)}
}

// A payment that has bought something stands on the chain, with its signature. It is
// no word of its payer any more.
func TestUsedPaymentRedeemsNothing(t *testing.T) {
	w := prepareWorld(t)
	w.load(behindProxy(w.caddyfile("price /paid/* $0.01")))
	victim := newPayer(t)
	public := w.sign(http.MethodGet, "/paid/a", victim).v2(t)
	w.expect(w.get("/paid/a", "PAYMENT-SIGNATURE", public, "X-Forwarded-For", here), 200, "")
	w.up.on(breaksOff)
	owed := w.sign(http.MethodGet, "/paid/b", victim).v2(t)
	_ = w.get("/paid/b", "PAYMENT-SIGNATURE", owed, "X-Forwarded-For", here)
	w.up.on(nil)

	hits := w.up.hits.Load()
	for _, payment := range []string{owed, public} {
		for _, from := range []string{elsewhere, here} {
			if payment == owed && from == here {
				continue
			}
			res := w.again(func() answerOf {
				return w.get("/paid/b", "PAYMENT-SIGNATURE", payment, "X-Forwarded-For", from)
			})
			if res.StatusCode == 200 {
				t.Errorf("from %s: %q", from, res.body)
			}
		}
	}
	if w.up.hits.Load() != hits {
		t.Error("the upstream was asked")
	}
	w.expect(w.get("/paid/b", "PAYMENT-SIGNATURE", owed, "X-Forwarded-For", here), 200, "")
	if w.fac.transfers() != 2 {
		t.Error(w.fac.transfers(), "transfers")
	}
}

// Nor does one that the gate has never seen, if the facilitator says that it is used.
func TestPaymentUsedElsewhereRedeemsNothing(t *testing.T) {
	w := prepareWorld(t)
	w.load(behindProxy(w.caddyfile("price /paid/* $0.01")))
	victim := newPayer(t)
	used := w.sign(http.MethodGet, "/paid/b", victim).v2(t)
	w.up.on(breaksOff)
	_ = w.get("/paid/b", "PAYMENT-SIGNATURE", w.sign(http.MethodGet, "/paid/b", victim).v2(t), "X-Forwarded-For", here)
	w.up.on(nil)
	w.fac.onVerify(says(200, `{"isValid":false,"invalidReason":"invalid_exact_evm_nonce_already_used"}`))
	hits := w.up.hits.Load()
	res := w.get("/paid/b", "PAYMENT-SIGNATURE", used, "X-Forwarded-For", elsewhere)
	if res.StatusCode != 402 || w.up.hits.Load() != hits {
		t.Errorf("%d %s", res.StatusCode, res.body)
	}
}

// The answer to an order is the payer's. Who has one of his old payments does not read
// it, whatever lengths he tries.
func TestKeptAnswerIsThePayers(t *testing.T) {
	w := prepareWorld(t)
	w.load(behindProxy(w.caddyfile("price POST /chat $0.01")))
	victim := newPayer(t)
	asked := w.challenge(http.MethodPost, "/chat").Accepts[0]
	post := func(body, payment, from string, hangUp bool) string {
		conn, host := w.dial()
		defer conn.Close()
		fmt.Fprintf(conn, "POST /chat HTTP/1.1\r\nHost: %s\r\nX-Forwarded-For: %s\r\nConnection: close\r\nContent-Length: %d\r\nPAYMENT-SIGNATURE: %s\r\n\r\n%s", host, from, len(body), payment, body)
		if hangUp {
			_, _ = conn.Read(make([]byte, 512))
			return ""
		}
		all, _ := io.ReadAll(conn)
		return string(all)
	}
	public := victim.sign(t, asked, time.Now()).v2(t)
	if res := post(`{"q":"hi"}`, public, here, false); !strings.Contains(res, "200 OK") {
		t.Fatal(res)
	}
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		_, body := w.up.seen()
		for range 30 {
			_, _ = io.WriteString(rw, "SECRET answer to "+body+"\n"+strings.Repeat("x", 4000))
			_ = http.NewResponseController(rw).Flush()
			time.Sleep(5 * time.Millisecond)
		}
	})
	const order = `{"q":"my medical history"}`
	owed := victim.sign(t, asked, time.Now())
	post(order, owed.v2(t), here, true)
	for n := range len(order) + 3 {
		for _, payment := range []string{public, owed.v2(t), forgedLike(owed).v2(t)} {
			if res := post(strings.Repeat("?", n), payment, elsewhere, false); strings.Contains(res, "SECRET") {
				t.Fatalf("%d bytes: %.80q", n, res)
			}
		}
	}
	// The payer has it, with the same payment or a fresh one, for the same order.
	hits := w.up.hits.Load()
	var res string
	w.until(func() bool {
		res = post(order, victim.sign(t, asked, time.Now()).v2(t), elsewhere, false)
		return !strings.Contains(res, "payment_in_flight")
	})
	if !strings.Contains(res, "SECRET answer to "+order) || w.up.hits.Load() != hits || w.fac.transfers() != 2 {
		t.Errorf("%.200q, %d runs more, %d transfers", res, w.up.hits.Load()-hits, w.fac.transfers())
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
		buy    func(w *world, payment string)
	}{
		"broken off": {"first", func(w *world, payment string) {
			w.leaves(http.MethodPost, "/export", payment, "{}", "Authorization", "Bearer alice", "Cookie", "a=1")
		}},
		"in doubt": {"on_success", func(w *world, payment string) {
			w.fac.onSettle(w.fac.lost)
			w.expect(w.sendBody(w.t.Context(), http.MethodPost, "/export", payment, "{}", "Authorization", "Bearer alice", "Cookie", "a=1"), 503, "settlement_pending")
			w.fac.onSettle(func(rw http.ResponseWriter, r *http.Request) { w.fac.move(rw, w.fac.keep(r)) })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "price POST /export $0.01 {\n settle "+c.settle+"\n}")
			w.up.on(secret)
			p := newPayer(t)
			asked := w.challenge(http.MethodPost, "/export").Accepts[0]
			bought := p.sign(t, asked, time.Now()).v2(t)
			c.buy(w, bought)
			fetch := func(payment string, header ...string) (res answerOf) {
				w.until(func() bool {
					res = w.again(func() answerOf { return w.sendBody(t.Context(), http.MethodPost, "/export", payment, "{}", header...) })
					return !strings.Contains(res.body, "settlement_pending")
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
						sent = p.sign(t, asked, time.Now()).v2(t)
					}
					res := fetch(sent, header...)
					if strings.Contains(res.body, "SECRET") || res.Header.Get("PAYMENT-RESPONSE") == "" {
						t.Errorf("%v: %.60q", header, res.body)
					}
					w.expect(res, 409, "other_credentials")
				}
			}
			res := fetch(p.sign(t, asked, time.Now()).v2(t), "Authorization", "Bearer alice", "Cookie", "a=1", "User-Agent", "another", "Idempotency-Key", "another")
			if res.StatusCode != 200 || !strings.HasPrefix(res.body, "SECRET of Bearer alice") || w.up.hits.Load() != 1 || w.fac.transfers() != 1 {
				t.Errorf("alice: %d %.60q, %d runs, %d transfers", res.StatusCode, res.body, w.up.hits.Load(), w.fac.transfers())
			}
		})
	}
}

// The nonce of a used payment stands in the token's events. With it alone nobody
// fetches anything, also from the payer's own network.
func TestSameNonceWithoutTheSignatureRedeemsNothing(t *testing.T) {
	w := prepareWorld(t)
	w.load(behindProxy(w.caddyfile("price /paid/* $0.01 {\n settle first\n}")))
	w.up.on(says(500, "broken"))
	payment := newPayer(t).sign(t, w.challenge(http.MethodGet, "/paid/x").Accepts[0], time.Now())
	w.get("/paid/x", "PAYMENT-SIGNATURE", payment.v2(t), "X-Forwarded-For", "2001:db8:1:1::1")
	w.up.on(nil)
	for _, from := range []string{"2001:db8:1:1::1", "2001:db8:1:ffff::9"} {
		w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", forgedLike(payment).v2(t), "X-Forwarded-For", from), 409, "payment_bought_something_else")
	}
	// A neighbour of the same /48 is another customer.
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", payment.v2(t), "X-Forwarded-For", "2001:db8:1:ffff::9"), 409, "payment_bought_something_else")
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", payment.v2(t), "X-Forwarded-For", "2001:db8:1:1::2"), 200, "")
}

// A contract wallet's payment, which only a facilitator can judge, redeems by being
// the same.
func TestContractWalletsPaymentComesAgain(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01 {\n settle first\n}")
	w.up.on(says(500, "broken"))
	payment := newPayer(t).sign(t, w.challenge(http.MethodGet, "/paid/x").Accepts[0], time.Now())
	payment.authorization["from"] = newPayer(t).address.Hex()
	w.get("/paid/x", "PAYMENT-SIGNATURE", payment.v2(t))
	w.up.on(nil)
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", forgedLike(payment).v2(t)), 409, "payment_bought_something_else")
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", payment.v2(t)), 200, "")
	if w.fac.transfers() != 1 {
		t.Error(w.fac.transfers(), "transfers")
	}
}

// Told to wait for an earlier purchase, a contract wallet finds its own payment free
// when it comes again.
func TestWhoIsToldToWaitMeetsNoClaimOfHisOwn(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	w.fac.onSettle(drop)
	asked := w.challenge(http.MethodGet, "/paid/x").Accepts[0]
	wallet, signer := newPayer(t), newPayer(t)
	sign := func() string {
		s := signer.sign(t, asked, time.Now())
		s.authorization["from"] = wallet.address.Hex()
		return s.v2(t)
	}
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", sign()), 503, "settlement_pending")
	second := sign()
	for range 3 {
		res := w.get("/paid/x", "PAYMENT-SIGNATURE", second)
		if res.StatusCode == 409 {
			t.Fatalf("%d %s", res.StatusCode, res.body)
		}
	}
}

// Of what costs by use, only what was charged is owed.
func TestUptoRedeemsWhatWasCharged(t *testing.T) {
	t.Run("nothing charged, nothing owed", func(t *testing.T) {
		w, _ := newUptoWorld(t, "price /chat/* upto $0.50")
		w.up.on(func(rw http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				rw.Header().Set("Settlement-Overrides", amountOf("0"))
				return
			}
			rw.Header().Set("Settlement-Overrides", amountOf(maximum))
			_, _ = io.WriteString(rw, sample)
		})
		head := w.permitFor(http.MethodHead, "/chat/x", newPayer(t)).v2(t)
		w.payWith(http.MethodHead, "/chat/x", head)
		if res := w.payWith(http.MethodGet, "/chat/x", head); res.StatusCode == 200 {
			t.Errorf("%q for nothing", res.body)
		}
	})
	t.Run("HEAD buys no GET", func(t *testing.T) {
		w, _ := newUptoWorld(t, "price /chat/* upto $0.50")
		w.up.charges(amountOf("10"))
		p := newPayer(t)
		w.payWith(http.MethodHead, "/chat/x", w.permitFor(http.MethodHead, "/chat/x", p).v2(t))
		settled := w.fac.settled.Load()
		w.expect(w.payWith(http.MethodGet, "/chat/x", w.permitFor(http.MethodGet, "/chat/x", p).v2(t)), 200, "")
		if w.fac.settled.Load() != settled+1 {
			t.Error("the GET was not charged")
		}
	})
	t.Run("a little charged buys a little", func(t *testing.T) {
		w, _ := newUptoWorld(t, "price /chat/* upto $0.50")
		w.up.on(func(rw http.ResponseWriter, r *http.Request) {
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
			_, _ = io.WriteString(rw, sample)
		})
		p := newPayer(t)
		pay := w.permitFor(http.MethodGet, "/chat/x", p).v2(t)
		conn, host := w.dial()
		fmt.Fprintf(conn, "GET /chat/x HTTP/1.1\r\nHost: %s\r\nRange: bytes=0-0\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", host, pay)
		_, _ = io.ReadAll(conn) // it is the upstream that breaks off
		conn.Close()
		res := w.again(func() answerOf { return w.payWith(http.MethodGet, "/chat/x", pay) })
		w.expect(res, 409, "usage_above_charge")
		res = w.again(func() answerOf { return w.get("/chat/x", "PAYMENT-SIGNATURE", pay, "X-Silent", "yes") })
		w.expect(res, 409, "usage_above_charge")
		// Who signs anew buys it.
		settled := w.fac.settled.Load()
		w.expect(w.payWith(http.MethodGet, "/chat/x", w.permitFor(http.MethodGet, "/chat/x", p).v2(t)), 200, "")
		if w.fac.settled.Load() != settled+1 {
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
			w := newWorld(t, "price /search $0.05 {\n settle on_success\n}")
			var given atomic.Int64
			w.up.on(func(rw http.ResponseWriter, r *http.Request) {
				_, _ = fmt.Fprintf(rw, "answer %d %s", given.Add(1), strings.Repeat(".", 6000))
				_ = http.NewResponseController(rw).Flush()
				select { // one that acts is not cut off with its payer
				case <-r.Context().Done():
				case <-time.After(300 * time.Millisecond):
				}
			})
			p := newPayer(t)
			r := w.request(tc.method, "/search")
			if name, value, ok := strings.Cut(strings.TrimSpace(tc.header), ": "); ok && strings.HasPrefix(name, "X-") {
				r.Header.Set(name, value)
			} else if tc.method == "POST" {
				r.Header.Set("Connection", "Upgrade")
				r.Header.Set("Upgrade", "websocket")
			}
			asked := offerIn(t, w.do(r))
			const tries = 7
			for i := range tries {
				conn, host := w.dial()
				body := tc.body(i)
				fmt.Fprintf(conn, "%s /search HTTP/1.1\r\nHost: %s\r\n%sContent-Length: %d\r\nPAYMENT-SIGNATURE: %s\r\n\r\n%s",
					tc.method, host, tc.header, len(body), p.sign(t, asked, time.Now()).v2(t), body)
				_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
				_, _ = conn.Read(make([]byte, 8192))
				conn.Close()
				time.Sleep(100 * time.Millisecond)
			}
			if most := int64(tc.answers * w.fac.transfers()); given.Load() > most || given.Load() == 0 {
				t.Errorf("%d answers for %d payments", given.Load(), w.fac.transfers())
			}
		})
	}
}

// Tries while the upstream is away use nothing up of what is owed.
func TestOutageUsesNothingUp(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	w.up.on(breaksOff)
	payment := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
	w.get("/paid/x", "PAYMENT-SIGNATURE", payment)
	address := w.up.Listener.Addr().String()
	w.up.Listener.Close()
	w.up.CloseClientConnections()
	for range 30 {
		res := w.again(func() answerOf { return w.get("/paid/x", "PAYMENT-SIGNATURE", payment) })
		w.expect(res, 502, "upstream_failed")
		if res.Header.Get("Retry-After") == "" {
			t.Fatal("no Retry-After")
		}
	}
	serve(t, address, says(200, sample))
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", payment), 200, "")
	if w.fac.transfers() != 1 {
		t.Error(w.fac.transfers(), "transfers")
	}
}

// The key under which an upstream keeps answers cannot be computed from the chain, and
// a client cannot choose it. It is the same for every run.
func TestIdempotencyKeyIsOurs(t *testing.T) {
	w := newWorld(t, "price POST /chat $0.01 {\n settle first\n}\nupstream_headers")
	var keys, clients []string
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		clients = append(clients, r.Header.Get("Paywall-Client-Idempotency-Key"))
		rw.WriteHeader(500)
	})
	asked := w.challenge(http.MethodPost, "/chat").Accepts[0]
	payment := newPayer(t).sign(t, asked, time.Now())
	public, err := x402.Decode(http.Header{"Payment-Signature": {payment.v2(t)}})
	if err != nil {
		t.Fatal(err)
	}
	auth, err := public.Authorization(asked)
	if err != nil {
		t.Fatal(err)
	}
	send := func(payment, key string) {
		r, _ := http.NewRequest(http.MethodPost, w.gate+"/chat", strings.NewReader("x"))
		r.Header.Set("PAYMENT-SIGNATURE", payment)
		if key != "" {
			r.Header.Set("Idempotency-Key", key)
		}
		w.again(func() answerOf { return w.do(r.Clone(t.Context())) })
	}
	send(payment.v2(t), "")
	send(payment.v2(t), "")
	guess := ledger.ID(ledger.Key(auth.Key))
	send(newPayer(t).sign(t, asked, time.Now()).v2(t), guess)
	if len(keys) != 3 || keys[0] == "" || keys[0] != keys[1] || keys[2] == keys[0] || keys[2] == guess || keys[0] == guess || clients[2] != guess {
		t.Errorf("keys %q, the clients' %q", keys, clients)
	}
}

// Behind a proxy that adds to X-Forwarded-For what it sees, a client may write before
// that what it likes: its network is what the proxy says. With and without
// trusted_proxies_strict.
func TestClientDoesNotChooseItsNetwork(t *testing.T) {
	for name, word := range map[string]string{"trusted_proxies": "", "trusted_proxies_strict": "\ntrusted_proxies_strict"} {
		through := func(w *world) string {
			return strings.Replace(behindProxy(w.caddyfile("price /paid/* $0.01")), "127.0.0.0/8", "127.0.0.0/8 10.0.0.0/8"+word, 1)
		}
		for _, last := range []string{elsewhere + ", 10.1.1.1:80", " [2001:db8::9]:443", "[2001:db8::9]", "unknown"} {
			t.Run(name+"/to pass the bounds with "+last, func(t *testing.T) {
				forgetPayers()
				w := prepareWorld(t)
				w.load(through(w))
				w.fac.onVerify(says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`))
				asked := w.challenge(http.MethodGet, "/paid/x").Accepts[0]
				refused := 0
				for i := range 400 {
					forwarded := fmt.Sprintf("11.%d.1.1, %s", i%250, last)
					if w.get("/paid/x", "PAYMENT-SIGNATURE", newPayer(t).sign(t, asked, time.Now()).v2(t), "X-Forwarded-For", forwarded).StatusCode == http.StatusTooManyRequests {
						refused++
					}
				}
				if refused == 0 {
					t.Error("400 payments of empty wallets from one client passed")
				}
				w.fac.onVerify(says(200, `{"isValid":true}`))
				w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t), "X-Forwarded-For", "11.1.1.1, "+here), 200, "")
			})
		}
		t.Run(name+"/to use up what another has", func(t *testing.T) {
			forgetPayers()
			w := prepareWorld(t)
			w.load(through(w))
			w.fac.onVerify(says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`))
			asked := w.challenge(http.MethodGet, "/paid/x").Accepts[0]
			for range 300 {
				w.get("/paid/x", "PAYMENT-SIGNATURE", newPayer(t).sign(t, asked, time.Now()).v2(t), "X-Forwarded-For", here+", "+elsewhere)
			}
			w.fac.onVerify(says(200, `{"isValid":true}`))
			w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", newPayer(t).sign(t, asked, time.Now()).v2(t), "X-Forwarded-For", here), 200, "")
		})
		t.Run(name+"/to fetch what another has bought", func(t *testing.T) {
			w := prepareWorld(t)
			w.load(through(w))
			w.up.on(breaksOff)
			payment := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
			_ = w.get("/paid/x", "PAYMENT-SIGNATURE", payment, "X-Forwarded-For", here)
			w.up.on(nil)
			for _, forwarded := range []string{
				elsewhere, here + ", " + elsewhere, here + "," + elsewhere + ",10.1.1.1", here + ", 10.2.2.2, " + elsewhere + ", ::ffff:10.1.1.1",
				here + ", [2001:db8::9]:443", here + ", [2001:db8::9]", here + ", unknown", here + ", unix:", here + `, "[2001:db8::9]:443"`, here + ",",
			} {
				res := w.again(func() answerOf {
					return w.get("/paid/x", "PAYMENT-SIGNATURE", payment, "X-Forwarded-For", forwarded)
				})
				if res.StatusCode == 200 {
					t.Errorf("with X-Forwarded-For: %s it is handed out", forwarded)
				}
			}
			w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", payment, "X-Forwarded-For", "11.1.1.1, "+here+", 10.1.1.1"), 200, "")
		})
	}
}
