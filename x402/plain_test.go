package x402

import (
	"math/big"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// TestPlainSpellings: payers' libraries write the numbers that are signed in several ways.
// Where the meaning is certain, it is read, exactly as written, and a facilitator sees it in
// the one way that all read. What is not certain stays, and is refused.
func TestPlainSpellings(t *testing.T) {
	const most = "115792089237316195423570985008687907853269984665640564039457584007913129639935"
	for written, want := range map[string]string{
		`1767225900`:                           "1767225900",
		`1767225900.0`:                         "1767225900",
		`0`:                                    "0",
		`9007199254740993`:                     "9007199254740993", // 2^53+1
		`1000000000000000000001`:               "1000000000000000000001",
		most:                                   most,
		`"0x10"`:                               "16",
		`"0x0"`:                                "0",
		`"0x00Ff"`:                             "255",
		`"0x` + strings.Repeat("f", 64) + `"`:  most,
		`"\u0030x10"`:                          "16",
		`"1767225900"`:                         "1767225900",
		`"0x"`:                                 "",
		`"0x1` + strings.Repeat("0", 64) + `"`: "",
		`"0xg"`:                                "",
		`"0X10"`:                               "",
		`"-0x10"`:                              "",
		`"10.0"`:                               "",
		`"0010"`:                               "", // octal to some
		`" 10"`:                                "",
		`"1e3"`:                                "",
		`""`:                                   "",
		`1e3`:                                  "",
		`1.5`:                                  "",
		`1.0e3`:                                "",
		`-1`:                                   "",
		`true`:                                 "",
		`[10]`:                                 "",
		strings.Repeat("9", 78):                "", // 2^256 is less
	} {
		for _, member := range []string{
			"authorization.value", "authorization.validAfter", "authorization.validBefore",
			"permit2Authorization.nonce", "permit2Authorization.deadline", "permit2Authorization.permitted.amount", "permit2Authorization.witness.validAfter",
		} {
			vector, r := "base-sepolia-usdc-300s", usdc()
			if strings.HasPrefix(member, "permit2") {
				vector = "permit2-plain"
				r = chosen(t, payments(t)[vector])
			}
			object := tree(t, payments(t)[vector].Raw)
			set(object.(map[string]any), "payload."+member, jsontext.Value(written))
			for name, in := range map[string]string{"": str(t, object), " after a byte order mark, version 2.0": "\ufeff" + strings.Replace(str(t, object), `"x402Version":2`, `"x402Version":2.0`, 1)} {
				p, err := decodeV2JSON(in)
				if err != nil {
					t.Fatalf("%s: %s%s: %v", member, written, name, err)
				}
				a, err := p.Authorization(r)
				if (err == nil) != (want != "") {
					t.Fatalf("%s: %s%s: %v", member, written, name, err)
				}
				if want == "" {
					continue
				}
				var sent struct {
					Payment struct {
						X402Version jsontext.Value `json:"x402Version"`
						Payload     jsontext.Value `json:"payload"`
					} `json:"paymentPayload"`
				}
				body, err := FacilitatorBody(p, r, Resource{}, V2)
				if err == nil {
					err = json.Unmarshal(body, &sent)
				}
				if got := get(tree(t, sent.Payment.Payload), member); err != nil || got != want || string(sent.Payment.X402Version) != "2" {
					t.Errorf("%s: %s%s: the facilitator sees %v in version %s: %v", member, written, name, got, sent.Payment.X402Version, err)
				}
				if member == "authorization.value" && a.Value.Dec() != want || member == "permit2Authorization.nonce" && new(big.Int).SetBytes(a.Nonce[:]).String() != want {
					t.Errorf("%s: %s%s: read as %+v", member, written, name, a)
				}
			}
		}
	}
}

// set gives a member another value, by its path.
func set(object map[string]any, path string, v any) {
	name, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		object[name] = v
		return
	}
	set(object[name].(map[string]any), rest, v)
}

// get is the value of a member, by its path.
func get(v any, path string) any {
	for name := range strings.SplitSeq(path, ".") {
		object, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = object[name]
	}
	return v
}

// TestPlainPaymentsStayAsTheyAre: nearly all payers write what is signed as strings, and their
// objects pass to the letter.
func TestPlainPaymentsStayAsTheyAre(t *testing.T) {
	for name, p := range payments(t) {
		in := b64(string(p.Raw))
		h := HeaderPaymentSignature
		if p.Version == V1 {
			h = HeaderXPayment
		}
		again, err := Decode(header(h, in))
		if err != nil || b64(string(again.Raw)) != in {
			t.Errorf("%s: %v:\n%s\n%s", name, err, p.Raw, again.Raw)
		}
	}
}

// TestTwinsOfNumbersAreNotMended: what two readers could read in two ways is refused as ever.
func TestTwinsOfNumbersAreNotMended(t *testing.T) {
	good := string(payments(t)["base-sepolia-usdc-300s"].Raw)
	for name, in := range map[string]string{
		"twice":                strings.Replace(good, `"validAfter":`, `"validAfter":1,"validAfter":`, 1),
		"twice by an escape":   strings.Replace(good, `"validAfter":`, `"valid\u0041fter":1,"validAfter":`, 1),
		"in another case":      strings.Replace(good, `"validAfter":"`, `"ValidAfter":1,"validAfter":"`, 1),
		"in snake case":        strings.Replace(good, `"validAfter":"`, `"valid_after":1,"validAfter":"`, 1),
		"beside a number":      strings.Replace(good, `"validAfter":"0"`, `"validAfter":0,"valid_after":1`, 1),
		"two authorizations":   strings.Replace(good, `"payload":{`, `"payload":{"permit2Authorization":{"nonce":1},`, 1),
		"a nonce as a number":  strings.Replace(good, `"nonce":"0x`, `"nonce":12,"x":"0x`, 1),
		"an address as number": strings.Replace(good, `"from":"0x`, `"from":12,"x":"0x`, 1),
	} {
		if in == good {
			t.Fatalf("%s: nothing was changed", name)
		}
		p, err := decodeV2JSON(in)
		if err == nil {
			_, err = p.Authorization(usdc())
		}
		if err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// FuzzPlain: however a number is written, it is read as it is written or not at all, and
// what is plain is plain.
func FuzzPlain(f *testing.F) {
	for _, s := range []string{"0", "12", "12.0", "1e3", "1.5", "-1", "9007199254740993", `"0x10"`, `"0x00ff"`, `"010"`, `"12"`, `"\u0030x1"`, `null`, `{"a":1}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, written string) {
		payload := jsontext.Value(`{"signature":"0x","authorization":{"value":` + written + `,"validAfter":"0"}}`)
		if !payload.IsValid() {
			return
		}
		plain := plainPayload(payload)
		if plain == nil {
			return
		}
		if !plain.IsValid() || plainPayload(plain) != nil {
			t.Fatalf("%s is not plain", plain)
		}
		got, _ := get(tree(t, plain), "authorization.value").(string)
		v := jsontext.Value(written)
		_ = v.Compact()
		want, ok := new(big.Int), false
		if s, isText := text(v); isText {
			want, ok = want.SetString(s, 0) // 0x10
		} else if exact, isNumber := new(big.Rat).SetString(string(v)); isNumber && exact.IsInt() {
			want, ok = exact.Num(), true
		}
		if n, isDecimal := parseUint(got); !ok || !isDecimal || n.ToBig().Cmp(want) != 0 {
			t.Fatalf("%s is read as %s", written, got)
		}
	})
}
