package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// vector is a payment of the official clients.
type vector struct {
	Name           string
	Challenge      string          `json:"paymentRequiredHeader"`
	Body402        json.RawMessage `json:"body402"`
	PaymentPayload json.RawMessage `json:"paymentPayload"`
	V2             string          `json:"paymentSignatureHeader"`
	V1             string          `json:"xPaymentHeader"`
	TypedData      []struct {
		Domain  json.RawMessage
		Message json.RawMessage
		Digest  common.Hash
	}
}

func readVectors(t *testing.T, file string) (clock int64, list []vector) {
	t.Helper()
	b, err := os.ReadFile("../x402/testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		ClockUnixSeconds int64
		Vectors          []vector
	}
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	for _, v := range all.Vectors {
		if v.V1 != "" || v.V2 != "" {
			list = append(list, v)
		}
	}
	return all.ClockUnixSeconds, list
}

// TestVectors: with the clock and the nonce of the official clients we sign what
// they sign, and send the same object.
func TestVectors(t *testing.T) {
	files := map[string]int{"exact-evm-eip3009.json": 4, "exact-evm-v1.json": 1, "exact-evm-permit2.json": 3, "upto-evm-permit2.json": 1}
	for file, want := range files {
		clock, list := readVectors(t, file)
		if len(list) != want {
			t.Errorf("%s: %d vectors, want %d", file, len(list), want)
		}
		for _, v := range list {
			if v.Name == "permit2-with-erc20-approval-gas-sponsoring" {
				continue // we sign no transactions
			}
			t.Run(v.Name, func(t *testing.T) { testVector(t, clock, v) })
		}
	}
}

func testVector(t *testing.T, clock int64, v vector) {
	name, want := x402.HeaderPaymentSignature, v.V2
	if v.V1 != "" {
		name, want = x402.HeaderXPayment, v.V1
	}
	payload, _ := base64.StdEncoding.DecodeString(want)
	var official struct {
		Payload struct {
			Authorization        authorization
			Permit2Authorization permitAuthorization
		}
	}
	if err := json.Unmarshal(payload, &official); err != nil {
		t.Fatal(err)
	}
	nonce := official.Payload.Permit2Authorization.Nonce
	if nonce == "" {
		nonce = official.Payload.Authorization.Nonce
	}
	random, ok := new(big.Int).SetString(nonce, 0)
	if !ok {
		t.Fatal(nonce)
	}
	seller := newSeller(t)
	seller.challenge = func(w http.ResponseWriter) {
		if v.Challenge != "" {
			w.Header().Set(x402.HeaderPaymentRequired, v.Challenge)
		}
		w.WriteHeader(http.StatusPaymentRequired)
		_, _ = w.Write(v.Body402)
	}
	asked := 0
	c := &Client{
		Key:     testKey(t),
		Now:     func() time.Time { return time.Unix(clock, 0) },
		Random:  bytes.NewReader(random.FillBytes(make([]byte, 32))),
		Confirm: func(_ context.Context, p *Payment) error { asked++; checkTypedData(t, p, v); return nil },
	}
	if v.Name == "permit2-with-eip2612-gas-sponsoring" {
		c.RPC = newNode(t, 0, 3)
	}
	result, err := c.Do(seller.get(t, "/"))
	if err != nil || result.Outcome != Delivered || asked != 1 {
		t.Fatalf("%+v, %v, asked %d times", result, err, asked)
	}
	result.Response.Body.Close()
	sent := seller.paid()
	if len(sent) != 1 || sent[0].header != name {
		t.Fatalf("sent %v", sent)
	}
	got, _ := base64.StdEncoding.DecodeString(sent[0].value)
	sameJSON(t, "payment", got, payload)
}

func checkTypedData(t *testing.T, p *Payment, v vector) {
	t.Helper()
	b, err := json.Marshal(p.TypedData())
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Domain, Message json.RawMessage
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	signed := v.TypedData[0]
	for _, data := range v.TypedData {
		if p.Offer.Permit2() && bytes.Contains(data.Domain, []byte(`"Permit2"`)) {
			signed = data // beside the token's own permit
		}
	}
	sameJSON(t, "domain", got.Domain, signed.Domain)
	sameJSON(t, "message", got.Message, signed.Message)
	if digest := common.Hash(p.digest()); digest != signed.Digest {
		t.Errorf("digest %s, want %s", digest, signed.Digest)
	}
	header, object, err := p.Preview()
	if err != nil || header == "" || bytes.Contains(object, []byte(`"signature":"0x0`)) || !bytes.Contains(object, []byte(`"signature":"0x"`)) {
		t.Errorf("preview %s: %s, %v", header, object, err)
	}
}

func sameJSON(t *testing.T, what string, got, want []byte) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal(got, &a); err != nil {
		t.Fatalf("%s: %v in %s", what, err, got)
	}
	if err := json.Unmarshal(want, &b); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%s:\ngot  %s\nwant %s", what, got, want)
	}
}
