package x402

import (
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/holiman/uint256"
)

// Kinds of authorization.
const (
	// KindEIP3009 is a transferWithAuthorization of the token itself.
	KindEIP3009 = "eip3009"
	// KindPermit2 is a permitWitnessTransferFrom of the Permit2 contract.
	KindPermit2 = "permit2"
	// KindSolana is a transaction that the fee payer completes.
	KindSolana = "solana"
)

// Spenders of Permit2: the official proxies, which enforce the recipient. They
// have the same address on every chain.
const (
	ExactPermit2Proxy = "0x402085c248EeA27D92E8b30b2C58ed07f9E20001"
	UptoPermit2Proxy  = "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002"
)

// clockSkew is how far in our future an authorization may begin: the payer's
// clock and the chain's need not agree with ours to the second.
const clockSkew = 5 * time.Second

// Authorization is what the payer signed, decoded.
type Authorization struct {
	// Kind is KindEIP3009, KindPermit2 or KindSolana.
	Kind string
	// Key is the same for every spelling of the same authorization, and
	// different for different ones: it is made of decoded values that the
	// signature covers, never of the signature, which has several valid forms.
	//
	//	eip3009:<chain>:<asset>:<from>:<nonce>
	//	permit2:<chain>:<owner>:<nonce>
	//	solana:<cluster>:<SHA-256 of the message>
	//
	// Asset, accounts and nonces are lower-case hexadecimal without 0x.
	Key string
	// Scheme and Network are the requirement's.
	Scheme, Network string
	// Payer is the account that pays, with EIP-55 checksum. On Solana it is the one
	// that signs beside the fee payer; "" where not just these two do, since the
	// payload alone does not tell then.
	Payer string
	// To and Token are what the signature names, in the requirement's spelling
	// where it is the same address. EIP-3009 signs the token as domain, so
	// Token is the requirement's asset. Both are "" for Solana.
	To, Token string
	// Value is in atomic units; the maximum for upto. Zero for Solana.
	Value uint256.Int
	// ValidAfter and ValidBefore are Unix seconds, capped at the largest int64.
	// Both are 0 for Solana, where the block hash limits life. ValidBefore is
	// Permit2's deadline.
	ValidAfter, ValidBefore int64
	// Nonce is as signed; zero for Solana.
	Nonce [32]byte
	// Spender, and for upto Facilitator, are who may use a Permit2 signature.
	Spender, Facilitator string
	// Signature is 65 bytes, or longer for contract wallets. Not verified.
	// Nil for Solana, where Transaction holds it.
	Signature []byte
	// Transaction is the whole Solana transaction, with its signatures.
	Transaction []byte

	signed bool // see PayerSigned
}

// Authorization decodes the payload for the requirement that it is to meet,
// which is ours and was found by Match. The error is a *Error:
// CodePaymentMalformed (or a more specific code) for what cannot be decoded,
// CodeUnsupportedPayload for another transfer method than r asks for, and
// CodeUnsupportedAuthorization where there is no rule for the key.
func (p *Payment) Authorization(r Requirement) (Authorization, error) {
	if p.Scheme != r.Scheme || p.Network != r.Network {
		return Authorization{}, refuse(CodeNoMatchingRequirements, "payment for another scheme or network")
	}
	a := Authorization{Scheme: r.Scheme, Network: r.Network}
	var err *Error
	family, chain, _ := strings.Cut(r.Network, ":")
	switch {
	case family == "eip155" && isChainID(chain) && (r.Scheme == SchemeExact || r.Scheme == SchemeUpto):
		err = a.readEVM(p.Payload, r, chain)
	case family == "solana" && chain != "" && r.Scheme == SchemeExact:
		err = a.readSolana(p.Payload, chain)
	default:
		err = refuse(CodeUnsupportedAuthorization, "no claim key for this scheme and network")
	}
	if err != nil {
		return Authorization{}, err
	}
	return a, nil
}

// TellsApart reports whether the authorizations of a network (CAIP-2) can be told
// apart before they are settled: Authorization has a rule for the key there.
func TellsApart(network string) bool {
	family, _, _ := strings.Cut(network, ":")
	return family == "eip155" || family == "solana"
}

// isChainID reports whether s is a decimal without leading zero, so that a
// chain has one spelling in keys.
func isChainID(s string) bool {
	n, ok := parseUint(s)
	return ok && !n.IsZero()
}

// readEVM reads the payload of exact and upto on EVM chains. Facilitators go
// by the payload's shape; we go by our requirement and want the shape to agree.
func (a *Authorization) readEVM(payload jsontext.Value, r Requirement, chain string) *Error {
	method, err := transferMethod(r)
	if err != nil {
		return err
	}
	var m [3]jsontext.Value
	if _, err := readObject(payload, []string{"signature", "authorization", "permit2Authorization"}, m[:]); err != nil {
		return &Error{Code: CodePaymentMalformed, Err: fmt.Errorf("payload: %w", err)}
	}
	switch {
	case m[1] != nil && m[2] != nil:
		return refuse(CodePaymentMalformed, "payload: two authorizations")
	case method == KindEIP3009 && m[1] != nil:
		return a.readEIP3009(m[1], m[0], r, chain)
	case method == KindPermit2 && m[2] != nil:
		return a.readPermit2(m[2], m[0], r, chain)
	case m[1] != nil || m[2] != nil:
		return refuse(CodeUnsupportedPayload, "payload: another transfer method than asked for")
	default:
		return refuse(CodePaymentMalformed, "payload: no authorization")
	}
}

// transferMethod returns how r wants its money moved.
func transferMethod(r Requirement) (string, *Error) {
	method, ok := extraText(r, "assetTransferMethod")
	switch {
	case !ok:
	case r.Scheme == SchemeUpto && (method == "" || method == KindPermit2):
		return KindPermit2, nil
	case r.Scheme == SchemeExact && (method == "" || method == KindEIP3009):
		return KindEIP3009, nil
	case r.Scheme == SchemeExact && method == KindPermit2:
		return KindPermit2, nil
	}
	return "", refuse(CodeUnsupportedAuthorization, "no claim key for this transfer method")
}

// extraText returns a string member of the requirement's extra: "" when it is
// absent, not ok when it is something else.
func extraText(r Requirement, name string) (s string, ok bool) {
	if len(r.Extra) == 0 {
		return "", true
	}
	var m [1]jsontext.Value
	if _, err := readObject(r.Extra, []string{name}, m[:]); err != nil {
		return "", false
	}
	if m[0] == nil {
		return "", true
	}
	return text(m[0])
}

// Check compares the authorization with the requirement and the clock, in the
// order of the official facilitators: recipient, time window, amount, and for
// Permit2 also spender and token. The error is a *Error with their codes.
//
// minLife is how much longer the authorization must live, maxLife how long it
// may: one that outlives our memory could be used again. Both count in whole
// seconds. The value must equal the amount; overpaying is refused too.
//
// A Solana transaction has none of this in the open; only its network is
// compared here, and the facilitator checks the rest.
func (a Authorization) Check(r Requirement, now time.Time, minLife, maxLife time.Duration) error {
	if a.Scheme != r.Scheme || a.Network != r.Network {
		return refuse(CodeNoMatchingRequirements, "authorization for another scheme or network")
	}
	var err *Error
	switch a.Kind {
	case KindEIP3009:
		err = a.checkEIP3009(r, now, minLife, maxLife)
	case KindPermit2:
		err = a.checkPermit2(r, now, minLife, maxLife)
	case KindSolana:
	default:
		err = refuse(CodeUnsupportedAuthorization, "authorization of no known kind")
	}
	if err != nil {
		return err
	}
	return nil
}

// checkWindow compares the times with the clock.
func (a Authorization) checkWindow(now time.Time, minLife, maxLife time.Duration, early, late Code) *Error {
	unix := now.Unix()
	if a.ValidBefore < unix || a.ValidBefore-unix < int64(minLife/time.Second) {
		return refuse(late, "ends too soon")
	}
	if a.ValidBefore-unix > int64(maxLife/time.Second) {
		return refuse(CodeLifetimeTooLong, "lives too long")
	}
	if a.ValidAfter-int64(clockSkew/time.Second) > unix {
		return refuse(early, "begins in the future")
	}
	return nil
}

// paysExactly reports whether the signed value is the requirement's amount.
func (a Authorization) paysExactly(r Requirement) bool {
	n, ok := parseUint(r.Amount)
	return ok && a.Value.Eq(&n)
}
