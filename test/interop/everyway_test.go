package interop

import (
	"context"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm"
	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// Where the stack has its contracts, and a wallet that this test puts there.
const (
	tether = "0xeED520980fC7C7B4eB379B96d61CEdea2423005a"
	wallet = "0x7A11e70000000000000000000000000000000001"
)

// TestOurFacilitatorOnAnvil: our own facilitator settles in every way on a chain
// that is not go-ethereum, whose errors read otherwise: payers with and without an
// allowance and gas, and contract wallets, bad ones included.
func TestOurFacilitatorOnAnvil(t *testing.T) {
	s := startStack(t)
	t.Setenv("INTEROP_GAS_KEY", s.Gas.PrivateKey)
	f := &evm.Facilitator{Networks: map[string]*evm.Network{"base-sepolia": {
		RPC: []string{s.RPC}, Signers: []string{"{env.INTEROP_GAS_KEY}"}, ApprovalBudget: "1/day",
	}}}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	if err := f.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Cleanup() }()

	key, err := crypto.GenerateKey() // without gas, as nobody knows it
	if err != nil {
		t.Fatal(err)
	}
	payer := crypto.PubkeyToAddress(key.PublicKey)
	hundred := fmt.Sprintf("%#064x", 100_000_000)
	for _, token := range []string{s.Token, tether} {
		s.must(t, "anvil_setStorageAt", token, mapped(2, payer), hundred)
	}
	s.must(t, "anvil_setStorageAt", s.Token, mapped(2, common.HexToAddress(wallet)), hundred)
	s.must(t, "anvil_setStorageAt", wallet, fmt.Sprintf("%#064x", 0), word(payer.Hex()))
	s.must(t, "anvil_setCode", wallet, deployedCode(t, "BadWallet"))
	for _, owner := range []common.Address{payer, common.HexToAddress(wallet)} {
		s.must(t, "anvil_setStorageAt", s.Token, allowance(owner), "0x"+strings.Repeat("f", 64))
	}

	price := func() *big.Int {
		var price hexutil.Big
		if err := s.rpc(&price, "eth_gasPrice"); err != nil {
			t.Fatal(err)
		}
		return price.ToInt()
	}
	p := signer{t: t, key: key, facilitator: s.Gas.Address, payTo: s.Payee, price: price}
	mode := func(n int) func() {
		return func() { s.must(t, "anvil_setStorageAt", wallet, fmt.Sprintf("%#064x", 1), fmt.Sprintf("%#064x", n)) }
	}
	for _, tt := range []struct {
		name   string
		before func()
		pay    payment
		verify string // the reason; "" is valid
	}{
		{name: "Permit2", pay: payment{token: s.Token}},
		{name: "upto, some of it", pay: payment{token: s.Token, charge: "77"}},
		{name: "upto, nothing", pay: payment{token: s.Token, charge: "0"}},
		{name: "no allowance", pay: payment{token: tether}, verify: "permit2_allowance_required"},
		{name: "no money", pay: payment{token: s.Token, amount: "100000001"}, verify: "permit2_insufficient_balance"},
		{name: "an approval, and the gas for it", pay: payment{token: tether, approve: true}},
		{name: "approved before", pay: payment{token: tether}},
		{name: "upto with another token", pay: payment{token: tether, charge: "5"}},
		{name: "a wallet", before: mode(0), pay: payment{token: s.Token, from: wallet}},
		{name: "a wallet, upto", before: mode(0), pay: payment{token: s.Token, from: wallet, charge: "9"}},
		{name: "a wallet that only takes simulations", before: mode(2), pay: payment{token: s.Token, from: wallet}, verify: "permit2_simulation_failed"},
		{name: "a wallet that never ends", before: mode(4), pay: payment{token: s.Token, from: wallet}, verify: "invalid_permit2_signature"},
		{name: "a wallet that returns a mebibyte", before: mode(5), pay: payment{token: s.Token, from: wallet}, verify: "invalid_permit2_signature"},
		{name: "a wallet that reverts with a mebibyte", before: mode(6), pay: payment{token: s.Token, from: wallet}, verify: "invalid_permit2_signature"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.before != nil {
				tt.before()
			}
			r := p.sign(tt.pay)
			verdict, err := f.Verify(t.Context(), r)
			if err != nil || verdict.Reason != tt.verify || verdict.Valid != (tt.verify == "") {
				t.Fatalf("verify: %+v, %v; want %q", verdict, err, tt.verify)
			}
			if tt.pay.charge != "" {
				r.Requirement.Amount = tt.pay.charge
			}
			had := s.balanceIn(t, tt.pay.token, s.Payee)
			settled := f.Settle(t.Context(), r)
			moved := s.balanceIn(t, tt.pay.token, s.Payee) - had
			if tt.verify != "" {
				if settled.Outcome != facilitator.Refused || settled.Reason != tt.verify || moved != 0 {
					t.Errorf("settle: %+v, %d moved", settled, moved)
				}
				return
			}
			if settled.Outcome != facilitator.Settled || fmt.Sprint(moved) != r.Requirement.Amount {
				t.Fatalf("settle: %+v, %d moved", settled, moved)
			}
			if again := f.Settle(t.Context(), r); again.Outcome != facilitator.Settled || again.Transaction != settled.Transaction {
				t.Errorf("again: %+v", again)
			}
		})
	}
}

// signer signs Permit2 payments.
type signer struct {
	t           *testing.T
	key         *ecdsa.PrivateKey
	facilitator string
	payTo       string
	nonce       uint64
	price       func() *big.Int // of gas, now
}

// payment is one to be signed: exact, or with a charge upto.
type payment struct {
	token, amount, charge, from string
	approve                     bool
}

func (s *signer) sign(o payment) facilitator.Request {
	s.t.Helper()
	if o.amount == "" {
		o.amount = "10000"
	}
	s.nonce++
	scheme, proxy, deadline := "exact", x402.ExactPermit2Proxy, uint64(time.Now().Unix()+300)
	if o.charge != "" {
		scheme, proxy = "upto", x402.UptoPermit2Proxy
	}
	from := crypto.PubkeyToAddress(s.key.PublicKey)
	owner := from
	if o.from != "" {
		owner = common.HexToAddress(o.from)
	}
	message := eip712.Permit{
		From: owner, Token: common.HexToAddress(o.token), Spender: common.HexToAddress(proxy), To: common.HexToAddress(s.payTo),
		Facilitator: common.HexToAddress(s.facilitator), Upto: o.charge != "",
		Amount: *uint256.MustFromDecimal(o.amount), Nonce: *uint256.NewInt(s.nonce), Deadline: deadline,
	}
	digest := eip712.Permit2Domain(84532).PermitDigest(&message)
	signature, err := crypto.Sign(digest[:], s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	signature[64] += 27
	extra, err := json.Marshal(map[string]string{"assetTransferMethod": "permit2", "facilitatorAddress": s.facilitator})
	if err != nil {
		s.t.Fatal(err)
	}
	r := x402.Requirement{
		Scheme: scheme, Network: "eip155:84532", Amount: o.amount, Asset: o.token, PayTo: s.payTo, MaxTimeoutSeconds: 300, Extra: extra,
	}
	witness := map[string]string{"to": s.payTo, "validAfter": "0"}
	if o.charge != "" {
		witness["facilitator"] = s.facilitator
	}
	whole := map[string]any{"x402Version": 2, "accepted": r, "payload": map[string]any{
		"signature": "0x" + hex.EncodeToString(signature),
		"permit2Authorization": map[string]any{
			"from": owner.Hex(), "permitted": map[string]string{"token": o.token, "amount": o.amount}, "spender": proxy,
			"nonce": fmt.Sprint(s.nonce), "deadline": fmt.Sprint(deadline), "witness": witness,
		},
	}}
	if o.approve {
		whole["extensions"] = map[string]any{"erc20ApprovalGasSponsoring": map[string]any{"info": s.approval(o.token, from)}}
	}
	raw, err := json.Marshal(whole)
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := x402.Decode(http.Header{x402.HeaderPaymentSignature: {base64.StdEncoding.EncodeToString(raw)}})
	if err != nil {
		s.t.Fatal(err)
	}
	return facilitator.Request{Payment: p, Requirement: r, Payer: owner.Hex()}
}

// approval is the payer's first transaction, which lets Permit2 move a token.
func (s *signer) approval(token string, from common.Address) map[string]string {
	to := common.HexToAddress(token)
	data := append([]byte{0x09, 0x5e, 0xa7, 0xb3}, common.LeftPadBytes(eip712.Permit2[:], 32)...)
	chain, offer := big.NewInt(84532), s.price() // nobody gives more than gas costs
	tx, err := types.SignNewTx(s.key, types.LatestSignerForChainID(chain), &types.DynamicFeeTx{
		ChainID: chain, GasTipCap: big.NewInt(1e9), GasFeeCap: offer, Gas: 70_000, To: &to, Data: append(data, common.MaxHash[:]...),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	raw, err := tx.MarshalBinary()
	if err != nil {
		s.t.Fatal(err)
	}
	return map[string]string{
		"from": from.Hex(), "asset": token, "spender": eip712.Permit2.Hex(), "amount": common.MaxHash.Big().String(),
		"signedTransaction": "0x" + hex.EncodeToString(raw), "version": "1",
	}
}

// must makes a call to the chain that has to succeed.
func (s *stack) must(t *testing.T, method string, params ...any) {
	t.Helper()
	var any json.RawMessage
	if err := s.rpc(&any, method, params...); err != nil {
		t.Fatal(err)
	}
}

// balanceIn is what an account has of a token, in atomic units.
func (s *stack) balanceIn(t *testing.T, token, address string) int64 {
	t.Helper()
	other := *s
	other.Token = token
	return other.balance(t, address)
}

// mapped is where Solidity keeps the entry of an account in the mapping of a slot.
func mapped(slot int64, account common.Address) string {
	return crypto.Keccak256Hash(common.LeftPadBytes(account[:], 32), common.LeftPadBytes([]byte{byte(slot)}, 32)).Hex()
}

// allowance is where the test tokens keep what Permit2 may move of an account's.
func allowance(owner common.Address) string {
	inner := common.HexToHash(mapped(3, owner))
	return crypto.Keccak256Hash(common.LeftPadBytes(eip712.Permit2[:], 32), inner[:]).Hex()
}

func deployedCode(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("token/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var artifact struct{ DeployedBytecode string }
	if err := json.Unmarshal(b, &artifact); err != nil {
		t.Fatal(err)
	}
	return artifact.DeployedBytecode
}
