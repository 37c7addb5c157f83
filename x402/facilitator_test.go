package x402

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// TestFacilitatorBodyTranslates: a version 1 payment for a facilitator that
// knows version 2 only.
func TestFacilitatorBodyTranslates(t *testing.T) {
	p := payments(t)["legacy-x402-fetch-1.2.0"]
	r := usdc()
	res := Resource{URL: "https://a.example/x", Description: "d", MimeType: "m"}
	body, err := FacilitatorBody(p, r, res, V2)
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		X402Version  int            `json:"x402Version"`
		Payment      jsontext.Value `json:"paymentPayload"`
		Requirements jsontext.Value `json:"paymentRequirements"`
	}
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatal(err)
	}
	ours, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	sameJSON(t, "requirements", v.Requirements, ours)
	q, err := decodeV2JSON(string(v.Payment))
	if err != nil || v.X402Version != V2 {
		t.Fatal(v.X402Version, err)
	}
	sameJSON(t, "payload", q.Payload, p.Payload)
	if i, err := Match(q, []Requirement{r}); err != nil || i != 0 {
		t.Error(i, err)
	}
	a, err := p.Authorization(r)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := q.Authorization(r); err != nil || a.Key != b.Key {
		t.Error(b.Key, err)
	}
	if !strings.Contains(string(q.Resource), `"https://a.example/x"`) {
		t.Errorf("resource %s", q.Resource)
	}

	// A version 2 payment goes as it came, white space included.
	const odd = ` { "x402Version":2, "accepted":{"scheme":"exact","network":"a:b"}, "payload":{"\u0061":1e0} } `
	if q, err = decodeV2JSON(odd); err != nil {
		t.Fatal(err)
	}
	if body, err = FacilitatorBody(q, r, res, V2); err != nil || !strings.Contains(string(body), odd) {
		t.Errorf("%s, %v", body, err)
	}
	for name, f := range map[string]func() ([]byte, error){
		"no version 1 of version 2": func() ([]byte, error) { return FacilitatorBody(q, r, res, V1) },
		"version 3":                 func() ([]byte, error) { return FacilitatorBody(q, r, res, 3) },
		"no name in version 1": func() ([]byte, error) {
			return FacilitatorBody(p, Requirement{Network: "eip155:5"}, res, V1)
		},
		"not decoded": func() ([]byte, error) { return FacilitatorBody(&Payment{Version: V2}, r, res, V2) },
		"broken": func() ([]byte, error) {
			return FacilitatorBody(&Payment{Version: V2, Raw: jsontext.Value(`{}}`)}, r, res, V2)
		},
		"broken extra":  func() ([]byte, error) { r := r; r.Extra = jsontext.Value(`{`); return FacilitatorBody(q, r, res, V2) },
		"broken extra1": func() ([]byte, error) { r := r; r.Extra = jsontext.Value(`{`); return FacilitatorBody(p, r, res, V2) },
	} {
		if b, err := f(); err == nil {
			t.Errorf("%s: %s", name, b)
		}
	}
}
