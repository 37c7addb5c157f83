package promises

import (
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// onLedger makes a Caddyfile sell in another ledger, and name former ones.
func onLedger(caddyfile, words string, former ...string) string {
	text := "ledger " + words
	for _, f := range former {
		text += "\nformer_ledger " + f
	}
	return strings.Replace(caddyfile, "ledger memory i_accept_loss", text, 1)
}

// move is a way from one ledger to another.
type move struct {
	restart bool
	from    string
	to      []string // the new one, and former ones that the config names
}

// moves are the ways from one ledger to another.
func moves(t *testing.T) map[string]move {
	t.Helper()
	old, current := "sqlite "+filepath.Join(t.TempDir(), "old.db"), "sqlite "+filepath.Join(t.TempDir(), "new.db")
	return map[string]move{
		"a reload":                            {from: old, to: []string{current}},
		"a reload from memory":                {from: "memory i_accept_loss", to: []string{current}},
		"a reload that names the former one":  {from: old, to: []string{current, old}},
		"a restart that names the former one": {from: old, to: []string{current, old}, restart: true},
	}
}

func (m move) make(w *gate.World, caddyfile string) {
	w.T.Helper()
	if m.restart {
		if err := caddy.Stop(); err != nil {
			w.T.Fatal(err)
		}
	}
	w.Reload(onLedger(caddyfile, m.to[0], m.to[1:]...))
}

// What was paid for before the ledger is another one is fetched after it, with the same
// payment or a fresh signature, and not charged again.
func TestOwedBeforeAnotherLedgerIsFetchedAfterIt(t *testing.T) {
	for _, by := range []string{"the same payment", "a fresh signature"} {
		for name, m := range moves(t) {
			t.Run(name+", "+by, func(t *testing.T) {
				w := gate.Prepare(t)
				caddyfile := w.Caddyfile("price /paid/* $0.01 {\n settle first\n}")
				w.Load(onLedger(caddyfile, m.from))
				w.Upstream.On(gate.Says(500, "broken"))
				p := gate.NewPayer(t)
				payment := w.Sign(http.MethodGet, "/paid/x", p).V2(t)
				if res := w.Get("/paid/x", "PAYMENT-SIGNATURE", payment); res.StatusCode != 500 || w.Facilitator.Transfers() != 1 {
					t.Fatalf("%d, %d transfers", res.StatusCode, w.Facilitator.Transfers())
				}
				w.Upstream.On(nil)
				m.make(w, caddyfile)
				if len(m.to) == 1 {
					w.WaitForLog("a reload has changed the ledger")
					w.WaitForLog(`"owed":1,"in_doubt":0,"held":0`)
				}
				res := w.Again(func() gate.Answer {
					if by == "a fresh signature" {
						payment = w.Sign(http.MethodGet, "/paid/x", p).V2(t)
					}
					return w.Get("/paid/x", "PAYMENT-SIGNATURE", payment)
				})
				w.Expect(res, 200, "")
				if w.Facilitator.Transfers() != 1 || w.Facilitator.Settled.Load() != 1 {
					t.Errorf("%d transfers, asked for %d times", w.Facilitator.Transfers(), w.Facilitator.Settled.Load())
				}
				// It is delivered there, and what is bought now is bought here.
				w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
				if w.Facilitator.Transfers() != 2 {
					t.Errorf("%d transfers for another purchase", w.Facilitator.Transfers())
				}
			})
		}
	}
}

// What is in doubt when the ledger becomes another one is found out, and fetched.
func TestDoubtBeforeAnotherLedgerIsFoundOut(t *testing.T) {
	for name, m := range moves(t) {
		t.Run(name, func(t *testing.T) {
			w := gate.Prepare(t)
			caddyfile := w.Caddyfile("price /paid/* $0.01")
			w.Load(onLedger(caddyfile, m.from))
			var back atomic.Bool
			w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
				if !back.Load() {
					w.Facilitator.Lost(rw, r)
					return
				}
				w.Facilitator.Settle(rw, r)
			})
			payment := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
			w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", payment), 503, "settlement_pending")
			m.make(w, caddyfile)
			back.Store(true)
			w.ComesGood(func() bool { return w.Logged("a payment in doubt is decided") > 0 })
			w.Expect(w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", payment) }), 200, "")
			if w.Facilitator.Transfers() != 1 {
				t.Errorf("%d transfers", w.Facilitator.Transfers())
			}
		})
	}
}

// From one ledger to another and back again, and on to a third: what is owed in each stays
// owed.
func TestOwedInSeveralLedgersIsFetched(t *testing.T) {
	w := gate.Prepare(t)
	dir := t.TempDir()
	caddyfile := w.Caddyfile("price /paid/* $0.01 {\n settle first\n}")
	ledgers := []string{"a", "b", "a", "c"}
	w.Upstream.On(gate.Says(500, "broken"))
	var payments []string
	for i, name := range ledgers {
		config := onLedger(caddyfile, "sqlite "+filepath.Join(dir, name))
		if i == 0 {
			w.Load(config)
		} else {
			w.Reload(config)
		}
		payment := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
		if res := w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", payment) }); res.StatusCode != 500 {
			t.Fatal(res)
		}
		payments = append(payments, payment)
	}
	w.Upstream.On(nil)
	for _, payment := range payments {
		w.Expect(w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", payment) }), 200, "")
	}
	if w.Facilitator.Transfers() != len(payments) {
		t.Errorf("%d transfers", w.Facilitator.Transfers())
	}
}

// A ledger that a reload spells in another way is the same one.
func TestLedgerSpelledInAnotherWayIsTheSame(t *testing.T) {
	w := gate.Prepare(t)
	dir := t.TempDir()
	caddyfile := w.Caddyfile("price /paid/* $0.01")
	w.Load(onLedger(caddyfile, "sqlite "+filepath.Join(dir, "a.db")))
	w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
	w.Reload(onLedger(caddyfile, "sqlite "+dir+"/./a.db {\n keep_finished forever\n}"))
	w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
	time.Sleep(100 * time.Millisecond)
	if w.Logged("a reload has changed the ledger") > 0 {
		t.Error("it counts as another one")
	}
}
