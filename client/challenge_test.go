package client

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

const offerV1 = `{"scheme":"exact","network":"base-sepolia","maxAmountRequired":"10000","resource":"https://a.example/","description":"One","mimeType":"","payTo":"` +
	payTo + `","maxTimeoutSeconds":60,"asset":"` + usdc + `","extra":{"name":"USDC","version":"2"}}`

func bodyOnly(body string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusPaymentRequired)
		_, _ = w.Write([]byte(body))
	}
}

// TestVersions: which version of the protocol a payment speaks.
func TestVersions(t *testing.T) {
	v1 := bodyOnly(`{"x402Version":1,"error":"pay","accepts":[{"network":7},{"scheme":"exact","network":"eip155:84532"},` + offerV1 + `]}`)
	both := (&seller{}).offer(requirement())
	tests := map[string]struct {
		challenge func(http.ResponseWriter)
		version   int
		header    string // "" means that it cannot be paid
	}{
		"both, any":       {both, 0, x402.HeaderPaymentSignature},
		"both, version 2": {both, x402.V2, x402.HeaderPaymentSignature},
		"both, version 1": {both, x402.V1, x402.HeaderXPayment},
		"only 1":          {v1, 0, x402.HeaderXPayment},
		"only 1, want 1":  {v1, x402.V1, x402.HeaderXPayment},
		"only 1, want 2":  {v1, x402.V2, ""},
		"version 3":       {both, 3, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSeller(t)
			s.challenge = tt.challenge
			c, _ := newClient(t)
			c.Version = tt.version
			result, err := c.Do(s.get(t, "/"))
			text(t, result)
			sent := s.paid()
			if tt.header == "" {
				if _, ok := errors.AsType[*ChallengeError](err); !ok || len(sent) != 0 {
					t.Errorf("%v, sent %v", err, sent)
				}
				return
			}
			if err != nil || len(sent) != 1 || sent[0].header != tt.header {
				t.Errorf("%v, sent %v", err, sent)
			}
		})
	}
}

// TestOddChallenges: what is no challenge is not paid, and costs little to read.
func TestOddChallenges(t *testing.T) {
	header := func(values ...string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header()[x402.HeaderPaymentRequired] = values
			bodyOnly(`{"x402Version":1,"accepts":[` + offerV1 + `]}`)(w)
		}
	}
	tests := map[string]struct {
		challenge func(http.ResponseWriter)
		network   bool // the transport refuses it already
	}{
		"a 402 of its own":      {challenge: bodyOnly("give me money")},
		"empty":                 {challenge: bodyOnly("")},
		"JSON null":             {challenge: bodyOnly("null")},
		"no offers":             {challenge: bodyOnly(`{"x402Version":1,"accepts":[]}`)},
		"no offers, version 2":  {challenge: rawChallenge(`{"x402Version":2,"accepts":[]}`)},
		"offers are numbers":    {challenge: bodyOnly(`{"x402Version":1,"accepts":[1,2]}`)},
		"many offers":           {challenge: bodyOnly(`{"x402Version":1,"accepts":[` + strings.Repeat(`1,`, 100) + `1]}`)},
		"body too long":         {challenge: bodyOnly(`{"x402Version":1,"accepts":[` + offerV1 + `]}` + strings.Repeat(" ", maxBodyBytes))},
		"header is no base64":   {challenge: header("%%%")},
		"two challenges":        {challenge: header("e30=", "e30=")},
		"header too long":       {challenge: header(strings.Repeat("A", 65<<10))},
		"header much too long":  {challenge: header(strings.Repeat("A", 2*maxHeaderBytes)), network: true},
		"a member named twice":  {challenge: rawChallenge(`{"x402Version":2,"accepts":[],"accepts":[]}`)},
		"payTo twice in offer":  {challenge: rawChallenge(`{"x402Version":2,"accepts":[{"payTo":"` + payTo + `","payTo":"` + payer + `"}]}`)},
		"nested without bounds": {challenge: rawChallenge(`{"x402Version":2,"x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSeller(t)
			s.challenge = tt.challenge
			c, _ := newClient(t)
			result, err := c.Do(s.get(t, "/"))
			_, ok := errors.AsType[*ChallengeError](err)
			if err == nil || ok == tt.network || (result == nil) != tt.network || len(s.paid()) != 0 {
				t.Fatalf("%+v, %v", result, err)
			}
			if len(err.Error()) > 1000 || strings.Contains(err.Error(), "give me money") {
				t.Errorf("the error repeats too much: %.2000s", err)
			}
		})
	}
}

// TestLongExtensions: an echo that no server could read is left out.
func TestLongExtensions(t *testing.T) {
	for size, echoed := range map[int]bool{100: true, 20 << 10: false} {
		template, err := x402.NewTemplate([]x402.Requirement{requirement()}, "", "", []byte(`{"x":{"info":"`+strings.Repeat("y", size)+`"}}`))
		if err != nil {
			t.Fatal(err)
		}
		s := newSeller(t)
		s.challenge = func(w http.ResponseWriter) {
			w.Header().Set(x402.HeaderPaymentRequired, template.Header("https://a.example/", ""))
			w.WriteHeader(http.StatusPaymentRequired)
		}
		c, _ := newClient(t)
		result, err := c.Do(s.get(t, "/"))
		text(t, result)
		if err != nil {
			t.Fatal(err)
		}
		sent := s.paid()[0]
		p, err := x402.Decode(http.Header{sent.header: {sent.value}})
		if err != nil || (p.Extensions != nil) != echoed || len(sent.value) > maxPaymentHeader {
			t.Errorf("%d: %d bytes, %v", size, len(sent.value), err)
		}
	}
}

// TestOddOffer: what we cannot read is left out, and the rest is paid.
func TestOddOffer(t *testing.T) {
	good := string(marshal(t, requirement()))
	nested := func(depth int) string {
		return strings.Repeat(`{"properties":`, depth) + `{}` + strings.Repeat(`}`, depth)
	}
	for name, object := range map[string]string{
		"first":              `"accepts":[{"scheme":"exact","amount":10000},` + good + `]`,
		"no object":          `"accepts":[null,7,"exact",[],` + good + `]`,
		"last":               `"accepts":[` + good + `,{"scheme":{"name":"exact"}}]`,
		"time as text":       `"accepts":[{"scheme":"exact","maxTimeoutSeconds":"60"},` + good + `]`,
		"a strange error":    `"error":{"code":402},"accepts":[` + good + `]`,
		"a strange resource": `"resource":"https://a.example/","accepts":[` + good + `]`,
		"no UTF-8":           "\"resource\":{\"url\":\"https://a.example/\",\"description\":\"caf\xe9\"},\"accepts\":[" + good + "]",
		"strange extensions": `"extensions":["bazaar"],"accepts":[` + good + `]`,
		"a deep schema":      `"extensions":{"bazaar":{"schema":` + nested(20) + `}},"accepts":[` + good + `]`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newSeller(t)
			s.challenge = rawChallenge(`{"x402Version":2,` + object + `}`)
			c, _ := newClient(t)
			result, err := c.Do(s.get(t, "/"))
			text(t, result)
			if err != nil || result.Outcome != Delivered || len(s.paid()) != 1 {
				t.Fatalf("%+v, %v", result, err)
			}
			if o := result.Payment.Offer; o.Number != len(result.Challenge.Offers) && name != "last" {
				t.Errorf("offer %d of %d", o.Number, len(result.Challenge.Offers))
			}
		})
	}
	s := newSeller(t)
	s.challenge = bodyOnly(`{"x402Version":1,"error":{"code":402},"accepts":[{"description":7},` + offerV1 + `]}`)
	c, _ := newClient(t)
	result, err := c.Do(s.get(t, "/"))
	text(t, result)
	if err != nil || result.Outcome != Delivered {
		t.Errorf("version 1: %+v, %v", result, err)
	}
	// What our reading of a payment would stumble over is refused before it leaves.
	s.challenge = rawChallenge(`{"x402Version":2,"accepts":[` + strings.Replace(good, `{`, `{"pay_to":"`+payer+`",`, 1) + `]}`)
	before := len(s.paid())
	result, err = c.Do(s.get(t, "/"))
	text(t, result)
	if _, ok := errors.AsType[*ChallengeError](err); !ok || len(s.paid()) != before {
		t.Errorf("a twin: %+v, %v", result, err)
	}
}
