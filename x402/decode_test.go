package x402

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

const (
	goodV2 = `{"x402Version":2,"payload":{"a":1},"accepted":{"scheme":"exact","network":"eip155:84532"}}`
	goodV1 = `{"x402Version":1,"scheme":"exact","network":"base-sepolia","payload":{"a":1}}`
)

func TestDecodeHeaders(t *testing.T) {
	v2, v1 := b64(goodV2), b64(goodV1)
	for name, c := range map[string]struct {
		h    http.Header
		want Code
		none bool
	}{
		"nothing":                        {h: header("Accept", "*/*"), none: true},
		"nil":                            {none: true},
		"version 2":                      {h: header("PAYMENT-SIGNATURE", v2)},
		"version 2, lower case":          {h: header("payment-signature", v2)},
		"version 1":                      {h: header("X-PAYMENT", v1)},
		"twice":                          {h: header("Payment-Signature", v2, "Payment-Signature", v2)},
		"twice, in two cases":            {h: header("Payment-Signature", v2, "PAYMENT-SIGNATURE", v2)},
		"version 1 twice":                {h: header("X-Payment", v1, "X-Payment", v1)},
		"both versions":                  {h: header("Payment-Signature", v2, "X-Payment", v1)},
		"list":                           {h: header("Payment-Signature", v2+","+v2)},
		"list with space":                {h: header("Payment-Signature", v2+", "+v2)},
		"trailing comma":                 {h: header("Payment-Signature", v2+","), want: CodeAmbiguousPayment},
		"empty and filled":               {h: header("Payment-Signature", "", "Payment-Signature", v2), want: CodeAmbiguousPayment},
		"filled and empty":               {h: header("Payment-Signature", v2, "Payment-Signature", ""), want: CodeAmbiguousPayment},
		"empty version 1, filled 2":      {h: header("X-Payment", "", "Payment-Signature", v2), want: CodeAmbiguousPayment},
		"empty":                          {h: header("Payment-Signature", ""), want: CodePaymentMalformed},
		"empty version 1":                {h: header("X-Payment", ""), want: CodePaymentMalformed},
		"no base64":                      {h: header("Payment-Signature", "%%%"), want: CodePaymentMalformed},
		"longest":                        {h: header("Payment-Signature", strings.Repeat("e", MaxHeaderBytes)), want: CodePaymentMalformed},
		"too long":                       {h: header("Payment-Signature", strings.Repeat("e", MaxHeaderBytes+1)), want: CodePaymentTooLarge},
		"version 1 object in 2's header": {h: header("Payment-Signature", v1), want: CodeUnsupportedVersion},
		"version 2 object in 1's header": {h: header("X-Payment", v2)},
		"version 2 in both":              {h: header("Payment-Signature", v2, "X-Payment", v2)},
		"version 1 in both":              {h: header("Payment-Signature", v1, "X-Payment", v1), want: CodeAmbiguousPayment},
		"junk beside it":                 {h: header("Payment-Signature", v2, "X-Payment", "junk"), want: CodeAmbiguousPayment},
		"junk before it":                 {h: header("Payment-Signature", "junk", "X-Payment", v1), want: CodeAmbiguousPayment},
		"another beside it":              {h: header("Payment-Signature", v2, "X-Payment", b64(strings.Replace(goodV1, "1}}", "2}}", 1))), want: CodeAmbiguousPayment},
		"another network beside it":      {h: header("Payment-Signature", v2, "X-Payment", b64(strings.Replace(goodV1, "base-sepolia", "base", 1))), want: CodeAmbiguousPayment},
		"another, and then the same":     {h: header("Payment-Signature", b64(strings.Replace(goodV2, `"a":1`, `"a":2`, 1)), "Payment-Signature", v2), want: CodeAmbiguousPayment},
		"three times":                    {h: header("Payment-Signature", v2, "Payment-Signature", v2, "Payment-Signature", v2), want: CodeAmbiguousPayment},
		"three in a list":                {h: header("Payment-Signature", v2+","+v2+","+v2), want: CodeAmbiguousPayment},
		"junk in a list":                 {h: header("Payment-Signature", v2+",junk"), want: CodeAmbiguousPayment},
		"too long a list":                {h: header("Payment-Signature", v2+","+strings.Repeat("e", MaxHeaderBytes+1)), want: CodeAmbiguousPayment},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Decode(c.h)
			if got := code(t, err); got != c.want {
				t.Fatalf("code %q (%v), want %q", got, err, c.want)
			}
			if (p == nil) != (c.none || c.want != "") {
				t.Errorf("payment %v", p)
			}
			if p != nil && (p.Scheme != "exact" || p.Network != "eip155:84532" || string(p.Payload) != `{"a":1}`) {
				t.Errorf("payment %+v", p)
			}
		})
	}
}

// TestDecodeV2 tells what of a version 2 object is refused.
func TestDecodeV2(t *testing.T) {
	deep := func(n int) string { // levels in all, payment and payload included
		return `{"x402Version":2,"accepted":{"scheme":"exact","network":"a:b"},"payload":{"a":` +
			strings.Repeat("[", n-2) + strings.Repeat("]", n-2) + `}}`
	}
	number := func(n string) string {
		return `{"x402Version":2,"accepted":{"scheme":"exact","network":"a:b"},"payload":{"a":` + n + `}}`
	}
	const acc = `"accepted":{"scheme":"exact","network":"a:b"}`
	for name, c := range map[string]struct {
		in   string
		want Code
	}{
		"minimal":                        {`{"x402Version":2,` + acc + `,"payload":{}}`, ""},
		"white space":                    {" {\n\t\"x402Version\" : 2 ,\r\n" + acc + `,"payload":{} } `, ""},
		"unknown members":                {`{"x402Version":2,` + acc + `,"payload":{},"foo":[1],"bar":null}`, ""},
		"optional members null":          {`{"x402Version":2,` + acc + `,"payload":{},"extensions":null,"resource":null}`, ""},
		"escaped member name":            {`{"x402\u0056ersion":2,` + acc + `,"payload":{}}`, ""},
		"16 levels":                      {deep(16), ""},
		"17 levels":                      {deep(17), CodePaymentMalformed},
		"10000 levels":                   {deep(6000), CodePaymentMalformed},
		"number of 78 digits":            {number(strings.Repeat("1", 78)), ""},
		"number of 79 digits":            {number(strings.Repeat("1", 79)), CodePaymentMalformed},
		"number of 32 characters":        {number("-" + strings.Repeat("1", 31)), ""},
		"number of 33 characters":        {number("-" + strings.Repeat("1", 32)), CodePaymentMalformed},
		"long number with a fraction":    {number(strings.Repeat("1", 60) + ".1"), CodePaymentMalformed},
		"many digits and an exponent":    {number(strings.Repeat("1", 60) + "e9"), CodePaymentMalformed},
		"number with long exponent":      {number("1e" + strings.Repeat("9", 31)), CodePaymentMalformed},
		"brackets within strings":        {`{"x402Version":2,` + acc + `,"payload":{"a":"` + strings.Repeat(`[\"{`, 99) + `"}}`, ""},
		"not JSON":                       {`hello`, CodePaymentMalformed},
		"NaN":                            {number("NaN"), CodePaymentMalformed},
		"two byte order marks":           {"\ufeff\ufeff" + goodV2, CodePaymentMalformed},
		"trailing data":                  {goodV2 + "{}", CodePaymentMalformed},
		"trailing brace":                 {goodV2 + "}", CodePaymentMalformed},
		"cut off":                        {goodV2[:len(goodV2)-1], CodePaymentMalformed},
		"array":                          {`[` + goodV2 + `]`, CodePaymentMalformed},
		"null":                           {`null`, CodePaymentMalformed},
		"string":                         {`"x"`, CodePaymentMalformed},
		"empty text":                     {` `, CodePaymentMalformed},
		"duplicate name":                 {`{"x402Version":2,"x402Version":2,` + acc + `,"payload":{}}`, CodePaymentMalformed},
		"duplicate by escape":            {`{"x402Version":2,"\u0078402Version":2,` + acc + `,"payload":{}}`, CodePaymentMalformed},
		"duplicate name deep down":       {`{"x402Version":2,` + acc + `,"payload":{"a":{"b":1,"b":2}}}`, CodePaymentMalformed},
		"duplicate name in unknown":      {`{"x402Version":2,` + acc + `,"payload":{},"z":{"b":1,"b":2}}`, CodePaymentMalformed},
		"other case of a name":           {`{"X402Version":2,` + acc + `,"payload":{}}`, CodePaymentMalformed},
		"other case next to it":          {`{"x402Version":2,` + acc + `,"payload":{},"Payload":{}}`, CodePaymentMalformed},
		"other case in accepted":         {`{"x402Version":2,"accepted":{"scheme":"exact","network":"a:b","payto":"x"},"payload":{}}`, CodePaymentMalformed},
		"snake case next to it":          {`{"x402Version":2,"x402_version":1,` + acc + `,"payload":{}}`, CodePaymentMalformed},
		"Kelvin sign for k":              {`{"x402Version":2,"accepted":{"scheme":"exact","network":"a:b","networ` + "\u212a" + `":"c:d"},"payload":{}}`, CodePaymentMalformed},
		"invalid UTF-8":                  {`{"x402Version":2,` + acc + `,"payload":{"a":"` + "\xff" + `"}}`, CodePaymentMalformed},
		"lone surrogate":                 {`{"x402Version":2,` + acc + `,"payload":{"a":"\ud800"}}`, CodePaymentMalformed},
		"no version":                     {`{` + acc + `,"payload":{}}`, CodeUnsupportedVersion},
		"empty object":                   {`{}`, CodeUnsupportedVersion},
		"version null":                   {`{"x402Version":null,` + acc + `,"payload":{}}`, CodeUnsupportedVersion},
		"version as string":              {`{"x402Version":"2",` + acc + `,"payload":{}}`, CodeUnsupportedVersion},
		"version 2.1":                    {`{"x402Version":2.1,` + acc + `,"payload":{}}`, CodeUnsupportedVersion},
		"version 2e0":                    {`{"x402Version":2e0,` + acc + `,"payload":{}}`, CodeUnsupportedVersion},
		"version 20":                     {`{"x402Version":20,` + acc + `,"payload":{}}`, CodeUnsupportedVersion},
		"version -2":                     {`{"x402Version":-2,` + acc + `,"payload":{}}`, CodeUnsupportedVersion},
		"version 3":                      {`{"x402Version":3,` + acc + `,"payload":{}}`, CodeUnsupportedVersion},
		"version 22":                     {`{"x402Version":22,` + acc + `,"payload":{}}`, CodeUnsupportedVersion},
		"no accepted":                    {`{"x402Version":2,"payload":{}}`, CodePaymentMalformed},
		"accepted null":                  {`{"x402Version":2,"accepted":null,"payload":{}}`, CodePaymentMalformed},
		"accepted a list":                {`{"x402Version":2,"accepted":[],"payload":{}}`, CodePaymentMalformed},
		"no payload":                     {`{"x402Version":2,` + acc + `}`, CodePaymentMalformed},
		"payload a string":               {`{"x402Version":2,` + acc + `,"payload":"x"}`, CodePaymentMalformed},
		"scheme empty":                   {`{"x402Version":2,"accepted":{"scheme":"","network":"a:b"},"payload":{}}`, CodePaymentMalformed},
		"scheme a number":                {`{"x402Version":2,"accepted":{"scheme":1,"network":"a:b"},"payload":{}}`, CodePaymentMalformed},
		"network missing":                {`{"x402Version":2,"accepted":{"scheme":"exact"},"payload":{}}`, CodePaymentMalformed},
		"network a name of version 1":    {`{"x402Version":2,"accepted":{"scheme":"exact","network":"base"},"payload":{}}`, CodePaymentMalformed},
		"extensions a list":              {`{"x402Version":2,` + acc + `,"payload":{},"extensions":[]}`, CodePaymentMalformed},
		"scheme outside accepted counts": {`{"x402Version":2,"scheme":"exact","network":"a:b","payload":{}}`, CodePaymentMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := decodeV2JSON(c.in)
			if got := code(t, err); got != c.want {
				t.Fatalf("code %q (%v), want %q", got, err, c.want)
			}
			if err == nil && string(p.Raw) != c.in {
				t.Errorf("raw was changed to %s", p.Raw)
			}
		})
	}
}

func TestDecodeV1(t *testing.T) {
	for name, c := range map[string]struct {
		in      string
		want    Code
		network string
	}{
		"base":               {`{"x402Version":1,"scheme":"exact","network":"base","payload":{}}`, "", "eip155:8453"},
		"not strict":         {`{"x402Version":1,"scheme":"exact","network":"celo","payload":{}}`, "", "eip155:42220"},
		"unknown name":       {`{"x402Version":1,"scheme":"exact","network":"mars","payload":{}}`, CodeNoMatchingRequirements, ""},
		"CAIP-2":             {`{"x402Version":1,"scheme":"exact","network":"eip155:8453","payload":{}}`, CodeNoMatchingRequirements, ""},
		"other letter case":  {`{"x402Version":1,"scheme":"exact","network":"Base","payload":{}}`, CodeNoMatchingRequirements, ""},
		"network empty":      {`{"x402Version":1,"scheme":"exact","network":"","payload":{}}`, CodePaymentMalformed, ""},
		"network in a list":  {`{"x402Version":1,"scheme":"exact","network":["base"],"payload":{}}`, CodePaymentMalformed, ""},
		"scheme missing":     {`{"x402Version":1,"network":"base","payload":{}}`, CodePaymentMalformed, ""},
		"payload null":       {`{"x402Version":1,"scheme":"exact","network":"base","payload":null}`, CodePaymentMalformed, ""},
		"network and twin":   {`{"x402Version":1,"scheme":"exact","network":"base","Network":"sei","payload":{}}`, CodePaymentMalformed, ""},
		"version 2":          {`{"x402Version":2,"scheme":"exact","network":"base","payload":{}}`, CodePaymentMalformed, ""},
		"version 3":          {`{"x402Version":3,"scheme":"exact","network":"base","payload":{}}`, CodeUnsupportedVersion, ""},
		"version as string":  {`{"x402Version":"1","scheme":"exact","network":"base","payload":{}}`, CodeUnsupportedVersion, ""},
		"payload duplicated": {`{"x402Version":1,"scheme":"exact","network":"base","payload":{},"payload":{}}`, CodePaymentMalformed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Decode(header(HeaderXPayment, b64(c.in)))
			if got := code(t, err); got != c.want {
				t.Fatalf("code %q (%v), want %q", got, err, c.want)
			}
			if err == nil && p.Network != c.network {
				t.Errorf("network %q", p.Network)
			}
		})
	}
}

// TestErrorsRepeatNothing: neither a code nor the log's text shows what the
// payer wrote.
func TestErrorsRepeatNothing(t *testing.T) {
	const mark = "EVIL"
	for _, in := range []string{
		mark,
		`{"x402Version":"` + mark + `"}`,
		`{"` + mark + `":1,"` + mark + `":2}`,
		`{"x402Version":2,"accepted":"` + mark + `","payload":{}}`,
		`{"x402Version":2,"accepted":{"scheme":"exact","network":"` + mark + `"},"payload":{}}`,
		`{"x402Version":2,"accepted":{"scheme":"` + mark + `","network":"a:b","` + mark + `":0},"payload":{}}`,
		`{"x402Version":2,"accepted":{"scheme":"exact","network":"eip155:84532"},"payload":{"signature":"` + mark + `","authorization":{"from":"` + mark + `"}}}`,
		`{"x402Version":2,"accepted":{"scheme":"exact","network":"eip155:84532"},"payload":{"` + mark + `":{"` + mark + `":1,"` + mark + `":2}}}`,
	} {
		p, err := decodeV2JSON(in)
		if err == nil {
			_, err = Match(p, []Requirement{usdc()})
			_, err2 := p.Authorization(Requirement{Scheme: p.Scheme, Network: p.Network, Asset: usdc().Asset, PayTo: usdc().PayTo})
			err = errors.Join(err, err2, CheckExtensions(nil, p.Payload))
		}
		if err == nil {
			t.Errorf("no error for %s", in)
		} else if strings.Contains(err.Error(), mark) {
			t.Errorf("%s\nis repeated in: %v", in, err)
		}
		if _, err := decodeV2JSON(mark + in); strings.Contains(err.Error(), mark) {
			t.Error(err)
		}
	}
}
