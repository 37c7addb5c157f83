package paywall_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/internal/typeddata"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// permit is a Permit2 payment, before it becomes a header.
type permit struct {
	requirement x402.Requirement
	from        string
	token       string
	amount      string
	spender     string
	nonce       string
	deadline    string
	to          string
	facilitator string // upto only
	validAfter  string
	extensions  map[string]any
	signature   string
}

// draftPermit fills in what a requirement asks for, as the official clients do.
func (p *payer) draftPermit(t testing.TB, r x402.Requirement) *permit {
	t.Helper()
	var nonce [32]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		t.Fatal(err)
	}
	var extra struct{ FacilitatorAddress string }
	if err := json.Unmarshal(r.Extra, &extra); err != nil {
		t.Fatal(err)
	}
	s := &permit{
		requirement: r, from: p.address.Hex(), token: r.Asset, amount: r.Amount, spender: x402.ExactPermit2Proxy,
		nonce: new(big.Int).SetBytes(nonce[:]).String(), to: r.PayTo, validAfter: "0",
		deadline: strconv.FormatInt(time.Now().Unix()+int64(r.MaxTimeoutSeconds), 10),
	}
	if r.Scheme == "upto" {
		s.spender, s.facilitator = x402.UptoPermit2Proxy, extra.FacilitatorAddress
	}
	return s
}

// permit signs what a requirement asks for.
func (p *payer) permit(t testing.TB, r x402.Requirement) *permit {
	t.Helper()
	return p.signPermit(t, p.draftPermit(t, r))
}

// signPermit signs with go-ethereum's general EIP-712, not with our own.
func (p *payer) signPermit(t testing.TB, s *permit) *permit {
	t.Helper()
	chain, ok := new(big.Int).SetString(strings.TrimPrefix(s.requirement.Network, "eip155:"), 10)
	if !ok {
		t.Fatal(s.requirement.Network)
	}
	sig, err := typeddata.Sign(typeddata.Permit2(chain, s.requirement.Scheme == "upto", map[string]any{
		"permitted": map[string]any{"token": s.token, "amount": s.amount},
		"spender":   s.spender, "nonce": s.nonce, "deadline": s.deadline, "witness": s.witness(),
	}), p.key)
	if err != nil {
		t.Fatal(err)
	}
	s.signature = "0x" + hex.EncodeToString(sig)
	return s
}

func (s *permit) witness() map[string]any {
	w := map[string]any{"to": s.to, "validAfter": s.validAfter}
	if s.requirement.Scheme == "upto" {
		w["facilitator"] = s.facilitator
	}
	return w
}

// v2 is the PAYMENT-SIGNATURE header.
func (s *permit) v2(t testing.TB) string {
	t.Helper()
	payment := map[string]any{
		"x402Version": 2,
		"accepted":    s.requirement,
		"payload": map[string]any{"signature": s.signature, "permit2Authorization": map[string]any{
			"from": s.from, "permitted": map[string]any{"token": s.token, "amount": s.amount},
			"spender": s.spender, "nonce": s.nonce, "deadline": s.deadline, "witness": s.witness(),
		}},
	}
	if s.extensions != nil {
		payment["extensions"] = s.extensions
	}
	return encode(t, payment)
}

// facilitators' accounts, as /supported names them.
const (
	facilitatorA = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
	facilitatorB = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
)

// kindsOf is a /supported with upto for an account.
func kindsOf(account string, extensions ...string) string {
	list, _ := json.Marshal(append([]string{}, extensions...))
	return `{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:84532"},
		{"x402Version":2,"scheme":"upto","network":"eip155:84532","extra":{"facilitatorAddress":"` + account + `"}}],
		"extensions":` + string(list) + `,"signers":{}}`
}

// bank settles Permit2 payments as the chain would: one nonce moves once, and a
// repeat finds what has moved.
type bank struct {
	mu    sync.Mutex
	moved map[string]string // nonce to amount
	calls []settleCall
}

// settleCall is what a facilitator was asked.
type settleCall struct {
	PaymentPayload struct {
		Accepted   x402.Requirement
		Extensions map[string]any
		Payload    struct {
			Permit2Authorization struct{ From, Nonce string }
		}
	}
	PaymentRequirements x402.Requirement
	body                string
}

func (w *world) bank() *bank {
	b := &bank{moved: map[string]string{}}
	w.fac.onSettle(b.settle)
	return b
}

func (b *bank) settle(rw http.ResponseWriter, r *http.Request) {
	var call settleCall
	raw, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(raw, &call)
	call.body = string(raw)
	a := call.PaymentPayload.Payload.Permit2Authorization
	b.mu.Lock()
	b.calls = append(b.calls, call)
	amount, used := b.moved[a.Nonce]
	if !used {
		amount = call.PaymentRequirements.Amount
		b.moved[a.Nonce] = amount
	}
	b.mu.Unlock()
	tx := sha256.Sum256([]byte(a.Nonce))
	_ = json.NewEncoder(rw).Encode(map[string]any{
		"success": true, "transaction": "0x" + hex.EncodeToString(tx[:]), "network": call.PaymentRequirements.Network,
		"payer": a.From, "amount": amount,
	})
}

// amounts is what has moved, payment by payment.
func (b *bank) amounts() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for _, amount := range b.moved {
		all = append(all, amount)
	}
	return all
}

func (b *bank) asked() []settleCall {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]settleCall(nil), b.calls...)
}

// expect compares what has moved.
func (b *bank) expect(t *testing.T, amounts ...string) {
	t.Helper()
	got := b.amounts()
	if strings.Join(got, " ") != strings.Join(amounts, " ") {
		t.Errorf("moved %v, want %v", got, amounts)
	}
}
