package promises

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// TestACrashOfTheDatabaseSellsNothingTwice: it has answered a change, and lost it. Whoever
// signs anew gets what is paid for, and what has acted does not act again; the ledger has
// in the end what became of it.
func TestACrashOfTheDatabaseSellsNothingTwice(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		for _, settle := range []string{"first", "on_success"} {
			for _, lost := range []ledger.State{ledger.Settled, ledger.Delivering} {
				t.Run(fmt.Sprint(method, " ", settle, ", lost ", lost), func(t *testing.T) {
					w := gate.Prepare(t)
					s := w.WithLedger()
					w.Load(gate.OnLedger(w.Caddyfile("price " + method + " /paid/* $0.01 {\n settle " + settle + "\n}")))
					var forgot atomic.Int64
					s.Forgets(func(ch ledger.Change) bool { return ch.To == lost && forgot.Add(1) == 1 })
					p := gate.NewPayer(t)
					var res gate.Answer
					w.Until(func() bool {
						payment := p.Sign(t, w.Challenge(method, "/paid/x").Accepts[0], time.Now()).V2(t)
						res = w.SendBody(t.Context(), method, "/paid/x", payment, map[string]string{http.MethodPost: "do it"}[method])
						return res.StatusCode == http.StatusOK
					})
					if w.Facilitator.Transfers() != 1 || w.Upstream.Hits.Load() != 1 || forgot.Load() == 0 {
						t.Errorf("%d transfers, %d runs, %d changes lost", w.Facilitator.Transfers(), w.Upstream.Hits.Load(), forgot.Load())
					}
					w.Until(func() bool { return rowOf(t, s, p).State == ledger.Delivered })
					row := rowOf(t, s, p)
					if row.Transaction == "" || row.Facilitator == "" || row.Doubt {
						t.Errorf("%+v", row)
					}
				})
			}
		}
	}
}

// TestCopiesKeepWhatIsNoText: an answer that is fetched later has the bytes of its header,
// and its trailers.
func TestCopiesKeepWhatIsNoText(t *testing.T) {
	w := gate.New(t, "price POST /act $0.01")
	const name = "attachment; filename=\"caf\xe9.pdf\""
	w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Disposition", name)
		rw.Header().Set("Trailer", "X-Status")
		_, _ = io.WriteString(rw, "part one, ")
		_ = http.NewResponseController(rw).Flush()
		time.Sleep(300 * time.Millisecond)
		_, _ = io.WriteString(rw, "part two")
		rw.Header().Set("X-Status", "0")
		rw.Header().Set(http.TrailerPrefix+"X-Late", "1")
	})
	p := gate.NewPayer(t)
	if res := w.Post(p, "/act", "do it", true); res.Err != nil {
		t.Fatal(res.Err)
	}
	w.Until(func() bool {
		s := p.Sign(t, w.Challenge(http.MethodPost, "/act").Accepts[0], time.Now()).V2(t)
		res, err := w.HTTP.Do(w.OrderOf(t.Context(), http.MethodPost, "/act", s, "do it", false))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		if res.StatusCode == http.StatusConflict {
			return false
		}
		if res.StatusCode != 200 || string(b) != "part one, part two" || res.Header.Get("Content-Disposition") != name || res.Trailer.Get("X-Status") != "0" || res.Trailer.Get("X-Late") != "1" {
			t.Errorf("%d %q %q %v", res.StatusCode, b, res.Header, res.Trailer)
		}
		return true
	})
	if w.Upstream.Hits.Load() != 1 || w.Facilitator.Transfers() != 1 {
		t.Errorf("%d runs, %d transfers", w.Upstream.Hits.Load(), w.Facilitator.Transfers())
	}
}

// TestAnOutageLongerThanALeaseChargesNobodyUnserved: that the money is about to be asked for was
// written, its answer is lost, and the ledger is away for longer than the lease. The payer
// was told that nothing is sold, and so it is.
func TestAnOutageLongerThanALeaseChargesNobodyUnserved(t *testing.T) {
	w := gate.Prepare(t)
	s := w.WithLedger()
	s.Visible.Store(true)
	w.Load(gate.OnLedger(w.Caddyfile("price POST /paid/* $0.01 {\n settle on_success\n}")))
	var away atomic.Bool
	s.OnMove(func(c ledger.Claim, ch ledger.Change) error {
		if ch.To == ledger.Settling && away.CompareAndSwap(false, true) {
			s.Silent.Store(true)
			_, _ = s.Ledger.Move(t.Context(), c, ch)
		}
		if away.Load() {
			return errBlip
		}
		return nil
	})
	p := gate.NewPayer(t)
	payment := p.Sign(t, w.Challenge(http.MethodPost, "/paid/x").Accepts[0], time.Now()).V2(t)
	w.Expect(w.SendBody(t.Context(), http.MethodPost, "/paid/x", payment, ""), 503, "ledger_unavailable")
	s.Ahead.Store(int64(2 * ledger.LeaseFor))
	s.OnMove(nil)
	s.Silent.Store(false)
	w.Until(func() bool { return s.Rounds.Load() > 3 })
	w.ComesGood(func() bool {
		for row, err := range s.Ledger.List(t.Context(), ledger.Filter{Payer: p.Address.Hex()}) {
			if err != nil || row.State != ledger.Released {
				return false
			}
		}
		return true
	})
	w.Counts(1, 1, 0)
}
