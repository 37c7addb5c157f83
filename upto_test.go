package paywall_test

import (
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const maximum = "500000" // $0.50

// newUptoWorld sells for up to $0.50, through a facilitator that can.
func newUptoWorld(t *testing.T, options string, more ...string) (*world, *bank) {
	t.Helper()
	w := prepareWorld(t)
	w.fac.kinds.Store(kindsOf(facilitatorA))
	if options == "" {
		options = `price /chat/* upto $0.50 "Chat"`
	}
	w.load(w.caddyfile(options, more...))
	return w, w.bank()
}

// newScriptedUptoWorld is one whose ledger does as told.
func newScriptedUptoWorld(t *testing.T) (*world, *scripted) {
	t.Helper()
	w := prepareWorld(t)
	w.fac.kinds.Store(kindsOf(facilitatorA))
	s := w.withScript()
	s.visible.Store(true)
	w.load(onScript(w.caddyfile(uptoPrice)))
	return w, s
}

const uptoPrice = "price /chat/* upto $0.50"

// charges makes the upstream charge, and answer.
func (u *fakeUpstream) charges(overrides ...string) {
	u.on(func(rw http.ResponseWriter, _ *http.Request) {
		for _, o := range overrides {
			rw.Header().Add("Settlement-Overrides", o)
		}
		rw.Header().Set("X-Upstream", "yes")
		_, _ = io.WriteString(rw, sample)
	})
}

func amountOf(amount string) string { return `{"amount":"` + amount + `"}` }

// permitFor makes a payment for a path.
func (w *world) permitFor(method, path string, p *payer) *permit {
	w.t.Helper()
	return p.permit(w.t, w.challenge(method, path).Accepts[0])
}

func (w *world) payWith(method, path, header string) answerOf {
	w.t.Helper()
	return w.do(w.request(method, path, "PAYMENT-SIGNATURE", header))
}

// TestUptoOffer: what an upto price asks for, in both versions.
func TestUptoOffer(t *testing.T) {
	w, _ := newUptoWorld(t, "")
	res := w.do(w.request(http.MethodPost, "/chat/x"))
	w.expect(res, 402, string(x402.CodePaymentRequired))
	if res.body != "{}" {
		t.Errorf("version 1 body %q: its clients cannot pay this", res.body)
	}
	c := w.challenge(http.MethodPost, "/chat/x")
	if len(c.Accepts) != 1 {
		t.Fatalf("%+v", c.Accepts)
	}
	const extra = `{"assetTransferMethod":"permit2","facilitatorAddress":"` + facilitatorA + `","name":"USDC","version":"2"}`
	if a := c.Accepts[0]; a.Scheme != "upto" || a.Amount != maximum || string(a.Extra) != extra {
		t.Errorf("%+v", a)
	}
}

// TestUptoCharges: the payer is charged what the upstream says, and told so; the
// facilitator is asked for exactly that; the upstream learns of the maximum.
func TestUptoCharges(t *testing.T) {
	w, _ := newUptoWorld(t, "price /chat/* upto $0.50\nupstream_headers")
	s := w.withScript()
	w.load(onScript(w.caddyfile("price /chat/* upto $0.50\nupstream_headers")))
	for name, tt := range map[string]struct {
		overrides []string
		charged   string
	}{
		"no word is the maximum": {nil, maximum},
		"atomic units":           {[]string{amountOf("1234")}, "1234"},
		"percent":                {[]string{amountOf("12.34%")}, "61700"},
		"dollars":                {[]string{amountOf("$0.05")}, "50000"},
		"all of it":              {[]string{amountOf(maximum)}, maximum},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			t.Run(method+" "+name, func(t *testing.T) {
				w.t = t
				b := w.bank()
				w.up.charges(tt.overrides...)
				p := newPayer(t)
				header := w.permitFor(method, "/chat/x", p).v2(t)
				res := w.payWith(method, "/chat/x", header)
				w.expect(res, 200, "")
				if res.body != sample || res.Header.Get("Settlement-Overrides") != "" || res.Header.Get("X-Upstream") != "yes" {
					t.Errorf("%q %v", res.body, res.Header)
				}
				receipt := receiptOf(t, res)
				if !receipt.Success || receipt.Amount != tt.charged || receipt.Transaction == "" || receipt.Payer != p.address.Hex() {
					t.Errorf("receipt %+v", receipt)
				}
				b.expect(t, tt.charged)
				calls := b.asked()
				if len(calls) != 1 || calls[0].PaymentRequirements.Amount != tt.charged || calls[0].PaymentPayload.Accepted.Amount != maximum {
					t.Errorf("asked %+v", calls)
				}
				if seen, _ := w.up.seen(); seen.Header.Get("Paywall-Amount") != maximum {
					t.Errorf("the upstream was told %q", seen.Header.Get("Paywall-Amount"))
				}
				row := w.rowOf(s, p, ledger.Delivered)
				if row.Amount != tt.charged || row.Scheme != "upto" || row.State != ledger.Delivered {
					t.Errorf("row %+v", row)
				}
				w.expect(w.again(func() answerOf { return w.payWith(method, "/chat/x", header) }), 402, "payment_already_used")
			})
		}
	}
	log, err := os.ReadFile(w.log)
	if err != nil || !strings.Contains(string(log), `"amount":"1234"`) {
		t.Errorf("the log does not say what was charged (%v)", err)
	}
}

// rowOf waits until the one purchase of a payer is in one of some states, and
// returns its row.
func (w *world) rowOf(s *scripted, p *payer, states ...ledger.State) (found ledger.Payment) {
	w.t.Helper()
	w.until(func() bool {
		for row, err := range s.Ledger.List(w.t.Context(), ledger.Filter{Payer: p.address.Hex()}) {
			if err != nil {
				w.t.Fatal(err)
			}
			found = row
		}
		return slices.Contains(states, found.State)
	})
	return found
}

// Nothing was used: success without a transaction, without the facilitator, and
// the payment buys nothing else.
func TestUptoChargesNothing(t *testing.T) {
	for name, overrides := range map[string]string{"units": amountOf("0"), "percent": amountOf("0%"), "dollars": amountOf("$0.0000001")} {
		t.Run(name, func(t *testing.T) {
			w, b := newUptoWorld(t, "")
			w.up.charges(overrides)
			header := w.permitFor(http.MethodPost, "/chat/x", newPayer(t)).v2(t)
			res := w.payWith(http.MethodPost, "/chat/x", header)
			w.expect(res, 200, "")
			if receipt := receiptOf(t, res); !receipt.Success || receipt.Amount != "0" || receipt.Transaction != "" || res.body != sample {
				t.Errorf("%q, receipt %+v", res.body, receipt)
			}
			w.counts(1, 1, 0)
			b.expect(t)
			w.expect(w.again(func() answerOf { return w.payWith(http.MethodPost, "/chat/x", header) }), 402, "payment_already_used")
			if again := w.payWith(http.MethodPost, "/chat/y", header); again.StatusCode == 200 {
				t.Error("one authorization, two deliveries")
			}
			w.counts(1, 1, 0)
		})
	}
}

// What an upstream says and nobody can make sense of costs nothing, and its
// answer stays here. Once it is mended the same payment buys.
func TestUptoUnusableUsage(t *testing.T) {
	w, _ := newUptoWorld(t, "")
	for _, overrides := range [][]string{
		{amountOf("500001")},
		{amountOf("100.01%")},
		{amountOf("150%")},
		{amountOf("33.333%")},
		{amountOf("$0.51")},
		{amountOf("-5")},
		{amountOf("abc")},
		{amountOf("1.5")},
		{amountOf("$1e3")},
		{amountOf("")},
		{`{}`},
		{`null`},
		{`{"amount":5}`},
		{`5`},
		{``},
		{`{"amount":"5"`},
		{amountOf("5"), amountOf("5")},
		{amountOf("5"), ""},
		{amountOf("5") + ", " + amountOf("6")},
	} {
		t.Run(strings.Join(overrides, "|"), func(t *testing.T) {
			w.t = t
			b := w.bank()
			hits, settled := w.up.hits.Load(), w.fac.settled.Load()
			w.up.charges(overrides...)
			header := w.permitFor(http.MethodPost, "/chat/x", newPayer(t)).v2(t)
			res := w.payWith(http.MethodPost, "/chat/x", header)
			w.expect(res, 502, "upstream_usage_invalid")
			if strings.Contains(res.body, sample) || res.Header.Get("X-Upstream") != "" || res.Header.Get("Settlement-Overrides") != "" ||
				res.Header.Get("Payment-Response") != "" || res.Header.Get("Payment-Required") != "" {
				t.Errorf("%q %v", res.body, res.Header)
			}
			if w.fac.settled.Load() != settled || w.up.hits.Load() != hits+1 {
				t.Error("the facilitator was asked for money")
			}
			b.expect(t)
			w.up.charges(amountOf("7"))
			w.expect(w.again(func() answerOf { return w.payWith(http.MethodPost, "/chat/x", header) }), 200, "")
			b.expect(t, "7")
		})
	}
	w.t = t
	w.waitForLog("Settlement-Overrides header cannot be used")
}

// What is no goods is not charged, whatever the upstream says of usage.
func TestUptoUncharged(t *testing.T) {
	w, b := newUptoWorld(t, "")
	w.up.on(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Settlement-Overrides", amountOf("1234"))
		rw.WriteHeader(http.StatusNotFound)
	})
	res := w.payWith(http.MethodPost, "/chat/x", w.permitFor(http.MethodPost, "/chat/x", newPayer(t)).v2(t))
	w.expect(res, 404, "")
	if res.Header.Get("Settlement-Overrides") != "" {
		t.Error("the header reached the payer")
	}
	w.counts(1, 1, 0)
	b.expect(t)
}

// The header means nothing at a fixed price, and reaches no payer: neither as a
// header nor as a trailer.
func TestUsageAtFixedPrice(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	for name, trailers := range map[string]func(http.Header){
		"announced":   func(h http.Header) { h.Set("Settlement-Overrides", amountOf("2")) },
		"unannounced": func(h http.Header) { h.Set(http.TrailerPrefix+"Settlement-Overrides", amountOf("3")) },
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.up.on(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Settlement-Overrides", amountOf("1"))
				announced := "X-Checksum"
				if name == "announced" {
					announced += ", Settlement-Overrides"
				}
				rw.Header().Set("Trailer", announced)
				_, _ = io.WriteString(rw, sample)
				_ = http.NewResponseController(rw).Flush()
				rw.Header().Set("X-Checksum", "abc")
				trailers(rw.Header())
			})
			res := w.pay(http.MethodGet, "/paid/x")
			w.expect(res, 200, "")
			if res.Header.Get("Settlement-Overrides") != "" || res.Trailer.Get("Settlement-Overrides") != "" {
				t.Errorf("%v %v", res.Header, res.Trailer)
			}
			if res.Trailer.Get("X-Checksum") != "abc" {
				t.Errorf("the other trailer is gone: %v", res.Trailer)
			}
			if receipt := receiptOf(t, res); receipt.Amount != "" {
				t.Errorf("receipt %+v", receipt)
			}
		})
	}
}

// A facilitator that charges something else than it was asked to is on record.
func TestUptoChargedOtherwise(t *testing.T) {
	w, s := newScriptedUptoWorld(t)
	w.fac.onSettle(says(200, `{"success":true,"transaction":"0xabababababababababababababababababababababababababababababababab","network":"eip155:84532","amount":"500000"}`))
	w.up.charges(amountOf("1234"))
	p := newPayer(t)
	res := w.payWith(http.MethodGet, "/chat/x", w.permitFor(http.MethodGet, "/chat/x", p).v2(t))
	w.expect(res, 200, "")
	if receipt := receiptOf(t, res); receipt.Amount != maximum {
		t.Errorf("receipt %+v", receipt)
	}
	if row := w.rowOf(s, p, ledger.Delivered); row.Amount != maximum {
		t.Errorf("row %+v", row)
	}
	w.waitForLog("another amount than it was asked to")
}

// Who could not settle once has to pay first, and what is not known cannot be
// paid first: nothing is asked of anybody, above all not the maximum.
func TestUptoDefaulter(t *testing.T) {
	w, b := newUptoWorld(t, "")
	w.up.charges(amountOf("1234"))
	p := newPayer(t)
	w.fac.onSettle(refusedSettle)
	w.expect(w.payWith(http.MethodPost, "/chat/x", w.permitFor(http.MethodPost, "/chat/x", p).v2(t)), 402, "insufficient_funds")
	w.fac.onSettle(b.settle)
	w.expect(w.payWith(http.MethodPost, "/chat/x", w.permitFor(http.MethodPost, "/chat/x", p).v2(t)), 402, "upto_cannot_be_settled_first")
	w.counts(1, 2, 1)
	b.expect(t)
	w.expect(w.payWith(http.MethodPost, "/chat/x", w.permitFor(http.MethodPost, "/chat/x", newPayer(t)).v2(t)), 200, "")
	b.expect(t, "1234")
}
