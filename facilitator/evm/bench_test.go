package evm

import (
	"encoding/base64"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// BenchmarkVerification compares what a payment of each scheme costs before any
// node is asked with the one thing in it that cannot be avoided.
//
//	ecrecover  a bare crypto.Ecrecover
//	local      from the decoded payment to the checked signature
//	whole      the same from the header on: base64, JSON, matching
//	ratio      medians of local and whole over ecrecover, measured in turns
func BenchmarkVerification(b *testing.B) {
	file := vectors(b)
	for _, r := range file.Verify {
		if name, ok := map[string]string{"exact eip3009": "eip3009", "exact permit2": "permit2", "upto permit2": "upto"}[r.Scheme]; ok &&
			(r.Name == "valid" || r.Name == "valid EOA") {
			b.Run(name, func(b *testing.B) { benchmarkRow(b, file.Clock, r) })
		}
	}
}

func benchmarkRow(b *testing.B, unix int64, row row) {
	r := request(b, row.PaymentPayload, row.PaymentRequirements.Requirement)
	p, err := read(r)
	if err != nil || p.signer != byKey {
		b.Fatal(err)
	}
	now := time.Unix(unix, 0)
	signature := append([]byte(nil), p.Authorization.Signature...)
	signature[64] -= 27

	h := http.Header{x402.HeaderPaymentSignature: {base64.StdEncoding.EncodeToString(row.PaymentPayload)}}
	offer := []x402.Requirement{r.Requirement}

	steps := map[string]func(){
		"ecrecover": func() {
			if _, err := crypto.Ecrecover(p.digest[:], signature); err != nil {
				b.Fatal(err)
			}
		},
		"local": func() { local(b, r, now) },
		"whole": func() {
			payment, err := x402.Decode(h)
			if err != nil {
				b.Fatal(err)
			}
			i, err := x402.Match(payment, offer)
			if err != nil {
				b.Fatal(err)
			}
			local(b, facilitator.Request{Payment: payment, Requirement: offer[i]}, now)
		},
	}
	for _, name := range []string{"ecrecover", "local", "whole"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				steps[name]()
			}
		})
	}
	// In turns, so that a neighbour who wants the processor slows down all alike.
	b.Run("ratio", func(b *testing.B) {
		var localTo, wholeTo []float64
		for b.Loop() {
			bare := timed(steps["ecrecover"])
			localTo = append(localTo, timed(steps["local"])/bare)
			wholeTo = append(wholeTo, timed(steps["whole"])/bare)
		}
		slices.Sort(localTo)
		slices.Sort(wholeTo)
		b.ReportMetric(localTo[len(localTo)/2], "local/ecrecover")
		b.ReportMetric(wholeTo[len(wholeTo)/2], "whole/ecrecover")
		b.ReportMetric(0, "ns/op")
	})
}

// timed is how long a step takes, the mean of some.
func timed(step func()) float64 {
	const times = 20
	begin := time.Now()
	for range times {
		step()
	}
	return float64(time.Since(begin)) / times
}

// local is Verify without a node.
func local(b *testing.B, r facilitator.Request, now time.Time) {
	p, err := read(r)
	if err == nil {
		err = p.check(r.Requirement, now, minLife)
	}
	if err != nil {
		b.Fatal(err)
	}
}
