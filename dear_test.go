package paywall_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// variants are configs in which one URL has two prices, and how to ask for the
// cheap and for the dear goods.
var variants = map[string]struct {
	options, before string
	cheap, dear     func(w *world, header ...string) *http.Request
}{
	"method": {
		"settle first\nprice GET /x $0.01\nprice POST /x $1", "",
		func(w *world, header ...string) *http.Request { return w.request(http.MethodGet, "/x", header...) },
		func(w *world, header ...string) *http.Request { return w.request(http.MethodPost, "/x", header...) },
	},
	"method, on success": {
		"settle on_success\nprice GET /x $0.01\nprice PUT /x $1", "",
		func(w *world, header ...string) *http.Request { return w.request(http.MethodGet, "/x", header...) },
		func(w *world, header ...string) *http.Request { return w.request(http.MethodPut, "/x", header...) },
	},
	"matcher": {
		"price @small /x $0.01\nprice /x $1", "@small header X-Size small",
		func(w *world, header ...string) *http.Request {
			return w.request(http.MethodGet, "/x", append(header, "X-Size", "small")...)
		},
		func(w *world, header ...string) *http.Request { return w.request(http.MethodGet, "/x", header...) },
	},
	"matcher, settled first": {
		"settle first\nprice @small /x $0.01\nprice @large /x $1", "@small header X-Size small\n@large header X-Size large",
		func(w *world, header ...string) *http.Request {
			return w.request(http.MethodGet, "/x", append(header, "X-Size", "small")...)
		},
		func(w *world, header ...string) *http.Request {
			return w.request(http.MethodGet, "/x", append(header, "X-Size", "large")...)
		},
	},
}

// offered is what a request is asked to pay.
func (w *world) offered(r *http.Request) x402.Requirement {
	w.t.Helper()
	res := w.do(r)
	w.expect(res, 402, "")
	c, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired))
	if err != nil {
		w.t.Fatal(err)
	}
	return c.Accepts[0]
}

// TestCheapQuoteBuysNothingDear: what was quoted for one line of the list buys
// nothing of another line of the same URL.
func TestCheapQuoteBuysNothingDear(t *testing.T) {
	for name, v := range variants {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, v.options, v.before)
			w.until(func() bool { return w.do(v.cheap(w)).StatusCode == 402 })
			cheap := w.offered(v.cheap(w))
			if dear := w.offered(v.dear(w)); cheap.Amount != "10000" || dear.Amount != "1000000" {
				t.Fatalf("offers of %s and %s", cheap.Amount, dear.Amount)
			}
			s := newPayer(t).sign(t, cheap, time.Now())
			w.expect(w.do(v.dear(w, "PAYMENT-SIGNATURE", s.v2(t))), 402, "no_matching_requirements")
			if res := w.do(v.dear(w, "X-PAYMENT", s.v1(t))); res.StatusCode != 402 {
				t.Errorf("version 1: %d %s", res.StatusCode, res.body)
			}
			w.counts(0, 0, 0)
			w.expect(w.do(v.cheap(w, "PAYMENT-SIGNATURE", s.v2(t))), 200, "")
		})
	}
}

// TestCheapPurchaseRedeemsNothingDear: a cheap purchase that is owed is not
// handed out as the dear goods of the same URL.
func TestCheapPurchaseRedeemsNothingDear(t *testing.T) {
	for _, name := range []string{"matcher", "matcher, settled first"} {
		v := variants[name]
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, v.options, v.before)
			w.until(func() bool { return w.do(v.cheap(w)).StatusCode == 402 })
			p := newPayer(t)
			s := p.sign(t, w.offered(v.cheap(w)), time.Now())
			w.up.on(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Length", "1000")
				_, _ = rw.Write([]byte("half"))
				_ = http.NewResponseController(rw).Flush()
				panic(http.ErrAbortHandler)
			})
			if res := w.do(v.cheap(w, "PAYMENT-SIGNATURE", s.v2(t))); res.err == nil || w.fac.transfers() != 1 {
				t.Fatalf("%d %s, %d transfers", res.StatusCode, res.body, w.fac.transfers())
			}
			w.up.on(nil)
			w.waitForLog(`"outcome":"undelivered"`)
			w.expect(w.do(v.dear(w, "PAYMENT-SIGNATURE", s.v2(t))), 409, "payment_bought_something_else")
			w.expect(w.do(v.dear(w, "PAYMENT-SIGNATURE", p.sign(t, w.offered(v.dear(w)), time.Now()).v2(t))), 200, "")
			if w.fac.transfers() != 2 {
				t.Errorf("the dear goods were not charged: %d transfers", w.fac.transfers())
			}
			// What is owed still is.
			w.expect(w.do(v.cheap(w, "PAYMENT-SIGNATURE", s.v2(t))), 200, "")
		})
	}
}

// A HEAD buys a GET where both cost the same.
func TestCheapHeadBuysNoDearGet(t *testing.T) {
	w := newWorld(t, "price HEAD /x $0.01\nprice /x $1")
	w.until(func() bool { return w.get("/x").StatusCode == 402 })
	p := newPayer(t)
	s := w.sign(http.MethodHead, "/x", p).v2(t)
	w.expect(w.do(w.request(http.MethodHead, "/x", "PAYMENT-SIGNATURE", s)), 200, "")
	w.waitForLog(`"outcome":"settled"`)
	w.expect(w.get("/x", "PAYMENT-SIGNATURE", s), 409, "payment_bought_something_else")
	w.expect(w.get("/x", "PAYMENT-SIGNATURE", w.sign(http.MethodGet, "/x", p).v2(t)), 200, "")
	if w.fac.transfers() != 2 {
		t.Errorf("%d transfers", w.fac.transfers())
	}
}

// A price that has risen is no other goods: what is owed is handed out.
func TestRisenPriceRedeems(t *testing.T) {
	w := newWorld(t, "price /x $0.01 {\n settle first\n}\nprice /y $1")
	p := newPayer(t)
	w.up.on(says(500, "broken"))
	w.expect(w.get("/x", "PAYMENT-SIGNATURE", w.sign(http.MethodGet, "/x", p).v2(t)), 500, "")
	w.reload(w.caddyfile("price /x $0.02\nprice /y $0.01"))
	w.up.on(nil)
	w.expect(w.get("/x", "PAYMENT-SIGNATURE", w.sign(http.MethodGet, "/x", p).v2(t)), 200, "")
	if w.fac.transfers() != 1 {
		t.Errorf("%d transfers", w.fac.transfers())
	}
}
