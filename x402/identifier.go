package x402

import (
	"github.com/go-json-experiment/json/jsontext"
)

// paymentIdentifier is the extension by which a payer names a purchase, so that
// a retry is recognised whatever it is signed with.
const paymentIdentifier = "payment-identifier"

// Bounds of an identifier, in characters.
const (
	minIdentifier = 16
	maxIdentifier = 128
)

// PaymentIdentifier declares the payment-identifier extension in a challenge,
// as one that payers may use and need not.
var PaymentIdentifier = jsontext.Value(`{"payment-identifier":{"info":{"required":false},"schema":` +
	`{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":` +
	`{"required":{"type":"boolean"},"id":{"type":"string","minLength":16,"maxLength":128,"pattern":"^[a-zA-Z0-9_-]+$"}},` +
	`"required":["required"]}}}`)

// Identifier returns the payment-identifier that the payer gave, or "". The
// error is a *Error: what is there is not 16 to 128 of A-Z, a-z, 0-9, _ and -.
func (p *Payment) Identifier() (string, error) {
	value := p.Extensions
	for _, name := range []string{paymentIdentifier, "info", "id"} {
		if len(value) == 0 {
			return "", nil
		}
		if !isObject(value) {
			return "", refuse(CodeExtensionEchoMismatch, "payment-identifier: not an object")
		}
		var member [1]jsontext.Value
		if _, err := readObject(value, []string{name}, member[:]); err != nil {
			return "", refuse(CodeExtensionEchoMismatch, "payment-identifier: malformed")
		}
		value = member[0]
	}
	if value == nil {
		return "", nil
	}
	s, ok := text(value)
	if !ok || len(s) < minIdentifier || len(s) > maxIdentifier {
		return "", refuse(CodeExtensionEchoMismatch, "payment-identifier: the id is no text of 16 to 128 characters")
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return "", refuse(CodeExtensionEchoMismatch, "payment-identifier: the id has other characters than letters, digits, _ and -")
		}
	}
	return s, nil
}
