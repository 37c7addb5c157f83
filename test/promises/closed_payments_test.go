package promises

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Payment headers that nobody can understand get a fresh challenge and a
// reason, never a 5xx, and nobody is asked about them.
func TestBadPaymentsGetAFreshChallenge(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	good := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t))
	v2, v1 := good.V2(t), good.V1(t)
	another := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t))
	for name, tc := range map[string]struct {
		headers []string
		code    string
	}{
		"not base64":           {[]string{"PAYMENT-SIGNATURE", "%%%"}, "payment_malformed"},
		"not JSON":             {[]string{"PAYMENT-SIGNATURE", "aGVsbG8="}, "payment_malformed"},
		"null":                 {[]string{"PAYMENT-SIGNATURE", "bnVsbA=="}, "payment_malformed"},
		"empty":                {[]string{"PAYMENT-SIGNATURE", ""}, "payment_malformed"},
		"raw JSON":             {[]string{"PAYMENT-SIGNATURE", `{"x402Version":2}`}, "payment_malformed"},
		"too large":            {[]string{"PAYMENT-SIGNATURE", strings.Repeat("A", 17<<10)}, "payment_too_large"},
		"two":                  {[]string{"PAYMENT-SIGNATURE", v2, "PAYMENT-SIGNATURE", another.V2(t)}, "ambiguous_payment"},
		"both versions":        {[]string{"PAYMENT-SIGNATURE", v2, "X-PAYMENT", another.V1(t)}, "ambiguous_payment"},
		"list":                 {[]string{"PAYMENT-SIGNATURE", v2 + ", " + another.V2(t)}, "ambiguous_payment"},
		"junk beside one":      {[]string{"PAYMENT-SIGNATURE", v2, "X-PAYMENT", "junk"}, "ambiguous_payment"},
		"one beside junk":      {[]string{"PAYMENT-SIGNATURE", "junk", "X-PAYMENT", v1}, "ambiguous_payment"},
		"one beside nothing":   {[]string{"PAYMENT-SIGNATURE", v2, "X-PAYMENT", ""}, "ambiguous_payment"},
		"two names for one":    {[]string{"PAYMENT-SIGNATURE", good.WithIdentifier(t, "one_name_of_the_order"), "X-PAYMENT", v2}, "ambiguous_payment"},
		"v1 in the v2 header":  {[]string{"PAYMENT-SIGNATURE", v1}, "unsupported_version"},
		"version 3":            {[]string{"X-PAYMENT", gate.Encode(t, map[string]any{"x402Version": 3})}, "unsupported_version"},
		"other payee":          {[]string{"PAYMENT-SIGNATURE", bent(t, w, "payTo", "0x0000000000000000000000000000000000000001")}, "no_matching_requirements"},
		"other amount":         {[]string{"PAYMENT-SIGNATURE", bent(t, w, "amount", "1")}, "no_matching_requirements"},
		"signed payee differs": {[]string{"PAYMENT-SIGNATURE", signedAs(t, w, "to", "0x0000000000000000000000000000000000000001")}, "invalid_exact_evm_recipient_mismatch"},
		"signed value less":    {[]string{"PAYMENT-SIGNATURE", signedAs(t, w, "value", "9999")}, "invalid_exact_evm_payload_authorization_value_mismatch"},
		"signed value more":    {[]string{"PAYMENT-SIGNATURE", signedAs(t, w, "value", "10001")}, "invalid_exact_evm_payload_authorization_value_mismatch"},
		"expired":              {[]string{"PAYMENT-SIGNATURE", signedAs(t, w, "validBefore", "1000")}, "invalid_exact_evm_payload_authorization_valid_before"},
		"not yet":              {[]string{"PAYMENT-SIGNATURE", signedAs(t, w, "validAfter", fmt.Sprint(time.Now().Unix()+60))}, "invalid_exact_evm_payload_authorization_valid_after"},
		"lives for ever":       {[]string{"PAYMENT-SIGNATURE", signedAs(t, w, "validBefore", "99999999999")}, "authorization_lifetime_too_long"},
	} {
		t.Run(name, func(t *testing.T) {
			w.T = t
			r := w.Request(http.MethodGet, "/paid/x")
			for i := 0; i < len(tc.headers); i += 2 {
				r.Header.Add(tc.headers[i], tc.headers[i+1])
			}
			res := w.Do(r)
			w.Expect(res, 402, tc.code)
			c, err := x402.DecodeChallenge(res.Header.Get("Payment-Required"))
			if err != nil || len(c.Accepts) != 1 {
				t.Errorf("no complete challenge: %v", err)
			}
			w.Counts(0, 0, 0)
		})
	}
	// Where HTTP itself is broken, HTTP says so.
	res := w.Get("/paid/x", "PAYMENT-SIGNATURE", strings.Repeat("A", 64<<10))
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("64 kB of header: %d", res.StatusCode)
	}
	w.T = t
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", v2), 200, "")
}

// bent changes a member of the accepted requirement, after signing.
func bent(t *testing.T, w *gate.World, member, value string) string {
	t.Helper()
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t))
	switch member {
	case "payTo":
		s.Requirement.PayTo = value
	case "amount":
		s.Requirement.Amount = value
	}
	return s.V2(t)
}

// signedAs changes a member of what is signed.
func signedAs(t *testing.T, w *gate.World, member, value string) string {
	t.Helper()
	p := gate.NewPayer(t)
	c := w.Challenge(http.MethodGet, "/paid/x")
	good := p.Sign(t, c.Accepts[0], time.Now())
	good.Authorization[member] = value
	return p.SignWith(t, c.Accepts[0], good.Authorization).V2(t)
}

// A signature that is not the payer's own may be a contract wallet's, so the
// facilitator is asked, but a flood of junk is not passed on.
func TestJunkSignaturesAreNotPassedOn(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	c := w.Challenge(http.MethodGet, "/paid/x")
	w.Facilitator.OnVerify(gate.Says(200, `{"isValid":false,"invalidReason":"invalid_exact_evm_signature"}`))
	statuses := map[int]int{}
	for range 200 {
		junk := gate.NewPayer(t).Sign(t, c.Accepts[0], time.Now())
		junk.Authorization["from"] = gate.NewPayer(t).Address.Hex()
		statuses[w.Get("/paid/x", "PAYMENT-SIGNATURE", junk.V2(t)).StatusCode]++
	}
	if asked := w.Facilitator.Verified.Load(); statuses[402]+statuses[503] != 200 || statuses[503] == 0 || asked != int64(statuses[402]) {
		t.Errorf("%v, asked %d times", statuses, asked)
	}
	if w.Upstream.Hits.Load() != 0 || w.Facilitator.Settled.Load() != 0 {
		t.Error("junk was served or settled")
	}
	// An honest payer does not notice.
	w.Facilitator.OnVerify(nil)
	w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
}
