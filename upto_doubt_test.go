package paywall_test

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// charging makes the upstream charge another amount with every run: 1001, 1000…
func (u *fakeUpstream) charging() {
	var runs atomic.Int64
	u.on(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Settlement-Overrides", amountOf(strconv.FormatInt(1002-runs.Add(1), 10)))
		_, _ = io.WriteString(rw, sample)
	})
}

// lose answers nobody, after the money has moved or before.
func (b *bank) lose(moves bool) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) {
		if moves {
			b.settle(discard{}, r)
		}
		panic(http.ErrAbortHandler)
	}
}

// identical makes sure that every call asked for the same.
func (b *bank) identical(t *testing.T) {
	t.Helper()
	calls := b.asked()
	for _, c := range calls {
		if c.body != calls[0].body {
			t.Errorf("asked for\n%s\nand for\n%s", calls[0].body, c.body)
		}
	}
}

// What was asked of the facilitator once is what is asked again, though the
// upstream runs again and would charge something else: by the payer that comes
// back with the same payment, and by the one that signs anew.
func TestUptoRepeatsTheAmount(t *testing.T) {
	for name, anew := range map[string]bool{"the same payment": false, "a fresh signature": true} {
		t.Run(name, func(t *testing.T) {
			w, b := newUptoWorld(t, "")
			w.up.charging()
			w.fac.onSettle(b.lose(true))
			p := newPayer(t)
			header := w.permitFor(http.MethodGet, "/chat/x", p).v2(t)
			w.expect(w.payWith(http.MethodGet, "/chat/x", header), 503, "settlement_pending")
			w.fac.onSettle(b.settle)
			var res answerOf
			w.until(func() bool {
				if anew {
					header = w.permitFor(http.MethodGet, "/chat/x", p).v2(t)
				}
				res = w.payWith(http.MethodGet, "/chat/x", header)
				return res.StatusCode == 200
			})
			if receipt := receiptOf(t, res); receipt.Amount != "1001" || res.body != sample || res.Header.Get("Settlement-Overrides") != "" {
				t.Errorf("receipt %+v, %q", receipt, res.body)
			}
			b.expect(t, "1001")
			b.identical(t)
		})
	}
}

// The reconciler asks for the amount that the ledger holds.
func TestUptoReconciled(t *testing.T) {
	w, s := newScriptedUptoWorld(t)
	b := w.bank()
	w.up.charging()
	w.fac.onSettle(b.lose(false))
	p := newPayer(t)
	w.expect(w.payWith(http.MethodGet, "/chat/x", w.permitFor(http.MethodGet, "/chat/x", p).v2(t)), 503, "settlement_pending")
	w.fac.onSettle(b.settle)
	row := w.rowOf(s, p, ledger.Settled)
	if row.Amount != "1001" || w.up.hits.Load() != 1 {
		t.Errorf("row %+v, %d runs", row, w.up.hits.Load())
	}
	b.expect(t, "1001")
	b.identical(t)
	// What is fetched is not charged again.
	res := w.payWith(http.MethodGet, "/chat/x", w.permitFor(http.MethodGet, "/chat/x", p).v2(t))
	w.expect(res, 200, "")
	if receipt := receiptOf(t, res); receipt.Amount != "1001" || receipt.Transaction != row.Transaction {
		t.Errorf("receipt %+v", receipt)
	}
	b.expect(t, "1001")
}

// A gateway that died while it charged nothing owes the goods, and asks nobody:
// not even when its facilitator has left the config.
func TestUptoNothingReconciled(t *testing.T) {
	w, s := newScriptedUptoWorld(t)
	w.up.charges(amountOf("0"))
	s.ahead.Store(-int64(2 * time.Minute))
	s.onMove(func(_ ledger.Claim, ch ledger.Change) error {
		if ch.To == ledger.Settled {
			return ledger.ErrUnavailable
		}
		return nil
	})
	p := newPayer(t)
	res := w.payWith(http.MethodGet, "/chat/x", w.permitFor(http.MethodGet, "/chat/x", p).v2(t))
	w.expect(res, 503, "ledger_unavailable")
	s.onMove(nil)
	w.load(onScript(strings.ReplaceAll(w.caddyfile(uptoPrice), "facilitator fake", "facilitator other")))
	s.ahead.Store(0) // its lease is over
	row := w.rowOf(s, p, ledger.Settled)
	if row.Amount != "0" || w.fac.settled.Load() != 0 {
		t.Errorf("row %+v, %d settles", row, w.fac.settled.Load())
	}
}

// What broke off on its way is fetched without a second charge, where the upstream
// charges no more by then.
func TestUptoRedelivery(t *testing.T) {
	w, b := newUptoWorld(t, "")
	var runs atomic.Int64
	w.up.on(func(rw http.ResponseWriter, _ *http.Request) {
		run := runs.Add(1)
		rw.Header().Set("Settlement-Overrides", amountOf(fmt.Sprint(4-run)))
		if run == 1 {
			rw.Header().Set("Content-Length", "1000")
		}
		_, _ = io.WriteString(rw, sample)
	})
	p := newPayer(t)
	if res := w.payWith(http.MethodGet, "/chat/x", w.permitFor(http.MethodGet, "/chat/x", p).v2(t)); res.err == nil {
		t.Fatalf("%d %q", res.StatusCode, res.body)
	}
	var res answerOf
	w.until(func() bool {
		res = w.payWith(http.MethodGet, "/chat/x", w.permitFor(http.MethodGet, "/chat/x", p).v2(t))
		return res.StatusCode == 200
	})
	if receipt := receiptOf(t, res); receipt.Amount != "3" || res.body != sample {
		t.Errorf("receipt %+v, %q", receipt, res.body)
	}
	b.expect(t, "3")
}

// An upgrade is charged at its status line as well: 101 is goods.
func TestUptoUpgrade(t *testing.T) {
	w, b := newUptoWorld(t, "")
	w.up.on(func(rw http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSettlement-Overrides: "+amountOf("9")+"\r\n\r\nhello")
	})
	c, err := x402.DecodeChallenge(w.get("/chat/ws", "Connection", "Upgrade", "Upgrade", "websocket").Header.Get(x402.HeaderPaymentRequired))
	if err != nil || strings.Contains(string(c.Accepts[0].Extra), "upfront") {
		t.Fatalf("%v %+v", err, c.Accepts)
	}
	conn, host := w.dial()
	fmt.Fprintf(conn, "GET /chat/ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nPAYMENT-SIGNATURE: %s\r\n\r\n",
		host, newPayer(t).permit(t, c.Accepts[0]).v2(t))
	raw, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(raw), "HTTP/1.1 101") || !strings.HasSuffix(string(raw), "hello") || strings.Contains(string(raw), "Overrides") {
		t.Fatalf("%q %v", raw, err)
	}
	b.expect(t, "9")
}

// A facilitator with several accounts names another one each time: what was
// asked for stays payable, over a reload too, and new challenges name the new
// one.
func TestUptoFacilitatorChanges(t *testing.T) {
	w, b := newUptoWorld(t, "")
	w.up.charges(amountOf("5"))
	old := w.permitFor(http.MethodGet, "/chat/x", newPayer(t))
	if old.facilitator != facilitatorA {
		t.Fatal(old.facilitator)
	}
	w.fac.kinds.Store(kindsOf(facilitatorB))
	// Another config asks /supported anew, and keeps the last answer till then.
	w.reload(w.caddyfile(`price /chat/* upto $0.50 "Chat, again"`))
	w.until(func() bool {
		return strings.Contains(string(w.challenge(http.MethodGet, "/chat/x").Accepts[0].Extra), facilitatorB)
	})
	w.expect(w.payWith(http.MethodGet, "/chat/x", old.v2(t)), 200, "")
	if calls := b.asked(); len(calls) != 1 || !strings.Contains(string(calls[0].PaymentRequirements.Extra), facilitatorA) {
		t.Errorf("%+v", calls)
	}
	w.expect(w.payWith(http.MethodGet, "/chat/x", w.permitFor(http.MethodGet, "/chat/x", newPayer(t)).v2(t)), 200, "")
	if calls := b.asked(); len(calls) != 2 || !strings.Contains(string(calls[1].PaymentRequirements.Extra), facilitatorB) {
		t.Errorf("%+v", calls)
	}
}

// Without an account that may charge there is nothing to sign, so no offer.
func TestUptoWithoutAccount(t *testing.T) {
	for name, account := range map[string]string{"none": "", "zero": "0x0000000000000000000000000000000000000000", "short": "0x12"} {
		t.Run(name, func(t *testing.T) {
			w := prepareWorld(t)
			w.fac.kinds.Store(kindsOf(account))
			w.load(w.caddyfile(uptoPrice))
			w.until(func() bool { return w.fac.supported.Load() > 0 })
			w.expect(w.get("/chat/x"), 503, "no_facilitator")
		})
	}
}

// Who signed for another facilitator's account is refused by us.
func TestUptoMisfits(t *testing.T) {
	w, b := newUptoWorld(t, "")
	for name, tt := range map[string]struct {
		change func(*permit)
		code   string
	}{
		"another facilitator": {func(s *permit) { s.facilitator = facilitatorB }, "upto_facilitator_mismatch"},
		"the exact proxy":     {func(s *permit) { s.spender = x402.ExactPermit2Proxy }, "invalid_permit2_spender"},
		"less":                {func(s *permit) { s.amount = "499999" }, "permit2_amount_mismatch"},
		"more":                {func(s *permit) { s.amount = "500001" }, "permit2_amount_mismatch"},
		"another payee":       {func(s *permit) { s.to = facilitatorB }, "invalid_permit2_recipient_mismatch"},
		"accepted less":       {func(s *permit) { s.requirement.Amount = "1234" }, "no_matching_requirements"},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.refusesPermit("/chat/x", tt.change, tt.code)
			b.expect(t)
		})
	}
}
