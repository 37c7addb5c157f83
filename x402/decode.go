package x402

import (
	"bytes"
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
//   - CodeAmbiguousPayment for two of them, in two headers, two values or a list, unless
//     they are the same; see One. Whoever reads the headers after us might pick the other
//     one.
//   - CodePaymentTooLarge above MaxHeaderBytes.
//   - CodeUnsupportedVersion when x402Version is not the header's.
//   - CodeNoMatchingRequirements for a version 1 network name we do not know.
//   - CodePaymentMalformed for the rest.
//
// PAYMENT-SIGNATURE is version 2; X-PAYMENT is version 1, but some payers put an object of
// version 2 there. Nothing here is believed yet; of the payload only the spelling of numbers
// is looked into: see plain.
func Decode(h http.Header) (*Payment, error) {
	v2, x := h[HeaderPaymentSignature], h[HeaderXPayment]
	switch {
	case len(v2) == 0 && len(x) == 0:
		return nil, nil
	case len(x) == 0:
		return DecodeV2(v2)
	case len(v2) == 0:
		return DecodeXPayment(x)
	}
	p, err := DecodeV2(v2)
	q, other := DecodeXPayment(x)
	if err != nil || other != nil {
		return nil, refuse(CodeAmbiguousPayment, "one of two payment headers cannot be read")
	}
	return One(p, q)
}

// DecodeV2 reads the values of a PAYMENT-SIGNATURE header; its errors are those of Decode.
func DecodeV2(values []string) (*Payment, error) { return decodeValues(values, decodeV2) }

// DecodeXPayment reads the values of an X-PAYMENT header; its errors are those of Decode.
func DecodeXPayment(values []string) (*Payment, error) { return decodeValues(values, decodeXPayment) }

// maxCopies is how often a header may have the same payment.
const maxCopies = 2

// decodeValues reads the one payment that the values of a header are. A proxy may have made a
// list of two.
func decodeValues(values []string, decode func(jsontext.Value) (*Payment, error)) (*Payment, error) {
	if len(values) == 1 && strings.IndexByte(values[0], ',') < 0 {
		raw, err := decodeHeader(values[0])
		if err != nil {
			return nil, err
		}
		return decode(raw)
	}
	var all []*Payment
	for _, list := range values {
		for value := range strings.SplitSeq(list, ",") {
			raw, err := decodeHeader(strings.Trim(value, " \t"))
			if err == nil && len(all) < maxCopies {
				var p *Payment
				if p, err = decode(raw); err == nil {
					all = append(all, p)
					continue
				}
			}
			return nil, refuse(CodeAmbiguousPayment, "more than one payment in a header")
		}
	}
	return One(all...)
}

// decodeHeader bounds a payment header and takes off its base64.
func decodeHeader(s string) (jsontext.Value, error) {
	if len(s) > MaxHeaderBytes {
		return nil, refuse(CodePaymentTooLarge, "payment header too long")
	}
	if s == "" {
		return nil, refuse(CodePaymentMalformed, "empty payment header")
	}
	raw, err := decodeBase64(s)
	raw = bytes.TrimPrefix(raw, bom)
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
	p.plain(m[0])
	return p, nil
}

// decodeXPayment reads what X-PAYMENT holds: an object of version 1, or of version 2.
func decodeXPayment(raw jsontext.Value) (*Payment, error) {
	var m [4]jsontext.Value
	if _, err := readObject(raw, namesV1, m[:]); err != nil {
		return nil, &Error{Code: CodePaymentMalformed, Err: err}
	}
	if checkVersion(m[0], V2) == nil {
		return decodeV2(raw)
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
	p.plain(m[0])
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

// checkVersion wants a number: "2" is none to the official servers either. One that is
// spelled 2.0 is not read by all facilitators; see plain.
func checkVersion(v jsontext.Value, want int) *Error {
	if digits, ok := wholeNumber(v); ok && digits == strconv.Itoa(want) {
		return nil
	}
	return refuse(CodeUnsupportedVersion, fmt.Sprintf("x402Version: not the number %d that the header stands for", want))
}
