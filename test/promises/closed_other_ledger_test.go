package promises

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// While a former ledger is away, nothing is sold that may be in it; when it is back, all
// is sold again.
func TestFormerLedgerAwayClosesThePrices(t *testing.T) {
	w := gate.Prepare(t)
	s := w.WithLedger()
	w.Load(onLedger(w.Caddyfile("price /paid/* $0.01"), "sqlite "+filepath.Join(t.TempDir(), "new.db"), "test.scripted"))
	w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
	var payments []string
	for range 3 {
		payments = append(payments, w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t))
	}
	s.Silent.Store(true)
	for _, payment := range payments {
		w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", payment), 503, "ledger_unavailable")
	}
	w.ComesGood(func() bool { return w.Get("/paid/x").Is(503) }) // before anybody else signs
	w.WaitForLog("a former ledger cannot be asked, so nothing is sold")
	if w.Facilitator.Transfers() != 1 {
		t.Errorf("%d transfers", w.Facilitator.Transfers())
	}
	s.Silent.Store(false)
	w.ComesGood(func() bool { return w.Get("/paid/x").Is(402) })
	w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
	w.WaitForLog("the former ledger can be asked again")
}

// A former ledger that is no other one, or none, does not load.
func TestFormerLedgerThatIsNoneDoesNotLoad(t *testing.T) {
	w := gate.Prepare(t)
	caddyfile := w.Caddyfile("price /paid/* $0.01")
	dir := t.TempDir()
	file := filepath.Join(dir, "a.db")
	for name, tt := range map[string]struct{ caddyfile, want string }{
		"the current one":                 {onLedger(caddyfile, "sqlite "+file, "sqlite "+file), "named already"},
		"the current one, in other words": {onLedger(caddyfile, "sqlite "+file, "sqlite "+dir+"/../"+filepath.Base(dir)+"/a.db"), "named already"},
		"one twice":                       {onLedger(caddyfile, "memory i_accept_loss", "sqlite "+file, "sqlite "+file), "named already"},
		"a file that is not there":        {onLedger(caddyfile, "memory i_accept_loss", "sqlite "+file), "there is no ledger at"},
		"the database, with another user": {onLedger(caddyfile, "postgres postgres://a@127.0.0.1/paywall", "postgres postgres://b@127.0.0.1:5432/paywall"), "named already"},
		"without a ledger to be sold in":  {strings.Replace(caddyfile, "ledger memory i_accept_loss", "former_ledger memory i_accept_loss", 1), "say in which one"},
		"a kind of ledger there is not":   {onLedger(caddyfile, "memory i_accept_loss", "other"), "there is no module"},
		"no kind":                         {onLedger(caddyfile, "memory i_accept_loss", ""), "which one?"},
		"a word that its kind has not":    {onLedger(caddyfile, "memory i_accept_loss", "sqlite "+file+" {\n other\n}"), "unknown word"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := gate.Load(tt.caddyfile); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("it says %v", err)
			}
		})
	}
}

// A ledger that could never be reached, taken back: nothing was sold there, and the shop is
// open again.
func TestWrongLedgerTakenBackClosesNothing(t *testing.T) {
	w := gate.Prepare(t)
	caddyfile := w.Caddyfile("price /paid/* $0.01")
	dir := t.TempDir()
	good := onLedger(caddyfile, "sqlite "+filepath.Join(dir, "good.db"))
	w.Load(good)
	w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
	blocked := filepath.Join(dir, "no-folder")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.Reload(onLedger(caddyfile, "sqlite "+filepath.Join(blocked, "wrong.db")))
	w.ComesGood(func() bool { return w.Get("/paid/x").Is(503) })
	w.Reload(good)
	w.ComesGood(func() bool { return w.Get("/paid/x").Is(402) })
	w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
}
