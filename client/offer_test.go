package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// rawChallenge is a challenge of version 2 as text: what no honest seller's
// library would write.
func rawChallenge(object string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set(x402.HeaderPaymentRequired, base64.StdEncoding.EncodeToString([]byte(object)))
		w.WriteHeader(http.StatusPaymentRequired)
	}
}

func asked(t *testing.T, change func(*x402.Requirement)) func(http.ResponseWriter) {
	t.Helper()
	r := requirement()
	change(&r)
	b, err := json.Marshal(map[string]any{"x402Version": 2, "accepts": []any{json.RawMessage(marshal(t, r))}})
	if err != nil {
		t.Fatal(err)
	}
	return rawChallenge(string(b))
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestObstacles: what cannot or must not be signed is not signed, whatever the
// limit and whoever agrees.
func TestObstacles(t *testing.T) {
	set := func(member *string, value string) { *member = value }
	ext := func(s string) func(*x402.Requirement) {
		return func(r *x402.Requirement) { r.Extra = jsontext.Value(s) }
	}
	upto := func(s string) func(*x402.Requirement) {
		return func(r *x402.Requirement) { r.Scheme, r.Extra = "upto", jsontext.Value(s) }
	}
	tests := map[string]struct {
		change func(*x402.Requirement)
		why    string // "" means that it is paid
	}{
		"honest":                    {func(*x402.Requirement) {}, ""},
		"asset in lower case":       {func(r *x402.Requirement) { r.Asset = strings.ToLower(usdc) }, ""},
		"payTo in lower case":       {func(r *x402.Requirement) { r.PayTo = strings.ToLower(payTo) }, ""},
		"settles first":             {ext(`{"name":"USDC","version":"2","paymentFlow":"upfront"}`), ""},
		"extra says the same again": {ext(`{"name":"USDC","version":"2","chainId":84532,"verifyingContract":"` + strings.ToLower(usdc) + `"}`), ""},
		"payTo zero":                {func(r *x402.Requirement) { set(&r.PayTo, "0x0000000000000000000000000000000000000000") }, "takes no money"},
		"payTo burns":               {func(r *x402.Requirement) { set(&r.PayTo, "0x000000000000000000000000000000000000dEaD") }, "takes no money"},
		"payTo the token":           {func(r *x402.Requirement) { set(&r.PayTo, usdc) }, "takes no money"},
		"payTo mistyped":            {func(r *x402.Requirement) { set(&r.PayTo, strings.Replace(payTo, "Bc", "bc", 1)) }, "checksum"},
		"payTo no address":          {func(r *x402.Requirement) { set(&r.PayTo, "alice.eth") }, "not an address"},
		"asset no address":          {func(r *x402.Requirement) { set(&r.Asset, "USDC") }, "not an address"},
		"scheme upto":               {upto(`{"facilitatorAddress":"` + payTo + `"}`), ""},
		"scheme upto, by Permit2":   {upto(`{"assetTransferMethod":"permit2","facilitatorAddress":"` + payTo + `"}`), ""},
		"scheme upto, by EIP-3009":  {upto(`{"assetTransferMethod":"eip3009","facilitatorAddress":"` + payTo + `"}`), "not supported"},
		"scheme upto, for nobody":   {upto(`{}`), "facilitator"},
		"scheme upto, for zero":     {upto(`{"facilitatorAddress":"0x0000000000000000000000000000000000000000"}`), "facilitator"},
		"scheme escrow":             {func(r *x402.Requirement) { set(&r.Scheme, "escrow") }, "scheme"},
		"network solana":            {func(r *x402.Requirement) { set(&r.Network, "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp") }, "no EVM chain"},
		"network by name":           {func(r *x402.Requirement) { set(&r.Network, "base-sepolia") }, "no EVM chain"},
		"network of another form":   {func(r *x402.Requirement) { set(&r.Network, "eip155:084532") }, "no EVM chain"},
		"chain id too large":        {func(r *x402.Requirement) { set(&r.Network, "eip155:18446744073709551616") }, "too large"},
		"chain id mismatch":         {ext(`{"name":"USDC","version":"2","chainId":8453}`), "another chain"},
		"chain id mismatch, text":   {ext(`{"name":"USDC","version":"2","chainId":"8453"}`), "another chain"},
		"contract mismatch":         {ext(`{"name":"USDC","version":"2","verifyingContract":"` + payTo + `"}`), "another contract"},
		"amount zero":               {func(r *x402.Requirement) { set(&r.Amount, "0") }, "above zero"},
		"amount negative":           {func(r *x402.Requirement) { set(&r.Amount, "-1") }, "above zero"},
		"amount with a point":       {func(r *x402.Requirement) { set(&r.Amount, "0.01") }, "above zero"},
		"amount with an exponent":   {func(r *x402.Requirement) { set(&r.Amount, "1e9") }, "above zero"},
		"amount with zeros":         {func(r *x402.Requirement) { set(&r.Amount, "010000") }, "above zero"},
		"amount beyond 256 bits":    {func(r *x402.Requirement) { set(&r.Amount, strings.Repeat("9", 78)) }, "more than a token"},
		"lives not at all":          {func(r *x402.Requirement) { r.MaxTimeoutSeconds = 0 }, "sensible"},
		"lives for ever":            {func(r *x402.Requirement) { r.MaxTimeoutSeconds = 1 << 60 }, "sensible"},
		"permit2":                   {ext(`{"name":"USDC","version":"2","assetTransferMethod":"permit2"}`), ""},
		"permit2 without a domain":  {ext(`{"assetTransferMethod":"permit2"}`), ""},
		"permit2, another name":     {ext(`{"name":"USD Coin","version":"2","assetTransferMethod":"permit2"}`), "another name"},
		"transfers by prayer":       {ext(`{"name":"USDC","version":"2","assetTransferMethod":"prayer"}`), "not supported"},
		"unknown flow":              {ext(`{"name":"USDC","version":"2","paymentFlow":"escrow"}`), "payment flow"},
		"no domain":                 {ext(`{}`), "domain"},
		"extra odd":                 {ext(`{"name":1,"version":"2"}`), "cannot be read"},
		"another name for USDC":     {ext(`{"name":"USD Coin","version":"2"}`), "another name"},
		"no EIP-3009 token": {func(r *x402.Requirement) {
			r.Network, r.Asset = "eip155:4326", "0xFAfDdbb3FC7688494971a79cc65DCa3EF82079E7"
			r.Extra = jsontext.Value(`{"name":"MegaUSD","version":"1"}`)
		}, "does not move by EIP-3009"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSeller(t)
			s.challenge = asked(t, tt.change)
			c, _ := newClient(t)
			c.Confirm = func(context.Context, *Payment) error { return nil }
			result, err := c.Do(s.get(t, "/"))
			text(t, result)
			if tt.why == "" {
				if err != nil || result.Outcome != Delivered {
					t.Fatalf("%+v, %v", result, err)
				}
				return
			}
			if _, ok := errors.AsType[*ChallengeError](err); !ok || !strings.Contains(err.Error(), tt.why) {
				t.Errorf("%v does not say %q", err, tt.why)
			}
			if result.Outcome != Unpaid || result.Payment != nil || len(s.paid()) != 0 || len(result.Challenge.Offers) != 1 {
				t.Errorf("%+v", result)
			}
		})
	}
}

// TestDoubts: what is unusual is paid only if somebody agrees.
func TestDoubts(t *testing.T) {
	unknown := func(r *x402.Requirement) { r.Asset = "0xabCDEF1234567890ABcDEF1234567890aBCDeF12" }
	tests := map[string]struct {
		limits []string
		change func(*x402.Requirement)
		doubts []DoubtKind
		text   string
	}{
		"exactly the limit":        {[]string{"0.01"}, func(*x402.Requirement) {}, nil, ""},
		"above the limit":          {[]string{"$0.009999"}, func(*x402.Requirement) {}, []DoubtKind{OverLimit}, "0.01 USDC is above the limit of $0.009999"},
		"no limits":                {nil, func(*x402.Requirement) {}, []DoubtKind{OverLimit}, "no limit says how much USDC may be spent"},
		"limit zero":               {[]string{"0"}, func(*x402.Requirement) {}, []DoubtKind{OverLimit}, "above the limit of $0"},
		"limit for another asset":  {[]string{"5 eurc"}, func(*x402.Requirement) {}, []DoubtKind{OverLimit}, "no limit"},
		"the strictest limit":      {[]string{"1 usdc", "0.001"}, func(*x402.Requirement) {}, []DoubtKind{OverLimit}, "above the limit of $0.001"},
		"by symbol":                {[]string{"0.01 UsdC"}, func(*x402.Requirement) {}, nil, ""},
		"by address":               {[]string{"10000 base-sepolia/" + strings.ToLower(usdc)}, func(*x402.Requirement) {}, nil, ""},
		"unknown asset":            {[]string{"1000000"}, unknown, []DoubtKind{UnknownAsset}, "nothing is known"},
		"unknown asset, agreed":    {[]string{"10000 eip155:84532/0xabCDEF1234567890ABcDEF1234567890aBCDeF12"}, unknown, nil, ""},
		"unknown asset, too dear":  {[]string{"9999 eip155:84532/0xabCDEF1234567890ABcDEF1234567890aBCDeF12"}, unknown, []DoubtKind{OverLimit}, "10000 units"},
		"unknown, another network": {[]string{"10000 base/0xabCDEF1234567890ABcDEF1234567890aBCDeF12"}, unknown, []DoubtKind{UnknownAsset}, "nothing is known"},
		"a day and an hour":        {[]string{"1"}, func(r *x402.Requirement) { r.MaxTimeoutSeconds = 25 * 3600 }, nil, ""},
		"lives long":               {[]string{"1"}, func(r *x402.Requirement) { r.MaxTimeoutSeconds = 365 * 24 * 3600 }, []DoubtKind{LongLife}, "365 days"},
		"several":                  {[]string{"0.001"}, func(r *x402.Requirement) { r.MaxTimeoutSeconds = 1e6 }, []DoubtKind{OverLimit, LongLife}, "; "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSeller(t)
			s.challenge = asked(t, tt.change)
			c, _ := newClient(t)
			c.Limits = limits(t, tt.limits...)
			result, err := c.Do(s.get(t, "/"))
			text(t, result)
			if tt.doubts == nil {
				if err != nil || result.Outcome != Delivered {
					t.Fatalf("%+v, %v", result, err)
				}
				return
			}
			doubt, ok := errors.AsType[*DoubtError](err)
			if !ok || !strings.Contains(err.Error(), tt.text) || result.Outcome != Unpaid || len(s.paid()) != 0 {
				t.Fatalf("%+v, %v", result, err)
			}
			var kinds []DoubtKind
			for _, d := range doubt.Offer.Doubts {
				kinds = append(kinds, d.Kind)
			}
			if fmt.Sprint(kinds) != fmt.Sprint(tt.doubts) {
				t.Errorf("doubts %v, want %v", kinds, tt.doubts)
			}
			c.Confirm = func(_ context.Context, p *Payment) error {
				p.Offer.Requirement.PayTo, p.Transfer.To = payer, p.Transfer.From // has no effect
				return nil
			}
			result, err = c.Do(s.get(t, "/"))
			if text(t, result); err != nil || result.Outcome != Delivered || result.Payment.Transfer.To.Hex() != payTo {
				t.Errorf("agreed: %+v, %v", result, err)
			}
		})
	}
}

// TestConfirm: a no is a no, and comes back as it is.
func TestConfirm(t *testing.T) {
	s := newSeller(t)
	c, _ := newClient(t)
	no := errors.New("no")
	c.Confirm = func(_ context.Context, p *Payment) error {
		if p.Offer.Price() != "0.01 USDC" || p.Offer.PayTo() != payTo || p.Payer != payer || !p.Offer.Network.Test {
			t.Errorf("%+v", p.Offer)
		}
		return no
	}
	if result, err := c.Do(s.get(t, "/")); err != no || result.Outcome != Unpaid || len(s.paid()) != 0 {
		t.Errorf("%+v, %v", result, err)
	}
	c.Confirm, c.Key = nil, nil
	if _, err := c.Do(s.get(t, "/")); !errors.Is(err, ErrNoKey) {
		t.Error(err)
	}
}

// TestChoice: what we can pay without asking first, then our order, then theirs.
func TestChoice(t *testing.T) {
	offer := func(network, asset, name, amount string) x402.Requirement {
		r := requirement()
		r.Network, r.Asset, r.Amount = network, asset, amount
		r.Extra = jsontext.Value(`{"name":"` + name + `","version":"2"}`)
		return r
	}
	permit2 := requirement()
	permit2.Extra = jsontext.Value(`{"name":"USDC","version":"2","assetTransferMethod":"permit2"}`)
	real := offer("eip155:8453", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin", "10000")
	dear := offer("eip155:8453", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin", "900000")
	test := requirement()
	tests := map[string]struct {
		offers           []x402.Requirement
		networks, assets []string
		want             int // -1: none
	}{
		"the seller's first":         {[]x402.Requirement{real, test}, nil, nil, 0},
		"Permit2 if need be":         {[]x402.Requirement{permit2}, nil, nil, 0},
		"the first that can be paid": {[]x402.Requirement{permit2, real, test}, nil, nil, 1},
		"within the limit":           {[]x402.Requirement{dear, test}, nil, nil, 1},
		"our network":                {[]x402.Requirement{real, test}, []string{"base-sepolia"}, nil, 1},
		"our order":                  {[]x402.Requirement{real, test}, []string{"eip155:84532", "base"}, nil, 1},
		"our asset":                  {[]x402.Requirement{real, test}, nil, []string{usdc}, 1},
		"our assets":                 {[]x402.Requirement{real, test}, nil, []string{"usdc"}, 0},
		"not our network":            {[]x402.Requirement{real}, []string{"base-sepolia"}, nil, -1},
		"not our asset":              {[]x402.Requirement{real, test}, nil, []string{"eurc"}, -1},
		"network goes before asset":  {[]x402.Requirement{real, test}, []string{"base-sepolia", "base"}, []string{"eurc", "usdc"}, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSeller(t)
			s.challenge = s.offer(tt.offers...)
			c, _ := newClient(t)
			c.Networks, c.Assets = tt.networks, tt.assets
			result, err := c.Do(s.get(t, "/"))
			text(t, result)
			if tt.want < 0 {
				if _, ok := errors.AsType[*ChallengeError](err); !ok {
					t.Errorf("%+v, %v", result, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := tt.offers[tt.want]
			if got := result.Payment.Offer.Requirement; got.Network != want.Network || got.Amount != want.Amount {
				t.Errorf("paid %+v", got)
			}
		})
	}
}

// TestDevKeyStaysHome: keys that everybody has pay with test money only.
func TestDevKeyStaysHome(t *testing.T) {
	k, err := DevKey(0)
	if err != nil || k.Address() != payer {
		t.Fatal(k, err)
	}
	offer := func(network string) *Offer {
		o := &Offer{Requirement: requirement()}
		o.Requirement.Network = network
		_ = o.check()
		return o
	}
	for url, networks := range map[string]map[string]bool{
		"http://localhost:8080/x":  {"eip155:84532": true, "eip155:11155111": true, "eip155:8453": false, "eip155:999999": false},
		"http://127.0.0.2/":        {"eip155:11155111": true},
		"http://[::1]:80/":         {"eip155:11155111": true},
		"http://shop.localhost/":   {"eip155:11155111": true},
		"https://shop.example/":    {"eip155:84532": true, "eip155:11155111": false, "eip155:8453": false},
		"http://localhost.evil.io": {"eip155:11155111": false},
	} {
		for network, want := range networks {
			if err := k.mayPay(offer(network), mustURL(t, url)); (err == nil) != want {
				t.Errorf("%s on %s: %v", url, network, err)
			}
			if err := testKey(t).mayPay(offer(network), mustURL(t, url)); err != nil {
				t.Error(err)
			}
		}
	}
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
