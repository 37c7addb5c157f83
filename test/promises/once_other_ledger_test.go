package promises

import (
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// A payment that was used before the ledger became another one buys nothing after it.
func TestPaymentUsedBeforeAnotherLedgerIsRefused(t *testing.T) {
	for name, m := range moves(t) {
		t.Run(name, func(t *testing.T) {
			w := gate.Prepare(t)
			caddyfile := w.Caddyfile("price /paid/* $0.01")
			w.Load(onLedger(caddyfile, m.from))
			payment := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
			w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", payment), 200, "")
			m.make(w, caddyfile)
			w.Expect(w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", payment) }), 402, "payment_already_used")
			if w.Upstream.Hits.Load() > 20 || w.Facilitator.Transfers() != 1 {
				t.Errorf("%d transfers", w.Facilitator.Transfers())
			}
		})
	}
}

// A purchase that a config with one ledger has begun is under way for the config with
// another one: its payment buys nothing there meanwhile, nor when it is done.
func TestPurchaseGoesOnOverAnotherLedger(t *testing.T) {
	for _, during := range []string{"verify", "settle", "upstream"} {
		t.Run(during, func(t *testing.T) {
			w := gate.Prepare(t)
			dir := t.TempDir()
			caddyfile := w.Caddyfile("price /paid/* $0.01")
			w.Load(onLedger(caddyfile, "sqlite "+filepath.Join(dir, "old.db")))
			s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
			reload := func(at string) {
				if at == during {
					w.Load(onLedger(caddyfile, "sqlite "+filepath.Join(dir, "new.db")))
				}
			}
			w.Facilitator.OnVerify(func(rw http.ResponseWriter, r *http.Request) {
				reload("verify")
				gate.Says(200, `{"isValid":true}`)(rw, r)
			})
			w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
				body := gate.Body(r)
				reload("settle")
				w.Facilitator.Move(rw, body)
			})
			w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
				reload("upstream")
				_, _ = rw.Write([]byte(gate.Goods))
			})
			w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", s), 200, "")
			w.HTTP.CloseIdleConnections()
			res := w.Again(func() gate.Answer {
				return w.Reconnecting(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", s) })
			})
			w.Expect(res, 402, "payment_already_used")
			if w.Facilitator.Transfers() != 1 {
				t.Errorf("%d transfers", w.Facilitator.Transfers())
			}
		})
	}
}

// The upstream gets the same key for every run for one payment, whatever ledger is sold in
// by then.
func TestIdempotencyKeyOutlivesTheLedger(t *testing.T) {
	for name, m := range moves(t) {
		t.Run(name, func(t *testing.T) {
			w := gate.Prepare(t)
			caddyfile := w.Caddyfile("upstream_headers\nprice POST /act $0.01")
			w.Load(onLedger(caddyfile, m.from))
			var keys sync.Map
			var dies atomic.Bool
			dies.Store(true)
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				if key := r.Header.Get("Idempotency-Key"); key != "" { // else a free request
					keys.Store(key, true)
				}
				if dies.Load() {
					gate.Drop(rw, r)
				}
			})
			payment := w.Sign(http.MethodPost, "/act", gate.NewPayer(t)).V2(t)
			w.Expect(w.PostPaid("/act", "order", payment, false), 502, "upstream_failed")
			dies.Store(false)
			m.make(w, caddyfile)
			w.Expect(w.Again(func() gate.Answer { return w.PostPaid("/act", "order", payment, false) }), 200, "")
			n := 0
			keys.Range(func(any, any) bool { n++; return true })
			if n != 1 || w.Facilitator.Transfers() != 1 {
				t.Errorf("%d keys, %d transfers", n, w.Facilitator.Transfers())
			}
		})
	}
}
