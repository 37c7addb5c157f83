package gatetest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// payer signs. Every payment has a payer of its own, so that none is taken for
// the retry of another.
func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := crypto.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// payment is a signed payment, before it becomes a header.
type payment struct {
	accepted      x402.Requirement
	authorization map[string]string
	signature     string
}

// sign makes a payment for what was offered.
func sign(t testing.TB, r x402.Requirement) *payment {
	t.Helper()
	key := newKey(t)
	domain, err := eip712.DomainOf(r)
	if err != nil {
		t.Fatal(err)
	}
	transfer := eip712.Transfer{
		From:        crypto.PubkeyToAddress(key.PublicKey),
		To:          common.HexToAddress(r.PayTo),
		Value:       *uint256.MustFromDecimal(r.Amount),
		ValidBefore: uint64(time.Now().Unix()) + uint64(r.MaxTimeoutSeconds),
	}
	_, _ = rand.Read(transfer.Nonce[:])
	digest := domain.TransferDigest(&transfer)
	signature, err := crypto.Sign(digest[:], key)
	if err != nil {
		t.Fatal(err)
	}
	signature[64] += 27
	return &payment{r, map[string]string{
		"from": transfer.From.Hex(), "to": r.PayTo, "value": r.Amount, "validAfter": "0",
		"validBefore": strconv.FormatUint(transfer.ValidBefore, 10), "nonce": hexutil.Encode(transfer.Nonce[:]),
	}, hexutil.Encode(signature)}
}

// v2 is the PAYMENT-SIGNATURE header.
func (p *payment) v2(t testing.TB) string {
	return encode(t, map[string]any{
		"x402Version": 2, "accepted": p.accepted,
		"payload": map[string]any{"signature": p.signature, "authorization": p.authorization},
	})
}

// v1 is the X-PAYMENT header.
func (p *payment) v1(t testing.TB) string {
	return encode(t, map[string]any{
		"x402Version": 1, "scheme": p.accepted.Scheme, "network": "base-sepolia",
		"payload": map[string]any{"signature": p.signature, "authorization": p.authorization},
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

// offer asks what a request costs, without its body.
func (c *client) offer(r *http.Request) x402.Requirement {
	c.t.Helper()
	r = r.Clone(r.Context())
	r.Body, r.ContentLength = nil, 0
	r.Header.Del("Expect")
	res := c.send(r)
	if res.StatusCode != http.StatusPaymentRequired {
		c.t.Fatalf("unpaid %s %s: want 402, got %v", r.Method, r.URL, res)
	}
	challenge, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired))
	if err != nil || len(challenge.Accepts) == 0 {
		c.t.Fatalf("challenge of %s %s: %v", r.Method, r.URL, err)
	}
	return challenge.Accepts[0]
}

// paying is the request with a payment for it.
func (c *client) paying(r *http.Request) *http.Request {
	c.t.Helper()
	s := sign(c.t, c.offer(r)).v2(c.t)
	r = r.Clone(r.Context())
	r.Header.Set("PAYMENT-SIGNATURE", s)
	return r
}
