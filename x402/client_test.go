package x402

import (
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// TestEncodePayment: what our client sends is what our server reads, and for
// the vectors the same object as the official client's.
func TestEncodePayment(t *testing.T) {
	for name, p := range payments(t) {
		h, v, err := EncodePayment(p)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		q, err := Decode(header(h, v))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		sameJSON(t, name, q.Raw, p.Raw)
		p.Raw, q.Raw = nil, nil
		if !reflect.DeepEqual(p, q) {
			t.Errorf("%s: comes back as %+v", name, q)
		}
	}
	for name, p := range map[string]*Payment{
		"nothing":              {},
		"no accepted":          {Version: V2, Payload: jsontext.Value(`{}`)},
		"broken payload":       {Version: V2, Payload: jsontext.Value(`{`), Accepted: jsontext.Value(`{}`)},
		"version 3":            {Version: 3, Payload: jsontext.Value(`{}`)},
		"no name in version 1": {Version: V1, Scheme: "exact", Network: "eip155:5", Payload: jsontext.Value(`{}`)},
	} {
		if h, v, err := EncodePayment(p); err == nil {
			t.Errorf("%s: %s %s", name, h, v)
		}
	}
}

func TestDecodeChallenge(t *testing.T) {
	for _, file := range []string{"exact-evm-eip3009", "exact-evm-permit2", "upto-evm-permit2"} {
		for _, v := range payerVectors(t, file) {
			c, err := DecodeChallenge(v.Challenge)
			if err != nil {
				t.Fatalf("%s: %v", v.Name, err)
			}
			sameJSON(t, v.Name, []byte(str(t, c.Accepts)), []byte(str(t, v.PaymentRequired.Accepts)))
			if c.Resource.URL == "" || c.Error != "Payment required" {
				t.Errorf("%s: %+v", v.Name, c)
			}
			if len(c.RawAccepts) != len(c.Accepts) || !isObject(c.RawResource) {
				t.Errorf("%s: %s", v.Name, c.RawAccepts)
			}
		}
	}
	for in, ok := range map[string]bool{
		`{"x402Version":2,"accepts":[]}`: true,
		`{"x402Version":2}`:              true,
		`{"x402Version":2,"resource":null,"extensions":null,"accepts":[{"extra":null,"new":1}]}`: true,
		`{"x402Version":1,"accepts":[]}`:    false,
		`{"accepts":[]}`:                    false,
		`{"x402Version":2,"accepts":{}}`:    false,
		`{"x402Version":2,"x402Version":2}`: false,
		`{"x402Version":2,"x":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`: false,
		`null`: false, `[]`: false, ``: false,
	} {
		c, err := DecodeChallenge(b64(in))
		if (err == nil) != ok {
			t.Errorf("%s: %v", in, err)
		}
		if err == nil && (c.RawResource != nil || c.Extensions != nil) {
			t.Errorf("%s: %+v", in, c)
		}
	}
	for _, in := range []string{"%", strings.Repeat("A", maxChallengeBytes+1)} {
		if _, err := DecodeChallenge(in); err == nil {
			t.Errorf("%.9s is read", in)
		}
	}
}

// TestDecodeChallengeOdd: what cannot be read does not take what stands beside
// it along, and is never half read.
func TestDecodeChallengeOdd(t *testing.T) {
	good := str(t, usdc())
	for _, odd := range []string{
		`1`, `null`, `"exact"`, `[]`, `{"scheme":7}`, `{"scheme":"exact","amount":10000}`, `{"scheme":"exact","maxTimeoutSeconds":"300"}`,
		`{"scheme":"exact","maxTimeoutSeconds":1e99}`, `{"scheme":"exact","payTo":["a","b"]}`, `{"scheme":"exact","network":{}}`,
	} {
		for _, list := range []string{odd + "," + good, good + "," + odd} {
			c, err := DecodeChallenge(b64(`{"x402Version":2,"accepts":[` + list + `]}`))
			if err != nil || len(c.Accepts) != 2 || len(c.Unread) != 2 || len(c.RawAccepts) != 2 {
				t.Errorf("%s: %+v, %v", list, c, err)
				continue
			}
			i := 0
			if c.Unread[0] == nil {
				i = 1
			}
			if c.Unread[i] == nil || c.Unread[1-i] != nil || !reflect.DeepEqual(c.Accepts[i], Requirement{}) || str(t, c.Accepts[1-i]) != good {
				t.Errorf("%s: %+v, %v", list, c.Accepts, c.Unread)
			}
		}
	}
	for _, beside := range []string{
		`"resource":"https://a.example/"`, `"resource":{"url":7,"description":"x"}`, `"error":{"code":1}`, `"error":null`,
		`"extensions":[]`, `"extensions":"none"`, "\"resource\":{\"description\":\"caf\xe9\"}", "\"error\":\"caf\xe9\"",
	} {
		c, err := DecodeChallenge(b64(`{"x402Version":2,` + beside + `,"accepts":[` + good + `]}`))
		if err != nil || len(c.Accepts) != 1 || c.Unread[0] != nil || c.Extensions != nil || !c.RawResource.IsValid() && c.RawResource != nil {
			t.Errorf("%s: %+v, %v", beside, c, err)
		}
	}
}
