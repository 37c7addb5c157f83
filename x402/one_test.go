package x402

import (
	"strings"
	"testing"
)

// TestOnePayment: what was signed makes two payments one, however they are written; what
// differs in anything that decides is two.
func TestOnePayment(t *testing.T) {
	for _, vector := range []string{"base-sepolia-usdc-300s", "permit2-plain", "upto-permit2"} {
		good := string(payments(t)[vector].Raw)
		inV1 := func(s string) string {
			p, err := decodeV2JSON(s)
			if err != nil {
				t.Fatal(err)
			}
			return `{"x402Version":1,"scheme":"` + p.Scheme + `","network":"base-sepolia","payload":` + string(p.Payload) + `}`
		}
		replaced := func(old, with string) string {
			t.Helper()
			s := strings.Replace(good, old, with, 1)
			if s == good {
				t.Fatalf("%s has no %s", vector, old)
			}
			return s
		}
		upper := func(s string) string { // the hexadecimal letters of the payload
			head, payload, _ := strings.Cut(s, `"payload":`)
			from := strings.Index(payload, `"from":"0x`) + len(`"from":"0x`)
			return head + `"payload":` + payload[:from] + strings.ToUpper(payload[from:from+40]) + payload[from+40:]
		}
		for name, tc := range map[string]struct {
			other string
			two   bool
		}{
			"itself":                  {other: good},
			"in version 1":            {other: inV1(good)},
			"spaced":                  {other: replaced(`,"`, ` ,  "`)},
			"escaped":                 {other: replaced(`"from"`, `"\u0066rom"`)},
			"in capitals":             {other: upper(good)},
			"in version 1, capitals":  {other: inV1(upper(good))},
			"version 2.0":             {other: replaced(`"x402Version":2`, `"x402Version":2.0`)},
			"another resource":        {other: replaced(`"resource":{`, `"resource":{"x":1,`)},
			"another amount accepted": {other: replaced(`"amount":"`, `"amount":"1`), two: true},
			"another extension":       {other: replaced(`"x402Version":2`, `"x402Version":2,"extensions":{"payment-identifier":{"info":{"id":"abcdefghijklmnop"}}}`), two: true},
			"another signature":       {other: replaced(`"signature":"0x`, `"signature":"0x0`+"0"), two: true},
			"another payer":           {other: replaced(`"from":"0xf39F`, `"from":"0xa39F`), two: true},
			"another payer, inV1":     {other: inV1(replaced(`"from":"0xf39F`, `"from":"0xa39F`)), two: true},
			"another time":            {other: inV1(replaced(`"validAfter":"`, `"validAfter":"1`)), two: true},
		} {
			if strings.Contains(name, "extension") && strings.Contains(good, `"extensions":`) {
				continue
			}
			a, err := decodeV2JSON(good)
			if err != nil {
				t.Fatal(err)
			}
			b, err := Decode(header(HeaderXPayment, b64(tc.other)))
			if err != nil {
				t.Fatalf("%s, %s: %v", vector, name, err)
			}
			for _, both := range [][]*Payment{{a, b}, {b, a}} {
				one, err := One(both...)
				if (err != nil) != tc.two {
					t.Errorf("%s, %s: %v", vector, name, err)
				}
				if err == nil && one.Version != V2 {
					t.Errorf("%s, %s: version %d of both", vector, name, one.Version)
				}
			}
		}
	}
}

// FuzzOne: two payments that are taken for one have the same key for whatever they pay, the
// same amount, payee, times and signature.
func FuzzOne(f *testing.F) {
	for _, p := range payments(f) {
		f.Add([]byte(p.Payload), []byte(p.Payload), byte(0))
		f.Add([]byte(strings.ToLower(string(p.Payload))), []byte(p.Payload), byte(1))
	}
	f.Fuzz(func(t *testing.T, x, y []byte, kind byte) {
		r := usdc()
		if kind%2 == 1 {
			r.Extra = []byte(`{"assetTransferMethod":"permit2"}`)
		}
		a, b := &Payment{Version: V1, Scheme: r.Scheme, Network: r.Network, Payload: x}, &Payment{Version: V2, Scheme: r.Scheme, Network: r.Network, Payload: y}
		if _, err := One(a, b); err != nil {
			return
		}
		p, err := a.Authorization(r)
		q, other := b.Authorization(r)
		if (err == nil) != (other == nil) {
			t.Fatalf("%v, %v", err, other)
		}
		if err == nil && (p.Key != q.Key || p.To != q.To || !p.Value.Eq(&q.Value) || p.ValidAfter != q.ValidAfter || p.ValidBefore != q.ValidBefore || string(p.Signature) != string(q.Signature)) {
			t.Fatalf("%+v\n%+v", p, q)
		}
	})
}
