package dialect_test

import (
	"encoding/base64"
	"errors"
	"net/http"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/internal/dialect"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	inV2  = `{"x402Version":2,"accepted":{"scheme":"exact","network":"eip155:84532"},"payload":{}}`
	inV1  = `{"x402Version":1,"scheme":"exact","network":"base-sepolia","payload":{}}`
	other = `{"x402Version":1,"scheme":"exact","network":"base-sepolia","payload":{"a":1}}`
)

// A payment is read in the dialect in which it came, and its receipt goes out in that.
// Two payments are none, in whatever dialects, unless they are the same.
func TestReadsOnePaymentInItsDialect(t *testing.T) {
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for name, tc := range map[string]struct {
		header  http.Header
		code    x402.Code
		version int
		receipt string // the header that it goes into
		network string // as it is said there
		both    bool   // it goes out in both versions
	}{
		"none":                           {header: http.Header{"Accept": {"*/*"}}},
		"version 2":                      {header: http.Header{"Payment-Signature": {encode(inV2)}}, version: 2, receipt: "Payment-Response", network: "eip155:84532"},
		"version 1":                      {header: http.Header{"X-Payment": {encode(inV1)}}, version: 1, receipt: "X-Payment-Response", network: "base-sepolia"},
		"one of each":                    {header: http.Header{"Payment-Signature": {encode(inV2)}, "X-Payment": {encode(inV1)}}, version: 2, receipt: "Payment-Response", network: "eip155:84532", both: true},
		"the same in both":               {header: http.Header{"Payment-Signature": {encode(inV2)}, "X-Payment": {encode(inV2)}}, version: 2, receipt: "Payment-Response", network: "eip155:84532", both: true},
		"another in each":                {header: http.Header{"Payment-Signature": {encode(inV2)}, "X-Payment": {encode(other)}}, code: x402.CodeAmbiguousPayment},
		"junk in one":                    {header: http.Header{"Payment-Signature": {encode(inV2)}, "X-Payment": {"junk"}}, code: x402.CodeAmbiguousPayment},
		"junk in the other":              {header: http.Header{"Payment-Signature": {"junk"}, "X-Payment": {encode(inV1)}}, code: x402.CodeAmbiguousPayment},
		"nothing in one":                 {header: http.Header{"Payment-Signature": {encode(inV2)}, "X-Payment": {""}}, code: x402.CodeAmbiguousPayment},
		"one twice":                      {header: http.Header{"X-Payment": {encode(inV1), encode(inV1)}}, version: 1, receipt: "X-Payment-Response", network: "base-sepolia"},
		"two of one":                     {header: http.Header{"X-Payment": {encode(inV1), encode(other)}}, code: x402.CodeAmbiguousPayment},
		"in the other header":            {header: http.Header{"X-Payment": {encode(inV2)}}, version: 2, receipt: "X-Payment-Response", network: "base-sepolia", both: true},
		"version 1 in that of version 2": {header: http.Header{"Payment-Signature": {encode(inV1)}}, code: x402.CodeUnsupportedVersion},
		"junk":                           {header: http.Header{"Payment-Signature": {"junk"}}, code: x402.CodePaymentMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			p, said, err := dialect.Read(tc.header)
			var refused *x402.Error
			if errors.As(err, &refused) != (tc.code != "") || refused != nil && refused.Code != tc.code {
				t.Fatalf("refused with %v, want %q", err, tc.code)
			}
			if (p != nil) != (tc.version != 0) || p != nil && (p.Version != tc.version || p.Network != "eip155:84532") {
				t.Fatalf("read %+v", p)
			}
			if p == nil {
				return
			}
			answer := http.Header{}
			said.Receipt(answer, &x402.Receipt{Success: true, Network: p.Network})
			receipt, err := x402.DecodeReceipt(answer.Get(tc.receipt))
			if err != nil || len(answer) != 1 && !tc.both || tc.both && len(answer) != 2 || receipt.Network != tc.network {
				t.Errorf("%v: %v, %v", answer, receipt, err)
			}
		})
	}
}
