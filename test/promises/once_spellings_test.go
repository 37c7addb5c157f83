package promises

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// A wallet that does not know which version a server speaks says the same payment in both
// headers. What was signed makes it one: it buys once, its receipt is where the payer looks
// for it, and the upstream sees nothing of it.
func TestPaymentSaidTwiceIsOne(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	for name, said := range map[string]func(s *gate.Payment) []string{
		"version 2 in both headers":       func(s *gate.Payment) []string { return []string{"PAYMENT-SIGNATURE", s.V2(t), "X-PAYMENT", s.V2(t)} },
		"each version in its header":      func(s *gate.Payment) []string { return []string{"PAYMENT-SIGNATURE", s.V2(t), "X-PAYMENT", s.V1(t)} },
		"each version, in lower case":     func(s *gate.Payment) []string { return []string{"payment-signature", s.V2(t), "x-payment", s.V1(t)} },
		"version 2 in version 1's header": func(s *gate.Payment) []string { return []string{"X-PAYMENT", s.V2(t)} },
		"twice in one header": func(s *gate.Payment) []string {
			return []string{"PAYMENT-SIGNATURE", s.V2(t), "PAYMENT-SIGNATURE", s.V2(t)}
		},
		"a list that a proxy made of it": func(s *gate.Payment) []string { return []string{"PAYMENT-SIGNATURE", s.V2(t) + ", " + s.V2(t)} },
		"version 1 twice":                func(s *gate.Payment) []string { return []string{"X-PAYMENT", s.V1(t), "X-PAYMENT", s.V1(t)} },
		"the addresses in another case": func(s *gate.Payment) []string {
			return []string{"PAYMENT-SIGNATURE", s.V2(t), "X-PAYMENT", lower(s).V1(t)}
		},
		"the times as numbers in one": func(s *gate.Payment) []string {
			return []string{"PAYMENT-SIGNATURE", numbers(s).V2(t), "X-PAYMENT", s.V1(t)}
		},
		"with a name for the purchase, v2": func(s *gate.Payment) []string {
			return []string{"PAYMENT-SIGNATURE", s.WithIdentifier(t, name16), "X-PAYMENT", s.V1(t)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w.T = t
			s := gate.Sign(t, w.Challenge(http.MethodGet, "/paid/x").Accepts[0])
			moved, ran := w.Facilitator.Transfers(), w.Upstream.Hits.Load()
			r := w.Request(http.MethodGet, "/paid/x")
			headers := said(s)
			for i := 0; i < len(headers); i += 2 {
				r.Header[headers[i]] = append(r.Header[headers[i]], headers[i+1]) // as it is written
			}
			res := w.Do(r)
			w.Expect(res, 200, "")
			for name, header := range map[string]string{"PAYMENT-SIGNATURE": x402.HeaderPaymentResponse, "X-PAYMENT": x402.HeaderXPaymentResponse} {
				if len(r.Header[name])+len(r.Header[strings.ToLower(name)]) == 0 {
					continue
				}
				if receipt, err := x402.DecodeReceipt(res.Header.Get(header)); err != nil || !receipt.Success || receipt.Transaction == "" {
					t.Errorf("%s: %+v, %v", header, receipt, err)
				}
			}
			if seen := w.Upstream.Last().Header; seen.Get("X-Payment")+seen.Get("Payment-Signature") != "" {
				t.Error("the upstream saw the payment")
			}
			// The same again, said in one header, has bought.
			w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", s.V2(t)), 402, "payment_already_used")
			w.Expect(w.Get("/paid/x", "X-PAYMENT", s.V2(t)), 402, "payment_already_used")
			if w.Facilitator.Transfers() != moved+1 || w.Upstream.Hits.Load() != ran+1 {
				t.Errorf("%d transfers, %d answers", w.Facilitator.Transfers()-moved, w.Upstream.Hits.Load()-ran)
			}
		})
	}
}

const name16 = "a_name_of_the_purchase"

// lower is the payment with its addresses in lower case.
func lower(s *gate.Payment) *gate.Payment {
	other := *s
	other.Authorization = maps.Clone(s.Authorization)
	for _, member := range []string{"from", "to"} {
		other.Authorization[member] = strings.ToLower(s.Authorization[member].(string))
	}
	return &other
}

// numbers is the payment with its numbers as JSON numbers.
func numbers(s *gate.Payment) *gate.Payment {
	other := *s
	other.Authorization = maps.Clone(s.Authorization)
	for _, member := range []string{"value", "validAfter", "validBefore"} {
		other.Authorization[member] = json.Number(s.Authorization[member].(string))
	}
	return &other
}

// Payers' libraries write what is signed as numbers, as hexadecimal, or after a byte order
// mark. Where the meaning is certain it is a payment, the same as in any other spelling, and
// the facilitator sees it as all of them read it. The numbers are signed, so that what
// was meant otherwise is nobody's signature.
func TestPaymentIsTakenHoweverItsNumbersAreWritten(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	member := func(name, as string) func(string, *gate.Payment) string {
		return func(text string, s *gate.Payment) string {
			return strings.Replace(text, `"`+name+`":"`+s.Authorization[name].(string)+`"`, `"`+name+`":`+as, 1)
		}
	}
	hexOf := func(text string, s *gate.Payment) string {
		return member("value", `"0x2710"`)(text, s)
	}
	for name, tc := range map[string]struct {
		write func(text string, s *gate.Payment) string
		code  string
	}{
		"validAfter as a number":    {write: member("validAfter", `0`)},
		"value as a number":         {write: member("value", `10000`)},
		"value as a whole fraction": {write: member("value", `10000.0`)},
		"value as hexadecimal":      {write: hexOf},
		"version 2.0": {write: func(s string, _ *gate.Payment) string {
			return strings.Replace(s, `"x402Version":2`, `"x402Version":2.0`, 1)
		}},
		"after a byte order mark": {write: func(s string, _ *gate.Payment) string { return "\ufeff" + s }},
		"value rounded":           {write: member("value", `1e4`), code: "payment_malformed"},
		"value with a fraction":   {write: member("value", `10000.5`), code: "payment_malformed"},
		"value in octal to some":  {write: member("value", `"010000"`), code: "payment_malformed"},
		"version as a text": {write: func(s string, _ *gate.Payment) string {
			return strings.Replace(s, `"x402Version":2`, `"x402Version":"2"`, 1)
		}, code: "unsupported_version"},
		"hexadecimal without its 0x":  {write: member("value", `"2710"`), code: "invalid_exact_evm_payload_authorization_value_mismatch"},
		"another number than signed":  {write: member("validAfter", `1`), code: "*"},
		"another number, hexadecimal": {write: member("validAfter", `"0x1"`), code: "*"},
	} {
		t.Run(name, func(t *testing.T) {
			w.T = t
			s := gate.Sign(t, w.Challenge(http.MethodGet, "/paid/x").Accepts[0])
			text, err := base64.StdEncoding.DecodeString(s.V2(t))
			if err != nil {
				t.Fatal(err)
			}
			written := tc.write(string(text), s)
			if written == string(text) {
				t.Fatal("nothing was changed")
			}
			if tc.code == "*" { // only a facilitator can tell it from a contract wallet's
				w.Facilitator.OnVerify(gate.Says(200, `{"isValid":false,"invalidReason":"invalid_exact_evm_signature"}`))
				defer w.Facilitator.OnVerify(nil)
				tc.code = "invalid_exact_evm_signature"
			}
			moved := w.Facilitator.Transfers()
			res := w.Get("/paid/x", "PAYMENT-SIGNATURE", base64.StdEncoding.EncodeToString([]byte(written)))
			if tc.code != "" {
				w.Expect(res, 402, tc.code)
				return
			}
			w.Expect(res, 200, "")
			asked := w.Facilitator.Asked()
			if said := string(asked[len(asked)-1]); !strings.Contains(said, `"value":"10000"`) || !strings.Contains(said, `"validAfter":"0"`) || strings.Contains(said, "2.0,") {
				t.Errorf("the facilitator was asked %s", said)
			}
			w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", s.V2(t)), 402, "payment_already_used")
			if w.Facilitator.Transfers() != moved+1 {
				t.Errorf("%d transfers", w.Facilitator.Transfers()-moved)
			}
		})
	}
}
