package x402

import (
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// TestSupportedVectors compares with the official facilitator client.
func TestSupportedVectors(t *testing.T) {
	file := load[struct {
		Cases []struct {
			Name    string
			Answers []struct {
				Status int
				Body   string
			} `json:"facilitatorAnswers"`
			Result jsontext.Value
		}
	}](t, "facilitator-client.json")
	n := 0
	for _, c := range file.Cases {
		last := c.Answers[len(c.Answers)-1]
		if last.Status != 200 || !strings.HasPrefix(c.Name, "supported:") && !strings.HasPrefix(c.Name, "settle:") {
			continue
		}
		n++
		t.Run(c.Name, func(t *testing.T) {
			var got any
			var err error
			if strings.HasPrefix(c.Name, "supported:") {
				got, err = ParseSupported([]byte(last.Body))
			} else {
				got, err = ParseReceipt([]byte(last.Body))
			}
			if (err == nil) != (c.Result != nil) {
				t.Fatalf("%v, official %s", err, c.Result)
			}
			if err != nil {
				return
			}
			want := tree(t, c.Result).(map[string]any)
			delete(want, "extensionResponses") // from a header, not from the body
			sameJSON(t, "answer", []byte(str(t, got)), []byte(str(t, want)))
		})
	}
	if n < 7 {
		t.Errorf("%d cases", n)
	}
}

func TestParseSupported(t *testing.T) {
	const kind = `{"x402Version":2,"scheme":"exact","network":"eip155:1"}`
	for name, c := range map[string]struct {
		in    string
		kinds int // -1 is an error
	}{
		"no kinds":                 {`{}`, -1},
		"kinds null":               {`{"kinds":null}`, -1},
		"kinds an object":          {`{"kinds":{}}`, -1},
		"kinds empty":              {`{"kinds":[]}`, 0},
		"not an object":            {`[]`, -1},
		"not JSON":                 {`<html>`, -1},
		"empty":                    {``, -1},
		"trailing data":            {`{"kinds":[]}x`, -1},
		"duplicate":                {`{"kinds":[],"kinds":[` + kind + `]}`, -1},
		"extensions null":          {`{"kinds":[],"extensions":null}`, -1},
		"extensions a string":      {`{"kinds":[],"extensions":"a"}`, -1},
		"extensions of numbers":    {`{"kinds":[],"extensions":[1]}`, -1},
		"signers null":             {`{"kinds":[],"signers":null}`, -1},
		"signers a list":           {`{"kinds":[],"signers":[]}`, -1},
		"signers of strings":       {`{"kinds":[],"signers":{"eip155:*":"0x1"}}`, -1},
		"all":                      {`{"kinds":[` + kind + `],"extensions":["a"],"signers":{"eip155:*":["0x1"]}}`, 1},
		"kind null":                {`{"kinds":[null,` + kind + `]}`, 1},
		"kind a string":            {`{"kinds":["x",` + kind + `]}`, 1},
		"kind without version":     {`{"kinds":[{"scheme":"exact","network":"a:b"},` + kind + `]}`, 1},
		"kind with version text":   {`{"kinds":[{"x402Version":"2","scheme":"exact","network":"a:b"},` + kind + `]}`, 1},
		"kind without network":     {`{"kinds":[{"x402Version":2,"scheme":"exact"},` + kind + `]}`, 1},
		"extra null":               {`{"kinds":[{"x402Version":2,"scheme":"exact","network":"a:b","extra":null}]}`, 1},
		"extra a list":             {`{"kinds":[{"x402Version":2,"scheme":"exact","network":"a:b","extra":[]},` + kind + `]}`, 1},
		"most kinds":               {`{"kinds":[` + strings.Repeat(kind+",", maxSupportedKinds-1) + kind + `]}`, maxSupportedKinds},
		"too many kinds":           {`{"kinds":[` + strings.Repeat(kind+",", maxSupportedKinds) + kind + `]}`, -1},
		"too deep":                 {`{"kinds":[],"x":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`, -1},
		"too long":                 {`{"kinds":[],"x":"` + strings.Repeat("x", maxSupportedBytes) + `"}`, -1},
		"number of 79 digits":      {`{"kinds":[],"x":` + strings.Repeat("1", 79) + `}`, -1},
		"version 1 kind, old name": {`{"kinds":[{"x402Version":1,"scheme":"exact","network":"base"}]}`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := ParseSupported([]byte(c.in))
			if (err == nil) != (c.kinds >= 0) {
				t.Fatalf("%v", err)
			}
			if err == nil && (len(s.Kinds) != c.kinds || s.Extensions == nil || s.Signers == nil) {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestReceipts(t *testing.T) {
	for in, ok := range map[string]bool{
		`{"success":true,"transaction":"0x1","network":"a:b"}`:                                                                     true,
		`{"success":false,"transaction":"","network":""}`:                                                                          true,
		`{"success":true,"transaction":"0x1","network":"a:b","payer":null,"extra":null,"foo":1}`:                                   true,
		`{"success":true,"transaction":"0x1","network":"a:b","payer":7,"amount":10000,"errorReason":{"code":1},"errorMessage":[]}`: true,
		`{"success":"true","transaction":"0x1","network":"a:b"}`:                                                                   false,
		`{"success":1,"transaction":"0x1","network":"a:b"}`:                                                                        false,
		`{"success":null,"transaction":"0x1","network":"a:b"}`:                                                                     false,
		`{"transaction":"0x1","network":"a:b"}`:                                                                                    false,
		`{"success":true,"transaction":null,"network":"a:b"}`:                                                                      false,
		`{"success":true,"network":"a:b"}`:                                                                                         false,
		`{"success":true,"transaction":"0x1"}`:                                                                                     false,
		`{"success":true,"success":false,"transaction":"0x1","network":"a:b"}`:                                                     false,
		`{"Success":true,"transaction":"0x1","network":"a:b"}`:                                                                     false,
		`{"success":true,"transaction":"0x1","network":"a:b"}{}`:                                                                   false,
		`{"success":true,"transaction":"0x1","network":"a:b","x":` + strings.Repeat("[", 70) + `}`:                                 false,
		`null`: false, `[]`: false, ``: false, `"x"`: false,
	} {
		r, err := DecodeReceipt(b64(in))
		if (err == nil) != ok {
			t.Errorf("%s: %v", in, err)
		}
		if err != nil {
			continue
		}
		if again, err := DecodeReceipt(r.Encode()); err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%s: comes back as %+v, %v", in, again, err)
		}
	}
	for _, in := range []string{"%", strings.Repeat("A", maxChallengeBytes+1)} {
		if _, err := DecodeReceipt(in); err == nil {
			t.Errorf("%.9s is read", in)
		}
	}
	// A receipt is sent whatever a facilitator put into it.
	odd := Receipt{Success: true, Transaction: "0x1", Network: "a:b", Payer: "\xff", Extra: jsontext.Value(`{`)}
	if r, err := DecodeReceipt(odd.Encode()); err != nil || !r.Success || r.Transaction != "0x1" {
		t.Errorf("%+v, %v", r, err)
	}
	full := Receipt{
		Success: false, Transaction: "0x1", Network: "eip155:8453", Payer: "0x2", Amount: "3", ErrorReason: "r", ErrorMessage: "m",
		Extensions: jsontext.Value(`{}`), Extra: jsontext.Value(`{}`),
	}
	want := Receipt{Transaction: "0x1", Network: "base", Payer: "0x2", ErrorReason: "r"}
	if got := full.V1(); !reflect.DeepEqual(got, want) {
		t.Errorf("version 1: %+v", got)
	}
	full.Network = "near:mainnet"
	if got := full.V1(); got.Network != "near:mainnet" {
		t.Errorf("version 1 has no name: %+v", got)
	}
}

// TestNetworks: our table is the official one.
func TestNetworks(t *testing.T) {
	file := load[struct {
		V1ToCaip2           map[string]string
		LegacyClientAccepts []string
	}](t, "data-networks.json")
	strict := make(map[string]bool)
	for _, name := range file.LegacyClientAccepts {
		strict[name] = true
	}
	if len(file.V1ToCaip2) != len(legacyNetworks) {
		t.Errorf("%d names, official %d", len(legacyNetworks), len(file.V1ToCaip2))
	}
	for name, chain := range file.V1ToCaip2 {
		if got, ok := caip2(name); !ok || got != chain {
			t.Errorf("%s is %s, official %s", name, got, chain)
		}
		if got, s := LegacyNetwork(chain); got != name || s != strict[name] {
			t.Errorf("%s is %s, strict %v", chain, got, s)
		}
	}
	if name, s := LegacyNetwork("eip155:5"); name != "" || s {
		t.Error(name, s)
	}
}

// TestCodes: what we say of a payload is what official facilitators say, and
// every code but the first is one that SafeCode lets through.
func TestCodes(t *testing.T) {
	file := load[struct{ Codes map[string][]string }](t, "data-error-codes.json")
	official := make(map[string]bool)
	for _, list := range file.Codes {
		for _, c := range list {
			official[c] = true
			if want := !strings.ContainsAny(c, " PN"); (SafeCode(c, "") == Code(c)) != want {
				t.Errorf("SafeCode of %s", c)
			}
		}
	}
	for _, c := range []Code{
		CodePaymentRequired, CodeExtensionEchoMismatch, CodeSettlementPending, CodeUnsupportedPayload, CodeRecipientMismatch, CodeValidBefore,
		CodeValidAfter, CodeValueMismatch, CodeSignature, CodePermit2Spender, CodePermit2Recipient, CodePermit2Deadline, CodePermit2NotYetValid,
		CodePermit2Amount, CodePermit2Token, CodePermit2Signature, CodeUptoFacilitator, CodeSolanaTransaction,
	} {
		if !official[string(c)] {
			t.Errorf("%s is no official code", c)
		}
	}
	for s, want := range map[string]Code{
		"ok_1": "ok_1", "": "f", "Bad": "f", "a b": "f", "a-b": "f", "a\n": "f", "é": "f", "fetch failed": "f",
		strings.Repeat("a", 100): Code(strings.Repeat("a", 100)), strings.Repeat("a", 101): "f",
	} {
		if got := SafeCode(s, "f"); got != want {
			t.Errorf("SafeCode(%q) is %q", s, got)
		}
	}
	if e := (&Error{Code: "c"}); e.Error() != "c" || e.Unwrap() != nil {
		t.Error(e)
	}
}
