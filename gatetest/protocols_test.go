package gatetest

import (
	"net/http"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// The gate sells over every version of HTTP, and gives nothing away.
func TestEveryProtocol(t *testing.T) {
	w := newWorld(t, config{})
	for i, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			open, gate := w.open.client(t, protocol), w.gate.client(t, protocol)
			major := map[string]int{"h1": 1, "h1s": 1, "h2c": 2, "h2": 2, "h3": 3}[protocol]
			r := w.request(http.MethodGet, "/x?y")
			if res := open.send(r); res.StatusCode != 200 || res.body != goods || res.ProtoMajor != major {
				t.Fatal(res)
			}
			hits := w.up.hits.Load()
			r = gate.paying(r)
			if w.up.hits.Load() != hits {
				t.Fatal("the upstream ran unpaid")
			}
			res := gate.send(r)
			if res.StatusCode != 200 || res.body != goods || res.ProtoMajor != major {
				t.Fatal(res)
			}
			receipt, err := x402.DecodeReceipt(res.Header.Get(x402.HeaderPaymentResponse))
			if err != nil || !receipt.Success || w.fac.settled.Load() != int64(i+1) {
				t.Fatalf("%+v %v, %d settled", receipt, err, w.fac.settled.Load())
			}
		})
	}
}
