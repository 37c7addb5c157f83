package x402

import (
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// paymentV2 is a PaymentPayload of version 2.
type paymentV2 struct {
	X402Version int            `json:"x402Version"`
	Payload     jsontext.Value `json:"payload"`
	Extensions  jsontext.Value `json:"extensions,omitzero"`
	Resource    jsontext.Value `json:"resource,omitzero"`
	Accepted    jsontext.Value `json:"accepted"`
}

// paymentV1 is a PaymentPayload of version 1.
type paymentV1 struct {
	X402Version int            `json:"x402Version"`
	Scheme      string         `json:"scheme"`
	Network     string         `json:"network"`
	Payload     jsontext.Value `json:"payload"`
}

// EncodePayment returns the header, name and value, that carries the payment.
// It reads Version, Payload, and for version 2 Accepted, Extensions and
// Resource, for version 1 Scheme and Network. Raw is ignored.
func EncodePayment(p *Payment) (header, value string, err error) {
	if !isObject(p.Payload) {
		return "", "", errors.New("payment without payload")
	}
	var b []byte
	switch p.Version {
	case V2:
		if !isObject(p.Accepted) {
			return "", "", errors.New("version 2 payment without accepted requirement")
		}
		header = HeaderPaymentSignature
		b, err = json.Marshal(paymentV2{V2, p.Payload, p.Extensions, p.Resource, p.Accepted})
	case V1:
		name, _ := LegacyNetwork(p.Network)
		if name == "" {
			return "", "", fmt.Errorf("network %q has no name in version 1", p.Network)
		}
		header = HeaderXPayment
		b, err = json.Marshal(paymentV1{V1, p.Scheme, name, p.Payload})
	default:
		return "", "", fmt.Errorf("x402 version %d", p.Version)
	}
	if err != nil {
		return "", "", fmt.Errorf("encoding payment: %w", err)
	}
	return header, base64.StdEncoding.EncodeToString(b), nil
}
