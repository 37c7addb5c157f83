package promises

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// Nobody is asked to sign while the ledger does not work, whether it cannot be asked or
// cannot be written; a load balancer and the metrics are told, and it ends by itself.
func TestLedgerThatDoesNotWorkClosesPrices(t *testing.T) {
	for name, fails := range map[string]func(*gate.Ledger, bool){
		"it cannot be asked":   func(s *gate.Ledger, yes bool) { s.Silent.Store(yes) },
		"it cannot be written": func(s *gate.Ledger, yes bool) { s.Full.Store(yes) },
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.Prepare(t)
			s := w.WithLedger()
			w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01", "paywall_health /health")))
			health := func(status int, said string) {
				t.Helper()
				if res := w.Get("/health"); res.StatusCode != status || res.Text != `{"status":"`+said+`"}` {
					t.Errorf("%d %s", res.StatusCode, res.Text)
				}
			}
			var payments []string
			for range 3 {
				payments = append(payments, w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t))
			}
			health(200, "ok")
			fails(s, true)
			w.Until(func() bool {
				for _, payment := range payments { // that it cannot be written, those notice who have signed
					if s.Full.Load() {
						w.Get("/paid/x", "PAYMENT-SIGNATURE", payment)
					}
				}
				return w.Get("/paid/x").StatusCode == http.StatusServiceUnavailable
			})
			res := w.Get("/paid/x")
			w.Expect(res, 503, "ledger_unavailable")
			if res.Header.Get("Retry-After") == "" || res.Header.Get("Payment-Required") != "" || strings.Contains(res.Text, "broken") {
				t.Errorf("%v", res)
			}
			health(503, "ledger_unavailable")
			if up, ok := gate.Series(t)["ledger_up"]; !ok || up != 0 {
				t.Error(up, ok)
			}
			w.Expect(w.Get("/free"), 200, "")
			fails(s, false)
			w.Until(func() bool { return w.Get("/paid/x").StatusCode == http.StatusPaymentRequired })
			w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", payments[0]), 200, "")
			health(200, "ok")
			if up := gate.Series(t)["ledger_up"]; up != 1 {
				t.Error(up)
			}
		})
	}
}

// One row that cannot be changed closes no price.
func TestARowThatDoesNotWorkClosesNothing(t *testing.T) {
	w := gate.Prepare(t)
	s := w.WithLedger()
	w.Load(gate.OnLedger(w.Caddyfile("price POST /paid/* $0.01")))
	p := gate.NewPayer(t)
	s.OnMove(func(c ledger.Claim, ch ledger.Change) error {
		if strings.HasSuffix(c.Payment.URL, "/stuck") {
			return ledger.ErrUnavailable
		}
		return nil
	})
	for range 5 {
		if res := w.PostPaid("/paid/stuck", "order", w.Sign(http.MethodPost, "/paid/stuck", p).V2(t), false); res.StatusCode < 409 {
			t.Fatal(res)
		}
		w.Expect(w.PostPaid("/paid/x", "order", w.Sign(http.MethodPost, "/paid/x", p).V2(t), false), 200, "")
	}
}

// A ledger that cannot be opened closes the prices until it can.
func TestLedgerThatCannotBeOpenedClosesPrices(t *testing.T) {
	w := gate.Prepare(t)
	blocked := filepath.Join(t.TempDir(), "not-a-directory")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.Load(strings.Replace(w.Caddyfile("price /paid/* $0.01"), "ledger memory i_accept_loss", "ledger sqlite "+blocked+"/ledger.db", 1))
	w.Until(func() bool { return w.Get("/paid/x").StatusCode == http.StatusServiceUnavailable })
	w.Expect(w.Get("/paid/x"), 503, "ledger_unavailable")
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	w.Until(func() bool { return w.Get("/paid/x").StatusCode == http.StatusPaymentRequired })
	w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
}
