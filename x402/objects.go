// Package x402 is the x402 protocol, versions 1 and 2, as a server speaks it:
// the objects, their header codecs, and the matching of a payment against our
// own requirements. It does no I/O and knows nothing of Caddy.
//
// Values that only pass through (accepted, payload, extensions, extra) stay
// raw JSON, so that a facilitator sees what the payer sent.
package x402

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Schemes.
const (
	// SchemeExact: the amount is charged.
	SchemeExact = "exact"
	// SchemeUpto: what is charged, up to the amount, is known when the goods are given.
	SchemeUpto = "upto"
)

// Protocol versions.
const (
	V1 = 1
	V2 = 2
)

// Requirement is one way to pay for a request: a PaymentRequirements object of
// x402 version 2. Version 1 is derived from it.
type Requirement struct {
	// Scheme is the payment scheme, for example "exact".
	Scheme string `json:"scheme"`
	// Network is a CAIP-2 chain id, for example "eip155:8453".
	Network string `json:"network"`
	// Amount is in atomic units of the asset, a decimal string.
	Amount string `json:"amount"`
	// Asset is the token's address on the network.
	Asset string `json:"asset"`
	// PayTo is who receives the money.
	PayTo string `json:"payTo"`
	// MaxTimeoutSeconds is how long an authorization may live, in seconds.
	MaxTimeoutSeconds int `json:"maxTimeoutSeconds"`
	// Extra is a JSON object with what the scheme needs. Nil is written as {}.
	Extra jsontext.Value `json:"extra"`
	// Quote is what the server wants to see again of who accepts, or "". Clients see it in
	// the extra of version 2.
	Quote string `json:"-"`
}

// MarshalJSON writes the object with its extra, at least as {}: official
// servers compare extra, and not all take an absent one for an empty one.
func (r Requirement) MarshalJSON() ([]byte, error) {
	type plain Requirement // without this method
	r.Extra = r.extra()
	if r.Quote != "" {
		r.Extra = withQuote(r.Extra, r.Quote)
	}
	return json.Marshal(plain(r))
}

// UnmarshalJSON reads what MarshalJSON writes.
func (r *Requirement) UnmarshalJSON(b []byte) error {
	type plain Requirement // without this method
	if err := json.Unmarshal(b, (*plain)(r)); err != nil {
		return err
	}
	r.Extra, r.Quote = splitQuote(r.Extra)
	return nil
}

// extra returns Extra, never nil.
func (r Requirement) extra() jsontext.Value {
	if len(r.Extra) == 0 {
		return jsontext.Value("{}")
	}
	return r.Extra
}

// Resource says what a challenge is for.
type Resource struct {
	URL         string `json:"url"`
	Description string `json:"description"`
	MimeType    string `json:"mimeType"`
}

// Payment is what a client sent in PAYMENT-SIGNATURE (version 2) or X-PAYMENT
// (version 1), decoded but not yet believed.
type Payment struct {
	// Version is V1 or V2; the header and the object agree on it.
	Version int
	// Scheme and Network are the payer's choice. Network is always CAIP-2, also
	// when version 1 named it otherwise.
	Scheme  string
	Network string
	// Accepted is the requirement the payer chose (version 2 only).
	Accepted jsontext.Value
	// Payload is the scheme's own object: what was signed, and the signature.
	Payload jsontext.Value
	// Extensions is the payer's echo of our extensions; may be nil.
	Extensions jsontext.Value
	// Resource is the payer's copy of the challenge's resource; may be nil.
	// Nothing signs it, so nothing is decided by it.
	Resource jsontext.Value
	// Raw is the whole object as it came, but for the spelling of its version and of the
	// numbers that are signed.
	Raw jsontext.Value
}

// Receipt tells a payer what became of a payment: a SettleResponse. Success,
// Transaction and Network are always present on the wire.
type Receipt struct {
	Success      bool           `json:"success"`
	Transaction  string         `json:"transaction"`
	Network      string         `json:"network"`
	Payer        string         `json:"payer,omitzero"`
	Amount       string         `json:"amount,omitzero"`
	ErrorReason  string         `json:"errorReason,omitzero"`
	ErrorMessage string         `json:"errorMessage,omitzero"`
	Extensions   jsontext.Value `json:"extensions,omitzero"`
	Extra        jsontext.Value `json:"extra,omitzero"`
}

// Kind is one thing a facilitator can do.
type Kind struct {
	X402Version int            `json:"x402Version"`
	Scheme      string         `json:"scheme"`
	Network     string         `json:"network"`
	Extra       jsontext.Value `json:"extra,omitzero"`
}

// Supported is a facilitator's answer to GET /supported.
type Supported struct {
	Kinds      []Kind              `json:"kinds"`
	Extensions []string            `json:"extensions"`
	Signers    map[string][]string `json:"signers"`
}
