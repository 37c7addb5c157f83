package x402

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// TestNumbers tries spellings of a number in every member that holds one, of
// both payload shapes. Only a decimal string in its one spelling is a number.
func TestNumbers(t *testing.T) {
	max := "115792089237316195423570985008687907853269984665640564039457584007913129639935"
	good := []string{`"0"`, `"1"`, `"9"`, `"10"`, `"10000"`, `"18446744073709551615"`, `"18446744073709551616"`, `"` + max + `"`, `"\u0031"`}
	bad := []string{
		`""`, `" "`, `"+1"`, `"-1"`, `"-0"`, `"+0"`, `" 1"`, `"1 "`, `"1\n"`, `"\t1"`, `"1\u0000"`, `"01"`, `"00"`, `"0001"`,
		`"1.0"`, `"1."`, `".1"`, `"1.5"`, `"1e3"`, `"1E3"`, `"1e+3"`, `"0x10"`, `"0X10"`, `"10h"`, `"0b1"`, `"0o7"`, `"1_000"`, `"1,000"`, `"1'000"`,
		`"1abc"`, `"abc"`, `"NaN"`, `"Infinity"`, `"-Infinity"`, `"inf"`, `"null"`, `"true"`, `"١"`, `"１"`, `"²"`, `"1n"`, `"$1"`, `"1%"`, `"(1)"`, `"--1"`,
		`"115792089237316195423570985008687907853269984665640564039457584007913129639936"`, // 2^256
		`"115792089237316195423570985008687907853269984665640564039457584007913129649936"`, // 2^256 + price
		`"999999999999999999999999999999999999999999999999999999999999999999999999999999"`, // 78 nines
		`"` + strings.Repeat("1", 79) + `"`, `"` + strings.Repeat("1", 100) + `"`, `"` + strings.Repeat("9", 5000) + `"`, `"` + strings.Repeat("0", 100) + `"`,
		`0`, `1`, `10000`, `-1`, `1.0`, `1e3`, `1e21`, `true`, `false`, `null`, `[]`, `["1"]`, `{}`, `{"value":"1"}`,
	}
	if len(good)+len(bad) < 60 {
		t.Fatalf("only %d spellings", len(good)+len(bad))
	}
	all := payments(t)
	for vector, members := range map[string][]string{
		"base-sepolia-usdc-300s": {"value", "validAfter", "validBefore"},
		"permit2-plain":          {"amount", "nonce", "deadline", "validAfter"},
		"upto-permit2":           {"amount", "nonce", "deadline", "validAfter"},
	} {
		r := chosen(t, all[vector])
		for _, member := range members {
			try := func(spelling string) error {
				p := *all[vector]
				p.Payload = replaceMember(t, p.Payload, member, spelling)
				_, err := p.Authorization(r)
				return err
			}
			for _, s := range good {
				if err := try(s); err != nil {
					t.Errorf("%s: %s %s: %v", vector, member, s, err)
				}
			}
			for _, s := range bad {
				if c := code(t, try(s)); c != CodePaymentMalformed {
					t.Errorf("%s: %s %s: code %q", vector, member, s, c)
				}
			}
		}
	}
}

// replaceMember puts another value for the one string member of that name.
func replaceMember(t testing.TB, v jsontext.Value, member, value string) jsontext.Value {
	t.Helper()
	s := string(v)
	start := strings.Index(s, `"`+member+`":"`)
	if start < 0 {
		t.Fatalf("no %s in %s", member, s)
	}
	start += len(member) + 3
	end := start + 1 + strings.IndexByte(s[start+1:], '"') + 1
	return jsontext.Value(s[:start] + value + s[end:])
}

// TestHexMembers: addresses, nonces and signatures have a fixed form.
func TestHexMembers(t *testing.T) {
	p0 := payments(t)["base-sepolia-usdc-300s"]
	for _, c := range []struct {
		member, value string
		want          Code
	}{
		{"from", "0x" + strings.Repeat("ab", 20), ""},
		{"from", "0X" + strings.Repeat("ab", 20), CodePaymentMalformed},
		{"from", strings.Repeat("ab", 20), CodePaymentMalformed},
		{"from", strings.Repeat("ab", 21), CodePaymentMalformed},
		{"from", "0x" + strings.Repeat("ab", 19), CodePaymentMalformed},
		{"from", "0x" + strings.Repeat("ab", 21), CodePaymentMalformed},
		{"from", "0x" + strings.Repeat("ag", 20), CodePaymentMalformed},
		{"from", " 0x" + strings.Repeat("ab", 20), CodePaymentMalformed},
		{"to", "0x", CodePaymentMalformed},
		{"to", "", CodePaymentMalformed},
		{"to", "vitalik.eth", CodePaymentMalformed},
		{"nonce", "0x" + strings.Repeat("AB", 32), ""},
		{"nonce", "0x" + strings.Repeat("ab", 31), CodePaymentMalformed},
		{"nonce", "0x" + strings.Repeat("ab", 33), CodePaymentMalformed},
		{"nonce", "1", CodePaymentMalformed},
		{"signature", "0x" + strings.Repeat("ab", 65), ""},
		{"signature", "0x" + strings.Repeat("ab", 66), ""},
		{"signature", "0x" + strings.Repeat("ab", maxSignature), ""},
		{"signature", "0x" + strings.Repeat("ab", maxSignature+1), CodePaymentMalformed},
		{"signature", "0x" + strings.Repeat("ab", 64), CodeSignature},
		{"signature", "0x", CodeSignature},
		{"signature", "", CodePaymentMalformed},
		{"signature", "0", CodePaymentMalformed},
		{"signature", "0x" + strings.Repeat("ab", 65) + "a", CodePaymentMalformed},
		{"signature", "0x" + strings.Repeat("zz", 65), CodePaymentMalformed},
	} {
		p := *p0
		p.Payload = replaceMember(t, p.Payload, c.member, `"`+c.value+`"`)
		_, err := p.Authorization(usdc())
		if got := code(t, err); got != c.want {
			t.Errorf("%s %.50q: code %q (%v), want %q", c.member, c.value, got, err, c.want)
		}
	}
}

// TestOneKey spells one authorization in many ways, through the headers of
// both versions. All that are read have the same key.
func TestOneKey(t *testing.T) {
	v := payerVectors(t, "exact-evm-eip3009")[0]
	p0, err := Decode(header(HeaderPaymentSignature, v.Header))
	if err != nil {
		t.Fatal(err)
	}
	a0, err := p0.Authorization(usdc())
	if err != nil {
		t.Fatal(err)
	}
	base := string(p0.Raw)
	payload := string(p0.Payload)
	upper := func(s string) string { return "0x" + strings.ToUpper(s[2:]) }
	from, to := "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
	nonce := "0x9267f14d60680ce6636d24bbca27662efb7999cf2e53ca441543e4c7cee4fdb3"
	sig := "0x00c585b1928d03d5a427a9dc25c2767ee7c7b4f7efa7c7092f5059a34c1a518a02ca7a6c7bde2a4ba5731c1c9386c90c34dd868a00133d6130b455b1298419ae1b"

	texts := map[string]string{
		"as sent": base, "space before": " " + base, "space after": base + "\n\t ",
		"spaces after commas":   strings.ReplaceAll(base, ",", ", "),
		"new lines":             strings.ReplaceAll(base, `,"`, ",\r\n\""),
		"spaces around colons":  strings.ReplaceAll(base, `":`, `" : `),
		"unknown member":        strings.Replace(base, `{`, `{"x":1,`, 1),
		"unknown in payload":    strings.Replace(base, `"authorization":{`, `"x":{},"authorization":{`, 1),
		"unknown in signed":     strings.Replace(base, `"from"`, `"x":[1,2],"from"`, 1),
		"null members":          strings.Replace(base, `{`, `{"extensions":null,`, 1),
		"null in signed":        strings.Replace(base, `"from"`, `"type":null,"from"`, 1),
		"without resource":      replaceObject(t, base, "resource", "null"),
		"other resource":        replaceObject(t, base, "resource", `{"url":"https://evil.example/"}`),
		"resource a string":     replaceObject(t, base, "resource", `"x"`),
		"extensions":            strings.Replace(base, `{`, `{"extensions":{"a":{"info":{}}},`, 1),
		"lower-case from":       strings.Replace(base, from, strings.ToLower(from), 1),
		"upper-case from":       strings.Replace(base, from, upper(from), 1),
		"lower-case to":         strings.Replace(base, to, strings.ToLower(to), 1),
		"upper-case to":         strings.Replace(base, to, upper(to), 1),
		"upper-case nonce":      strings.Replace(base, nonce, upper(nonce), 1),
		"mixed-case nonce":      strings.Replace(base, "9267f14d", "9267F14d", 1),
		"upper-case signature":  strings.Replace(base, sig, upper(sig), 1),
		"v 0 for 27":            strings.Replace(base, sig, sig[:130]+"00", 1),
		"v 1 for 28":            strings.Replace(base, sig, sig[:130]+"01", 1),
		"v 28":                  strings.Replace(base, sig, sig[:130]+"1c", 1),
		"another signature":     strings.Replace(base, sig, "0x"+strings.Repeat("11", 65), 1),
		"wrapped signature":     strings.Replace(base, sig, sig+strings.Repeat("6492", 16), 1),
		"escaped member names":  strings.ReplaceAll(base, `"nonce"`, `"\u006eonc\u0065"`),
		"escaped nonce":         strings.Replace(base, `"0x9267`, `"\u0030x92\u00367`, 1),
		"escaped address":       strings.Replace(base, from, `\u0030`+from[1:], 1),
		"escaped value":         strings.Replace(base, `"value":"10000"`, `"value":"1000\u0030"`, 1),
		"extra has more":        strings.Replace(base, `"version":"2"`, `"version":"2","hint":1`, 1),
		"accepted 300.0":        strings.Replace(base, `:300`, `:300.0`, 1),
		"signature first":       strings.Replace(base, payload, `{"signature":"`+sig+`",`+strings.Replace(payload[1:], `,"signature":"`+sig+`"`, "", 1), 1),
		"signed members turned": strings.Replace(strings.Replace(base, `"from":"`+from+`",`, "", 1), `"nonce":"`+nonce+`"`, `"nonce":"`+nonce+`","from":"`+from+`"`, 1),
	}
	headers := make(map[string][2]string)
	for name, text := range texts {
		headers[name] = [2]string{HeaderPaymentSignature, b64(text)}
		if text == base && name != "as sent" {
			t.Errorf("%s changes nothing", name)
		}
	}
	enc := func(e *base64.Encoding, text string) [2]string {
		return [2]string{HeaderPaymentSignature, e.EncodeToString([]byte(text))}
	}
	headers["unpadded"] = enc(base64.RawStdEncoding, base+" ")
	headers["url-safe"] = enc(base64.URLEncoding, base)
	headers["url-safe unpadded"] = enc(base64.RawURLEncoding, base+"  ")
	v1 := func(network, payload string) [2]string {
		return [2]string{HeaderXPayment, b64(fmt.Sprintf(`{"x402Version":1,"scheme":"exact","network":%q,"payload":%s}`, network, payload))}
	}
	headers["version 1"] = v1("base-sepolia", payload)
	headers["version 1, lower case"] = v1("base-sepolia", strings.ToLower(from + to)[:0]+strings.Replace(payload, from, strings.ToLower(from), 1))
	headers["version 1, upper-case nonce"] = v1("base-sepolia", strings.Replace(payload, nonce, upper(nonce), 1))

	lower := usdc()
	lower.Asset, lower.PayTo = strings.ToLower(lower.Asset), strings.ToLower(lower.PayTo)
	n := 0
	for name, h := range headers {
		p, err := Decode(header(h[0], h[1]))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, r := range []Requirement{usdc(), lower} {
			a, err := p.Authorization(r)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if a.Key != a0.Key || a.Payer != a0.Payer || !a.Value.Eq(&a0.Value) {
				t.Errorf("%s: key %s", name, a.Key)
			}
		}
		n++
	}
	if n < 40 {
		t.Errorf("only %d encodings were read", n)
	}
	other := strings.Replace(base, "9267f1", "9267f2", 1)
	if p, err := decodeV2JSON(other); err != nil {
		t.Error(err)
	} else if a, err := p.Authorization(usdc()); err != nil || a.Key == a0.Key {
		t.Errorf("another nonce has the same key: %v", err)
	}
}

// replaceObject puts another value for a member that holds an object.
func replaceObject(t testing.TB, text, member, value string) string {
	t.Helper()
	var m map[string]jsontext.Value
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	m[member] = jsontext.Value(value)
	return str(t, m)
}
