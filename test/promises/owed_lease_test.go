package promises

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// Who had lost a claim went on to deliver, beside whoever has it now.
func TestLostClaimStopsTheDelivery(t *testing.T) {
	for _, path := range []string{"/first/x", "/held/x"} {
		t.Run(path, func(t *testing.T) {
			w := gate.Prepare(t)
			s := w.WithLedger()
			w.Load(gate.OnLedger(w.Caddyfile("price /first/* $0.01 {\n settle first\n}\nprice /held/* $0.01")))
			for _, g := range gate.Handlers(t) {
				g.ForTest().RenewEvery = 10 * time.Millisecond
			}
			ended := make(chan struct{})
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				defer close(ended)
				for r.Context().Err() == nil {
					_, _ = io.WriteString(rw, "goods ")
					_ = http.NewResponseController(rw).Flush()
					time.Sleep(time.Millisecond)
				}
			})
			p := gate.NewPayer(t)
			sign := func() string { return w.Sign(http.MethodGet, path, p).V2(t) }
			res, err := w.HTTP.Do(w.Request(http.MethodGet, path, "PAYMENT-SIGNATURE", sign()))
			if err != nil || res.StatusCode != 200 {
				t.Fatal(res, err)
			}
			defer res.Body.Close()
			if _, err := io.ReadFull(res.Body, make([]byte, 60)); err != nil {
				t.Fatal(err)
			}
			s.Lost.Store(true)
			if _, err := io.Copy(io.Discard, res.Body); err == nil {
				t.Error("the delivery has an end")
			}
			<-ended
			// It was not delivered, and is owed.
			s.Lost.Store(false)
			w.Upstream.On(nil)
			w.Until(func() bool { return w.Get(path, "PAYMENT-SIGNATURE", sign()).StatusCode == 200 })
			if w.Facilitator.Transfers() != 1 {
				t.Error(w.Facilitator.Transfers())
			}
		})
	}
}
