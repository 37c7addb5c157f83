package x402

import (
	"bytes"
	"encoding/base64"
	"reflect"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// FuzzDecode: no header makes Decode panic, what it reads it reads again after
// our own encoding, and what is read is one thing only. The input is a header's
// text and the JSON within one, since mutated base64 seldom holds JSON.
func FuzzDecode(f *testing.F) {
	for _, p := range payments(f) {
		f.Add(string(p.Raw), p.Version == V1)
	}
	for _, s := range []string{goodV1, goodV2, b64(goodV1), "{}", "null", "[]"} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, value string, v1 bool) {
		name := HeaderPaymentSignature
		if v1 {
			name = HeaderXPayment
		}
		if _, err := Decode(header(name, value)); err != nil {
			code(t, err)
		}
		p, err := Decode(header(name, b64(value)))
		if err != nil {
			if c := code(t, err); SafeCode(string(c), "") == "" || p != nil {
				t.Fatalf("code %q, payment %v", c, p)
			}
			return
		}
		if p == nil {
			t.Fatal("no payment, no error")
		}
		h, again, err := EncodePayment(p)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > MaxHeaderBytes {
			return
		}
		q, err := Decode(header(h, again))
		if err != nil {
			t.Fatal(err)
		}
		if p.Version != q.Version || p.Scheme != q.Scheme || p.Network != q.Network {
			t.Fatalf("comes back as %+v", q)
		}
		for _, v := range [][2]jsontext.Value{{p.Accepted, q.Accepted}, {p.Payload, q.Payload}, {p.Extensions, q.Extensions}, {p.Resource, q.Resource}} {
			if !bytes.Equal(canonical(t, v[0]), canonical(t, v[1])) {
				t.Fatalf("%s comes back as %s", v[0], v[1])
			}
		}
		// What we keep of the object is in the object.
		var m map[string]jsontext.Value
		if err := json.Unmarshal(p.Raw, &m); err != nil || !bytes.Equal(m["payload"], p.Payload) {
			t.Fatalf("%v: payload %s", err, p.Payload)
		}
		r := usdc()
		r.Scheme, r.Network = p.Scheme, p.Network
		_, _ = Match(p, []Requirement{usdc(), r})
		_ = CheckExtensions(p.Extensions, p.Payload)
		if body, err := FacilitatorBody(p, r, Resource{}, p.Version); err != nil || !jsontext.Value(body).IsValid() {
			t.Fatalf("%v: %s", err, body)
		}
		if body, err := FacilitatorBody(p, r, Resource{URL: "https://a.example/x"}, V2); err != nil || !jsontext.Value(body).IsValid() {
			t.Fatalf("as version 2: %v: %s", err, body)
		}
		if _, err := json.Marshal(p); err != nil { // for the ledger
			t.Fatal(err)
		}
	})
}

func canonical(t *testing.T, v jsontext.Value) []byte {
	if v == nil {
		return nil
	}
	v = v.Clone()
	if err := v.Format(jsontext.ReorderRawObjects(true)); err != nil {
		t.Fatal(err)
	}
	return v
}

// FuzzAuthorization: no payload makes us panic, and what was read has the same
// key when it is spelled anew from its values.
func FuzzAuthorization(f *testing.F) {
	for _, p := range payments(f) {
		f.Add([]byte(p.Payload), byte(0))
		f.Add([]byte(p.Payload), byte(1))
		f.Add([]byte(p.Payload), byte(2))
	}
	for _, version0 := range []bool{false, true} {
		s, m := solanaTx(version0)
		f.Add([]byte(`{"transaction":"`+base64.StdEncoding.EncodeToString(append(s, m...))+`"}`), byte(3))
	}
	f.Fuzz(func(t *testing.T, payload []byte, kind byte) {
		r := usdc()
		switch kind % 4 {
		case 1:
			r.Extra = jsontext.Value(`{"assetTransferMethod":"permit2"}`)
		case 2:
			r.Scheme, r.Extra = "upto", jsontext.Value(`{"facilitatorAddress":"0x70997970C51812dc3A010C7d01b50e0d17dc79C8"}`)
		case 3:
			r.Network = solanaMainnet
		}
		p := &Payment{Version: V2, Scheme: r.Scheme, Network: r.Network, Payload: payload}
		a, err := p.Authorization(r)
		if err != nil {
			if c := code(t, err); SafeCode(string(c), "") == "" {
				t.Fatalf("code %q", c)
			}
			return
		}
		_ = a.Check(r, vectorTime, minLife, maxLife)
		if a.Key == "" || a.Kind == "" {
			t.Fatalf("%+v", a)
		}
		spelled := jsontext.Value(bytes.Clone(payload))
		if err := spelled.Format(jsontext.ReorderRawObjects(true)); err != nil {
			t.Fatalf("read what is no strict JSON: %v", err)
		}
		p.Payload = spelled
		b, err := p.Authorization(r)
		if err != nil || !reflect.DeepEqual(a, b) {
			t.Fatalf("%v:\n%+v\n%+v", err, a, b)
		}
	})
}

func FuzzReceipt(f *testing.F) {
	for _, s := range load[struct{ Scenarios []scenario }](f, "http-v2-server.json").Scenarios {
		f.Add([]byte(s.Response.Decoded["PAYMENT-RESPONSE"]))
	}
	f.Add([]byte(`{"success":true,"transaction":"","network":"a:b","extra":{"a":1},"extensions":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = DecodeReceipt(string(b))
		r, err := ParseReceipt(b)
		if err != nil {
			return
		}
		again, err := DecodeReceipt(r.Encode())
		if len(r.Encode()) > maxChallengeBytes {
			return
		}
		if err != nil || again.Success != r.Success || again.Transaction != r.Transaction || again.Network != r.Network ||
			again.ErrorReason != r.ErrorReason || !bytes.Equal(canonical(t, again.Extra), canonical(t, r.Extra)) {
			t.Fatalf("%v:\n%+v\n%+v", err, r, again)
		}
		if v1, err := DecodeReceipt(r.V1().Encode()); err != nil || v1.Success != r.Success {
			t.Fatalf("%v: %+v", err, v1)
		}
	})
}

// FuzzChallenge reads challenges, and writes those that we could make: the URL
// and the text come from a request and must never break out.
func FuzzChallenge(f *testing.F) {
	for _, v := range payerVectors(f, "exact-evm-permit2") {
		raw, err := decodeBase64(v.Challenge)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(raw), "https://a.example/")
	}
	f.Add("", `https://a.example/"},"accepts":[]}`)
	f.Add(`{"x402Version":2,"accepts":[{}]}`, "\xff\\\"\u2028")
	f.Fuzz(func(t *testing.T, value, url string) {
		accepts := []Requirement{usdc()}
		_, _ = DecodeChallenge(value)
		c, err := DecodeChallenge(b64(value))
		if err == nil && len(c.Accepts) > 0 {
			accepts = c.Accepts
		}
		tpl, err := NewTemplate(accepts, c.Resource.Description, c.Resource.MimeType, c.Extensions)
		if err != nil {
			return
		}
		b, err := base64.StdEncoding.DecodeString(tpl.Header(url, CodePaymentMalformed))
		if err != nil {
			t.Fatal(err)
		}
		var again struct {
			Error    string        `json:"error"`
			Resource Resource      `json:"resource"`
			Accepts  []Requirement `json:"accepts"`
		}
		if err := json.Unmarshal(b, &again, json.RejectUnknownMembers(false)); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		want := string(bytes.ToValidUTF8([]byte(url), []byte("\ufffd")))
		if again.Error != "payment_malformed" || again.Resource.URL != want || len(again.Accepts) != len(accepts) {
			t.Fatalf("%s", b)
		}
		if body := jsontext.Value(tpl.AppendBody(nil, url, CodePaymentMalformed)); !body.IsValid() {
			t.Fatalf("%s", body)
		} else if string(body) != "{}" {
			if err := json.Unmarshal(body, new(map[string]any)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzSupported(f *testing.F) {
	f.Add([]byte(`{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:1","extra":{"a":1}},null],"extensions":["a"],"signers":{"eip155:*":["0x1"]}}`))
	f.Add([]byte(`{"kinds":[],"extensions":null,"signers":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSupported(b)
		if err != nil {
			return
		}
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseSupported(text)
		if err != nil || len(again.Kinds) != len(s.Kinds) || !reflect.DeepEqual(again.Extensions, s.Extensions) || !reflect.DeepEqual(again.Signers, s.Signers) {
			t.Fatalf("%v:\n%+v\n%+v", err, s, again)
		}
	})
}
