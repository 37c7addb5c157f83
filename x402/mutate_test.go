package x402

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// TestMutations deletes, nulls and retypes every node of valid payments. Each
// variant is refused with a code, or means what the original means.
func TestMutations(t *testing.T) {
	all := payments(t)
	total, read := 0, 0
	for _, vector := range []string{"base-sepolia-usdc-300s", "permit2-plain", "upto-permit2", "evm-2.27.0-v1-client"} {
		p0 := all[vector]
		r := chosen(t, p0)
		a0, err := p0.Authorization(r)
		if err != nil {
			t.Fatal(err)
		}
		name := HeaderPaymentSignature
		if p0.Version == V1 {
			name = HeaderXPayment
		}
		mutate(tree(t, p0.Raw), func(where string, v any) {
			total++
			p, err := Decode(header(name, b64(str(t, v))))
			if err == nil && p == nil {
				t.Errorf("%s %s: no payment", vector, where)
				return
			}
			if err == nil {
				_, err = Match(p, []Requirement{r})
			}
			var a Authorization
			if err == nil {
				a, err = p.Authorization(r)
			}
			if err == nil {
				err = a.Check(r, vectorTime, minLife, maxLife)
			}
			if err != nil {
				if c := code(t, err); SafeCode(string(c), "") == "" {
					t.Errorf("%s %s: code %q", vector, where, c)
				}
				return
			}
			read++
			if strings.HasSuffix(where, "permit2Authorization.nonce as zero") || strings.HasSuffix(where, "permit2Authorization.nonce as a number") {
				return // another nonce, which the payer has not signed
			}
			if a.Key != a0.Key || a.Payer != a0.Payer || a.To != a0.To || !a.Value.Eq(&a0.Value) {
				t.Errorf("%s %s: now means %+v", vector, where, a)
			}
		})
	}
	if total < 800 || read == 0 || read == total {
		t.Errorf("%d variants, %d were read", total, read)
	}
}

// mutate calls f with every variant of v that differs in one node.
func mutate(v any, f func(where string, v any)) {
	retypes := map[string]any{
		"null": nil, "true": true, "zero": 0, "number": 1e21, "empty": "", "text": "x", "list": []any{}, "object": map[string]any{},
		"list of lists": []any{[]any{}}, "nested": map[string]any{"value": map[string]any{"value": 1}},
	}
	for kind, x := range retypes {
		f(" as "+kind, x)
	}
	f(" in a list", []any{v})
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Collect(maps.Keys(v)) {
			without := maps.Clone(v)
			delete(without, name)
			f("."+name+" deleted", without)
			mutate(v[name], func(where string, x any) {
				with := maps.Clone(v)
				with[name] = x
				f("."+name+where, with)
			})
		}
	case string:
		f(" as a number", jsontext.Value("12345678901234567890"))
		f(" with a space", v+" ")
		f(" with a NUL", v+"\x00")
		f(" twice", v+v)
	}
}
