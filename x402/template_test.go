package x402

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

func template(t testing.TB, accepts ...Requirement) *Template {
	t.Helper()
	tpl, err := NewTemplate(accepts, "Weather", "application/json", nil)
	if err != nil {
		t.Fatal(err)
	}
	return tpl
}

// v2Shape tells whether the official version 2 client with its default spend
// controls pays a PAYMENT-REQUIRED value.
func v2Shape(header string) error {
	c, err := DecodeChallenge(header)
	if err != nil {
		return err
	}
	err = errors.New("no requirements")
	for _, r := range c.Accepts {
		var extra struct{ Name, Version, PaymentFlow string }
		if len(r.Extra) > 0 {
			if err := json.Unmarshal(r.Extra, &extra, json.MatchCaseInsensitiveNames(true)); err != nil {
				return err
			}
		}
		switch {
		case r.Scheme != "exact" || !strings.HasPrefix(r.Network, "eip155:"):
			err = errors.New("unknown scheme or network")
		case extra.Name == "" || extra.Version == "":
			err = errors.New("no EIP-712 domain")
		case extra.PaymentFlow != "" && extra.PaymentFlow != "upfront":
			err = errors.New("unknown payment flow")
		case !sameAddress(r.Asset, usdc().Asset):
			err = errors.New("not a default asset")
		case len(r.Amount) > 6 && r.Amount != "1000000":
			err = errors.New("above 1 USD")
		default:
			return nil
		}
	}
	return err
}

// v1Shape tells whether the strict version 1 client parses a 402 body.
func v1Shape(body []byte) error {
	var v struct {
		X402Version int `json:"x402Version"`
		Accepts     []struct {
			Scheme, Network, MaxAmountRequired, Resource string
			Description, MimeType                        *string
			PayTo, Asset                                 string
			MaxTimeoutSeconds                            int
		}
	}
	if err := json.Unmarshal(body, &v, json.MatchCaseInsensitiveNames(true)); err != nil {
		return err
	}
	if v.X402Version != V1 || len(v.Accepts) == 0 {
		return errors.New("no version 1 requirements")
	}
	for _, e := range v.Accepts {
		network, _ := caip2(e.Network)
		_, strict := LegacyNetwork(network)
		u, err := url.Parse(e.Resource)
		switch {
		case e.Scheme != "exact":
			return errors.New("scheme")
		case !strict:
			return errors.New("network")
		case e.Description == nil || e.MimeType == nil:
			return errors.New("description or mimeType missing")
		case err != nil || !u.IsAbs() || u.Host == "":
			return errors.New("resource")
		case e.MaxTimeoutSeconds <= 0:
			return errors.New("maxTimeoutSeconds")
		case !wellFormedV1(Requirement{Network: network, Amount: e.MaxAmountRequired, PayTo: e.PayTo, Asset: e.Asset}):
			return errors.New("amount or account")
		}
	}
	return nil
}

// TestClientBehaviour: our idea of what clients need agrees with what official
// clients did with hand-made answers. The tests below rest on it.
func TestClientBehaviour(t *testing.T) {
	file := load[struct {
		Cases []struct {
			Name  string
			First struct {
				Status  int
				Headers map[string]string
				Body    string
			}
			Clients map[string]struct{ PaidWith *string }
		}
	}](t, "client-behaviour.json")
	if len(file.Cases) < 26 {
		t.Fatalf("%d cases", len(file.Cases))
	}
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			challenge, _ := strings.CutPrefix(c.First.Headers["payment-required"], "(base64 of) ")
			v2 := v2Shape(b64(challenge))
			if got := v2 == nil && c.First.Status == 402; got != (c.Clients["@x402/fetch 2.27.0"].PaidWith != nil) {
				t.Errorf("version 2 client pays: %v, we think %v (%v)", !got, got, v2)
			}
			v1 := v1Shape([]byte(c.First.Body))
			if got := v1 == nil && c.First.Status == 402; got != (c.Clients["x402-fetch 1.2.0"].PaidWith != nil) {
				t.Errorf("version 1 client pays: %v, we think %v (%v)", !got, got, v1)
			}
			if c.Name != "v2 header and v1 body (dual stack)" {
				return
			}
			// This answer suits every client: ours is the same.
			tpl := template(t, usdc())
			got, err := base64.StdEncoding.DecodeString(tpl.Header("https://api.example.com/weather", CodePaymentRequired))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(tree(t, got), tree(t, []byte(challenge))) {
				t.Errorf("header %s\nwant %s", got, challenge)
			}
			body := tpl.AppendBody(nil, "https://api.example.com/weather", CodePaymentRequired)
			if !reflect.DeepEqual(tree(t, body), tree(t, []byte(c.First.Body))) {
				t.Errorf("body %s\nwant %s", body, c.First.Body)
			}
		})
	}
}

// TestTemplateV1Entries: version 1 clients see what they can parse, pay, and
// what we can tell apart afterwards.
// TestWordsInTheBody: what the challenge says in words stands behind what version 1 clients
// read, and alone where there is nothing for them; the header is the same.
func TestWordsInTheBody(t *testing.T) {
	silent := template(t, usdc())
	said := silent.Say(Words{Price: `0.01 "USDC"`, Description: "One <article>", Help: "https://a.example/?a&b"})
	for name, tc := range map[string]struct {
		url  string
		code Code
		want string
	}{
		"unpaid":  {"https://a.example/x", CodePaymentRequired, `"error":"X-PAYMENT header is required","accepts":[`},
		"refused": {"https://a.example/x", CodePaymentAlreadyUsed, `"error":"payment_already_used","accepts":[`},
		"no URL":  {"x", CodePaymentRequired, `{"error":"Payment required","price":`},
	} {
		body := jsontext.Value(said.AppendBody(nil, tc.url, tc.code))
		var read map[string]any
		if err := json.Unmarshal(body, &read); err != nil || !strings.Contains(string(body), tc.want) || read["price"] != `0.01 "USDC"` || read["description"] != "One <article>" || read["help"] != "https://a.example/?a&b" || read["message"] != tc.code.Message() {
			t.Errorf("%s: %v %s", name, err, body)
		}
		if before, plain := string(silent.AppendBody(nil, tc.url, tc.code)), string(body); before != "{}" && !strings.HasPrefix(plain, strings.TrimSuffix(before, "}")) {
			t.Errorf("%s: version 1 reads something else: %s", name, body)
		}
		if said.Header(tc.url, tc.code) != silent.Header(tc.url, tc.code) {
			t.Errorf("%s: the header differs", name)
		}
	}
}

func TestTemplateV1Entries(t *testing.T) {
	mod := func(f func(*Requirement)) Requirement { r := usdc(); f(&r); return r }
	sol := Requirement{
		Scheme: "exact", Network: solanaMainnet, Amount: "10000", Asset: "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
		PayTo: "CmGgLQL36Y9ubtTsy2zmE46TAxwCBm66onZmPPhUWNqv", MaxTimeoutSeconds: 60, Extra: jsontext.Value(`{"feePayer":"F"}`),
	}
	for name, c := range map[string]struct {
		accepts []Requirement
		want    string // networks and amounts, in order
	}{
		"one":                   {[]Requirement{usdc()}, "base-sepolia 10000"},
		"Solana":                {[]Requirement{sol, usdc()}, "solana 10000 base-sepolia 10000"},
		"nil extra":             {[]Requirement{mod(func(r *Requirement) { r.Extra = nil })}, "base-sepolia 10000"},
		"unknown to version 1":  {[]Requirement{mod(func(r *Requirement) { r.Network = "eip155:5" })}, ""},
		"unknown to 1.2.0":      {[]Requirement{mod(func(r *Requirement) { r.Network = "eip155:1" }), usdc()}, "base-sepolia 10000"},
		"upto":                  {[]Requirement{mod(func(r *Requirement) { r.Scheme = "upto" }), usdc()}, "base-sepolia 10000"},
		"permit2":               {[]Requirement{mod(func(r *Requirement) { r.Extra = jsontext.Value(`{"assetTransferMethod":"permit2"}`) })}, ""},
		"eip3009 by name":       {[]Requirement{mod(func(r *Requirement) { r.Extra = jsontext.Value(`{"assetTransferMethod":"eip3009"}`) })}, "base-sepolia 10000"},
		"asset by name":         {[]Requirement{mod(func(r *Requirement) { r.Asset = "USDC" })}, ""},
		"amount with a point":   {[]Requirement{mod(func(r *Requirement) { r.Amount = "0.01" })}, ""},
		"Solana account no b58": {[]Requirement{{Scheme: "exact", Network: solanaMainnet, Amount: "1", Asset: sol.Asset, PayTo: strings.Repeat("0", 40), MaxTimeoutSeconds: 1}}, ""},
		"differ in asset only":  {[]Requirement{usdc(), mod(func(r *Requirement) { r.Asset = r.PayTo })}, "base-sepolia 10000"},
		"differ in amount":      {[]Requirement{usdc(), mod(func(r *Requirement) { r.Amount = "5" })}, "base-sepolia 10000 base-sepolia 5"},
	} {
		t.Run(name, func(t *testing.T) {
			body := template(t, c.accepts...).AppendBody(nil, "https://a.example/x", CodePaymentMalformed)
			if c.want == "" {
				if string(body) != "{}" {
					t.Errorf("body %s", body)
				}
				return
			}
			if err := v1Shape(body); err != nil {
				t.Errorf("%v: %s", err, body)
			}
			var v struct {
				Error   string
				Accepts []struct{ Network, MaxAmountRequired string }
			}
			if err := json.Unmarshal(body, &v, json.MatchCaseInsensitiveNames(true)); err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, e := range v.Accepts {
				got += " " + e.Network + " " + e.MaxAmountRequired
			}
			if got[1:] != c.want || v.Error != "payment_malformed" {
				t.Errorf("got %s, error %s", got, v.Error)
			}
		})
	}
}

// TestTemplateURLs: any request's URL leaves the challenge well-formed, at
// every alignment of its base64.
func TestTemplateURLs(t *testing.T) {
	for pad := range 3 {
		tpl, err := NewTemplate([]Requirement{usdc()}, strings.Repeat("x", pad), "", jsontext.Value(`{"a":{"info":{}}}`))
		if err != nil {
			t.Fatal(err)
		}
		for u, absolute := range map[string]bool{
			"https://a.example/":                              true,
			"http://a.example":                                true,
			"https://a.example:8443/x?q=1&r=<b>#f":            true,
			"https://[::1]:8443/":                             true,
			`https://a.example/"},"error":"x`:                 true,
			"https://a.example/\\\n\t\x00\x7f":                true,
			"https://a.example/" + strings.Repeat("é€😀", 400): true,
			"https://a.example/\u2028\u2029":                  true,
			"https://a.example/" + strings.Repeat("\"", 3000): true,
			"/path": false, "": false, "*": false, "https://": false, "https:///x": false, "ftp://a.example/": false,
			"//a.example/x": false, "https://a b/": false, "https://:443/": false, "https://a%00b/": false, "https://a\"b/": false,
			"javascript:alert(1)": false,
		} {
			b, err := base64.StdEncoding.DecodeString(tpl.Header(u, CodePaymentRequired))
			if err != nil {
				t.Fatalf("%q: %v", u, err)
			}
			var c struct {
				Resource Resource `json:"resource"`
				Error    string   `json:"error"`
			}
			if err := json.Unmarshal(b, &c); err != nil || c.Resource.URL != u || c.Error != "Payment required" {
				t.Errorf("%.60q: %v: %+v", u, err, c)
			}
			body := tpl.AppendBody([]byte("kept"), u, CodePaymentRequired)[4:]
			if (string(body) != "{}") != absolute {
				t.Errorf("%.60q: body %.80s", u, body)
			}
			if absolute {
				var v struct {
					Error   string
					Accepts []struct{ Resource string }
				}
				if err := json.Unmarshal(body, &v, json.MatchCaseInsensitiveNames(true)); err != nil || v.Accepts[0].Resource != u || v.Error != v1Required {
					t.Errorf("%.60q: %v: %s", u, err, body)
				}
			}
		}
		if _, err := DecodeChallenge(tpl.Header("https://a.example/\xff\xfe", CodePaymentRequired)); err != nil {
			t.Errorf("URL that is no UTF-8: %v", err)
		}
	}
}

func TestNewTemplateErrors(t *testing.T) {
	mod := func(f func(*Requirement)) []Requirement { r := usdc(); f(&r); return []Requirement{usdc(), r} }
	for name, c := range map[string]struct {
		accepts    []Requirement
		about, ext string
	}{
		"nothing":           {},
		"no scheme":         {accepts: mod(func(r *Requirement) { r.Scheme = "" })},
		"no amount":         {accepts: mod(func(r *Requirement) { r.Amount = "" })},
		"no asset":          {accepts: mod(func(r *Requirement) { r.Asset = "" })},
		"no payTo":          {accepts: mod(func(r *Requirement) { r.PayTo = "" })},
		"network by name":   {accepts: mod(func(r *Requirement) { r.Network = "base" })},
		"no timeout":        {accepts: mod(func(r *Requirement) { r.MaxTimeoutSeconds = 0 })},
		"extra a list":      {accepts: mod(func(r *Requirement) { r.Extra = jsontext.Value(`[]`) })},
		"extra broken":      {accepts: mod(func(r *Requirement) { r.Extra = jsontext.Value(`{"a":}`) })},
		"extensions a list": {accepts: mod(func(*Requirement) {}), ext: `[]`},
		"extensions broken": {accepts: mod(func(*Requirement) {}), ext: `{`},
		"text is no UTF-8":  {accepts: mod(func(*Requirement) {}), about: "\xff"},
	} {
		var ext jsontext.Value
		if c.ext != "" {
			ext = jsontext.Value(c.ext)
		}
		if tpl, err := NewTemplate(c.accepts, c.about, "", ext); err == nil {
			t.Errorf("%s: no error, %v", name, tpl)
		}
	}
}

func ExampleTemplate() {
	tpl, err := NewTemplate([]Requirement{{
		Scheme: "exact", Network: "eip155:8453", Amount: "10000", MaxTimeoutSeconds: 300,
		Asset: "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", PayTo: "0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
		Extra: jsontext.Value(`{"name":"USD Coin","version":"2"}`),
	}}, "One article", "text/html", nil)
	if err != nil {
		panic(err)
	}
	c, err := DecodeChallenge(tpl.Header("https://shop.example/articles/1", CodePaymentRequired))
	fmt.Println(c.Error, c.Resource.URL, c.Accepts[0].Amount, err)
	// Output: Payment required https://shop.example/articles/1 10000 <nil>
}
