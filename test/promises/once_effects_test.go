package promises

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// An upstream with effects that is paid when it has answered is not made to act
// again either: it finishes without its payer, who fetches the copy.
func TestEffectsOnSuccessAreNotRepeated(t *testing.T) {
	for name, price := range map[string]string{
		"fixed": "price POST /act $0.01 {\n settle on_success\n}",
		"upto":  "price POST /act upto $0.50",
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newUptoWorld(t, price)
			answer := strings.Repeat("token ", 20_000) // 120 kB
			finished := make(chan struct{}, 8)
			w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Settlement-Overrides", amountOf("77"))
				for i := range 20 {
					if _, err := io.WriteString(rw, answer[i*6000:(i+1)*6000]); err != nil {
						return
					}
					_ = http.NewResponseController(rw).Flush()
					time.Sleep(10 * time.Millisecond)
				}
				finished <- struct{}{}
			})
			p := gate.NewPayer(t)
			payment := func() string {
				r := w.Challenge(http.MethodPost, "/act").Accepts[0]
				if r.Scheme == "upto" {
					return p.Permit(t, r).V2(t)
				}
				return p.Sign(t, r, time.Now()).V2(t)
			}
			if res := w.PostPaid("/act", "a prompt", payment(), true); res.Err != nil {
				t.Fatal(res.Err)
			}
			select {
			case <-finished: // although nobody listened
			case <-time.After(10 * time.Second):
				t.Fatal("the upstream did not finish")
			}
			var res gate.Answer
			w.Until(func() bool {
				res = w.PostPaid("/act", "a prompt", payment(), false)
				return res.StatusCode == 200
			})
			if res.Text != answer || res.Header.Get("Settlement-Overrides") != "" {
				t.Errorf("%d bytes, %v", len(res.Text), res.Header)
			}
			if w.Upstream.Hits.Load() != 1 || w.Facilitator.Transfers() != 1 {
				t.Errorf("%d hits, %v moved", w.Upstream.Hits.Load(), w.Facilitator.Amounts())
			}
			if name == "upto" && gate.ReceiptOf(t, res).Amount != "77" {
				t.Errorf("receipt %+v", gate.ReceiptOf(t, res))
			}
		})
	}
}

// Before it has answered it is stopped when its payer leaves: nothing was sold.
func TestEffectsOnSuccessStopUnsold(t *testing.T) {
	w, b := newUptoWorld(t, "price POST /act upto $0.50")
	started, stopped := make(chan struct{}), make(chan struct{})
	w.Upstream.On(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the server does not see that it leaves
		close(started)
		<-r.Context().Done()
		close(stopped)
	})
	ctx, cancel := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL+"/act", strings.NewReader("a prompt"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set(x402.HeaderPaymentSignature, w.PermitFor(http.MethodPost, "/act", gate.NewPayer(t)).V2(t))
	go func() {
		<-started
		cancel()
	}()
	if res, err := w.HTTP.Do(r); err == nil {
		res.Body.Close()
		t.Fatal("it answered")
	}
	select {
	case <-stopped:
	case <-time.After(10 * time.Second):
		t.Fatal("the upstream runs on")
	}
	w.Counts(1, 1, 0)
	b.ExpectMoved(t)
}
