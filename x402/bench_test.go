package x402

import "testing"

// BenchmarkChallenge is what an unpaid request costs: header and body.
func BenchmarkChallenge(b *testing.B) {
	tpl := template(b, usdc())
	body := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		h := tpl.Header("https://api.example.com/weather?city=Paris", CodePaymentRequired)
		body = tpl.AppendBody(body[:0], "https://api.example.com/weather?city=Paris", CodePaymentRequired)
		if len(h) == 0 || len(body) == 0 {
			b.Fatal()
		}
	}
}

// BenchmarkDecodeMatch is what a paid request costs before its claim.
func BenchmarkDecodeMatch(b *testing.B) {
	for _, vector := range []string{"base-sepolia-usdc-300s", "permit2-plain"} {
		b.Run(vector, func(b *testing.B) {
			p := payments(b)[vector]
			offer := []Requirement{chosen(b, p)}
			h := header(HeaderPaymentSignature, b64(string(p.Raw)))
			b.ReportAllocs()
			for b.Loop() {
				p, err := Decode(h)
				if err != nil {
					b.Fatal(err)
				}
				i, err := Match(p, offer)
				if err != nil {
					b.Fatal(err)
				}
				a, err := p.Authorization(offer[i])
				if err != nil {
					b.Fatal(err)
				}
				if err := a.Check(offer[i], vectorTime, minLife, maxLife); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
