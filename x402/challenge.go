package x402

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxChallengeBytes bounds a header that a server sent to our client.
const maxChallengeBytes = 64 << 10

// Challenge is a PaymentRequired object of version 2, as a client reads it.
type Challenge struct {
	// Error is why the request was refused; may be empty.
	Error string
	// Resource says what the challenge is for.
	Resource Resource
	// Accepts are the ways to pay, best first for the seller.
	Accepts []Requirement
	// RawAccepts are the same as they came. A payment repeats the chosen one
	// unchanged, members that we do not know included.
	RawAccepts []jsontext.Value
	// RawResource and Extensions are repeated by a payment too; may be nil.
	RawResource, Extensions jsontext.Value
}

// DecodeChallenge reads a PAYMENT-REQUIRED header.
func DecodeChallenge(header string) (Challenge, error) {
	if len(header) > maxChallengeBytes {
		return Challenge{}, errors.New("challenge: header too long")
	}
	b, err := decodeBase64(header)
	if err == nil {
		err = bounded(b, maxReceiptDepth)
	}
	if err != nil {
		return Challenge{}, fmt.Errorf("challenge: %w", err)
	}
	var w struct {
		X402Version int              `json:"x402Version"`
		Error       string           `json:"error"`
		Resource    jsontext.Value   `json:"resource"`
		Accepts     []jsontext.Value `json:"accepts"`
		Extensions  jsontext.Value   `json:"extensions"`
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return Challenge{}, fmt.Errorf("challenge: %w", err)
	}
	if w.X402Version != V2 {
		return Challenge{}, fmt.Errorf("challenge: x402Version is %d, not %d", w.X402Version, V2)
	}
	c := Challenge{
		Error: w.Error, RawAccepts: w.Accepts,
		RawResource: notNull(w.Resource), Extensions: notNull(w.Extensions),
	}
	if c.RawResource != nil {
		if err := json.Unmarshal(c.RawResource, &c.Resource); err != nil {
			return Challenge{}, fmt.Errorf("challenge: resource: %w", err)
		}
	}
	c.Accepts = make([]Requirement, len(w.Accepts))
	for i, raw := range w.Accepts {
		if err := json.Unmarshal(raw, &c.Accepts[i]); err != nil {
			return Challenge{}, fmt.Errorf("challenge: accepts[%d]: %w", i, err)
		}
		c.Accepts[i].Extra = notNull(c.Accepts[i].Extra)
	}
	return c, nil
}
