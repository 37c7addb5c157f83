package x402

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// payments are all payer vectors, decoded from their headers.
func payments(t testing.TB) map[string]*Payment {
	t.Helper()
	all := make(map[string]*Payment)
	for _, file := range []string{"exact-evm-eip3009", "exact-evm-permit2", "upto-evm-permit2", "exact-evm-v1"} {
		for _, v := range payerVectors(t, file) {
			h := header(HeaderPaymentSignature, v.Header)
			switch {
			case v.HeaderV1 != "":
				h = header(HeaderXPayment, v.HeaderV1)
			case v.Header == "": // captured without its header
				if err := v.Payment.Compact(); err != nil {
					t.Fatal(err)
				}
				h = header(HeaderXPayment, b64(string(v.Payment)))
			}
			p, err := Decode(h)
			if err != nil {
				t.Fatalf("%s: %v", v.Name, err)
			}
			all[v.Name] = p
		}
	}
	if len(all) < 10 {
		t.Fatalf("%d payments", len(all))
	}
	return all
}

// chosen is the requirement that the payment accepted, as ours.
func chosen(t testing.TB, p *Payment) Requirement {
	t.Helper()
	if p.Version == V1 {
		return usdc()
	}
	var r Requirement
	if err := json.Unmarshal(p.Accepted, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestAuthorizationVectors: what official clients sign passes, from header to
// check.
func TestAuthorizationVectors(t *testing.T) {
	const from = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
	for name, p := range payments(t) {
		t.Run(name, func(t *testing.T) {
			r := chosen(t, p)
			if i, err := Match(p, []Requirement{r}); err != nil || i != 0 {
				t.Fatal(i, err)
			}
			a, err := p.Authorization(r)
			if err != nil {
				t.Fatal(err)
			}
			if a.Payer != from || a.To != r.PayTo || a.Token != r.Asset || a.Value.Dec() != r.Amount || len(a.Signature) != 65 {
				t.Errorf("%+v", a)
			}
			maxLife := maxLife
			if name == "long-lived-no-clock-needed" {
				if c := code(t, a.Check(r, vectorTime, minLife, maxLife)); c != CodeLifetimeTooLong {
					t.Errorf("code %q", c)
				}
				maxLife = math.MaxInt64
			}
			if err := a.Check(r, vectorTime, minLife, maxLife); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	all := payments(t)
	for name, want := range map[string]string{
		"base-sepolia-usdc-300s": "eip3009:84532:036cbd53842c5426634e7929541ec2318f3dcf7e:f39fd6e51aad88f6f4ce6ab8827279cfffb92266:" +
			"9267f14d60680ce6636d24bbca27662efb7999cf2e53ca441543e4c7cee4fdb3",
		"legacy-x402-fetch-1.2.0": "eip3009:84532:036cbd53842c5426634e7929541ec2318f3dcf7e:f39fd6e51aad88f6f4ce6ab8827279cfffb92266:" +
			"9267f14d60680ce6636d24bbca27662efb7999cf2e53ca441543e4c7cee4fdb3",
		"base-mainnet-usd-coin": "eip3009:8453:833589fcd6edb6e08f4c7c32d4f71b54bda02913:f39fd6e51aad88f6f4ce6ab8827279cfffb92266:" +
			"9267f14d60680ce6636d24bbca27662efb7999cf2e53ca441543e4c7cee4fdb3",
		// One nonce space for each owner: exact and upto, whatever the token.
		"permit2-plain": "permit2:84532:f39fd6e51aad88f6f4ce6ab8827279cfffb92266:" +
			"9267f14d60680ce6636d24bbca27662efb7999cf2e53ca441543e4c7cee4fdb3",
		"upto-permit2": "permit2:84532:f39fd6e51aad88f6f4ce6ab8827279cfffb92266:" +
			"9267f14d60680ce6636d24bbca27662efb7999cf2e53ca441543e4c7cee4fdb3",
		"permit2-with-erc20-approval-gas-sponsoring": "permit2:84532:f39fd6e51aad88f6f4ce6ab8827279cfffb92266:" +
			"9267f14d60680ce6636d24bbca27662efb7999cf2e53ca441543e4c7cee4fdb3",
	} {
		a, err := all[name].Authorization(chosen(t, all[name]))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if a.Key != want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, a.Key, want)
		}
	}
}

// TestCheck changes one thing at a time, in what was signed or what we want.
func TestCheck(t *testing.T) {
	all := payments(t)
	now := vectorTime.Unix()
	for name, c := range map[string]struct {
		auth func(*Authorization)
		req  func(*Requirement)
		// The code for EIP-3009, Permit2 and upto; "" means it passes.
		want [3]Code
	}{
		"as it is":                 {},
		"payTo, other case":        {req: func(r *Requirement) { r.PayTo = strings.ToLower(r.PayTo) }},
		"asset, other case":        {req: func(r *Requirement) { r.Asset = "0x" + strings.ToUpper(r.Asset[2:]) }},
		"payTo, another":           {req: func(r *Requirement) { r.PayTo = r.Asset }, want: [3]Code{CodeRecipientMismatch, CodePermit2Recipient, CodePermit2Recipient}},
		"payTo, empty":             {req: func(r *Requirement) { r.PayTo = "" }, want: [3]Code{CodeRecipientMismatch, CodePermit2Recipient, CodePermit2Recipient}},
		"payTo and amount":         {req: func(r *Requirement) { r.PayTo = r.Asset; r.Amount = "1" }, want: [3]Code{CodeRecipientMismatch, CodePermit2Recipient, CodePermit2Recipient}},
		"asset, another":           {req: func(r *Requirement) { r.Asset = r.PayTo }, want: [3]Code{CodeNoMatchingRequirements, CodePermit2Token, CodePermit2Token}},
		"network, another":         {req: func(r *Requirement) { r.Network = "eip155:8453" }, want: [3]Code{CodeNoMatchingRequirements, CodeNoMatchingRequirements, CodeNoMatchingRequirements}},
		"scheme, another":          {req: func(r *Requirement) { r.Scheme = "x" }, want: [3]Code{CodeNoMatchingRequirements, CodeNoMatchingRequirements, CodeNoMatchingRequirements}},
		"price higher":             {req: func(r *Requirement) { r.Amount += "0" }, want: [3]Code{CodeValueMismatch, CodePermit2Amount, CodePermit2Amount}},
		"price lower":              {req: func(r *Requirement) { r.Amount = "9999" }, want: [3]Code{CodeValueMismatch, CodePermit2Amount, CodePermit2Amount}},
		"price no number":          {req: func(r *Requirement) { r.Amount = "+10000" }, want: [3]Code{CodeValueMismatch, CodePermit2Amount, CodePermit2Amount}},
		"value zero":               {auth: func(a *Authorization) { a.Value.Clear() }, want: [3]Code{CodeValueMismatch, CodePermit2Amount, CodePermit2Amount}},
		"value one less":           {auth: func(a *Authorization) { a.Value.SubUint64(&a.Value, 1) }, want: [3]Code{CodeValueMismatch, CodePermit2Amount, CodePermit2Amount}},
		"value one more":           {auth: func(a *Authorization) { a.Value.AddUint64(&a.Value, 1) }, want: [3]Code{CodeValueMismatch, CodePermit2Amount, CodePermit2Amount}},
		"value 2^256-1":            {auth: func(a *Authorization) { a.Value.SetAllOne() }, want: [3]Code{CodeValueMismatch, CodePermit2Amount, CodePermit2Amount}},
		"ends in 20 s":             {auth: func(a *Authorization) { a.ValidBefore = now + 20 }},
		"ends in 19 s":             {auth: func(a *Authorization) { a.ValidBefore = now + 19 }, want: [3]Code{CodeValidBefore, CodePermit2Deadline, CodePermit2Deadline}},
		"ended":                    {auth: func(a *Authorization) { a.ValidBefore = now - 1 }, want: [3]Code{CodeValidBefore, CodePermit2Deadline, CodePermit2Deadline}},
		"ended in 1970":            {auth: func(a *Authorization) { a.ValidBefore = 0 }, want: [3]Code{CodeValidBefore, CodePermit2Deadline, CodePermit2Deadline}},
		"lives 25 h":               {auth: func(a *Authorization) { a.ValidBefore = now + 25*3600 }},
		"lives 25 h and a second":  {auth: func(a *Authorization) { a.ValidBefore = now + 25*3600 + 1 }, want: [3]Code{CodeLifetimeTooLong, CodeLifetimeTooLong, CodeLifetimeTooLong}},
		"lives for ever":           {auth: func(a *Authorization) { a.ValidBefore = math.MaxInt64 }, want: [3]Code{CodeLifetimeTooLong, CodeLifetimeTooLong, CodeLifetimeTooLong}},
		"begins now":               {auth: func(a *Authorization) { a.ValidAfter = now }},
		"begins in 5 s":            {auth: func(a *Authorization) { a.ValidAfter = now + 5 }},
		"begins in 6 s":            {auth: func(a *Authorization) { a.ValidAfter = now + 6 }, want: [3]Code{CodeValidAfter, CodePermit2NotYetValid, CodePermit2NotYetValid}},
		"never begins":             {auth: func(a *Authorization) { a.ValidAfter = math.MaxInt64 }, want: [3]Code{CodeValidAfter, CodePermit2NotYetValid, CodePermit2NotYetValid}},
		"another spender":          {auth: func(a *Authorization) { a.Spender = a.Payer }, want: [3]Code{"", CodePermit2Spender, CodePermit2Spender}},
		"the other scheme's proxy": {auth: func(a *Authorization) { swapProxy(a) }, want: [3]Code{"", CodePermit2Spender, CodePermit2Spender}},
		"another facilitator":      {auth: func(a *Authorization) { a.Facilitator = a.Payer }, want: [3]Code{"", "", CodeUptoFacilitator}},
		"no facilitator of ours":   {req: func(r *Requirement) { r.Extra = jsontext.Value(`{}`) }, want: [3]Code{"", "", CodeUptoFacilitator}},
		"no kind":                  {auth: func(a *Authorization) { a.Kind = "" }, want: [3]Code{CodeUnsupportedAuthorization, CodeUnsupportedAuthorization, CodeUnsupportedAuthorization}},
	} {
		for i, vector := range []string{"base-sepolia-usdc-300s", "permit2-plain", "upto-permit2"} {
			t.Run(name+"/"+vector, func(t *testing.T) {
				r := chosen(t, all[vector])
				a, err := all[vector].Authorization(r)
				if err != nil {
					t.Fatal(err)
				}
				if c.auth != nil {
					c.auth(&a)
				}
				if c.req != nil {
					c.req(&r)
				}
				if got := code(t, a.Check(r, vectorTime, minLife, maxLife)); got != c.want[i] {
					t.Errorf("code %q, want %q", got, c.want[i])
				}
			})
		}
	}
}

func swapProxy(a *Authorization) {
	if a.Spender == ExactPermit2Proxy {
		a.Spender = UptoPermit2Proxy
	} else {
		a.Spender = ExactPermit2Proxy
	}
}

// TestClocks: ten minutes of wrong clock either way decide by the rules, and
// no clock makes us panic.
func TestClocks(t *testing.T) {
	p := payments(t)["legacy-x402-fetch-1.2.0"] // from -600 s to +60 s
	a, err := p.Authorization(usdc())
	if err != nil {
		t.Fatal(err)
	}
	for offset, want := range map[time.Duration]Code{
		0:                  "",
		-10 * time.Minute:  "",
		-605 * time.Second: "",
		-606 * time.Second: CodeValidAfter,
		40 * time.Second:   "",
		41 * time.Second:   CodeValidBefore,
		10 * time.Minute:   CodeValidBefore,
		-26 * time.Hour:    CodeLifetimeTooLong,
	} {
		if got := code(t, a.Check(usdc(), vectorTime.Add(offset), minLife, maxLife)); got != want {
			t.Errorf("clock %v: code %q, want %q", offset, got, want)
		}
	}
	if c := code(t, a.Check(usdc(), vectorTime.Add(61*time.Second), -time.Hour, maxLife)); c != CodeValidBefore {
		t.Errorf("expired, whatever is asked: code %q", c)
	}
	for _, now := range []time.Time{{}, time.Unix(math.MaxInt64, 0), time.Unix(math.MinInt64/2, 0)} {
		if a.Check(usdc(), now, minLife, maxLife) == nil {
			t.Errorf("passes at %v", now.Unix())
		}
	}
}

// TestAuthorizationUnsupported: what has no rule for its key is not guessed.
func TestAuthorizationUnsupported(t *testing.T) {
	payload := string(payments(t)["base-sepolia-usdc-300s"].Payload)
	for name, c := range map[string]struct {
		scheme, network, extra string
		want                   Code
	}{
		"eip3009 by name":        {"exact", "eip155:84532", `{"assetTransferMethod":"eip3009"}`, ""},
		"no extra":               {"exact", "eip155:84532", ``, ""},
		"permit2 wanted":         {"exact", "eip155:84532", `{"assetTransferMethod":"permit2"}`, CodeUnsupportedPayload},
		"erc7710":                {"exact", "eip155:84532", `{"assetTransferMethod":"erc7710"}`, CodeUnsupportedAuthorization},
		"method is no string":    {"exact", "eip155:84532", `{"assetTransferMethod":1}`, CodeUnsupportedAuthorization},
		"method in other case":   {"exact", "eip155:84532", `{"AssetTransferMethod":"permit2"}`, CodeUnsupportedAuthorization},
		"extra is no object":     {"exact", "eip155:84532", `[]`, CodeUnsupportedAuthorization},
		"upto needs permit2":     {"upto", "eip155:84532", `{}`, CodeUnsupportedPayload},
		"upto by eip3009":        {"upto", "eip155:84532", `{"assetTransferMethod":"eip3009"}`, CodeUnsupportedAuthorization},
		"batch-settlement":       {"batch-settlement", "eip155:84532", `{}`, CodeUnsupportedAuthorization},
		"chain 0":                {"exact", "eip155:0", `{}`, CodeUnsupportedAuthorization},
		"chain with zero":        {"exact", "eip155:084532", `{}`, CodeUnsupportedAuthorization},
		"chain of letters":       {"exact", "eip155:base", `{}`, CodeUnsupportedAuthorization},
		"chain missing":          {"exact", "eip155:", `{}`, CodeUnsupportedAuthorization},
		"other family":           {"exact", "near:mainnet", `{}`, CodeUnsupportedAuthorization},
		"Solana upto":            {"upto", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", `{}`, CodeUnsupportedAuthorization},
		"EVM payload for Solana": {"exact", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", `{}`, CodePaymentMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			r := usdc()
			r.Scheme, r.Network, r.Extra = c.scheme, c.network, jsontext.Value(c.extra)
			p := &Payment{Version: V2, Scheme: c.scheme, Network: c.network, Payload: jsontext.Value(payload)}
			_, err := p.Authorization(r)
			if got := code(t, err); got != c.want {
				t.Errorf("code %q (%v), want %q", got, err, c.want)
			}
			r.Scheme += "x"
			if _, err := p.Authorization(r); code(t, err) != CodeNoMatchingRequirements {
				t.Errorf("for another scheme: %v", err)
			}
		})
	}
	// With both, we and the facilitator might each look at another one.
	both := *payments(t)["base-sepolia-usdc-300s"]
	permit := strings.TrimPrefix(string(payments(t)["permit2-plain"].Payload), `{`)
	permit = permit[strings.Index(permit, `"permit2Authorization"`):]
	both.Payload = jsontext.Value(strings.TrimSuffix(payload, `}`) + "," + permit)
	for _, r := range []Requirement{usdc(), chosen(t, payments(t)["permit2-plain"])} {
		if _, err := both.Authorization(r); code(t, err) != CodePaymentMalformed || !strings.Contains(err.Error(), "two authorizations") {
			t.Errorf("two authorizations: %v", err)
		}
	}
	r := usdc()
	r.Asset = "USDC"
	if _, err := payments(t)["base-sepolia-usdc-300s"].Authorization(r); code(t, err) != CodeUnsupportedAuthorization {
		t.Errorf("asset by name: %v", err)
	}
}

func ExampleAuthorization() {
	a := Authorization{Kind: KindEIP3009}
	err := a.Check(Requirement{Scheme: "exact"}, time.Unix(0, 0), 20*time.Second, 25*time.Hour)
	fmt.Println(err)
	// Output: no_matching_requirements: authorization for another scheme or network
}
