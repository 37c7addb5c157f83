package x402

import (
	"encoding/base64"
	"errors"
	"strings"
)

// Header names, in the canonical form of net/http.
const (
	// HeaderPaymentRequired carries a version 2 challenge.
	HeaderPaymentRequired = "Payment-Required"
	// HeaderPaymentSignature carries a version 2 payment.
	HeaderPaymentSignature = "Payment-Signature"
	// HeaderPaymentResponse carries a version 2 receipt.
	HeaderPaymentResponse = "Payment-Response"
	// HeaderXPayment carries a version 1 payment.
	HeaderXPayment = "X-Payment"
	// HeaderXPaymentResponse carries a version 1 receipt.
	HeaderXPaymentResponse = "X-Payment-Response"
)

// Limits of what we read from a payer. An honest payment with gas sponsoring
// and a contract wallet's signature needs 6 kB and 10 levels.
const (
	// MaxHeaderBytes is the longest payment header we read, before base64.
	MaxHeaderBytes = 16 << 10
	// MaxDepth is how deep its JSON may nest.
	MaxDepth = 16
	// MaxNumber is how many characters a JSON number may have.
	MaxNumber = 32
	// MaxDigits is how many it may have where all are digits: as many as the largest number
	// that is signed, which some libraries write as a number.
	MaxDigits = 78
)

// errBase64 has no detail: the position would not help, and the text is the
// payer's.
var errBase64 = errors.New("not base64")

// decodeBase64 reads base64 in the four dialects that clients send: standard
// or URL-safe alphabet, padded or not. It refuses everything else that would
// decode to the same bytes (white space, control bytes, wrong padding, loose
// trailing bits), so that one text has at most four spellings.
func decodeBase64(s string) ([]byte, error) {
	// encoding/base64 skips these two even when strict.
	if strings.ContainsAny(s, "\r\n") {
		return nil, errBase64
	}
	enc := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		enc = base64.RawURLEncoding
	}
	if strings.HasSuffix(s, "=") {
		enc = enc.WithPadding(base64.StdPadding)
	}
	b, err := enc.Strict().DecodeString(s)
	if err != nil {
		return nil, errBase64
	}
	return b, nil
}
