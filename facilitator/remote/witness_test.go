package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

func TestUnmarshalRPC(t *testing.T) {
	const url = "https://facilitator.example"
	for name, c := range map[string]struct{ lines, want, err string }{
		"one":         {lines: "rpc base https://node.example/key", want: `{"base":["https://node.example/key"]}`},
		"several":     {lines: "rpc base https://a.example https://b.example\n rpc eip155:137 {env.NODE}", want: `{"base":["https://a.example","https://b.example"],"eip155:137":["{env.NODE}"]}`},
		"loopback":    {lines: "rpc base-sepolia http://127.0.0.1:8545 ws://[::1]:8546 {file./run/secrets/node}", want: `{"base-sepolia":["http://127.0.0.1:8545","ws://[::1]:8546","{file./run/secrets/node}"]}`},
		"nothing":     {lines: "rpc", err: "rpc base https://"},
		"no URL":      {lines: "rpc base", err: "rpc is missing"},
		"no network":  {lines: "rpc https://node.example/canary", err: "rpc <network> <url>"},
		"no chain":    {lines: "rpc bass https://node.example/canary", err: "no such chain"},
		"Solana":      {lines: "rpc solana https://node.example/canary", err: "no EVM chain"},
		"twice":       {lines: "rpc base https://a.example\n rpc base https://b.example/canary", err: "rpc for base is given twice"},
		"two names":   {lines: "rpc base https://a.example\n rpc eip155:8453 https://b.example/canary", err: "rpc for eip155:8453 is given twice"},
		"nine":        {lines: "rpc base" + strings.Repeat(" https://node.example/canary", 9), err: "8 are enough"},
		"http":        {lines: "rpc base http://node.example/canary", err: "rpc 1: the node at node.example is asked in the clear"},
		"second":      {lines: "rpc base https://a.example canary", err: "rpc 2: this is no URL"},
		"ftp":         {lines: "rpc base ftp://node.example/canary", err: "use https"},
		"part":        {lines: "rpc base https://node.example/canary/{env.KEY}", err: "not the whole of it"},
		"placeholder": {lines: "rpc base {http.request.header.canary}", err: "none of {env.*} and {file.*}"},
		"metadata":    {lines: "rpc base https://169.254.169.254/canary", err: "cannot be at"},
		"fragment":    {lines: "rpc base https://node.example/#canary", err: "fragment"},
		"block":       {lines: "rpc base https://node.example {\n canary\n }", err: "block"},
		"chain first": {lines: "rpc {env.CHAIN} https://node.example", err: "no such chain"},
	} {
		t.Run(name, func(t *testing.T) {
			var f Facilitator
			err := f.UnmarshalCaddyfile(caddyfile.NewTestDispenser("remote " + url + " {\n " + c.lines + "\n}"))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want one with %q", err, c.err)
				}
				if strings.Contains(err.Error(), "canary") && name != "block" {
					t.Errorf("the error holds a secret: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := json.Marshal(f); string(got) != `{"url":"`+url+`","rpc":`+c.want+`}` {
				t.Errorf("got %s", got)
			}
		})
	}
}

func TestProvisionRPC(t *testing.T) {
	t.Setenv("PAYWALL_TEST_NODE", "http://node.example/canary")
	for name, c := range map[string]struct {
		rpc map[string][]string
		err string
	}{
		"no chain": {map[string][]string{"bass": {"https://node.example/canary"}}, "network bass"},
		"no URL":   {map[string][]string{"base": nil}, "rpc is missing"},
		"twice":    {map[string][]string{"base": {"https://a.example"}, "eip155:8453": {"https://b.example"}}, "named twice"},
		"unset":    {map[string][]string{"base": {"{env.PAYWALL_TEST_UNSET}"}}, "{env.PAYWALL_TEST_UNSET} is unset"},
		"resolved": {map[string][]string{"base": {"{env.PAYWALL_TEST_NODE}"}}, "in the clear"},
	} {
		ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
		f := &Facilitator{URL: "https://facilitator.example", RPC: c.rpc}
		err := f.Provision(ctx)
		if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: error %v, want one with %q", name, err, c.err)
		}
		if err := f.Cleanup(); err != nil {
			t.Error(err)
		}
		cancel()
	}
}

// authorized is a payment that ended at a time.
func authorized(ends string) facilitator.Request {
	r := request()
	r.Requirement.Extra = jsontext.Value(`{"name":"USDC","version":"2"}`)
	r.Payment.Payload = jsontext.Value(`{"signature":"` + "0x" + strings.Repeat("ab", 65) + `","authorization":{"from":"` + payer + `","to":"` + r.Requirement.PayTo +
		`","value":"10000","validAfter":"0","validBefore":"` + ends + `","nonce":"0x` + strings.Repeat("01", 32) + `"}}`)
	return r
}

// unusedNode is a node on which no authorization is used.
func unusedNode(t testing.TB, hits *atomic.Int32) string {
	result := map[string]string{
		"eth_chainId":          `"0x14a34"`,
		"eth_getBlockByNumber": `{"number":"0x64","timestamp":"0x69000000","hash":"0x` + strings.Repeat("0a", 32) + `"}`,
		"eth_call":             `"0x` + strings.Repeat("00", 32) + `"`,
	}
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		body, _ := io.ReadAll(r.Body)
		type call struct {
			ID     json.RawMessage `json:"id"`
			Method string          `json:"method"`
		}
		answer := func(c call) string {
			return `{"jsonrpc":"2.0","id":` + string(c.ID) + `,"result":` + result[c.Method] + `}`
		}
		w.Header().Set("Content-Type", "application/json")
		if !bytes.HasPrefix(body, []byte("[")) {
			var c call
			_ = json.Unmarshal(body, &c)
			_, _ = io.WriteString(w, answer(c))
			return
		}
		var calls []call
		_ = json.Unmarshal(body, &calls)
		var answers []string
		for _, c := range calls {
			answers = append(answers, answer(c))
		}
		_, _ = io.WriteString(w, "["+strings.Join(answers, ",")+"]")
	}))
}

// TestWitness: the chain is asked, and the facilitator is not.
func TestWitness(t *testing.T) {
	s := &fixed{status: 200, body: settledBody()}
	var hits atomic.Int32
	f, _ := provision(t, &Facilitator{URL: serve(t, s), RPC: map[string][]string{"base-sepolia": {unusedNode(t, &hits)}}})
	if hits.Load() != 0 {
		t.Error("the node was asked by Provision")
	}
	if !f.Sees(baseSepolia) || f.Sees("eip155:8453") || f.Sees(solana) {
		t.Error("it sees what it does not")
	}
	since := time.Unix(0x68fff000, 0)
	for ends, want := range map[string]facilitator.Proof{
		"1761607000": {Evidence: facilitator.Void, Reason: "invalid_exact_evm_payload_authorization_valid_before"},
		"1761608000": {},
	} {
		if got, err := f.Witness(t.Context(), authorized(ends), since); err != nil || got != want {
			t.Errorf("ends %s: %+v, %v", ends, got, err)
		}
	}
	if _, err := f.Witness(t.Context(), on(authorized("1761607000"), "eip155:8453", payer), since); err == nil {
		t.Error("another chain: no error")
	}
	if s.hits.Load() != 0 || hits.Load() == 0 {
		t.Errorf("the facilitator was asked %d times, the node %d times", s.hits.Load(), hits.Load())
	}
	// After the end of the config, for those who are still at it.
	if err := f.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Witness(t.Context(), authorized("1761607000"), since); err != nil || got.Evidence != facilitator.Void {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestNoWitness(t *testing.T) {
	f := at(t, "https://facilitator.example")
	if f.Sees(baseSepolia) || f.Sees("") {
		t.Error("it sees without rpc")
	}
	if proof, err := f.Witness(t.Context(), authorized("1761607000"), time.Now()); err == nil || proof != (facilitator.Proof{}) {
		t.Errorf("%+v, %v", proof, err)
	}
	if new(Facilitator).Sees(baseSepolia) {
		t.Error("it sees before it is provisioned")
	}
}
