package x402

import (
	"bytes"
	"reflect"

	"github.com/go-json-experiment/json/jsontext"
)

// One returns the one payment that several are which came with a request: in two headers, as
// some wallets send them for servers of both versions, or in one header twice. What was
// signed makes them one, and not how it is written; of two versions it is version 2, which
// says more. The error is a *Error with CodeAmbiguousPayment where they differ.
func One(payments ...*Payment) (*Payment, error) {
	var one *Payment
	for _, p := range payments {
		switch {
		case one == nil:
			one = p
		case !same(one, p):
			return nil, refuse(CodeAmbiguousPayment, "more than one payment")
		case p.Version > one.Version:
			one = p
		}
	}
	return one, nil
}

// same reports whether two payments are one: the same was signed, by the same signature, and
// neither says of it what the other denies.
func same(a, b *Payment) bool {
	if a.Scheme != b.Scheme || a.Network != b.Network {
		return false
	}
	if a.Version == V2 && b.Version == V2 && (!equalJSON(a.Accepted, b.Accepted) || !equalJSON(a.Extensions, b.Extensions)) {
		return false
	}
	return equalJSON(a.Payload, b.Payload) || sameSigned(a, b)
}

// sameSigned reports whether two payloads are the same authorization with the same signature,
// in other words: letters of addresses in another case, say.
func sameSigned(a, b *Payment) bool {
	for _, method := range []string{KindEIP3009, KindPermit2} {
		r := Requirement{Scheme: a.Scheme, Network: a.Network, Asset: ExactPermit2Proxy} // any address: both have it
		r.Extra = jsontext.Value(`{"assetTransferMethod":"` + method + `"}`)
		x, err := a.Authorization(r)
		y, other := b.Authorization(r)
		if err == nil && other == nil {
			return reflect.DeepEqual(x, y)
		}
	}
	return false
}

// equalJSON compares values as JSON: the order of members, white space and escapes say
// nothing. Numbers are compared as they are written.
func equalJSON(a, b jsontext.Value) bool {
	if bytes.Equal(a, b) {
		return true
	}
	a, b = a.Clone(), b.Clone()
	opts := []jsontext.Options{jsontext.ReorderRawObjects(true), jsontext.Multiline(false), jsontext.CanonicalizeRawInts(false), jsontext.CanonicalizeRawFloats(false), jsontext.PreserveRawStrings(false)}
	return len(a) > 0 && len(b) > 0 && a.Format(opts...) == nil && b.Format(opts...) == nil && bytes.Equal(a, b)
}
