package promises

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
	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// charging makes the upstream charge another amount with every run: 1001, 1000…
func charging(u *gate.Upstream) {
	var runs atomic.Int64
	u.On(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Settlement-Overrides", amountOf(strconv.FormatInt(1002-runs.Add(1), 10)))
		_, _ = io.WriteString(rw, gate.Goods)
	})
}

// identical makes sure that every call asked for the same.
func identical(t *testing.T, b *gate.Facilitator) {
	t.Helper()
	calls := b.Settlements()
	for _, c := range calls {
		if c.Body != calls[0].Body {
			t.Errorf("asked for\n%s\nand for\n%s", calls[0].Body, c.Body)
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
			charging(w.Upstream)
			w.Facilitator.OnSettle(b.Lost)
			p := gate.NewPayer(t)
			header := w.PermitFor(http.MethodGet, "/chat/x", p).V2(t)
			w.Expect(w.PayWith(http.MethodGet, "/chat/x", header), 503, "settlement_pending")
			w.Facilitator.OnSettle(b.Settle)
			var res gate.Answer
			w.Until(func() bool {
				if anew {
					header = w.PermitFor(http.MethodGet, "/chat/x", p).V2(t)
				}
				res = w.PayWith(http.MethodGet, "/chat/x", header)
				return res.StatusCode == 200
			})
			if receipt := gate.ReceiptOf(t, res); receipt.Amount != "1001" || res.Text != gate.Goods || res.Header.Get("Settlement-Overrides") != "" {
				t.Errorf("receipt %+v, %q", receipt, res.Text)
			}
			b.ExpectMoved(t, "1001")
			identical(t, b)
		})
	}
}

// The reconciler asks for the amount that the ledger holds.
func TestReconcilerAsksForTheAmountOnRecord(t *testing.T) {
	w, s := newScriptedUptoWorld(t)
	b := w.Facilitator
	charging(w.Upstream)
	w.Facilitator.OnSettle(gate.Drop)
	p := gate.NewPayer(t)
	w.Expect(w.PayWith(http.MethodGet, "/chat/x", w.PermitFor(http.MethodGet, "/chat/x", p).V2(t)), 503, "settlement_pending")
	w.Facilitator.OnSettle(b.Settle)
	row := rowIn(w, s, p, ledger.Settled)
	if row.Amount != "1001" || w.Upstream.Hits.Load() != 1 {
		t.Errorf("row %+v, %d runs", row, w.Upstream.Hits.Load())
	}
	b.ExpectMoved(t, "1001")
	identical(t, b)
	// What is fetched is not charged again.
	res := w.PayWith(http.MethodGet, "/chat/x", w.PermitFor(http.MethodGet, "/chat/x", p).V2(t))
	w.Expect(res, 200, "")
	if receipt := gate.ReceiptOf(t, res); receipt.Amount != "1001" || receipt.Transaction != row.Transaction {
		t.Errorf("receipt %+v", receipt)
	}
	b.ExpectMoved(t, "1001")
}

// A gateway that died while it charged nothing owes the goods, and asks nobody:
// not even when its facilitator has left the config.
func TestWhatWasChargedNothingIsOwedAfterACrash(t *testing.T) {
	w, s := newScriptedUptoWorld(t)
	w.Upstream.Charges(amountOf("0"))
	s.Ahead.Store(-int64(2 * time.Minute))
	s.OnMove(func(_ ledger.Claim, ch ledger.Change) error {
		if ch.To == ledger.Settled {
			return ledger.ErrUnavailable
		}
		return nil
	})
	p := gate.NewPayer(t)
	res := w.PayWith(http.MethodGet, "/chat/x", w.PermitFor(http.MethodGet, "/chat/x", p).V2(t))
	w.Expect(res, 503, "ledger_unavailable")
	s.OnMove(nil)
	w.Load(gate.OnLedger(strings.ReplaceAll(w.Caddyfile(uptoPrice), "facilitator fake", "facilitator other")))
	s.Ahead.Store(0) // its lease is over
	row := rowIn(w, s, p, ledger.Settled)
	if row.Amount != "0" || w.Facilitator.Settled.Load() != 0 {
		t.Errorf("row %+v, %d settles", row, w.Facilitator.Settled.Load())
	}
}

// What broke off on its way is fetched without a second charge, where the upstream
// charges no more by then.
func TestBrokenUptoIsFetchedWithoutASecondCharge(t *testing.T) {
	w, b := newUptoWorld(t, "")
	var runs atomic.Int64
	w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
		run := runs.Add(1)
		rw.Header().Set("Settlement-Overrides", amountOf(fmt.Sprint(4-run)))
		if run == 1 {
			rw.Header().Set("Content-Length", "1000")
		}
		_, _ = io.WriteString(rw, gate.Goods)
	})
	p := gate.NewPayer(t)
	if res := w.PayWith(http.MethodGet, "/chat/x", w.PermitFor(http.MethodGet, "/chat/x", p).V2(t)); res.Err == nil {
		t.Fatalf("%d %q", res.StatusCode, res.Text)
	}
	var res gate.Answer
	w.Until(func() bool {
		res = w.PayWith(http.MethodGet, "/chat/x", w.PermitFor(http.MethodGet, "/chat/x", p).V2(t))
		return res.StatusCode == 200
	})
	if receipt := gate.ReceiptOf(t, res); receipt.Amount != "3" || res.Text != gate.Goods {
		t.Errorf("receipt %+v, %q", receipt, res.Text)
	}
	b.ExpectMoved(t, "3")
}

// An upgrade is charged at its status line as well: 101 is goods.
func TestUptoChargesUpgradesAtTheirStatusLine(t *testing.T) {
	w, b := newUptoWorld(t, "")
	w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSettlement-Overrides: "+amountOf("9")+"\r\n\r\nhello")
	})
	c, err := x402.DecodeChallenge(w.Get("/chat/ws", "Connection", "Upgrade", "Upgrade", "websocket").Header.Get(x402.HeaderPaymentRequired))
	if err != nil || strings.Contains(string(c.Accepts[0].Extra), "upfront") {
		t.Fatalf("%v %+v", err, c.Accepts)
	}
	conn, host := w.Dial()
	fmt.Fprintf(conn, "GET /chat/ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nPAYMENT-SIGNATURE: %s\r\n\r\n",
		host, gate.NewPayer(t).Permit(t, c.Accepts[0]).V2(t))
	raw, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(raw), "HTTP/1.1 101") || !strings.HasSuffix(string(raw), "hello") || strings.Contains(string(raw), "Overrides") {
		t.Fatalf("%q %v", raw, err)
	}
	b.ExpectMoved(t, "9")
}

// A facilitator with several accounts names another one each time: what was
// asked for stays payable, over a reload too, and new challenges name the new
// one.
func TestUptoOfAnEarlierAccountStaysPayable(t *testing.T) {
	w, b := newUptoWorld(t, "")
	w.Upstream.Charges(amountOf("5"))
	old := w.PermitFor(http.MethodGet, "/chat/x", gate.NewPayer(t))
	if old.Facilitator != gate.FacilitatorA {
		t.Fatal(old.Facilitator)
	}
	w.Facilitator.Kinds.Store(gate.KindsWithUpto(gate.FacilitatorB))
	// Another config asks /supported anew, and keeps the last answer till then.
	w.Reload(w.Caddyfile(`price /chat/* upto $0.50 "Chat, again"`))
	w.Until(func() bool {
		return strings.Contains(string(w.Challenge(http.MethodGet, "/chat/x").Accepts[0].Extra), gate.FacilitatorB)
	})
	w.Expect(w.PayWith(http.MethodGet, "/chat/x", old.V2(t)), 200, "")
	if calls := b.Settlements(); len(calls) != 1 || !strings.Contains(string(calls[0].PaymentRequirements.Extra), gate.FacilitatorA) {
		t.Errorf("%+v", calls)
	}
	w.Expect(w.PayWith(http.MethodGet, "/chat/x", w.PermitFor(http.MethodGet, "/chat/x", gate.NewPayer(t)).V2(t)), 200, "")
	if calls := b.Settlements(); len(calls) != 2 || !strings.Contains(string(calls[1].PaymentRequirements.Extra), gate.FacilitatorB) {
		t.Errorf("%+v", calls)
	}
}

// Without an account that may charge there is nothing to sign, so no offer.
func TestUptoWithoutAnAccountIsNotOffered(t *testing.T) {
	for name, account := range map[string]string{"none": "", "zero": "0x0000000000000000000000000000000000000000", "short": "0x12"} {
		t.Run(name, func(t *testing.T) {
			w := gate.Prepare(t)
			w.Facilitator.Kinds.Store(gate.KindsWithUpto(account))
			w.Load(w.Caddyfile(uptoPrice))
			w.Until(func() bool { return w.Facilitator.Supported.Load() > 0 })
			w.Expect(w.Get("/chat/x"), 503, "no_facilitator")
		})
	}
}

// Who signed for another facilitator's account is refused by us.
func TestUptoForAnotherAccountIsRefused(t *testing.T) {
	w, b := newUptoWorld(t, "")
	for name, tt := range map[string]struct {
		change func(*gate.Permit)
		code   string
	}{
		"another facilitator": {func(s *gate.Permit) { s.Facilitator = gate.FacilitatorB }, "upto_facilitator_mismatch"},
		"the exact proxy":     {func(s *gate.Permit) { s.Spender = x402.ExactPermit2Proxy }, "invalid_permit2_spender"},
		"less":                {func(s *gate.Permit) { s.Amount = "499999" }, "permit2_amount_mismatch"},
		"more":                {func(s *gate.Permit) { s.Amount = "500001" }, "permit2_amount_mismatch"},
		"another payee":       {func(s *gate.Permit) { s.To = gate.FacilitatorB }, "invalid_permit2_recipient_mismatch"},
		"accepted less":       {func(s *gate.Permit) { s.Requirement.Amount = "1234" }, "no_matching_requirements"},
	} {
		t.Run(name, func(t *testing.T) {
			w.T = t
			refusesPermit(w, "/chat/x", tt.change, tt.code)
			b.ExpectMoved(t)
		})
	}
}

// What is owed by use is fetched though a reload asks for another token.
func TestUptoIsFetchedWhateverTokenIsAskedFor(t *testing.T) {
	w := gate.Prepare(t)
	w.Facilitator.Kinds.Store(gate.KindsWithUpto(gate.FacilitatorA))
	w.Load(w.Caddyfile("accept base-sepolia usdc " + gate.PayTo + "\nprice /chat/* upto $0.50"))
	var runs atomic.Int64
	w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Settlement-Overrides", amountOf("1%"))
		if runs.Add(1) == 1 {
			rw.Header().Set("Content-Length", "100000") // and breaks off
		}
		_, _ = io.WriteString(rw, gate.Goods)
	})
	p := gate.NewPayer(t)
	if res := w.PayWith(http.MethodGet, "/chat/x", w.PermitFor(http.MethodGet, "/chat/x", p).V2(t)); res.Err == nil {
		t.Fatal(res)
	}
	w.Reload(w.Caddyfile("accept base-sepolia eurc " + gate.PayTo + "\nprice /chat/* upto 0.50 eurc"))
	w.Expect(w.Again(func() gate.Answer {
		return w.PayWith(http.MethodGet, "/chat/x", w.PermitFor(http.MethodGet, "/chat/x", p).V2(t))
	}), 200, "")
	w.Facilitator.ExpectMoved(t, "5000")
}
