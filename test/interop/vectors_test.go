package interop

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-paywall/caddy-paywall/devchain"
	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// A payment that an official client made long ago settles on both chains, once
// on each. (The other payments of the file have ended.)
func TestOldPaymentSettles(t *testing.T) {
	raw, err := os.ReadFile("testdata/exact-evm-eip3009.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []struct {
			Name            string
			PaymentRequired struct{ Accepts []x402.Requirement }
			PaymentPayload  struct {
				Payload struct{ Authorization struct{ From string } }
			}
			PaymentSignatureHeader string
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	for _, v := range file.Vectors {
		if v.Name != "long-lived-no-clock-needed" {
			continue
		}
		p, err := x402.Decode(http.Header{x402.HeaderPaymentSignature: {v.PaymentSignatureHeader}})
		if err != nil {
			t.Fatal(err)
		}
		r := facilitator.Request{Payment: p, Requirement: v.PaymentRequired.Accepts[0]}
		t.Run("anvil", func(t *testing.T) {
			s := startStack(t)
			settlesOnce(t, s, s.Gas, r)
		})
		t.Run("the chain in the process", func(t *testing.T) {
			chain, err := devchain.Start(devchain.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = chain.Close() })
			if err := chain.Fund(context.Background(), common.HexToAddress(v.PaymentPayload.Payload.Authorization.From)); err != nil {
				t.Fatal(err)
			}
			gas := chain.Accounts()[5]
			settlesOnce(t, &stack{RPC: chain.RPC(), Token: r.Requirement.Asset}, account{gas.Address.Hex(), gas.PrivateKey}, r)
		})
		return
	}
	t.Fatal("the file has no payment that still lives")
}

func settlesOnce(t *testing.T, s *stack, gas account, r facilitator.Request) {
	t.Helper()
	t.Setenv("INTEROP_GAS_KEY", gas.PrivateKey)
	f := &evm.Facilitator{Networks: map[string]*evm.Network{"base-sepolia": {RPC: []string{s.RPC}, Signers: []string{"{env.INTEROP_GAS_KEY}"}}}}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	if err := f.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Cleanup() }()
	verdict, err := f.Verify(t.Context(), r)
	if err != nil || !verdict.Valid {
		t.Fatalf("%+v %v", verdict, err)
	}
	had := s.balance(t, r.Requirement.PayTo)
	settled := f.Settle(t.Context(), r)
	if settled.Outcome != facilitator.Settled || !s.receipt(t, settled.Transaction).spends(s.Token, settled.Payer) {
		t.Fatalf("%+v", settled)
	}
	again := f.Settle(t.Context(), r)
	if again.Outcome == facilitator.Refused || again.Outcome == facilitator.Settled && again.Transaction != settled.Transaction {
		t.Errorf("again: %+v", again)
	}
	if moved := s.balance(t, r.Requirement.PayTo) - had; moved != 10_000 {
		t.Errorf("%d moved", moved)
	}
}
