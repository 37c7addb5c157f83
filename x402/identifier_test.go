package x402

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// TestIdentifier goes by the table of the official package.
func TestIdentifier(t *testing.T) {
	raw, err := os.ReadFile("testdata/payment-identifier.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		IDValidation []struct {
			ID    string `json:"id"`
			Valid bool   `json:"valid"`
		} `json:"idValidation"`
		ClientEcho json.RawMessage `json:"clientEcho"`
	}
	if err := json.Unmarshal(raw, &vectors); err != nil || len(vectors.IDValidation) == 0 {
		t.Fatal(err)
	}
	for _, v := range vectors.IDValidation {
		echo, err := json.Marshal(map[string]any{"payment-identifier": map[string]any{"info": map[string]any{"required": false, "id": v.ID}}})
		if err != nil {
			t.Fatal(err)
		}
		p := &Payment{Extensions: jsontext.Value(echo)}
		id, err := p.Identifier()
		if (err == nil) != v.Valid || v.Valid && id != v.ID {
			t.Errorf("%q: %q, %v", v.ID, id, err)
		}
		if err := CheckExtensions(PaymentIdentifier, p.Extensions); err != nil {
			t.Errorf("%q: the echo: %v", v.ID, err)
		}
	}
	if id, err := (&Payment{Extensions: jsontext.Value(vectors.ClientEcho)}).Identifier(); err != nil || id == "" {
		t.Errorf("the official client's echo: %q, %v", id, err)
	}
	for name, tc := range map[string]struct {
		extensions string
		ok         bool
	}{
		"none":            {``, true},
		"others":          {`{"bazaar":{}}`, true},
		"no info":         {`{"payment-identifier":{}}`, true},
		"no id":           {`{"payment-identifier":{"info":{"required":false}}}`, true},
		"null":            {`{"payment-identifier":null}`, true},
		"a text":          {`{"payment-identifier":"pay_0123456789abcdef"}`, false},
		"id is a number":  {`{"payment-identifier":{"info":{"id":1234567890123456}}}`, false},
		"two identifiers": {`{"payment-identifier":{"info":{"id":"pay_0123456789abcdef","id":"pay_0123456789abcdee"}}}`, false},
	} {
		id, err := (&Payment{Extensions: jsontext.Value(tc.extensions)}).Identifier()
		if (err == nil) != tc.ok || id != "" {
			t.Errorf("%s: %q, %v", name, id, err)
		}
	}
}
