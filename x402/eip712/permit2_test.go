package eip712

import (
	"errors"
	"math"
	"math/big"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/signer/core/apitypes"
	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-paywall/caddy-paywall/internal/typeddata"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// permitVectors are Permit2 payments of the official clients, of both schemes.
func permitVectors(t testing.TB) []vector {
	t.Helper()
	return readVectors(t, 4, "exact-evm-permit2.json", "upto-evm-permit2.json")
}

func TestPermitVectors(t *testing.T) {
	for _, v := range permitVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			a, r := v.payment(t)
			for _, want := range v.Typed {
				if want.Domain.Name != "Permit2" {
					continue // the token's own permit
				}
				p, err := PermitOf(a)
				if err != nil {
					t.Fatal(err)
				}
				d := Permit2Domain(want.Domain.ChainID)
				want.check(t, d, d.PermitDigest(&p), a.Signature)
			}
			if ok, err := SignedByPayer(a, r); !ok || err != nil {
				t.Errorf("SignedByPayer: %v, %v", ok, err)
			}
		})
	}
}

// TestPermitDigestLikeOracle compares our digest with go-ethereum's general one.
func TestPermitDigestLikeOracle(t *testing.T) {
	bytesOf := func(n int) *rapid.Generator[[]byte] { return rapid.SliceOfN(rapid.Byte(), n, n) }
	address := rapid.Custom(func(t *rapid.T) common.Address { return common.BytesToAddress(bytesOf(20).Draw(t, "address")) })
	number := rapid.Custom(func(t *rapid.T) uint256.Int { return *new(uint256.Int).SetBytes(bytesOf(32).Draw(t, "number")) })
	rapid.Check(t, func(t *rapid.T) {
		chain := rapid.Uint64Min(1).Draw(t, "chain")
		p := Permit{
			Token: address.Draw(t, "token"), Spender: address.Draw(t, "spender"), To: address.Draw(t, "to"),
			Facilitator: address.Draw(t, "facilitator"), Upto: rapid.Bool().Draw(t, "upto"),
			Amount: number.Draw(t, "amount"), Nonce: number.Draw(t, "nonce"),
			Deadline: rapid.Uint64().Draw(t, "deadline"), ValidAfter: rapid.Uint64().Draw(t, "after"),
		}
		want := permitOracle(t, chain, p)
		if got := Permit2Domain(chain).PermitDigest(&p); got != [32]byte(want) {
			t.Fatalf("digest %x, want %x", got, want)
		}
	})
}

func permitOracle(t interface{ Fatal(...any) }, chain uint64, p Permit) []byte {
	witness := map[string]any{"to": p.To.Hex(), "validAfter": new(big.Int).SetUint64(p.ValidAfter)}
	if p.Upto {
		witness["facilitator"] = p.Facilitator.Hex()
	}
	digest, _, err := apitypes.TypedDataAndHash(typeddata.Permit2(new(big.Int).SetUint64(chain), p.Upto, apitypes.TypedDataMessage{
		"permitted": map[string]any{"token": p.Token.Hex(), "amount": p.Amount.ToBig()},
		"spender":   p.Spender.Hex(), "nonce": p.Nonce.ToBig(), "deadline": new(big.Int).SetUint64(p.Deadline), "witness": witness,
	}))
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// Every member that is signed counts.
func TestPermitSignedByPayer(t *testing.T) {
	upto := permitVectors(t)[3]
	for name, tt := range map[string]struct {
		change func(*x402.Authorization, *x402.Requirement)
		signed bool
		judged bool
	}{
		"as it came":           {func(*x402.Authorization, *x402.Requirement) {}, true, true},
		"another chain":        {func(_ *x402.Authorization, r *x402.Requirement) { r.Network = "eip155:8453" }, false, true},
		"another token":        {func(a *x402.Authorization, _ *x402.Requirement) { a.Token = a.To }, false, true},
		"another payer":        {func(a *x402.Authorization, _ *x402.Requirement) { a.Payer = a.To }, false, true},
		"another amount":       {func(a *x402.Authorization, _ *x402.Requirement) { a.Value.AddUint64(&a.Value, 1) }, false, true},
		"another recipient":    {func(a *x402.Authorization, _ *x402.Requirement) { a.To = a.Payer }, false, true},
		"another spender":      {func(a *x402.Authorization, _ *x402.Requirement) { a.Spender = x402.ExactPermit2Proxy }, false, true},
		"another facilitator":  {func(a *x402.Authorization, _ *x402.Requirement) { a.Facilitator = a.To }, false, true},
		"another scheme":       {func(a *x402.Authorization, _ *x402.Requirement) { a.Scheme = "exact" }, false, true},
		"another beginning":    {func(a *x402.Authorization, _ *x402.Requirement) { a.ValidAfter++ }, false, true},
		"another end":          {func(a *x402.Authorization, _ *x402.Requirement) { a.ValidBefore++ }, false, true},
		"another nonce":        {func(a *x402.Authorization, _ *x402.Requirement) { a.Nonce[31]++ }, false, true},
		"a wallet's signature": {func(a *x402.Authorization, _ *x402.Requirement) { a.Signature = make([]byte, 300) }, false, true},
		"no extra":             {func(_ *x402.Authorization, r *x402.Requirement) { r.Extra = nil }, true, true},
		"no facilitator":       {func(a *x402.Authorization, _ *x402.Requirement) { a.Facilitator = "" }, false, false},
		"ends never":           {func(a *x402.Authorization, _ *x402.Requirement) { a.ValidBefore = math.MaxInt64 }, false, false},
		"begins never":         {func(a *x402.Authorization, _ *x402.Requirement) { a.ValidAfter = math.MaxInt64 }, false, false},
		"no EVM chain":         {func(_ *x402.Authorization, r *x402.Requirement) { r.Network = "solana:84532" }, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			a, r := upto.payment(t)
			tt.change(&a, &r)
			signed, err := SignedByPayer(a, r)
			if signed != tt.signed || (err == nil) != tt.judged || err != nil && !errors.Is(err, ErrNotJudged) {
				t.Errorf("%v, %v", signed, err)
			}
		})
	}
}
