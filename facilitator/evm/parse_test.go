package evm

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// oracle encodes and decodes calls as go-ethereum does.
var oracle = must(abi.JSON(strings.NewReader(`[{"type":"function","name":"transferWithAuthorization","inputs":[
	{"name":"from","type":"address"},{"name":"to","type":"address"},{"name":"value","type":"uint256"},
	{"name":"validAfter","type":"uint256"},{"name":"validBefore","type":"uint256"},{"name":"nonce","type":"bytes32"},
	{"name":"v","type":"uint8"},{"name":"r","type":"bytes32"},{"name":"s","type":"bytes32"}]}]`)))

func TestCalldataLikeOracle(t *testing.T) {
	word := rapid.SliceOfN(rapid.Byte(), 32, 32)
	rapid.Check(t, func(t *rapid.T) {
		m := eip712.Transfer{
			From: common.BytesToAddress(word.Draw(t, "from")), To: common.BytesToAddress(word.Draw(t, "to")),
			Value:      *new(uint256.Int).SetBytes(word.Draw(t, "value")),
			ValidAfter: rapid.Uint64().Draw(t, "after"), ValidBefore: rapid.Uint64().Draw(t, "before"),
			Nonce: [32]byte(word.Draw(t, "nonce")),
		}
		s := eip712.Signature{R: [32]byte(word.Draw(t, "r")), S: [32]byte(word.Draw(t, "s")), V: rapid.Byte().Draw(t, "v")}
		want, err := oracle.Pack("transferWithAuthorization", m.From, m.To, m.Value.ToBig(),
			uint256.NewInt(m.ValidAfter).ToBig(), uint256.NewInt(m.ValidBefore).ToBig(), m.Nonce, s.V, s.R, s.S)
		if err != nil {
			t.Fatal(err)
		}
		p := &payment{way: &eip3009{m}, Payment: chain.Payment{Token: common.HexToAddress(usdc)}, signature: slices.Concat(s.R[:], s.S[:], []byte{s.V})}
		if to, got := p.encoded(); to != p.Token || string(got) != string(want) {
			t.Fatalf("got  %x\nwant %x", got, want)
		}
	})
}

// aPayment is one for answers of nodes to be judged by.
func aPayment() *payment {
	return &payment{way: &eip3009{}, Payment: chain.Payment{
		From: common.HexToAddress(payerAddress), To: common.HexToAddress(payee),
		Value: *uint256.NewInt(10000), Nonce: [32]byte{31: 1}, Token: common.HexToAddress(usdc),
	}}
}

// FuzzDiagnosis: whatever a node returns for tryAggregate, we neither panic nor
// take it for more than it is.
func FuzzDiagnosis(f *testing.F) {
	node := &scripted{t: f}
	list := aPayment().questions(aPayment())
	f.Add([]byte(node.tryAggregate(chain.Pack("tryAggregate", false, list))))
	f.Add([]byte{})
	f.Add(make([]byte, 64))
	r, _ := good(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		results, err := readResults(b, len(list))
		if err != nil {
			return
		}
		if code := aPayment().reason(aPayment(), r.Requirement, results); code == "" {
			t.Error("no reason")
		}
	})
}

// FuzzSponsoring: whatever a payer writes into the extensions, we do not panic, and
// an approval that is taken does nothing but approve.
func FuzzSponsoring(f *testing.F) {
	r, unix := good(f)
	for _, e := range []map[string]any{sponsorApproval(nil, nil), {eip2612Extension: map[string]any{"info": map[string]any{
		"from": payerAddress, "asset": usdc, "spender": eip712.Permit2.Hex(), "amount": "10000", "nonce": "0",
		"deadline": fmt.Sprint(unix + 300), "signature": "0x" + strings.Repeat("12", 64) + "1b", "version": "1",
	}}}} {
		f.Add(must(json.Marshal(e)))
	}
	f.Add([]byte(`{"erc20ApprovalGasSponsoring":{"info":{"signedTransaction":"0x02c0"}}}`))
	f.Add([]byte(`{"eip2612GasSponsoring":null,"erc20ApprovalGasSponsoring":[]}`))
	c := &settler{Chain: &chain.Chain{ID: 84532}, approvalBudget: common.Big1}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, asset := range []common.Address{token, tether} {
			p := aPayment()
			p.Token, p.Authorization.Value = asset, p.Value
			p.Permit = &eip712.Permit{Amount: p.Value}
			p.way = &permit2{permit: *p.Permit}
			payment := *r.Payment
			payment.Extensions = b
			if c.readExtensions(p, facilitator.Request{Payment: &payment}, time.Unix(unix, 0)) != nil {
				continue
			}
			if a := p.approval; a != nil && (*a.tx.To() != p.Token || len(a.tx.Data()) != 68 || a.tx.Value().Sign() != 0) {
				t.Errorf("%+v", a.tx)
			}
			if a := p.way.(*permit2).allowance; a != nil && !a.value.Eq(&p.Value) {
				t.Errorf("%+v", a)
			}
		}
	})
}

// FuzzSignature: no signature makes us panic, and only that of the payer's key is
// one without the chain.
func FuzzSignature(f *testing.F) {
	r, _ := good(f)
	a := must(r.Payment.Authorization(r.Requirement))
	f.Add(a.Signature)
	f.Add(wrap6492(factory, []byte{1, 2})(a.Signature))
	f.Add(append(make([]byte, 96), magic6492...))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := a
		a.Signature = b
		p, err := decode(a, r.Requirement)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.readSignature(); err != nil {
			return
		}
		signer, err := eip712.Recover(p.digest, b)
		if (p.signer == byKey) != (err == nil && signer == p.From) {
			t.Errorf("signer %d, %s", p.signer, signer)
		}
		for p.signer = range byFactory + 1 {
			if p.signer == byFactory && p.factory == nil {
				continue
			}
			p.calldata = nil
			if to, data := p.encoded(); len(data) < 4 || to == (common.Address{}) {
				t.Errorf("no call: %x", data)
			}
		}
	})
}
