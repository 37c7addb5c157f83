package promises

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// TestAddressesThatAreNoTextAreSold: a client may send bytes in the query that are no
// UTF-8. Its payment settles as every other does: it is nobody's outage, and nothing is
// done for nothing.
func TestAddressesThatAreNoTextAreSold(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		for _, settle := range []string{"on_success", "first"} {
			t.Run(method+" "+settle, func(t *testing.T) {
				w := gate.New(t, "price "+method+" /paid/* $0.01 {\n settle "+settle+"\n}")
				p := gate.NewPayer(t)
				send := func(header string) *http.Response {
					conn, host := w.Dial()
					defer conn.Close()
					fmt.Fprintf(conn, "%s /paid/x?q=\xff\xfe HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: 0\r\n%s\r\n", method, host, header)
					res, err := http.ReadResponse(bufio.NewReader(conn), nil)
					if err != nil {
						t.Fatal(err)
					}
					_, _ = io.Copy(io.Discard, res.Body) // the request is over
					return res
				}
				c, err := x402.DecodeChallenge(send("").Header.Get(x402.HeaderPaymentRequired))
				if err != nil {
					t.Fatal(err)
				}
				for i, header := range []string{
					"PAYMENT-SIGNATURE: " + p.Sign(t, c.Accepts[0], time.Now()).V2(t) + "\r\n",
					"X-PAYMENT: " + p.Sign(t, c.Accepts[0], time.Now()).V1(t) + "\r\n",
				} {
					if res := send(header); res.StatusCode != http.StatusOK {
						t.Errorf("version %d: %d", 2-i, res.StatusCode)
					}
					if n := int64(i + 1); w.Upstream.Hits.Load() != n || int64(w.Facilitator.Transfers()) != n {
						t.Errorf("version %d: %d runs, %d transfers", 2-i, w.Upstream.Hits.Load(), w.Facilitator.Transfers())
					}
				}
			})
		}
	}
}

// TestALostAnswerOfTheLedgerChargesNobody: that the money is about to be asked for is
// written, and nobody hears of it. Whether the ledger is well again at once, later, or the
// payer leaves meanwhile: nobody is charged for nothing, nothing is done twice.
func TestALostAnswerOfTheLedgerChargesNobody(t *testing.T) {
	for name, tt := range map[string]struct {
		lost   int64         // how many answers
		away   time.Duration // and it is away for so long after the first
		leaves bool
		status int
		want   ledger.State
	}{
		"one, and it is well":                  {lost: 1, status: 200, want: ledger.Delivered},
		"one, and nothing can be written then": {lost: 1, away: 3 * time.Second, status: 503, want: ledger.Released},
		"many":                                 {lost: 100, status: 503, want: ledger.Released},
		"one, and the payer leaves at once":    {lost: 1, leaves: true, want: ledger.Released},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.Prepare(t)
			s := w.WithLedger()
			s.Visible.Store(true)
			w.Load(gate.OnLedger(w.Caddyfile("price POST /paid/* $0.01 {\n settle on_success\n}")))
			advance := gate.Clock(t)
			var acts, lost atomic.Int64
			w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(rw, fmt.Sprint("acted ", acts.Add(1)))
			})
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			var until atomic.Int64
			s.OnMove(func(c ledger.Claim, ch ledger.Change) error {
				switch {
				case time.Now().UnixNano() < until.Load():
					return errBlip
				case ch.To != ledger.Settling || lost.Add(1) > tt.lost:
					return nil
				}
				if _, err := s.Ledger.Move(t.Context(), c, ch); err != nil {
					return err
				}
				until.Store(time.Now().Add(tt.away).UnixNano())
				if tt.leaves {
					leave()
					time.Sleep(100 * time.Millisecond)
				}
				return errBlip
			})
			p := gate.NewPayer(t)
			payment := p.Sign(t, w.Challenge(http.MethodPost, "/paid/x").Accepts[0], time.Now()).V2(t)
			res, err := w.HTTP.Do(w.Request(http.MethodPost, "/paid/x", "PAYMENT-SIGNATURE", payment).WithContext(ctx))
			if err == nil {
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
			if (err != nil) != tt.leaves || err == nil && res.StatusCode != tt.status {
				t.Errorf("%v %v, want %d", res, err, tt.status)
			}
			charged := 1
			if tt.want == ledger.Released {
				charged = 0
			}
			var last ledger.Payment
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("%+v", last)
				}
			})
			w.ComesGood(func() bool {
				for row, err := range s.Ledger.List(t.Context(), ledger.Filter{Payer: p.Address.Hex()}) {
					last = row
					if err != nil || row.State != tt.want {
						return false
					}
				}
				return true // what is free may be forgotten
			})
			// Nobody finds anything to ask about later.
			advance(2 * ledger.LeaseFor)
			s.Ahead.Store(int64(2 * ledger.LeaseFor))
			time.Sleep(200 * time.Millisecond)
			if n := w.Facilitator.Transfers(); n != charged || acts.Load() != 1 {
				t.Errorf("%d transfers, %d acts", n, acts.Load())
			}
		})
	}
}
