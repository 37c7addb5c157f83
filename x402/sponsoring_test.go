package x402

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"
)

// What we declare of gas sponsoring is what the official servers declare, and
// what the official clients make of it passes the check of the echo.
func TestDeclareExtensionsLikeOfficialServer(t *testing.T) {
	b, err := os.ReadFile("testdata/exact-evm-permit2.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []struct {
			PaymentRequired struct{ Extensions map[string]any }
			PaymentPayload  struct{ Extensions json.RawMessage }
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, v := range file.Vectors {
		for name, want := range v.PaymentRequired.Extensions {
			seen++
			declared := DeclareExtensions(name)
			var got map[string]any
			if err := json.Unmarshal(declared, &got); err != nil {
				t.Fatal(err)
			}
			if len(got) != 2 || got[paymentIdentifier] == nil || !reflect.DeepEqual(got[name], want) {
				t.Errorf("%s: %s", name, declared)
			}
			if err := CheckExtensions(declared, []byte(v.PaymentPayload.Extensions)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			both := DeclareExtensions(ERC20ApprovalGasSponsoring, EIP2612GasSponsoring)
			if err := CheckExtensions(both, []byte(v.PaymentPayload.Extensions)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			bent := []byte(`{"` + name + `":{"info":{"description":"mine","version":"1"}}}`)
			if err := CheckExtensions(declared, bent); err == nil {
				t.Errorf("%s: a changed info passes", name)
			}
		}
	}
	if seen != 2 {
		t.Fatalf("%d extensions seen", seen)
	}
	for _, names := range [][]string{nil, {"something-else"}} {
		if got := DeclareExtensions(names...); string(got) != string(PaymentIdentifier) {
			t.Errorf("%s", got)
		}
	}
}
