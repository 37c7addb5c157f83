package promises

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	solanaDevnet = "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1"
	solanaPayTo  = "CmGgLQL36Y9ubtTsy2zmE46TAxwCBm66onZmPPhUWNqv"
	// A transaction id on Solana: base58 of 64 bytes.
	solanaTx = "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3ZpRzrFmBV6UjKdiSZkQUW"
)

// Solana needs the facilitator's fee payer in the offer, and the message of its
// transaction is what may be used once, whatever the signatures around it.
func TestSolanaMessageBuysOnce(t *testing.T) {
	w := gate.New(t, "accept solana-devnet usdc "+solanaPayTo+"\nprice /paid/* $0.01")
	// Without a fee payer nothing can be offered.
	res := w.Get("/paid/x")
	w.Expect(res, 503, "no_facilitator")
	if res.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}

	w = gate.Prepare(t)
	w.Facilitator.Kinds.Store(`{"kinds":[{"x402Version":2,"scheme":"exact","network":"` + solanaDevnet + `","extra":{"feePayer":"2wKupLR9q6wXYppw8Gr2NvWxKBUqm4PPJKkQfoxHDBg4"}}],"extensions":[],"signers":{}}`)
	w.Load(w.Caddyfile("accept solana-devnet usdc " + solanaPayTo + "\nprice /paid/* $0.01"))
	w.Until(func() bool { return w.Get("/paid/x").StatusCode == 402 })
	w.Facilitator.OnSettle(gate.Says(200, `{"success":true,"transaction":"`+solanaTx+`","network":"`+solanaDevnet+`"}`))

	c := w.Challenge(http.MethodGet, "/paid/x")
	if c.Accepts[0].Network != solanaDevnet || !strings.Contains(string(c.Accepts[0].Extra), "feePayer") {
		t.Fatalf("%+v", c.Accepts)
	}
	message := []byte{1, 0, 1, 2}
	message = append(message, random(t, 64)...)        // accounts
	message = append(message, random(t, 32)...)        // block hash
	message = append(message, 1, 1, 1, 0, 1, 9)        // an instruction
	transaction := append([]byte{1}, random(t, 64)...) // a signature
	resigned := append([]byte{1}, random(t, 64)...)    // another one
	first := append(transaction, message...)           //nolint:gocritic // not reused
	second := append(resigned, message...)             //nolint:gocritic // not reused
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", solanaPayment(t, c, first)), 200, "")
	w.Expect(w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", solanaPayment(t, c, second)) }), 402, "payment_already_used")
	if w.Facilitator.Settled.Load() != 1 {
		t.Error(w.Facilitator.Settled.Load())
	}
}

func solanaPayment(t *testing.T, c x402.Challenge, transaction []byte) string {
	t.Helper()
	return gate.Encode(t, map[string]any{
		"x402Version": 2, "accepted": c.Accepts[0],
		"payload": map[string]string{"transaction": base64.StdEncoding.EncodeToString(transaction)},
	})
}

func random(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// A facilitator that lists no version 1 gets version 1 payments translated;
// one that does gets them as they are.
func TestFacilitatorGetsTheVersionItLists(t *testing.T) {
	for kinds, want := range map[string]int{
		`{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:84532"}],"extensions":[],"signers":{}}`:                                                             2,
		`{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:84532"},{"x402Version":1,"scheme":"exact","network":"base-sepolia"}],"extensions":[],"signers":{}}`: 1,
	} {
		w := gate.Prepare(t)
		w.Facilitator.Kinds.Store(kinds)
		w.Load(w.Caddyfile("price /paid/* $0.01"))
		w.WaitForLog("facilitator is up")
		s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V1(t)
		var version int
		w.Facilitator.OnVerify(func(rw http.ResponseWriter, r *http.Request) {
			var body struct{ X402Version int }
			raw, _ := io.ReadAll(r.Body)
			_ = json.Unmarshal(raw, &body)
			version = body.X402Version
			gate.Says(200, `{"isValid":true}`)(rw, r)
		})
		w.Expect(w.Get("/paid/x", "X-PAYMENT", s), 200, "")
		if version != want {
			t.Errorf("asked in version %d, want %d", version, want)
		}
	}
}
