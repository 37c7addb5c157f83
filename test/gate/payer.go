package gate

import (
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/internal/typeddata"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Payer is an account that signs real EIP-712 data.
type Payer struct {
	Key     *ecdsa.PrivateKey
	Address common.Address
}

// NewPayer makes an account. None is taken for the retry of another.
func NewPayer(t testing.TB) *Payer {
	t.Helper()
	key, err := crypto.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return &Payer{key, crypto.PubkeyToAddress(key.PublicKey)}
}

// Sign signs what a requirement asks for, from now on.
func (p *Payer) Sign(t testing.TB, r x402.Requirement, now time.Time) *Payment {
	t.Helper()
	var nonce [32]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		t.Fatal(err)
	}
	return p.SignWith(t, r, map[string]any{
		"from":        p.Address.Hex(),
		"to":          r.PayTo,
		"value":       r.Amount,
		"validAfter":  "0",
		"validBefore": strconv.FormatInt(now.Unix()+int64(r.MaxTimeoutSeconds), 10),
		"nonce":       "0x" + hex.EncodeToString(nonce[:]),
	})
}

// SignWith signs an authorization as it is, with go-ethereum's general EIP-712 and
// not with our own.
func (p *Payer) SignWith(t testing.TB, r x402.Requirement, authorization map[string]any) *Payment {
	t.Helper()
	var extra struct{ Name, Version string }
	if err := json.Unmarshal(r.Extra, &extra); err != nil {
		t.Fatal(err)
	}
	chain, ok := new(big.Int).SetString(strings.TrimPrefix(r.Network, "eip155:"), 10)
	if !ok {
		t.Fatalf("network %q", r.Network)
	}
	sig, err := typeddata.Sign(typeddata.Transfer(typeddata.Token(extra.Name, extra.Version, chain, r.Asset), authorization), p.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &Payment{r, authorization, "0x" + hex.EncodeToString(sig)}
}

// Sign makes a payment of a new payer for what was offered.
func Sign(t testing.TB, r x402.Requirement) *Payment {
	t.Helper()
	return NewPayer(t).Sign(t, r, time.Now())
}

// Payment is a payment, before it becomes a header.
type Payment struct {
	Requirement   x402.Requirement
	Authorization map[string]any
	Signature     string
}

// V2 is the PAYMENT-SIGNATURE header.
func (s *Payment) V2(t testing.TB) string {
	t.Helper()
	return Encode(t, map[string]any{
		"x402Version": 2,
		"accepted":    s.Requirement,
		"payload":     map[string]any{"signature": s.Signature, "authorization": s.Authorization},
	})
}

// V1 is the X-PAYMENT header.
func (s *Payment) V1(t testing.TB) string {
	t.Helper()
	name, _ := x402.LegacyNetwork(s.Requirement.Network)
	return Encode(t, map[string]any{
		"x402Version": 1,
		"scheme":      s.Requirement.Scheme,
		"network":     name,
		"payload":     map[string]any{"signature": s.Signature, "authorization": s.Authorization},
	})
}

// WithIdentifier is a payment that names the purchase.
func (s *Payment) WithIdentifier(t testing.TB, id string) string {
	t.Helper()
	return Encode(t, map[string]any{
		"x402Version": 2,
		"accepted":    s.Requirement,
		"payload":     map[string]any{"signature": s.Signature, "authorization": s.Authorization},
		"extensions":  map[string]any{"payment-identifier": map[string]any{"info": map[string]any{"required": false, "id": id}}},
	})
}

// Encode makes a header of what is signed.
func Encode(t testing.TB, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(raw)
}
