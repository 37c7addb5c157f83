package protocols

import (
	"net/http"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// The gate sells over every version of HTTP, and gives nothing away.
func TestEveryProtocol(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{})
	for i, protocol := range gate.Protocols {
		t.Run(protocol, func(t *testing.T) {
			open, gated := w.Open.Client(t, protocol), w.Gated.Client(t, protocol)
			major := map[string]int{"h1": 1, "h1s": 1, "h2c": 2, "h2": 2, "h3": 3}[protocol]
			r := w.Request(http.MethodGet, "/x?y")
			if res := open.Send(r); res.StatusCode != 200 || res.Text != gate.Goods || res.ProtoMajor != major {
				t.Fatal(res)
			}
			hits := w.Upstream.Hits.Load()
			r = gated.Paying(r)
			if w.Upstream.Hits.Load() != hits {
				t.Fatal("the upstream ran unpaid")
			}
			res := gated.Send(r)
			if res.StatusCode != 200 || res.Text != gate.Goods || res.ProtoMajor != major {
				t.Fatal(res)
			}
			receipt, err := x402.DecodeReceipt(res.Header.Get(x402.HeaderPaymentResponse))
			if err != nil || !receipt.Success || w.Facilitator.Settled.Load() != int64(i+1) {
				t.Fatalf("%+v %v, %d settled", receipt, err, w.Facilitator.Settled.Load())
			}
		})
	}
}
