package x402

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// The members we read of a payment. Everything else is kept in Payment.Raw.
var (
	namesV2       = []string{"x402Version", "accepted", "payload", "extensions", "resource"}
	namesV1       = []string{"x402Version", "scheme", "network", "payload"}
	namesAccepted = []string{"scheme", "network", "amount", "asset", "payTo", "maxTimeoutSeconds", "extra"}
)

// Decode reads the payment from a request's headers. It returns nil, nil when
// there is none, and a *Error for everything but one well-formed payment:
//
//   - CodeAmbiguousPayment for two values, two headers or a list. Whoever
//     reads the headers after us might pick the other one.
//   - CodePaymentTooLarge above MaxHeaderBytes.
//   - CodeUnsupportedVersion when x402Version is not the header's.
//   - CodeNoMatchingRequirements for a version 1 network name we do not know.
//   - CodePaymentMalformed for the rest.
//
// The header chooses the parser: PAYMENT-SIGNATURE is version 2, X-PAYMENT
// version 1. Nothing here is believed yet; the payload is not looked into.
func Decode(h http.Header) (*Payment, error) {
	v2, v1 := h[HeaderPaymentSignature], h[HeaderXPayment]
	switch len(v2) + len(v1) {
	case 0:
		return nil, nil
	case 1:
	default:
		return nil, refuse(CodeAmbiguousPayment, "more than one payment header")
	}
	if len(v2) == 1 {
		return DecodeV2(v2[0])
	}
	return DecodeV1(v1[0])
}

// DecodeV2 reads the value of a PAYMENT-SIGNATURE header; its errors are those of Decode.
func DecodeV2(header string) (*Payment, error) {
	raw, err := decodeHeader(header)
	if err != nil {
		return nil, err
	}
	return decodeV2(raw)
}

// DecodeV1 reads the value of an X-PAYMENT header; its errors are those of Decode.
func DecodeV1(header string) (*Payment, error) {
	raw, err := decodeHeader(header)
	if err != nil {
		return nil, err
	}
	return decodeV1(raw)
}

// decodeHeader bounds a payment header and takes off its base64.
func decodeHeader(s string) (jsontext.Value, error) {
	if len(s) > MaxHeaderBytes {
		return nil, refuse(CodePaymentTooLarge, "payment header too long")
	}
	if strings.IndexByte(s, ',') >= 0 {
		return nil, refuse(CodeAmbiguousPayment, "list of payments in one header")
	}
	if s == "" {
		return nil, refuse(CodePaymentMalformed, "empty payment header")
	}
	raw, err := decodeBase64(s)
	if err == nil {
		err = bounded(raw, MaxDepth)
	}
	if err != nil {
		return nil, &Error{Code: CodePaymentMalformed, Err: err}
	}
	return raw, nil
}

func decodeV2(raw jsontext.Value) (*Payment, error) {
	var m [5]jsontext.Value
	if _, err := readObject(raw, namesV2, m[:]); err != nil {
		return nil, &Error{Code: CodePaymentMalformed, Err: err}
	}
	if err := checkVersion(m[0], V2); err != nil {
		return nil, err
	}
	p := &Payment{Version: V2, Accepted: m[1], Payload: m[2], Extensions: m[3], Resource: m[4], Raw: raw}
	var a [7]jsontext.Value
	if _, err := readObject(p.Accepted, namesAccepted, a[:]); err != nil {
		return nil, &Error{Code: CodePaymentMalformed, Err: fmt.Errorf("accepted: %w", err)}
	}
	if err := p.choose(a[0], a[1]); err != nil {
		return nil, err
	}
	if strings.IndexByte(p.Network, ':') < 0 {
		return nil, refuse(CodePaymentMalformed, "accepted.network: not a CAIP-2 chain id, as version 2 has them")
	}
	if p.Extensions != nil && !isObject(p.Extensions) {
		return nil, refuse(CodePaymentMalformed, "extensions: not a JSON object")
	}
	return p, nil
}

func decodeV1(raw jsontext.Value) (*Payment, error) {
	var m [4]jsontext.Value
	if _, err := readObject(raw, namesV1, m[:]); err != nil {
		return nil, &Error{Code: CodePaymentMalformed, Err: err}
	}
	if err := checkVersion(m[0], V1); err != nil {
		return nil, err
	}
	p := &Payment{Version: V1, Payload: m[3], Raw: raw}
	if err := p.choose(m[1], m[2]); err != nil {
		return nil, err
	}
	network, ok := caip2(p.Network)
	if !ok {
		return nil, refuse(CodeNoMatchingRequirements, "network: not a name of version 1")
	}
	p.Network = network
	return p, nil
}

// choose takes what both versions must have: scheme, network and a payload.
func (p *Payment) choose(scheme, network jsontext.Value) *Error {
	var ok bool
	if p.Scheme, ok = text(scheme); !ok || p.Scheme == "" {
		return refuse(CodePaymentMalformed, "scheme: not a string with content")
	}
	if p.Network, ok = text(network); !ok || p.Network == "" {
		return refuse(CodePaymentMalformed, "network: not a string with content")
	}
	if !isObject(p.Payload) {
		return refuse(CodePaymentMalformed, "payload: not a JSON object")
	}
	return nil
}

// checkVersion wants the number in its plain spelling: what else equals it
// (2.0, "2") is read differently by different facilitators.
func checkVersion(v jsontext.Value, want int) *Error {
	if string(v) == strconv.Itoa(want) {
		return nil
	}
	return refuse(CodeUnsupportedVersion, fmt.Sprintf("x402Version: not the number %d that the header stands for", want))
}
