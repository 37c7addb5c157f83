package gate

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/internal/typeddata"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Permit is a Permit2 payment, before it becomes a header.
type Permit struct {
	Requirement x402.Requirement
	from        string
	Token       string
	Amount      string
	Spender     string
	Nonce       string
	Deadline    string
	To          string
	Facilitator string // upto only
	ValidAfter  string
	Extensions  map[string]any
	signature   string
}

func (s *Permit) witness() map[string]any {
	w := map[string]any{"to": s.To, "validAfter": s.ValidAfter}
	if s.Requirement.Scheme == "upto" {
		w["facilitator"] = s.Facilitator
	}
	return w
}

// DraftPermit fills in what a requirement asks for, as the official clients do.
func (p *Payer) DraftPermit(t testing.TB, r x402.Requirement) *Permit {
	t.Helper()
	var nonce [32]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		t.Fatal(err)
	}
	var extra struct{ FacilitatorAddress string }
	if err := json.Unmarshal(r.Extra, &extra); err != nil {
		t.Fatal(err)
	}
	s := &Permit{
		Requirement: r, from: p.Address.Hex(), Token: r.Asset, Amount: r.Amount, Spender: x402.ExactPermit2Proxy,
		Nonce: new(big.Int).SetBytes(nonce[:]).String(), To: r.PayTo, ValidAfter: "0",
		Deadline: strconv.FormatInt(time.Now().Unix()+int64(r.MaxTimeoutSeconds), 10),
	}
	if r.Scheme == "upto" {
		s.Spender, s.Facilitator = x402.UptoPermit2Proxy, extra.FacilitatorAddress
	}
	return s
}

// Permit signs what a requirement asks for.
func (p *Payer) Permit(t testing.TB, r x402.Requirement) *Permit {
	t.Helper()
	return p.SignPermit(t, p.DraftPermit(t, r))
}

// SignPermit signs with go-ethereum's general EIP-712, not with our own.
func (p *Payer) SignPermit(t testing.TB, s *Permit) *Permit {
	t.Helper()
	chain, ok := new(big.Int).SetString(strings.TrimPrefix(s.Requirement.Network, "eip155:"), 10)
	if !ok {
		t.Fatal(s.Requirement.Network)
	}
	sig, err := typeddata.Sign(typeddata.Permit2(chain, s.Requirement.Scheme == "upto", map[string]any{
		"permitted": map[string]any{"token": s.Token, "amount": s.Amount},
		"spender":   s.Spender, "nonce": s.Nonce, "deadline": s.Deadline, "witness": s.witness(),
	}), p.Key)
	if err != nil {
		t.Fatal(err)
	}
	s.signature = "0x" + hex.EncodeToString(sig)
	return s
}

// V2 is the PAYMENT-SIGNATURE header.
func (s *Permit) V2(t testing.TB) string {
	t.Helper()
	payment := map[string]any{
		"x402Version": 2,
		"accepted":    s.Requirement,
		"payload": map[string]any{"signature": s.signature, "permit2Authorization": map[string]any{
			"from": s.from, "permitted": map[string]any{"token": s.Token, "amount": s.Amount},
			"spender": s.Spender, "nonce": s.Nonce, "deadline": s.Deadline, "witness": s.witness(),
		}},
	}
	if s.Extensions != nil {
		payment["extensions"] = s.Extensions
	}
	return Encode(t, payment)
}
