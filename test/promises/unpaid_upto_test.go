package promises

import (
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const maximum = "500000" // $0.50

// newUptoWorld sells for up to $0.50, through a facilitator that can.
func newUptoWorld(t *testing.T, options string, more ...string) (*gate.World, *gate.Facilitator) {
	t.Helper()
	w := gate.Prepare(t)
	w.Facilitator.Kinds.Store(gate.KindsWithUpto(gate.FacilitatorA))
	if options == "" {
		options = `price /chat/* upto $0.50 "Chat"`
	}
	w.Load(w.Caddyfile(options, more...))
	return w, w.Facilitator
}

// newScriptedUptoWorld is one whose ledger does as told.
func newScriptedUptoWorld(t *testing.T) (*gate.World, *gate.Ledger) {
	t.Helper()
	w := gate.Prepare(t)
	w.Facilitator.Kinds.Store(gate.KindsWithUpto(gate.FacilitatorA))
	s := w.WithLedger()
	s.Visible.Store(true)
	w.Load(gate.OnLedger(w.Caddyfile(uptoPrice)))
	return w, s
}

const uptoPrice = "price /chat/* upto $0.50"

func amountOf(amount string) string { return `{"amount":"` + amount + `"}` }

// TestUptoOffersItsMaximum: what an upto price asks for, in both versions.
func TestUptoOffersItsMaximum(t *testing.T) {
	w, _ := newUptoWorld(t, "")
	res := w.Do(w.Request(http.MethodPost, "/chat/x"))
	w.Expect(res, 402, string(x402.CodePaymentRequired))
	// Words for who reads bodies, and nothing in which a version 1 client finds an offer.
	if strings.Contains(res.Text, "accepts") || strings.Contains(res.Text, "x402Version") || !strings.Contains(res.Text, `"price":"up to 0.5 USDC`) {
		t.Errorf("version 1 body %q: its clients cannot pay this", res.Text)
	}
	c := w.Challenge(http.MethodPost, "/chat/x")
	if len(c.Accepts) != 1 {
		t.Fatalf("%+v", c.Accepts)
	}
	const extra = `{"assetTransferMethod":"permit2","facilitatorAddress":"` + gate.FacilitatorA + `","name":"USDC","version":"2"}`
	if a := c.Accepts[0]; a.Scheme != "upto" || a.Amount != maximum || string(a.Extra) != extra {
		t.Errorf("%+v", a)
	}
}

// TestOneTokenByBothWaysBesideUpto: a token that is accepted by EIP-3009 and by Permit2, each
// for a payee of its own, is offered both ways at a fixed price, and by Permit2 where the
// upstream says what is charged.
func TestOneTokenByBothWaysBesideUpto(t *testing.T) {
	const direct = "accept base-sepolia usdc " + gate.PayTo + "\n"
	const permit2 = "accept base-sepolia usdc " + gate.FacilitatorB + " {\n transfer permit2\n}\n"
	for name, accept := range map[string]string{"EIP-3009 first": direct + permit2, "Permit2 first": permit2 + direct} {
		t.Run(name, func(t *testing.T) {
			w, b := newUptoWorld(t, accept+"price /chat/* upto $0.50\nprice /fixed $0.01")
			offered := func(method, path string) (says []string) {
				for _, a := range w.Challenge(method, path).Accepts {
					how := "eip3009"
					if strings.Contains(string(a.Extra), `"permit2"`) {
						how = "permit2"
					}
					says = append(says, a.Scheme+" "+how+" "+a.PayTo)
				}
				slices.Sort(says)
				return says
			}
			if got, want := offered(http.MethodGet, "/fixed"), []string{"exact eip3009 " + gate.PayTo, "exact permit2 " + gate.FacilitatorB}; !slices.Equal(got, want) {
				t.Errorf("fixed: %q, want %q", got, want)
			}
			if got, want := offered(http.MethodPost, "/chat/x"), []string{"upto permit2 " + gate.FacilitatorB}; !slices.Equal(got, want) {
				t.Errorf("upto: %q, want %q", got, want)
			}
			w.Upstream.Charges(amountOf("1234"))
			w.Expect(w.PayWith(http.MethodPost, "/chat/x", w.PermitFor(http.MethodPost, "/chat/x", gate.NewPayer(t)).V2(t)), 200, "")
			b.ExpectMoved(t, "1234")
		})
	}
}

// TestUptoChargesWhatTheUpstreamSays: the payer is charged what the upstream says, and told so; the
// facilitator is asked for exactly that; the upstream learns of the maximum.
func TestUptoChargesWhatTheUpstreamSays(t *testing.T) {
	w, _ := newUptoWorld(t, "price /chat/* upto $0.50\nupstream_headers")
	s := w.WithLedger()
	w.Load(gate.OnLedger(w.Caddyfile("price /chat/* upto $0.50\nupstream_headers")))
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
				w.T = t
				b := w.Facilitator.Anew()
				w.Upstream.Charges(tt.overrides...)
				p := gate.NewPayer(t)
				header := w.PermitFor(method, "/chat/x", p).V2(t)
				res := w.PayWith(method, "/chat/x", header)
				w.Expect(res, 200, "")
				if res.Text != gate.Goods || res.Header.Get("Settlement-Overrides") != "" || res.Header.Get("X-Upstream") != "yes" {
					t.Errorf("%q %v", res.Text, res.Header)
				}
				receipt := gate.ReceiptOf(t, res)
				if !receipt.Success || receipt.Amount != tt.charged || receipt.Transaction == "" || receipt.Payer != p.Address.Hex() {
					t.Errorf("receipt %+v", receipt)
				}
				b.ExpectMoved(t, tt.charged)
				calls := b.Settlements()
				if len(calls) != 1 || calls[0].PaymentRequirements.Amount != tt.charged || calls[0].PaymentPayload.Accepted.Amount != maximum {
					t.Errorf("asked %+v", calls)
				}
				if seen, _ := w.Upstream.Seen(); seen.Header.Get("Paywall-Amount") != maximum {
					t.Errorf("the upstream was told %q", seen.Header.Get("Paywall-Amount"))
				}
				row := rowIn(w, s, p, ledger.Delivered)
				if row.Amount != tt.charged || row.Scheme != "upto" || row.State != ledger.Delivered {
					t.Errorf("row %+v", row)
				}
				w.Expect(w.Again(func() gate.Answer { return w.PayWith(method, "/chat/x", header) }), 402, "payment_already_used")
			})
		}
	}
	log, err := os.ReadFile(w.LogFile)
	if err != nil || !strings.Contains(string(log), `"amount":"1234"`) {
		t.Errorf("the log does not say what was charged (%v)", err)
	}
}

// rowOf waits until the one purchase of a payer is in one of some states, and
// returns its row.
func rowIn(w *gate.World, s *gate.Ledger, p *gate.Payer, states ...ledger.State) (found ledger.Payment) {
	w.T.Helper()
	w.Until(func() bool {
		for row, err := range s.Ledger.List(w.T.Context(), ledger.Filter{Payer: p.Address.Hex()}) {
			if err != nil {
				w.T.Fatal(err)
			}
			found = row
		}
		return slices.Contains(states, found.State)
	})
	return found
}

// Nothing was used: success without a transaction, without the facilitator, and
// the payment buys nothing else.
func TestUptoOfNothingIsSuccessWithoutATransaction(t *testing.T) {
	for name, overrides := range map[string]string{"units": amountOf("0"), "percent": amountOf("0%"), "dollars": amountOf("$0.0000001")} {
		t.Run(name, func(t *testing.T) {
			w, b := newUptoWorld(t, "")
			w.Upstream.Charges(overrides)
			header := w.PermitFor(http.MethodPost, "/chat/x", gate.NewPayer(t)).V2(t)
			res := w.PayWith(http.MethodPost, "/chat/x", header)
			w.Expect(res, 200, "")
			if receipt := gate.ReceiptOf(t, res); !receipt.Success || receipt.Amount != "0" || receipt.Transaction != "" || res.Text != gate.Goods {
				t.Errorf("%q, receipt %+v", res.Text, receipt)
			}
			w.Counts(1, 1, 0)
			b.ExpectMoved(t)
			w.Expect(w.Again(func() gate.Answer { return w.PayWith(http.MethodPost, "/chat/x", header) }), 402, "payment_already_used")
			if again := w.PayWith(http.MethodPost, "/chat/y", header); again.StatusCode == 200 {
				t.Error("one authorization, two deliveries")
			}
			w.Counts(1, 1, 0)
		})
	}
}

// What an upstream says and nobody can make sense of costs nothing, and its
// answer stays here. Once it is mended the same payment buys.
func TestUnusableUsageCostsNothing(t *testing.T) {
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
			w.T = t
			b := w.Facilitator.Anew()
			hits, settled := w.Upstream.Hits.Load(), w.Facilitator.Settled.Load()
			w.Upstream.Charges(overrides...)
			header := w.PermitFor(http.MethodPost, "/chat/x", gate.NewPayer(t)).V2(t)
			res := w.PayWith(http.MethodPost, "/chat/x", header)
			w.Expect(res, 502, "upstream_usage_invalid")
			if strings.Contains(res.Text, gate.Goods) || res.Header.Get("X-Upstream") != "" || res.Header.Get("Settlement-Overrides") != "" ||
				res.Header.Get("Payment-Response") != "" || res.Header.Get("Payment-Required") != "" {
				t.Errorf("%q %v", res.Text, res.Header)
			}
			if w.Facilitator.Settled.Load() != settled || w.Upstream.Hits.Load() != hits+1 {
				t.Error("the facilitator was asked for money")
			}
			b.ExpectMoved(t)
			w.Upstream.Charges(amountOf("7"))
			w.Expect(w.Again(func() gate.Answer { return w.PayWith(http.MethodPost, "/chat/x", header) }), 200, "")
			b.ExpectMoved(t, "7")
		})
	}
	w.T = t
	w.WaitForLog("Settlement-Overrides header cannot be used")
}

// What is no goods is not charged, whatever the upstream says of usage.
func TestUptoChargesNothingForNoGoods(t *testing.T) {
	w, b := newUptoWorld(t, "")
	w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Settlement-Overrides", amountOf("1234"))
		rw.WriteHeader(http.StatusNotFound)
	})
	res := w.PayWith(http.MethodPost, "/chat/x", w.PermitFor(http.MethodPost, "/chat/x", gate.NewPayer(t)).V2(t))
	w.Expect(res, 404, "")
	if res.Header.Get("Settlement-Overrides") != "" {
		t.Error("the header reached the payer")
	}
	w.Counts(1, 1, 0)
	b.ExpectMoved(t)
}

// The header means nothing at a fixed price, and reaches no payer: neither as a
// header nor as a trailer.
func TestUsageMeansNothingAtAFixedPrice(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	for name, trailers := range map[string]func(http.Header){
		"announced":   func(h http.Header) { h.Set("Settlement-Overrides", amountOf("2")) },
		"unannounced": func(h http.Header) { h.Set(http.TrailerPrefix+"Settlement-Overrides", amountOf("3")) },
	} {
		t.Run(name, func(t *testing.T) {
			w.T = t
			w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Settlement-Overrides", amountOf("1"))
				announced := "X-Checksum"
				if name == "announced" {
					announced += ", Settlement-Overrides"
				}
				rw.Header().Set("Trailer", announced)
				_, _ = io.WriteString(rw, gate.Goods)
				_ = http.NewResponseController(rw).Flush()
				rw.Header().Set("X-Checksum", "abc")
				trailers(rw.Header())
			})
			res := w.Pay(http.MethodGet, "/paid/x")
			w.Expect(res, 200, "")
			if res.Header.Get("Settlement-Overrides") != "" || res.Trailer.Get("Settlement-Overrides") != "" {
				t.Errorf("%v %v", res.Header, res.Trailer)
			}
			if res.Trailer.Get("X-Checksum") != "abc" {
				t.Errorf("the other trailer is gone: %v", res.Trailer)
			}
			if receipt := gate.ReceiptOf(t, res); receipt.Amount != "" {
				t.Errorf("receipt %+v", receipt)
			}
		})
	}
}

// A facilitator that charges something else than it was asked to is on record.
func TestChargeThatWasNotAskedForIsOnRecord(t *testing.T) {
	w, s := newScriptedUptoWorld(t)
	w.Facilitator.OnSettle(gate.Says(200, `{"success":true,"transaction":"0xabababababababababababababababababababababababababababababababab","network":"eip155:84532","amount":"500000"}`))
	w.Upstream.Charges(amountOf("1234"))
	p := gate.NewPayer(t)
	res := w.PayWith(http.MethodGet, "/chat/x", w.PermitFor(http.MethodGet, "/chat/x", p).V2(t))
	w.Expect(res, 200, "")
	if receipt := gate.ReceiptOf(t, res); receipt.Amount != maximum {
		t.Errorf("receipt %+v", receipt)
	}
	if row := rowIn(w, s, p, ledger.Delivered); row.Amount != maximum {
		t.Errorf("row %+v", row)
	}
	w.WaitForLog("another amount than it was asked to")
}

// Who could not settle once has to pay first, and what is not known cannot be
// paid first: nothing is asked of anybody, above all not the maximum.
func TestWhoCouldNotSettleBuysNothingByUse(t *testing.T) {
	w, b := newUptoWorld(t, "")
	w.Upstream.Charges(amountOf("1234"))
	p := gate.NewPayer(t)
	w.Facilitator.OnSettle(gate.RefusedSettle)
	w.Expect(w.PayWith(http.MethodPost, "/chat/x", w.PermitFor(http.MethodPost, "/chat/x", p).V2(t)), 402, "insufficient_funds")
	w.Facilitator.OnSettle(b.Settle)
	w.Expect(w.PayWith(http.MethodPost, "/chat/x", w.PermitFor(http.MethodPost, "/chat/x", p).V2(t)), 402, "upto_cannot_be_settled_first")
	w.Counts(1, 2, 1)
	b.ExpectMoved(t)
	w.Expect(w.PayWith(http.MethodPost, "/chat/x", w.PermitFor(http.MethodPost, "/chat/x", gate.NewPayer(t)).V2(t)), 200, "")
	b.ExpectMoved(t, "1234")
}
