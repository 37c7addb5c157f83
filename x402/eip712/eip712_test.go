package eip712

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"os"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/signer/core/apitypes"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-paywall/caddy-paywall/internal/typeddata"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// vector is one payment of the official clients, with what they signed.
type vector struct {
	Name    string
	V2      string `json:"paymentSignatureHeader"`
	V1      string `json:"xPaymentHeader"`
	Payload struct {
		Accepted x402.Requirement
	} `json:"paymentPayload"`
	Body402 struct{ Accepts []requirementV1 }
	Typed   []typed `json:"typedData"`
}

// typed is what was signed, and by whom.
type typed struct {
	Domain struct {
		Name, Version     string
		ChainID           uint64 `json:"chainId"`
		VerifyingContract common.Address
	}
	DomainSeparator, Digest common.Hash
	Recovered               common.Address
}

// check compares what we make of it.
func (want typed) check(t *testing.T, d Domain, digest [32]byte, signature []byte) {
	t.Helper()
	if d != Domain(want.DomainSeparator) {
		t.Errorf("domain separator %x, want %s", d, want.DomainSeparator)
	}
	if digest != want.Digest {
		t.Errorf("digest %x, want %s", digest, want.Digest)
	}
	if signer, err := Recover(digest, signature); err != nil || signer != want.Recovered {
		t.Errorf("recovered %s, %v; want %s", signer, err, want.Recovered)
	}
}

// requirementV1 is what version 1 calls a requirement.
type requirementV1 struct {
	Scheme, Asset, PayTo string
	MaxAmountRequired    string
	Extra                jsontext.Value
}

// payment decodes a vector as the gate would.
func (v vector) payment(t testing.TB) (x402.Authorization, x402.Requirement) {
	t.Helper()
	name, header, r := x402.HeaderPaymentSignature, v.V2, v.Payload.Accepted
	if v.V1 != "" {
		one := v.Body402.Accepts[0]
		name, header = x402.HeaderXPayment, v.V1
		r = x402.Requirement{
			Scheme: one.Scheme, Network: "eip155:84532", Amount: one.MaxAmountRequired,
			Asset: one.Asset, PayTo: one.PayTo, MaxTimeoutSeconds: 60, Extra: one.Extra,
		}
	}
	p, err := x402.Decode(map[string][]string{name: {header}})
	if err != nil {
		t.Fatal(err)
	}
	a, err := p.Authorization(r)
	if err != nil {
		t.Fatal(err)
	}
	return a, r
}

// readVectors reads those of some files that have a signature of their own.
func readVectors(t testing.TB, want int, names ...string) []vector {
	t.Helper()
	var all []vector
	for _, name := range names {
		b, err := os.ReadFile("../testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		var file struct{ Vectors []vector }
		if err := json.Unmarshal(b, &file); err != nil {
			t.Fatal(err)
		}
		for _, v := range file.Vectors {
			if v.V1 != "" || v.V2 != "" {
				all = append(all, v)
			}
		}
	}
	if len(all) != want {
		t.Fatalf("%d vectors, want %d", len(all), want)
	}
	return all
}

func vectors(t testing.TB) []vector {
	t.Helper()
	return readVectors(t, 5, "exact-evm-eip3009.json", "exact-evm-v1.json")
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			a, r := v.payment(t)
			want := v.Typed[0]
			d := NewDomain(want.Domain.Name, want.Domain.Version, want.Domain.ChainID, want.Domain.VerifyingContract)
			if got, err := DomainOf(r); err != nil || got != d {
				t.Errorf("DomainOf: %x, %v", got, err)
			}
			transfer, err := TransferOf(a)
			if err != nil {
				t.Fatal(err)
			}
			want.check(t, d, d.TransferDigest(&transfer), a.Signature)
			if ok, err := SignedByPayer(a, r); !ok || err != nil {
				t.Errorf("SignedByPayer: %v, %v", ok, err)
			}
		})
	}
}

// TestDigestLikeOracle compares our digest with go-ethereum's general one.
func TestDigestLikeOracle(t *testing.T) {
	bytesOf := func(n int) *rapid.Generator[[]byte] { return rapid.SliceOfN(rapid.Byte(), n, n) }
	rapid.Check(t, func(t *rapid.T) {
		name, version := rapid.String().Draw(t, "name"), rapid.String().Draw(t, "version")
		chain := rapid.Uint64().Draw(t, "chain")
		token := common.BytesToAddress(bytesOf(20).Draw(t, "token"))
		m := Transfer{
			From:        common.BytesToAddress(bytesOf(20).Draw(t, "from")),
			To:          common.BytesToAddress(bytesOf(20).Draw(t, "to")),
			Value:       *new(uint256.Int).SetBytes(bytesOf(32).Draw(t, "value")),
			ValidAfter:  rapid.Uint64().Draw(t, "after"),
			ValidBefore: rapid.Uint64().Draw(t, "before"),
			Nonce:       [32]byte(bytesOf(32).Draw(t, "nonce")),
		}
		d := NewDomain(name, version, chain, token)
		want, wantDomain := oracle(t, name, version, chain, token, m)
		if d != Domain(wantDomain) {
			t.Fatalf("domain %x, want %x", d, wantDomain)
		}
		if got := d.TransferDigest(&m); got != [32]byte(want) {
			t.Fatalf("digest %x, want %x", got, want)
		}
	})
}

func oracle(t interface{ Fatal(...any) }, name, version string, chain uint64, token common.Address, m Transfer) (digest, domain []byte) {
	data := typeddata.Transfer(typeddata.Token(name, version, new(big.Int).SetUint64(chain), token.Hex()), apitypes.TypedDataMessage{
		"from": m.From.Hex(), "to": m.To.Hex(), "value": m.Value.ToBig(), "nonce": hexutil.Encode(m.Nonce[:]),
		"validAfter": new(big.Int).SetUint64(m.ValidAfter), "validBefore": new(big.Int).SetUint64(m.ValidBefore),
	})
	// Not data.Map(), which leaves out an empty name, as TypedDataAndHash does.
	domain, err := data.HashStruct("EIP712Domain", apitypes.TypedDataMessage{
		"name": name, "version": version, "chainId": new(big.Int).SetUint64(chain), "verifyingContract": token.Hex(),
	})
	if err != nil {
		t.Fatal(err)
	}
	message, err := data.HashStruct(data.PrimaryType, data.Message)
	if err != nil {
		t.Fatal(err)
	}
	return crypto.Keccak256([]byte{0x19, 1}, domain, message), domain
}

func TestParseSignature(t *testing.T) {
	a, r := vectors(t)[0].payment(t)
	transfer, _ := TransferOf(a)
	d, _ := DomainOf(r)
	digest := d.TransferDigest(&transfer)
	good := a.Signature
	with := func(change func(s []byte)) []byte {
		s := append([]byte(nil), good...)
		change(s)
		return s
	}
	high := with(func(s []byte) {
		order := crypto.S256().Params().N
		new(big.Int).Sub(order, new(big.Int).SetBytes(s[32:64])).FillBytes(s[32:64])
		s[64] ^= 7 // 27 and 28 swap
	})
	half := common.FromHex("7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0")
	tests := map[string]struct {
		signature []byte
		want      error
	}{
		"good":          {good, nil},
		"v 0 or 1":      {with(func(s []byte) { s[64] -= 27 }), nil},
		"v 26":          {with(func(s []byte) { s[64] = 26 }), errV},
		"v 29":          {with(func(s []byte) { s[64] = 29 }), errV},
		"v 2":           {with(func(s []byte) { s[64] = 2 }), errV},
		"v 255":         {with(func(s []byte) { s[64] = 255 }), errV},
		"high s":        {high, errHighS},
		"highest low s": {with(func(s []byte) { copy(s[32:], half) }), nil},
		"lowest high s": {with(func(s []byte) { copy(s[32:], half); s[63]++ }), errHighS},
		"r zero":        {with(func(s []byte) { clear(s[:32]) }), errZero},
		"s zero":        {with(func(s []byte) { clear(s[32:64]) }), errZero},
		"empty":         {nil, errLength},
		"64 bytes":      {good[:64], errLength},
		"66 bytes":      {append(with(func([]byte) {}), 0), errLength},
		"nobody: r at top": {with(func(s []byte) {
			copy(s, common.FromHex("0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"))
		}), errNobody},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			signer, err := Recover(digest, tt.signature)
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if (name == "good" || name == "v 0 or 1") != (signer == transfer.From) {
				t.Errorf("signer %s", signer)
			}
		})
	}
}

func TestSignedByPayer(t *testing.T) {
	a, r := vectors(t)[0].payment(t)
	extra := func(s string) func(*x402.Authorization, *x402.Requirement) {
		return func(_ *x402.Authorization, r *x402.Requirement) { r.Extra = jsontext.Value(s) }
	}
	tests := map[string]struct {
		change func(*x402.Authorization, *x402.Requirement)
		signed bool
		judged bool
	}{
		"as it came":               {func(*x402.Authorization, *x402.Requirement) {}, true, true},
		"extra with more members":  {extra(`{"assetTransferMethod":"eip3009","version":"2","name":"USDC"}`), true, true},
		"another name":             {extra(`{"name":"USD Coin","version":"2"}`), false, true},
		"another version":          {extra(`{"name":"USDC","version":"1"}`), false, true},
		"another chain":            {func(_ *x402.Authorization, r *x402.Requirement) { r.Network = "eip155:8453" }, false, true},
		"another token":            {func(_ *x402.Authorization, r *x402.Requirement) { r.Asset = a.To }, false, true},
		"another payer":            {func(a *x402.Authorization, _ *x402.Requirement) { a.Payer = a.To }, false, true},
		"another value":            {func(a *x402.Authorization, _ *x402.Requirement) { a.Value.AddUint64(&a.Value, 1) }, false, true},
		"another recipient":        {func(a *x402.Authorization, _ *x402.Requirement) { a.To = a.Payer }, false, true},
		"another beginning":        {func(a *x402.Authorization, _ *x402.Requirement) { a.ValidAfter++ }, false, true},
		"another end":              {func(a *x402.Authorization, _ *x402.Requirement) { a.ValidBefore++ }, false, true},
		"another nonce":            {func(a *x402.Authorization, _ *x402.Requirement) { a.Nonce[31]++ }, false, true},
		"a wallet's signature":     {func(a *x402.Authorization, _ *x402.Requirement) { a.Signature = make([]byte, 300) }, false, true},
		"no name":                  {extra(`{"version":"2"}`), false, false},
		"no version":               {extra(`{"name":"USDC"}`), false, false},
		"name is a number":         {extra(`{"name":1,"version":"2"}`), false, false},
		"extra is no object":       {extra(`[]`), false, false},
		"no extra":                 {extra(``), false, false},
		"Permit2":                  {func(a *x402.Authorization, _ *x402.Requirement) { a.Kind = x402.KindPermit2 }, false, false},
		"ends never":               {func(a *x402.Authorization, _ *x402.Requirement) { a.ValidBefore = math.MaxInt64 }, false, false},
		"begins never":             {func(a *x402.Authorization, _ *x402.Requirement) { a.ValidAfter = math.MaxInt64 }, false, false},
		"no EVM chain":             {func(_ *x402.Authorization, r *x402.Requirement) { r.Network = "solana:84532" }, false, false},
		"chain beyond 64 bits":     {func(_ *x402.Authorization, r *x402.Requirement) { r.Network = "eip155:99999999999999999999" }, false, false},
		"asset is no address":      {func(_ *x402.Authorization, r *x402.Requirement) { r.Asset = "USDC" }, false, false},
		"zero value of everything": {func(a *x402.Authorization, _ *x402.Requirement) { *a = x402.Authorization{} }, false, false},
		"payer is no address":      {func(a *x402.Authorization, _ *x402.Requirement) { a.Payer = "0xzz" + a.Payer[4:] }, false, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a, r := a, r
			tt.change(&a, &r)
			for range 2 { // the second time from the kept domains
				signed, err := SignedByPayer(a, r)
				if signed != tt.signed || (err == nil) != tt.judged {
					t.Errorf("%v, %v", signed, err)
				}
				if err != nil && !errors.Is(err, ErrNotJudged) {
					t.Errorf("error %v is not ErrNotJudged", err)
				}
			}
		})
	}
}

func TestKeptDomainsAreBounded(t *testing.T) {
	token := make([]byte, 20)
	for i := range 3 * maxDomains {
		token[0], token[1] = byte(i), byte(i>>8)
		r := x402.Requirement{Network: "eip155:1", Asset: "0x" + hex.EncodeToString(token), Extra: jsontext.Value(`{"name":"a","version":"1"}`)}
		if _, err := DomainOf(r); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(*domains.Load()); n > maxDomains {
		t.Errorf("%d domains are kept", n)
	}
}

// poolForgets says that allocations cannot be counted in this build.
var poolForgets bool

func TestAllocations(t *testing.T) {
	if poolForgets {
		t.Skip("allocations are counted without the race detector")
	}
	a, r := vectors(t)[0].payment(t)
	transfer, _ := TransferOf(a)
	d, _ := DomainOf(r)
	if n := testing.AllocsPerRun(100, func() { d.TransferDigest(&transfer) }); n > 0 {
		t.Errorf("a digest allocates %v times", n)
	}
	digest := d.TransferDigest(&transfer)
	sig := append([]byte(nil), a.Signature...)
	sig[64] -= 27
	bare := testing.AllocsPerRun(100, func() { _, _ = crypto.Ecrecover(digest[:], sig) })
	if n := testing.AllocsPerRun(100, func() { _, _ = SignedByPayer(a, r) }); n > bare {
		t.Errorf("SignedByPayer allocates %v times, a bare Ecrecover %v", n, bare)
	}
}

func BenchmarkSignedByPayer(b *testing.B) {
	a, r := vectors(b)[0].payment(b)
	transfer, _ := TransferOf(a)
	d, _ := DomainOf(r)
	digest := d.TransferDigest(&transfer)
	sig := append([]byte(nil), a.Signature...)
	sig[64] -= 27
	b.Run("ecrecover", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = crypto.Ecrecover(digest[:], sig)
		}
	})
	b.Run("digest", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			d.TransferDigest(&transfer)
		}
	})
	b.Run("signed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if ok, err := SignedByPayer(a, r); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
}
