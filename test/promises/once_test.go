package promises

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

func TestCopiesOfOnePaymentBuyOnce(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
		time.Sleep(50 * time.Millisecond)
		_, _ = rw.Write([]byte(gate.Goods))
	})
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t))
	headers := [][2]string{{"PAYMENT-SIGNATURE", s.V2(t)}, {"X-PAYMENT", s.V1(t)}}
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	for i := range 100 {
		wg.Go(func() {
			h := headers[i%2]
			res := w.Do(w.Request(http.MethodGet, "/paid/x", h[0], h[1]))
			if res.Err != nil {
				t.Error(res.Err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			statuses[res.StatusCode]++
		})
	}
	wg.Wait()
	if statuses[200] != 1 || statuses[200]+statuses[409]+statuses[402] != 100 {
		t.Fatalf("statuses %v", statuses)
	}
	w.Counts(1, 1, 1)
}
