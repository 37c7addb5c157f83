package paywall_test

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

	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	_ "github.com/caddy-paywall/caddy-paywall"
	"github.com/caddy-paywall/caddy-paywall/internal/typeddata"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// payer is an account that signs real EIP-712 data.
type payer struct {
	key     *ecdsa.PrivateKey
	address common.Address
}

func newPayer(t testing.TB) *payer {
	t.Helper()
	key, err := crypto.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return &payer{key, crypto.PubkeyToAddress(key.PublicKey)}
}

// signed is a payment, before it becomes a header.
type signed struct {
	requirement   x402.Requirement
	authorization map[string]any
	signature     string
}

func (p *payer) sign(t testing.TB, r x402.Requirement, now time.Time) *signed {
	t.Helper()
	var nonce [32]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		t.Fatal(err)
	}
	return p.signWith(t, r, map[string]any{
		"from":        p.address.Hex(),
		"to":          r.PayTo,
		"value":       r.Amount,
		"validAfter":  "0",
		"validBefore": strconv.FormatInt(now.Unix()+int64(r.MaxTimeoutSeconds), 10),
		"nonce":       "0x" + hex.EncodeToString(nonce[:]),
	})
}

func (p *payer) signWith(t testing.TB, r x402.Requirement, authorization map[string]any) *signed {
	t.Helper()
	var extra struct{ Name, Version string }
	if err := json.Unmarshal(r.Extra, &extra); err != nil {
		t.Fatal(err)
	}
	chain, ok := new(big.Int).SetString(strings.TrimPrefix(r.Network, "eip155:"), 10)
	if !ok {
		t.Fatalf("network %q", r.Network)
	}
	sig, err := typeddata.Sign(typeddata.Transfer(typeddata.Token(extra.Name, extra.Version, chain, r.Asset), authorization), p.key)
	if err != nil {
		t.Fatal(err)
	}
	return &signed{r, authorization, "0x" + hex.EncodeToString(sig)}
}

// v2 is the PAYMENT-SIGNATURE header.
func (s *signed) v2(t testing.TB) string {
	t.Helper()
	return encode(t, map[string]any{
		"x402Version": 2,
		"accepted":    s.requirement,
		"payload":     map[string]any{"signature": s.signature, "authorization": s.authorization},
	})
}

// v1 is the X-PAYMENT header.
func (s *signed) v1(t testing.TB) string {
	t.Helper()
	name, _ := x402.LegacyNetwork(s.requirement.Network)
	return encode(t, map[string]any{
		"x402Version": 1,
		"scheme":      s.requirement.Scheme,
		"network":     name,
		"payload":     map[string]any{"signature": s.signature, "authorization": s.authorization},
	})
}

func encode(t testing.TB, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(raw)
}
