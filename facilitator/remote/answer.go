package remote

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// maxScheme bounds extra and extensions of an answer, which end up in a header
// of ours.
const maxScheme = 4 << 10

var (
	errNotObject = errors.New("answer is not a JSON object")
	errMember    = errors.New("member of the wrong type")
)

// members are the members of an answer that we look at, as they came. A member
// of an odd type is judged where it is used, so that one oddity does not hide
// the rest: a transaction is worth knowing whatever stands beside it.
type members struct {
	IsValid        jsontext.Value `json:"isValid"`
	InvalidReason  jsontext.Value `json:"invalidReason"`
	InvalidMessage jsontext.Value `json:"invalidMessage"`

	Success      jsontext.Value `json:"success"`
	Transaction  jsontext.Value `json:"transaction"`
	Network      jsontext.Value `json:"network"`
	Amount       jsontext.Value `json:"amount"`
	ErrorReason  jsontext.Value `json:"errorReason"`
	ErrorMessage jsontext.Value `json:"errorMessage"`

	// What only the log is told, see said.
	ErrorType     jsontext.Value `json:"errorType"`
	Error         jsontext.Value `json:"error"`
	Code          jsontext.Value `json:"code"`
	Message       jsontext.Value `json:"message"`
	CorrelationID jsontext.Value `json:"correlationId"`
	RequestID     jsontext.Value `json:"requestId"`

	Payer      jsontext.Value `json:"payer"`
	Extra      jsontext.Value `json:"extra"`
	Extensions jsontext.Value `json:"extensions"`
}

// parse reads an answer, all of it and strictly: a name that occurs twice,
// invalid UTF-8, or anything after the object makes it no answer.
func parse(body []byte) (members, error) {
	var m members
	if len(body) == 0 {
		return m, errors.New("answer is empty")
	}
	if err := json.Unmarshal(body, &m); err != nil {
		// The error itself can quote the body.
		if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
			return members{}, fmt.Errorf("answer of %d bytes is not valid JSON (at byte %d)", len(body), syntax.ByteOffset)
		}
		return members{}, errNotObject
	}
	return m, nil
}

// boolean reads a literal true or false.
func boolean(v jsontext.Value) (value, ok bool) {
	switch v.Kind() {
	case jsontext.KindTrue:
		return true, true
	case jsontext.KindFalse:
		return false, true
	default:
		return false, false
	}
}

// text reads a string. Absent and null are "", because peers in Go, Python and
// Rust send either; another type is an error.
func text(v jsontext.Value) (string, error) {
	if len(v) == 0 || v.Kind() == jsontext.KindNull {
		return "", nil
	}
	if v.Kind() != jsontext.KindString {
		return "", errMember
	}
	b, err := jsontext.AppendUnquote(nil, v)
	return string(b), err
}

// lenientText reads a string that only the log will see.
func lenientText(v jsontext.Value) string {
	s, err := text(v)
	if err != nil {
		return "(not a string)"
	}
	return s
}

// object passes an object of bounded size on, and nothing else.
func object(v jsontext.Value) jsontext.Value {
	if v.Kind() != jsontext.KindBeginObject || len(v) > maxScheme {
		return nil
	}
	return v.Clone()
}

// isEVM reports whether a CAIP-2 network is an EVM chain.
func isEVM(network string) bool { return strings.HasPrefix(network, "eip155:") }

// samePayer reports whether a facilitator's payer can be ours. Either may be
// unknown. EVM addresses differ in letter case by convention only; in other
// families case matters.
func samePayer(network, ours, theirs string) bool {
	if ours == "" || theirs == "" {
		return true
	}
	if isEVM(network) {
		return strings.EqualFold(ours, theirs)
	}
	return ours == theirs
}

// payerOf is who pays, as a facilitator says; "" if it names nobody, or itself: on Solana
// it pays the fee of all payers alike.
func payerOf(r facilitator.Request, said string) string {
	var extra struct {
		FeePayer string `json:"feePayer"`
	}
	if !isEVM(r.Requirement.Network) && json.Unmarshal(r.Requirement.Extra, &extra) == nil && said == extra.FeePayer {
		return ""
	}
	return address(said)
}

// sameNetwork reports whether a facilitator's network is the requirement's. To a
// version 1 request it may give the version 1 name.
func sameNetwork(ours, theirs string, version int) bool {
	if ours == theirs {
		return true
	}
	name, _ := x402.LegacyNetwork(ours)
	return version == x402.V1 && name != "" && name == theirs
}

var (
	evmTransaction    = regexp.MustCompile(`^0x[0-9a-fA-F]{64}$`)
	zeroTransaction   = regexp.MustCompile(`^0x0+$`)
	solanaTransaction = regexp.MustCompile(`^[1-9A-HJ-NP-Za-km-z]{64,88}$`)
	zeroSignature     = regexp.MustCompile(`^1+$`)
	anyTransaction    = regexp.MustCompile(`^[!-~]{1,200}$`)
	anyAddress        = regexp.MustCompile(`^[!-~]{1,128}$`)
)

// address passes on what can be an address, and nothing else.
func address(s string) string {
	if anyAddress.MatchString(s) {
		return s
	}
	return ""
}

// plausible reports whether tx can be the id of a transaction on network. Whether
// it is one, only the chain knows.
func plausible(network, tx string) bool {
	switch {
	case isEVM(network):
		return evmTransaction.MatchString(tx) && !zeroTransaction.MatchString(tx)
	case strings.HasPrefix(network, "solana:"):
		// A signature is 64 bytes, in base58 mostly 87 or 88 digits.
		return solanaTransaction.MatchString(tx) && !zeroSignature.MatchString(tx)
	default:
		return anyTransaction.MatchString(tx)
	}
}
