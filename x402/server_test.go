package x402

import (
	"encoding/base64"
	"reflect"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// scenario is a captured exchange of an official server.
type scenario struct {
	Name    string
	Request struct {
		Path    string
		Headers map[string]string
	}
	Calls []struct {
		Request struct {
			Path string
			Body jsontext.Value
		}
	} `json:"facilitatorCalls"`
	Response struct {
		Status  int
		Headers map[string]string
		Decoded map[string]jsontext.Value
		Body    jsontext.Value
	}
}

// asked returns the bodies of the scenario's calls that were about a payment.
func (s scenario) asked() (bodies []jsontext.Value) {
	for _, c := range s.Calls {
		if c.Request.Path == "/verify" || c.Request.Path == "/settle" {
			bodies = append(bodies, c.Request.Body)
		}
	}
	return bodies
}

// sameJSON compares bytes of ours with a capture, structurally.
func sameJSON(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if g, w := tree(t, got), tree(t, want); !reflect.DeepEqual(g, w) {
		t.Errorf("%s:\ngot  %s\nwant %s", what, str(t, g), str(t, w))
	}
}

// TestServerV2 runs the captures of the official version 2 server through
// Template, Decode, Match, FacilitatorBody and Receipt.
func TestServerV2(t *testing.T) {
	// What the header of a scenario leads to, where it never got to a
	// facilitator. The official server says so with other words, or not at all.
	refused := map[string]Code{
		"PAYMENT-SIGNATURE is not base64":                   CodePaymentMalformed, // official: as no payment
		"PAYMENT-SIGNATURE is base64 of non-JSON":           CodePaymentMalformed, // official: as no payment
		"PAYMENT-SIGNATURE is base64 of {}":                 CodeUnsupportedVersion,
		"PAYMENT-SIGNATURE url-safe base64 without padding": CodePaymentMalformed,   // ours reads the base64, then misses accepted
		"v1 payload inside PAYMENT-SIGNATURE":               CodeUnsupportedVersion, // official: no matching requirements
		"v1 X-PAYMENT is ignored by the v2 middleware":      CodePaymentMalformed,   // ours serves both versions; its payload is {}
		"unknown x402Version":                               CodeUnsupportedVersion,
		"accepted.amount changed":                           CodeNoMatchingRequirements,
		"accepted.payTo lower-cased":                        CodeNoMatchingRequirements,
		"accepted without extra":                            CodeNoMatchingRequirements,
	}
	file := load[struct{ Scenarios []scenario }](t, "http-v2-server.json")
	offers := make(map[string][]Requirement)
	for _, s := range file.Scenarios {
		if c, err := DecodeChallenge(s.Response.Headers["payment-required"]); err == nil {
			offers[s.Request.Path] = c.Accepts
		}
	}
	challenges, paid := 0, 0
	for _, s := range file.Scenarios {
		t.Run(s.Name, func(t *testing.T) {
			if want := s.Response.Decoded["PAYMENT-REQUIRED"]; want != nil {
				c, err := DecodeChallenge(s.Response.Headers["payment-required"])
				if err != nil {
					t.Fatal(err)
				}
				tpl, err := NewTemplate(c.Accepts, c.Resource.Description, c.Resource.MimeType, c.Extensions)
				if err != nil {
					t.Fatal(err)
				}
				got, err := base64.StdEncoding.DecodeString(tpl.Header(c.Resource.URL, Code(c.Error)))
				if err != nil {
					t.Fatal(err)
				}
				sameJSON(t, "challenge", got, want)
				challenges++
			}
			if want := s.Response.Decoded["PAYMENT-RESPONSE"]; want != nil {
				r, err := DecodeReceipt(s.Response.Headers["payment-response"])
				if err != nil {
					t.Fatal(err)
				}
				got, err := base64.StdEncoding.DecodeString(r.Encode())
				if err != nil {
					t.Fatal(err)
				}
				sameJSON(t, "receipt", got, want)
			}
			h := header()
			for k, v := range s.Request.Headers {
				h.Set(k, v)
			}
			p, err := Decode(h)
			if p == nil && err == nil {
				if len(s.asked()) > 0 {
					t.Error("payment not seen")
				}
				return
			}
			offer := offers[s.Request.Path]
			if err == nil && offer == nil { // the path was only ever asked for with a payment
				offer = []Requirement{chosen(t, p)}
			}
			i := 0
			if err == nil {
				i, err = Match(p, offer)
			}
			if err == nil {
				_, err = p.Authorization(offer[i])
			}
			if got := code(t, err); got != refused[s.Name] || (err == nil) != (len(s.asked()) > 0) {
				t.Fatalf("code %q (%v), want %q; the official server asked %d times", got, err, refused[s.Name], len(s.asked()))
			}
			for _, want := range s.asked() {
				if want == nil { // the connection was dropped before the body
					continue
				}
				var body struct {
					Requirements Requirement `json:"paymentRequirements"`
				}
				if err := json.Unmarshal(want, &body); err != nil {
					t.Fatal(err)
				}
				// The amount of upto is what was used; all else is the offer's.
				r := offer[i]
				r.Amount = body.Requirements.Amount
				got, err := FacilitatorBody(p, r, Resource{}, V2)
				if err != nil {
					t.Fatal(err)
				}
				sameJSON(t, "facilitator request", got, want)
				paid++
			}
		})
	}
	if challenges < 20 || paid < 30 {
		t.Errorf("%d challenges, %d facilitator requests", challenges, paid)
	}
}

// TestServerV1 runs the captures of the official version 1 server through
// Template.AppendBody, Decode, Match, FacilitatorBody and Receipt.
//
// Two members of theirs are not ours: outputSchema, which describes the API to
// a catalogue, and payer beside accepts after a failed verification, which
// clients do not read.
func TestServerV1(t *testing.T) {
	refused := map[string]Code{
		"X-PAYMENT not base64 JSON": CodePaymentMalformed,
		"X-PAYMENT wrong network":   CodeNoMatchingRequirements,
	}
	// without removes the members of theirs that are not ours.
	without := func(t *testing.T, b jsontext.Value, list string) []byte {
		v := tree(t, b).(map[string]any)
		delete(v, "payer")
		entries, ok := v[list].([]any)
		if !ok {
			entries = []any{v[list]}
		}
		for _, e := range entries {
			delete(e.(map[string]any), "outputSchema")
		}
		return []byte(str(t, v))
	}
	// restore makes a requirement of a version 1 entry, and the resource.
	restore := func(t *testing.T, b []byte) (Requirement, Resource) {
		var e requirementV1
		if err := json.Unmarshal(b, &e); err != nil {
			t.Fatal(err)
		}
		network, _ := caip2(e.Network)
		return Requirement{
			Scheme: e.Scheme, Network: network, Amount: e.MaxAmountRequired, Asset: e.Asset, PayTo: e.PayTo,
			MaxTimeoutSeconds: e.MaxTimeoutSeconds, Extra: e.Extra,
		}, Resource{URL: e.Resource, Description: e.Description, MimeType: e.MimeType}
	}
	for _, s := range load[struct{ Scenarios []scenario }](t, "http-v1-server.json").Scenarios {
		t.Run(s.Name, func(t *testing.T) {
			var challenge struct {
				Error   string
				Accepts []jsontext.Value
			}
			if err := json.Unmarshal(s.Response.Body, &challenge, json.MatchCaseInsensitiveNames(true)); err == nil && challenge.Accepts != nil {
				r, res := restore(t, challenge.Accepts[0])
				tpl, err := NewTemplate([]Requirement{r}, res.Description, res.MimeType, nil)
				if err != nil {
					t.Fatal(err)
				}
				c := Code(challenge.Error)
				if c == v1Required {
					c = CodePaymentRequired
				}
				sameJSON(t, "challenge", tpl.AppendBody(nil, res.URL, c), without(t, s.Response.Body, "accepts"))
			}
			if v := s.Response.Headers["x-payment-response"]; v != "" {
				r, err := DecodeReceipt(v)
				if err != nil {
					t.Fatal(err)
				}
				r.Network, r.Extra = "eip155:84532", jsontext.Value(`{}`)
				got, err := base64.StdEncoding.DecodeString(r.V1().Encode())
				if err != nil {
					t.Fatal(err)
				}
				want, err := base64.StdEncoding.DecodeString(v)
				if err != nil {
					t.Fatal(err)
				}
				sameJSON(t, "receipt", got, want)
			}
			h := header()
			for k, v := range s.Request.Headers {
				h.Set(k, v)
			}
			p, err := Decode(h)
			if p == nil && err == nil {
				return
			}
			if err == nil {
				_, err = Match(p, []Requirement{usdc()})
			}
			if err == nil {
				_, err = p.Authorization(usdc())
			}
			if got := code(t, err); got != refused[s.Name] || (err == nil) != (len(s.asked()) > 0) {
				t.Fatalf("code %q (%v), want %q", got, err, refused[s.Name])
			}
			for _, want := range s.asked() {
				var body struct {
					Requirements jsontext.Value `json:"paymentRequirements"`
				}
				if err := json.Unmarshal(want, &body); err != nil {
					t.Fatal(err)
				}
				r, res := restore(t, body.Requirements)
				got, err := FacilitatorBody(p, r, res, V1)
				if err != nil {
					t.Fatal(err)
				}
				sameJSON(t, "facilitator request", got, without(t, want, "paymentRequirements"))
			}
		})
	}
}
