package devfacilitator

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/signer/core/apitypes"
	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-paywall/caddy-paywall/devchain"
	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/internal/typeddata"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const payTo = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"

// load provisions a facilitator as a config does, with a log to look into.
func load(t *testing.T, f *Facilitator) (*Facilitator, *observer.ObservedLogs) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if err := f.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.InfoLevel)
	f.logger = zap.New(core)
	t.Cleanup(func() {
		if err := f.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	return f, logs
}

// request is a payment of 0.01 dollars by an account of the chain.
func request(t *testing.T, payer devchain.Account) facilitator.Request {
	t.Helper()
	r := x402.Requirement{
		Scheme: "exact", Network: "eip155:84532", Amount: "10000", Asset: devchain.Dollar.Hex(), PayTo: payTo,
		MaxTimeoutSeconds: 300, Extra: jsontext.Value(`{"name":"USDC","version":"2"}`),
	}
	nonce := crypto.Keccak256([]byte(t.Name()), big.NewInt(time.Now().UnixNano()).Bytes())
	message := apitypes.TypedDataMessage{
		"from": payer.Address.Hex(), "to": payTo, "value": r.Amount, "validAfter": "0",
		"validBefore": strconv.FormatInt(time.Now().Unix()+300, 10), "nonce": hexutil.Encode(nonce),
	}
	token := typeddata.Token("USDC", "2", big.NewInt(devchain.ChainID), r.Asset)
	signature, err := typeddata.Sign(typeddata.Transfer(token, message), payer.Key())
	if err != nil {
		t.Fatal(err)
	}
	header, err := json.Marshal(map[string]any{
		"x402Version": 2, "accepted": r,
		"payload": map[string]any{"signature": hexutil.Encode(signature), "authorization": message},
	})
	if err != nil {
		t.Fatal(err)
	}
	payment, err := x402.Decode(http.Header{"Payment-Signature": {base64.StdEncoding.EncodeToString(header)}})
	if err != nil {
		t.Fatal(err)
	}
	return facilitator.Request{Payment: payment, Requirement: r, Payer: payer.Address.Hex()}
}

// From nothing to a payment that is in a block.
func TestVerifyAndSettle(t *testing.T) {
	begin := time.Now()
	f, logs := load(t, new(Facilitator))
	if f.shared.chain != nil {
		t.Fatal("a chain runs though nobody has used it: `caddy validate` would start one")
	}
	supported, err := f.Supported(t.Context())
	if err != nil || len(supported.Kinds) == 0 || supported.Kinds[0].Network != "eip155:84532" {
		t.Fatalf("supported: %+v, %v", supported, err)
	}
	chain := f.shared.chain
	payer := chain.Accounts()[1]
	r := request(t, payer)
	if v, err := f.Verify(t.Context(), r); err != nil || !v.Valid {
		t.Fatalf("verify: %+v, %v", v, err)
	}
	s := f.Settle(t.Context(), r)
	if s.Outcome != facilitator.Settled || s.Transaction == "" || s.Network != "eip155:84532" {
		t.Fatalf("settle: %+v", s)
	}
	t.Logf("settled %s after nothing was there", time.Since(begin))
	if again := f.Settle(t.Context(), r); again.Outcome != facilitator.Settled || again.Transaction != s.Transaction {
		t.Errorf("settled again: %+v", again)
	}
	if got, err := chain.Balance(payer.Address); err != nil || got.Int64() != 10_000*1_000_000-10_000 {
		t.Errorf("the payer has %s (%v)", got, err)
	}
	if !f.TestMoney() {
		t.Error("it does not say that the money is worth nothing")
	}

	said := logs.FilterMessageSnippet("TEST MONEY").All()
	if len(said) != 1 || said[0].Level != zap.WarnLevel {
		t.Fatalf("the log says TEST MONEY %d times", len(said))
	}
	if fields := said[0].ContextMap(); fields["rpc"] != chain.RPC() || !strings.Contains(fields["fund_another"].(string), chain.RPC()+"/fund/") {
		t.Errorf("the log says %v", fields)
	}
}

// A reload keeps the chain, and the last config takes it along.
func TestChainLivesAsLongAsItIsUsed(t *testing.T) {
	old, _ := load(t, new(Facilitator))
	r := request(t, accounts(t, old)[1])
	if s := old.Settle(t.Context(), r); s.Outcome != facilitator.Settled {
		t.Fatalf("settle: %+v", s)
	}
	chain := old.shared.chain
	// Another address does not move it.
	next, logs := load(t, &Facilitator{Listen: "127.0.0.1:0"})
	if err := old.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if s := next.Settle(t.Context(), request(t, chain.Accounts()[2])); s.Outcome != facilitator.Settled {
		t.Fatalf("after a reload: %+v", s)
	}
	if next.shared.chain != chain || logs.FilterMessageSnippet("TEST MONEY").Len() != 0 {
		t.Error("a reload starts another chain")
	}
	// A request of the old config, which goes on after the reload.
	if s := old.Settle(t.Context(), r); s.Outcome != facilitator.Settled {
		t.Errorf("the old config after a reload: %+v", s)
	}

	// A call under way keeps the chain after the last config is gone.
	_, leave, err := next.shared.enter("", next.logger)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if _, err := chain.Balance(devchain.Dollar); err != nil {
		t.Errorf("the chain ended under a call: %v", err)
	}
	leave()
	if _, err := net.DialTimeout("tcp", strings.TrimPrefix(chain.RPC(), "http://"), time.Second); err == nil {
		t.Error("the chain goes on for nobody")
	}
	wantUnavailable(t, next)

	// And a later config begins a new one.
	later, _ := load(t, new(Facilitator))
	if got := accounts(t, later); later.shared.chain.Genesis() == chain.Genesis() || len(got) == 0 {
		t.Error("the new chain is the old one")
	}
	if s := later.Settle(t.Context(), request(t, accounts(t, later)[1])); s.Outcome != facilitator.Settled {
		t.Errorf("on a new chain: %+v", s)
	}
}

// accounts starts the chain.
func accounts(t *testing.T, f *Facilitator) []devchain.Account {
	t.Helper()
	if _, err := f.Supported(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f.shared.chain.Accounts()
}

// wantUnavailable wants every call to say that nothing was judged and nothing moved.
func wantUnavailable(t *testing.T, f *Facilitator) {
	t.Helper()
	r := facilitator.Request{Requirement: x402.Requirement{Network: "eip155:84532"}}
	_, err := f.Supported(t.Context())
	_, err2 := f.Verify(t.Context(), r)
	for _, err := range []error{err, err2} {
		if e, ok := errors.AsType[*facilitator.Error](err); !ok || e.Code != facilitator.CodeUnavailable || e.Status != http.StatusServiceUnavailable {
			t.Errorf("got %v", err)
		}
	}
	if s := f.Settle(t.Context(), r); s.Outcome != facilitator.Unsent || s.Network != "eip155:84532" {
		t.Errorf("got %+v", s)
	}
}

func TestZeroValueIsSafe(t *testing.T) {
	f := new(Facilitator)
	wantUnavailable(t, f)
	if err := f.Cleanup(); err != nil {
		t.Error(err)
	}
}

// The usual port is taken by another development chain: any other will do. One
// that the config asks for is another matter.
func TestPortTaken(t *testing.T) {
	taken, err := net.Listen("tcp", defaultListen)
	if err == nil {
		defer taken.Close()
	} // else somebody has it, which is as good
	f, _ := load(t, new(Facilitator))
	if _, err := f.Supported(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f.shared.chain.RPC() == "http://"+defaultListen {
		t.Error("two at the same port")
	}
	if err := f.Cleanup(); err != nil {
		t.Fatal(err)
	}
	strict, _ := load(t, &Facilitator{Listen: defaultListen})
	wantUnavailable(t, strict)
}

func TestProvisionRefusesTheWorld(t *testing.T) {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	f := &Facilitator{Listen: "0.0.0.0:8545"}
	if err := f.Provision(ctx); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("got %v", err)
	}
	if err := f.Cleanup(); err != nil {
		t.Error(err)
	}
}

func TestUnmarshalCaddyfile(t *testing.T) {
	for _, c := range []struct{ text, listen, err string }{
		{"dev", "", ""},
		{"dev {\n}", "", ""},
		{"dev {\n listen 127.0.0.1:9000\n}", "127.0.0.1:9000", ""},
		{"dev {\n listen localhost:9000\n}", "localhost:9000", ""},
		{"dev 127.0.0.1:9000", "", "surplus word"},
		{"dev {\n listen\n}", "", "wants one address"},
		{"dev {\n listen 127.0.0.1:1 127.0.0.1:2\n}", "", "wants one address"},
		{"dev {\n listen 127.0.0.1:1\n listen 127.0.0.1:1\n}", "", "given twice"},
		{"dev {\n listen :8545\n}", "", "loopback"},
		{"dev {\n listen 8545\n}", "", "missing port"},
		{"dev {\n listen 127.0.0.1:8545 {\n x\n }\n}", "", "begins a block"},
		{"dev {\n port 8545\n}", "", "unknown word"},
	} {
		f := new(Facilitator)
		err := f.UnmarshalCaddyfile(caddyfile.NewTestDispenser(c.text))
		switch {
		case c.err == "" && (err != nil || f.Listen != c.listen):
			t.Errorf("%q: got %q, %v", c.text, f.Listen, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%q: got %v, want %q", c.text, err, c.err)
		}
	}
}

func TestRegistered(t *testing.T) {
	info, err := caddy.GetModule("paywall.facilitators.dev")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := info.New().(*Facilitator); !ok {
		t.Errorf("it makes a %T", info.New())
	}
}
