package paywall_test

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-paywall/caddy-paywall/internal/settlement"
)

// When the process is told to exit, a settlement under way is waited for and
// recorded, also where its config was replaced before; only so long, though.
func TestExitWaitsForSettlements(t *testing.T) {
	for _, reload := range []bool{false, true} {
		w := prepareWorld(t)
		config := strings.Replace(w.caddyfile("price /paid/* $0.01"), "ledger memory i_accept_loss", "ledger sqlite "+filepath.Join(t.TempDir(), "ledger.db"), 1)
		w.load(config)
		hold := newGateOf()
		t.Cleanup(hold.release)
		w.fac.onSettle(func(rw http.ResponseWriter, r *http.Request) {
			body := w.fac.keep(r)
			hold.pass()
			w.fac.move(rw, body)
		})
		p := newPayer(t)
		payment := w.sign(http.MethodGet, "/paid/x", p).v2(t)
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan struct{})
		go func() {
			defer close(left)
			res, err := w.http.Do(w.request(http.MethodGet, "/paid/x", "PAYMENT-SIGNATURE", payment).WithContext(ctx))
			if err == nil {
				res.Body.Close()
			}
		}()
		<-hold.come
		if reload {
			w.reload(config)
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
		hold.release()
		<-drained

		// After the next start the payer gets what was paid for, and nobody is asked
		// again: the record was written before the exit.
		w.load(config)
		settles := w.fac.settled.Load()
		// Its request may hold it for a moment longer than the settlement does.
		fresh := w.sign(http.MethodGet, "/paid/x", p).v2(t)
		w.expect(w.again(func() answerOf { return w.get("/paid/x", "PAYMENT-SIGNATURE", fresh) }), 200, "")
		if w.fac.transfers() != 1 || w.fac.settled.Load() != settles {
			t.Errorf("%d transfers, %d more settles", w.fac.transfers(), w.fac.settled.Load()-settles)
		}
	}
}
