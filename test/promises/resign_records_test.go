package promises

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// usedUp says of every payment that it was used before, which proves nothing.
var usedUp = gate.Says(200, `{"success":false,"errorReason":"nonce_already_used","transaction":"","network":"eip155:84532"}`)

// settlesOnce settles, and knows no more about it when it is asked again.
func settlesOnce(f *gate.Facilitator) {
	var asked atomic.Bool
	f.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
		if asked.Swap(true) {
			usedUp(rw, r)
			return
		}
		f.Move(rw, gate.Body(r))
	})
}

// A ledger that was away at the moment when the money had moved was never told,
// and a facilitator that tells once left the payment in doubt for ever.
func TestSettlementIsRecordedLater(t *testing.T) {
	for name, fail := range map[string]func(*gate.Ledger, ledger.Claim) error{
		"the ledger is away": nil,
		"another took it over, and found out nothing": func(s *gate.Ledger, c ledger.Claim) error {
			s.Ahead.Add(int64(2 * time.Minute)) // our lease is over
			taken, err := s.Take(t.Context(), c.Payment.Key, ledger.Settling, time.Minute)
			if err != nil {
				t.Error(err)
			}
			if _, err := s.Ledger.Move(t.Context(), taken, ledger.Change{To: ledger.Unknown}); err != nil {
				t.Error(err)
			}
			return nil
		},
		"another has taken it over": func(s *gate.Ledger, c ledger.Claim) error {
			s.Ahead.Add(int64(2 * time.Minute))
			if _, err := s.Take(t.Context(), c.Payment.Key, ledger.Settling, time.Second); err != nil {
				t.Error(err)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.Prepare(t)
			s := w.WithLedger()
			w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01")))
			settlesOnce(w.Facilitator)
			var failed atomic.Int32
			s.OnMove(func(c ledger.Claim, ch ledger.Change) error {
				if ch.To != ledger.Settled || failed.Add(1) > 1 {
					return nil
				}
				return fail(s, c)
			})
			if fail == nil {
				failsFor(s, 2500*time.Millisecond, func(_ ledger.Claim, ch ledger.Change) bool { return ch.To == ledger.Settled })
			}
			p := gate.NewPayer(t)
			pay := func() gate.Answer {
				return w.Get("/paid/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/x", p).V2(t))
			}
			w.Expect(pay(), 503, "ledger_unavailable")
			var res gate.Answer
			w.Until(func() bool {
				res = pay()
				return res.StatusCode == 200
			})
			if receipt := gate.ReceiptOf(t, res); !receipt.Success || w.Facilitator.Transfers() != 1 || w.Facilitator.Settled.Load() != 1 {
				t.Errorf("%+v, %d transfers, %d settles", receipt, w.Facilitator.Transfers(), w.Facilitator.Settled.Load())
			}
		})
	}
}

// What the reconciler has found out it was told once, too.
func TestReconciledIsRecordedLater(t *testing.T) {
	w := gate.Prepare(t)
	s := w.WithLedger()
	w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01")))
	w.Facilitator.OnSettle(gate.Drop)
	p := gate.NewPayer(t)
	pay := func() gate.Answer {
		return w.Get("/paid/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/x", p).V2(t))
	}
	w.Expect(pay(), 503, "settlement_pending")
	settlesOnce(w.Facilitator)
	var failed atomic.Int32
	s.OnMove(func(_ ledger.Claim, ch ledger.Change) error {
		if ch.To == ledger.Settled && failed.Add(1) == 1 {
			return ledger.ErrUnavailable
		}
		return nil
	})
	s.Visible.Store(true)
	w.Until(func() bool { return pay().StatusCode == 200 })
	if w.Facilitator.Transfers() != 1 {
		t.Error(w.Facilitator.Transfers())
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
		"told to come back": {gate.RefusedSettle, false},
		"hung up":           {gate.RefusedSettle, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.Prepare(t)
			s := w.WithLedger()
			w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01")))
			if !tc.leave {
				for _, g := range gate.Handlers(t) {
					g.ForTest().AnswerWithin = 20 * time.Millisecond
				}
			}
			asked, release, doubted := make(chan struct{}), make(chan struct{}), make(chan struct{})
			w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
				_ = gate.Body(r)
				close(asked)
				<-release
				tc.answer(rw, r)
			})
			s.OnMove(func(c ledger.Claim, ch ledger.Change) error {
				if c.Payment.State == ledger.Settling && ch.To == ledger.Settling {
					close(doubted)
				}
				return nil
			})
			p := gate.NewPayer(t)
			signed := w.Sign(http.MethodGet, "/paid/x", p).V2(t)
			ctx, leave := context.WithCancel(t.Context())
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL+"/paid/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("PAYMENT-SIGNATURE", signed)
			answered := make(chan gate.Answer, 1)
			go func() { answered <- w.Do(r) }()
			<-asked
			if tc.leave {
				leave()
			} else {
				w.Expect(<-answered, 503, "settlement_pending")
			}
			<-doubted
			close(release)
			w.Facilitator.OnSettle(nil)
			w.Until(func() bool {
				return w.Get("/paid/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/x", p).V2(t)).StatusCode == 200
			})
			leave()
			if w.Facilitator.Transfers() != 1 {
				t.Error(w.Facilitator.Transfers())
			}
		})
	}
}
