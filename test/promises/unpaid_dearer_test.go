package promises

import (
	"net/http"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// variants are configs in which one URL has two prices, and how to ask for the
// cheap and for the dear goods.
var variants = map[string]struct {
	options, before string
	cheap, dear     func(w *gate.World, header ...string) *http.Request
}{
	"method": {
		"settle first\nprice GET /x $0.01\nprice POST /x $1", "",
		func(w *gate.World, header ...string) *http.Request { return w.Request(http.MethodGet, "/x", header...) },
		func(w *gate.World, header ...string) *http.Request {
			return w.Request(http.MethodPost, "/x", header...)
		},
	},
	"method, on success": {
		"settle on_success\nprice GET /x $0.01\nprice PUT /x $1", "",
		func(w *gate.World, header ...string) *http.Request { return w.Request(http.MethodGet, "/x", header...) },
		func(w *gate.World, header ...string) *http.Request { return w.Request(http.MethodPut, "/x", header...) },
	},
	"matcher": {
		"price @small /x $0.01\nprice /x $1", "@small header X-Size small",
		func(w *gate.World, header ...string) *http.Request {
			return w.Request(http.MethodGet, "/x", append(header, "X-Size", "small")...)
		},
		func(w *gate.World, header ...string) *http.Request { return w.Request(http.MethodGet, "/x", header...) },
	},
	"matcher, settled first": {
		"settle first\nprice @small /x $0.01\nprice @large /x $1", "@small header X-Size small\n@large header X-Size large",
		func(w *gate.World, header ...string) *http.Request {
			return w.Request(http.MethodGet, "/x", append(header, "X-Size", "small")...)
		},
		func(w *gate.World, header ...string) *http.Request {
			return w.Request(http.MethodGet, "/x", append(header, "X-Size", "large")...)
		},
	},
}

// offered is what a request is asked to pay.
func offered(w *gate.World, r *http.Request) x402.Requirement {
	w.T.Helper()
	res := w.Do(r)
	w.Expect(res, 402, "")
	c, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired))
	if err != nil {
		w.T.Fatal(err)
	}
	return c.Accepts[0]
}

// TestCheapQuoteBuysNothingDear: what was quoted for one line of the list buys
// nothing of another line of the same URL.
func TestCheapQuoteBuysNothingDear(t *testing.T) {
	for name, v := range variants {
		t.Run(name, func(t *testing.T) {
			w := gate.New(t, v.options, v.before)
			w.Until(func() bool { return w.Do(v.cheap(w)).StatusCode == 402 })
			cheap := offered(w, v.cheap(w))
			if dear := offered(w, v.dear(w)); cheap.Amount != "10000" || dear.Amount != "1000000" {
				t.Fatalf("offers of %s and %s", cheap.Amount, dear.Amount)
			}
			s := gate.NewPayer(t).Sign(t, cheap, time.Now())
			w.Expect(w.Do(v.dear(w, "PAYMENT-SIGNATURE", s.V2(t))), 402, "no_matching_requirements")
			if res := w.Do(v.dear(w, "X-PAYMENT", s.V1(t))); res.StatusCode != 402 {
				t.Errorf("version 1: %d %s", res.StatusCode, res.Text)
			}
			w.Counts(0, 0, 0)
			w.Expect(w.Do(v.cheap(w, "PAYMENT-SIGNATURE", s.V2(t))), 200, "")
		})
	}
}

// TestCheapPurchaseRedeemsNothingDear: a cheap purchase that is owed is not
// handed out as the dear goods of the same URL.
func TestCheapPurchaseRedeemsNothingDear(t *testing.T) {
	for _, name := range []string{"matcher", "matcher, settled first"} {
		v := variants[name]
		t.Run(name, func(t *testing.T) {
			w := gate.New(t, v.options, v.before)
			w.Until(func() bool { return w.Do(v.cheap(w)).StatusCode == 402 })
			p := gate.NewPayer(t)
			s := p.Sign(t, offered(w, v.cheap(w)), time.Now())
			w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Length", "1000")
				_, _ = rw.Write([]byte("half"))
				_ = http.NewResponseController(rw).Flush()
				panic(http.ErrAbortHandler)
			})
			if res := w.Do(v.cheap(w, "PAYMENT-SIGNATURE", s.V2(t))); res.Err == nil || w.Facilitator.Transfers() != 1 {
				t.Fatalf("%d %s, %d transfers", res.StatusCode, res.Text, w.Facilitator.Transfers())
			}
			w.Upstream.On(nil)
			w.WaitForLog(`"outcome":"undelivered"`)
			w.Expect(w.Do(v.dear(w, "PAYMENT-SIGNATURE", s.V2(t))), 409, "payment_bought_something_else")
			w.Expect(w.Do(v.dear(w, "PAYMENT-SIGNATURE", p.Sign(t, offered(w, v.dear(w)), time.Now()).V2(t))), 200, "")
			if w.Facilitator.Transfers() != 2 {
				t.Errorf("the dear goods were not charged: %d transfers", w.Facilitator.Transfers())
			}
			// What is owed still is.
			w.Expect(w.Do(v.cheap(w, "PAYMENT-SIGNATURE", s.V2(t))), 200, "")
		})
	}
}

// A HEAD buys a GET where both cost the same.
func TestCheapHeadBuysNoDearGet(t *testing.T) {
	w := gate.New(t, "price HEAD /x $0.01\nprice /x $1")
	w.Until(func() bool { return w.Get("/x").StatusCode == 402 })
	p := gate.NewPayer(t)
	s := w.Sign(http.MethodHead, "/x", p).V2(t)
	w.Expect(w.Do(w.Request(http.MethodHead, "/x", "PAYMENT-SIGNATURE", s)), 200, "")
	w.WaitForLog(`"outcome":"settled"`)
	w.Expect(w.Get("/x", "PAYMENT-SIGNATURE", s), 409, "payment_bought_something_else")
	w.Expect(w.Get("/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/x", p).V2(t)), 200, "")
	if w.Facilitator.Transfers() != 2 {
		t.Errorf("%d transfers", w.Facilitator.Transfers())
	}
}

// A price that has risen is no other goods: what is owed is handed out.
func TestRisenPriceRedeems(t *testing.T) {
	w := gate.New(t, "price /x $0.01 {\n settle first\n}\nprice /y $1")
	p := gate.NewPayer(t)
	w.Upstream.On(gate.Says(500, "broken"))
	w.Expect(w.Get("/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/x", p).V2(t)), 500, "")
	w.Reload(w.Caddyfile("price /x $0.02\nprice /y $0.01"))
	w.Upstream.On(nil)
	w.Expect(w.Get("/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/x", p).V2(t)), 200, "")
	if w.Facilitator.Transfers() != 1 {
		t.Errorf("%d transfers", w.Facilitator.Transfers())
	}
}
