package paywall_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// usedUp says of every payment that it was used before, which proves nothing.
var usedUp = says(200, `{"success":false,"errorReason":"nonce_already_used","transaction":"","network":"eip155:84532"}`)

// settlesOnce settles, and knows no more about it when it is asked again.
func (f *fakeFacilitator) settlesOnce() {
	var asked atomic.Bool
	f.onSettle(func(rw http.ResponseWriter, r *http.Request) {
		if asked.Swap(true) {
			usedUp(rw, r)
			return
		}
		f.move(rw, f.keep(r))
	})
}

// A ledger that was away at the moment when the money had moved was never told,
// and a facilitator that tells once left the payment in doubt for ever.
func TestSettlementIsRecordedLater(t *testing.T) {
	for name, fail := range map[string]func(*scripted, ledger.Claim) error{
		"the ledger is away": func(*scripted, ledger.Claim) error { return ledger.ErrUnavailable },
		"another took it over, and found out nothing": func(s *scripted, c ledger.Claim) error {
			s.ahead.Add(int64(2 * time.Minute)) // our lease is over
			taken, err := s.Take(t.Context(), c.Payment.Key, ledger.Settling, time.Minute)
			if err != nil {
				t.Error(err)
			}
			if _, err := s.Ledger.Move(t.Context(), taken, ledger.Change{To: ledger.Unknown}); err != nil {
				t.Error(err)
			}
			return nil
		},
		"another has taken it over": func(s *scripted, c ledger.Claim) error {
			s.ahead.Add(int64(2 * time.Minute))
			if _, err := s.Take(t.Context(), c.Payment.Key, ledger.Settling, time.Second); err != nil {
				t.Error(err)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := prepareWorld(t)
			s := w.withScript()
			w.load(onScript(w.caddyfile("price /paid/* $0.01")))
			w.fac.settlesOnce()
			var failed atomic.Int32
			s.onMove(func(c ledger.Claim, ch ledger.Change) error {
				if ch.To != ledger.Settled || failed.Add(1) > 1 {
					return nil
				}
				return fail(s, c)
			})
			p := newPayer(t)
			pay := func() answerOf {
				return w.get("/paid/x", "PAYMENT-SIGNATURE", w.sign(http.MethodGet, "/paid/x", p).v2(t))
			}
			w.expect(pay(), 503, "ledger_unavailable")
			var res answerOf
			w.until(func() bool {
				res = pay()
				return res.StatusCode == 200
			})
			if receipt := receiptOf(t, res); !receipt.Success || w.fac.transfers() != 1 || w.fac.settled.Load() != 1 {
				t.Errorf("%+v, %d transfers, %d settles", receipt, w.fac.transfers(), w.fac.settled.Load())
			}
		})
	}
}

// What the reconciler has found out it was told once, too.
func TestReconciledIsRecordedLater(t *testing.T) {
	w := prepareWorld(t)
	s := w.withScript()
	w.load(onScript(w.caddyfile("price /paid/* $0.01")))
	w.fac.onSettle(drop)
	p := newPayer(t)
	pay := func() answerOf {
		return w.get("/paid/x", "PAYMENT-SIGNATURE", w.sign(http.MethodGet, "/paid/x", p).v2(t))
	}
	w.expect(pay(), 503, "settlement_pending")
	w.fac.settlesOnce()
	var failed atomic.Int32
	s.onMove(func(_ ledger.Claim, ch ledger.Change) error {
		if ch.To == ledger.Settled && failed.Add(1) == 1 {
			return ledger.ErrUnavailable
		}
		return nil
	})
	s.visible.Store(true)
	w.until(func() bool { return pay().StatusCode == 200 })
	if w.fac.transfers() != 1 {
		t.Error(w.fac.transfers())
	}
}

// A definite no that came when its payer had been told to come back, or had hung
// up, was taken for a doubt that nobody could end, and closed the shop to that
// payer.
func TestLateRefusalEndsTheDoubt(t *testing.T) {
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		leave  bool
	}{
		"told to come back": {refusedSettle, false},
		"hung up":           {refusedSettle, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := prepareWorld(t)
			s := w.withScript()
			w.load(onScript(w.caddyfile("price /paid/* $0.01")))
			if !tc.leave {
				for _, g := range gates(t) {
					g.ForTest().AnswerWithin = 20 * time.Millisecond
				}
			}
			asked, release, doubted := make(chan struct{}), make(chan struct{}), make(chan struct{})
			w.fac.onSettle(func(rw http.ResponseWriter, r *http.Request) {
				_ = w.fac.keep(r)
				close(asked)
				<-release
				tc.answer(rw, r)
			})
			s.onMove(func(c ledger.Claim, ch ledger.Change) error {
				if c.Payment.State == ledger.Settling && ch.To == ledger.Settling {
					close(doubted)
				}
				return nil
			})
			p := newPayer(t)
			signed := w.sign(http.MethodGet, "/paid/x", p).v2(t)
			ctx, leave := context.WithCancel(t.Context())
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.gate+"/paid/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("PAYMENT-SIGNATURE", signed)
			answered := make(chan answerOf, 1)
			go func() { answered <- w.do(r) }()
			<-asked
			if tc.leave {
				leave()
			} else {
				w.expect(<-answered, 503, "settlement_pending")
			}
			<-doubted
			close(release)
			w.fac.onSettle(nil)
			w.until(func() bool {
				return w.get("/paid/x", "PAYMENT-SIGNATURE", w.sign(http.MethodGet, "/paid/x", p).v2(t)).StatusCode == 200
			})
			leave()
			if w.fac.transfers() != 1 {
				t.Error(w.fac.transfers())
			}
		})
	}
}
