package promises

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-paywall/caddy-paywall/internal/settlement"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// When the process is told to exit, a settlement under way is waited for and
// recorded, also where its config was replaced before; only so long, though.
func TestExitWaitsForSettlements(t *testing.T) {
	for _, reload := range []bool{false, true} {
		w := gate.Prepare(t)
		config := strings.Replace(w.Caddyfile("price /paid/* $0.01"), "ledger memory i_accept_loss", "ledger sqlite "+filepath.Join(t.TempDir(), "ledger.db"), 1)
		w.Load(config)
		hold := gate.NewBarrier()
		t.Cleanup(hold.Release)
		w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
			body := gate.Body(r)
			hold.Pass()
			w.Facilitator.Move(rw, body)
		})
		p := gate.NewPayer(t)
		payment := w.Sign(http.MethodGet, "/paid/x", p).V2(t)
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan struct{})
		go func() {
			defer close(left)
			res, err := w.HTTP.Do(w.Request(http.MethodGet, "/paid/x", "PAYMENT-SIGNATURE", payment).WithContext(ctx))
			if err == nil {
				res.Body.Close()
			}
		}()
		<-hold.Come
		if reload {
			w.Reload(config)
		}
		leave() // so that nobody but the exit waits for it
		<-left
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		settlement.Drain(short)
		if short.Err() == nil {
			t.Fatal("the exit did not wait")
		}
		cancel()
		drained := make(chan struct{})
		go func() { settlement.Drain(t.Context()); close(drained) }()
		hold.Release()
		<-drained

		// After the next start the payer gets what was paid for, and nobody is asked
		// again: the record was written before the exit.
		w.Load(config)
		settles := w.Facilitator.Settled.Load()
		// Its request may hold it for a moment longer than the settlement does.
		fresh := w.Sign(http.MethodGet, "/paid/x", p).V2(t)
		w.Expect(w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", fresh) }), 200, "")
		if w.Facilitator.Transfers() != 1 || w.Facilitator.Settled.Load() != settles {
			t.Errorf("%d transfers, %d more settles", w.Facilitator.Transfers(), w.Facilitator.Settled.Load()-settles)
		}
	}
}
