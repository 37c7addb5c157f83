package paywall_test

import (
	"io"
	"net/http"
	"testing"
	"time"
)

// Who had lost a claim went on to deliver, beside whoever has it now.
func TestLostClaimStopsTheDelivery(t *testing.T) {
	for _, path := range []string{"/first/x", "/held/x"} {
		t.Run(path, func(t *testing.T) {
			w := prepareWorld(t)
			s := w.withScript()
			w.load(onScript(w.caddyfile("price /first/* $0.01 {\n settle first\n}\nprice /held/* $0.01")))
			for _, g := range gates(t) {
				g.ForTest().RenewEvery = 10 * time.Millisecond
			}
			ended := make(chan struct{})
			w.up.on(func(rw http.ResponseWriter, r *http.Request) {
				defer close(ended)
				for r.Context().Err() == nil {
					_, _ = io.WriteString(rw, "goods ")
					_ = http.NewResponseController(rw).Flush()
					time.Sleep(time.Millisecond)
				}
			})
			p := newPayer(t)
			sign := func() string { return w.sign(http.MethodGet, path, p).v2(t) }
			res, err := w.http.Do(w.request(http.MethodGet, path, "PAYMENT-SIGNATURE", sign()))
			if err != nil || res.StatusCode != 200 {
				t.Fatal(res, err)
			}
			defer res.Body.Close()
			if _, err := io.ReadFull(res.Body, make([]byte, 60)); err != nil {
				t.Fatal(err)
			}
			s.lost.Store(true)
			if _, err := io.Copy(io.Discard, res.Body); err == nil {
				t.Error("the delivery has an end")
			}
			<-ended
			// It was not delivered, and is owed.
			s.lost.Store(false)
			w.up.on(nil)
			w.until(func() bool { return w.get(path, "PAYMENT-SIGNATURE", sign()).StatusCode == 200 })
			if w.fac.transfers() != 1 {
				t.Error(w.fac.transfers())
			}
		})
	}
}
