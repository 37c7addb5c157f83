package x402

import (
	"bytes"
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
	// Accepts are the ways to pay, best first for the seller. One that cannot be
	// read is empty, and Unread says why, at the same place.
	Accepts []Requirement
	Unread  []error
	// RawAccepts are the same as they came. A payment repeats the chosen one
	// unchanged, members that we do not know included.
	RawAccepts []jsontext.Value
	// RawResource and Extensions are repeated by a payment too; may be nil.
	RawResource, Extensions jsontext.Value
}

// DecodeChallenge reads a PAYMENT-REQUIRED header. It is for clients, and takes
// what it can: the next version's idea of an offer, or a text that is none, is
// no reason to leave the offers beside it unpaid.
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
	b = bytes.ToValidUTF8(b, []byte("\ufffd")) // as JavaScript reads it
	var w struct {
		X402Version int              `json:"x402Version"`
		Error       jsontext.Value   `json:"error"`
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
		RawAccepts: w.Accepts, Accepts: make([]Requirement, len(w.Accepts)), Unread: make([]error, len(w.Accepts)),
		RawResource: notNull(w.Resource),
	}
	c.Error, _ = text(w.Error)
	if isObject(w.Extensions) { // servers refuse an echo of anything else
		c.Extensions = w.Extensions
	}
	if c.RawResource != nil && json.Unmarshal(c.RawResource, &c.Resource) != nil {
		c.Resource = Resource{}
	}
	for i, raw := range w.Accepts {
		if c.Accepts[i], err = readRequirement(raw); err != nil {
			c.Accepts[i], c.Unread[i] = Requirement{}, err
		}
	}
	return c, nil
}

func readRequirement(raw jsontext.Value) (r Requirement, err error) {
	if !isObject(raw) { // null would be read as an empty one
		return r, errNotObject
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, err
	}
	r.Extra = notNull(r.Extra)
	return r, nil
}
