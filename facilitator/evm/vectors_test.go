package evm

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// row is one case of facilitator-evm.json: what the official facilitator (2.27.0)
// says on a scripted chain. Which calls it makes to the node is its own affair:
// we make fewer, in batches.
type row struct {
	Scheme, Name        string
	World               world
	PaymentPayload      json.RawMessage
	PaymentRequirements requirement
	Response            response
	Responses           []response
	RPC                 []struct {
		RPC  string
		Data hexutil.Bytes
	}
}

// requirement is one of version 1 or 2.
type requirement struct {
	x402.Requirement
	MaxAmountRequired string
}

// UnmarshalJSON reads both versions.
func (r *requirement) UnmarshalJSON(b []byte) error {
	if err := json.Unmarshal(b, &r.Requirement); err != nil {
		return err
	}
	var v1 struct{ MaxAmountRequired string }
	if err := json.Unmarshal(b, &v1); err != nil {
		return err
	}
	if v1.MaxAmountRequired != "" {
		r.Amount, r.Network = v1.MaxAmountRequired, baseSepolia
	}
	return nil
}

type response struct {
	IsValid, Success           bool
	InvalidReason, ErrorReason string
	Payer, Network             string
	Transaction                string
	Amount                     string
}

type vectorFile struct {
	Clock              int64 `json:"clockUnixSeconds"`
	Verify, Settle, V1 []row
}

func vectors(t testing.TB) vectorFile {
	t.Helper()
	b, err := os.ReadFile("testdata/facilitator-evm.json")
	if err != nil {
		t.Fatal(err)
	}
	var file vectorFile
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Verify) != 47 || len(file.Settle) != 16 || len(file.V1) != 6 {
		t.Fatalf("%d, %d and %d rows", len(file.Verify), len(file.Settle), len(file.V1))
	}
	return file
}

// differs names the rows that we judge otherwise than the official facilitator,
// on purpose: what we say, and why.
var differs = map[string]struct{ reason, why string }{
	"exact eip3009: high-s signature (malleated)": {"invalid_exact_evm_signature", "tokens refuse a high s"},
	"exact eip3009: broadcast fails: unknown":     {"facilitator_unavailable", "nonce too low is about our account: nothing was sent"},
}

// allowed are the factories that may be called in a row.
func allowed(r row) []string {
	if r.Name == "ERC-6492, wallet not deployed, factory not allowed" {
		return nil
	}
	return []string{"0x0BA5ED0c6AA8c49038F819E587E2633c4A9F428a"}
}

func TestVerifyVectors(t *testing.T) {
	file := vectors(t)
	for _, r := range file.Verify {
		t.Run(r.Scheme+"/"+r.Name, func(t *testing.T) { verifyRow(t, file.Clock, r, r.Scheme+": "+r.Name) })
	}
	for _, r := range file.V1[:5] {
		t.Run("version 1, "+r.Name, func(t *testing.T) { verifyRow(t, file.Clock, r, "v1: "+r.Name) })
	}
}

func verifyRow(t *testing.T, unix int64, r row, name string) {
	c := newClock(unix)
	node := script(t, c, r.World)
	f, _ := start(t, baseSepolia, &Network{RPC: []string{node.URL}}, c, allowed(r)...)
	want := r.Response
	if d, ok := differs[name]; ok {
		want.IsValid, want.InvalidReason = false, d.reason
	}
	verdict, err := f.Verify(context.Background(), request(t, r.PaymentPayload, r.PaymentRequirements.Requirement))
	if err != nil {
		t.Fatal(err)
	}
	if verdict.Valid != want.IsValid || verdict.Reason != want.InvalidReason {
		t.Errorf("%v, %q (%s); want %v, %q", verdict.Valid, verdict.Reason, verdict.Detail, want.IsValid, want.InvalidReason)
	}
	// Before the payload is decoded we do not know the payer; the official
	// facilitator repeats what stands there.
	if verdict.Payer != want.Payer && (verdict.Payer != "" || verdict.Valid) {
		t.Errorf("payer %q, want %q", verdict.Payer, want.Payer)
	}
}

func TestSettleVectors(t *testing.T) {
	file := vectors(t)
	for _, r := range file.Settle {
		t.Run(r.Scheme+"/"+r.Name, func(t *testing.T) {
			if r.Responses == nil {
				r.Responses = []response{r.Response}
			}
			settleRow(t, file.Clock, r, r.Scheme+": "+r.Name)
		})
	}
	v1 := file.V1[5] // it comes without a payment of its own
	v1.PaymentPayload, v1.PaymentRequirements = file.V1[0].PaymentPayload, file.V1[0].PaymentRequirements
	v1.Responses = []response{v1.Response}
	t.Run("version 1", func(t *testing.T) { settleRow(t, file.Clock, v1, "v1: settle") })
}

func settleRow(t *testing.T, unix int64, r row, name string) {
	c := newClock(unix)
	node := script(t, c, r.World)
	f, _ := start(t, baseSepolia, &Network{RPC: []string{node.URL}}, c, allowed(r)...)
	req := request(t, r.PaymentPayload, r.PaymentRequirements.Requirement)
	for i, want := range r.Responses {
		if d, ok := differs[name]; ok {
			want.Success, want.ErrorReason, want.Transaction = false, d.reason, ""
		}
		// The row with two responses: the receipt comes between them.
		node.set(func(s *scripted) { s.world.ReceiptThrows = r.World.ReceiptThrows || i+1 < len(r.Responses) })
		got := f.Settle(context.Background(), req)
		if (got.Outcome == facilitator.Settled) != want.Success || got.Reason != want.ErrorReason {
			t.Errorf("%d: %s %q (%s); want %v %q", i, got.Outcome, got.Reason, got.Detail, want.Success, want.ErrorReason)
		}
		if got.Network != baseSepolia {
			t.Errorf("%d: network %q", i, got.Network)
		}
		if got.Payer != want.Payer && got.Payer != "" {
			t.Errorf("%d: payer %q, want %q", i, got.Payer, want.Payer)
		}
		if got.Amount != want.Amount {
			t.Errorf("%d: amount %q, want %q", i, got.Amount, want.Amount)
		}
		// Ours is the hash of what we signed, where the script had a constant.
		if want.Transaction != "" && (len(node.sent) != 1 || got.Transaction != node.sent[0].Hash().Hex()) {
			t.Errorf("%d: transaction %q of %d", i, got.Transaction, len(node.sent))
		}
		if want.Transaction == "" && got.Transaction != "" && got.Outcome != facilitator.Unknown {
			t.Errorf("%d: transaction %q", i, got.Transaction)
		}
	}
	var want []string
	for _, call := range r.RPC {
		if call.RPC == "eth_sendRawTransaction" {
			want = append(want, call.Data.String())
		}
	}
	// Where the official facilitator makes the wallet in a transaction of its own, as
	// the account that holds the gas, we let Multicall3 make it in the same one: it
	// is both or nothing, and what the payer has us call is not called by us.
	for _, tx := range node.sent {
		sent := []string{hexutil.Encode(tx.Data())}
		if *tx.To() == multicall3 {
			sent = nil
			args := must(chain.Contracts.Methods["aggregate3"].Inputs.Unpack(tx.Data()[4:]))
			for _, c := range *convert[[]call3](args[0]) {
				sent = append(sent, hexutil.Encode(c.CallData))
			}
		}
		if !slices.Equal(sent, want) {
			t.Errorf("calldata %s, want %s", sent, want)
		}
	}
	if len(node.sent) > 1 {
		t.Errorf("%d transactions were sent", len(node.sent))
	}
}
