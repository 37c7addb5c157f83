package x402

import "errors"

// Code is a stable machine code that a payer sees as the error of a challenge
// or a receipt. Codes are constants of this package, or a facilitator's reason
// that SafeCode let through: never text of the payer.
type Code string

// Codes of the gate itself.
const (
	// CodePaymentRequired is not a failure: the request came without payment.
	// It is the official text, the only one that is no snake_case.
	CodePaymentRequired Code = "Payment required"

	// CodePaymentMalformed: the payment header cannot be understood.
	CodePaymentMalformed Code = "payment_malformed"
	// CodePaymentTooLarge: the payment header is larger than MaxHeaderBytes.
	CodePaymentTooLarge Code = "payment_too_large"
	// CodeAmbiguousPayment: more than one payment came with the request, and they differ.
	CodeAmbiguousPayment Code = "ambiguous_payment"
	// CodeUnsupportedVersion: the x402Version is none of ours, or another than
	// the header's.
	CodeUnsupportedVersion Code = "unsupported_version"
	// CodeNoMatchingRequirements: the payment chose something we do not offer.
	CodeNoMatchingRequirements Code = "no_matching_requirements"
	// CodeExtensionEchoMismatch: the payment changed an extension that we own.
	CodeExtensionEchoMismatch Code = "extension_echo_mismatch"
	// CodeUnsupportedAuthorization: there is no rule that tells one
	// authorization of this scheme and network family from another.
	CodeUnsupportedAuthorization Code = "unsupported_authorization"
	// CodeLifetimeTooLong: the authorization lives longer than we remember it.
	CodeLifetimeTooLong Code = "authorization_lifetime_too_long"

	// CodePaymentInvalid: a facilitator refused, for a reason that is no code.
	CodePaymentInvalid Code = "payment_invalid"
	// CodePaymentAlreadyUsed: the authorization has bought something before.
	CodePaymentAlreadyUsed Code = "payment_already_used"
	// CodePaymentInFlight: another request holds the same authorization.
	CodePaymentInFlight Code = "payment_in_flight"
	// CodeSettlementFailed: nothing has moved; signing anew is safe.
	CodeSettlementFailed Code = "settlement_failed"
	// CodeSettlementPending: the money may have moved; do not sign anew.
	CodeSettlementPending Code = "settlement_pending"
	// CodeDeliveryUnconfirmed: the goods were sent, but not seen to arrive, and
	// cannot be sent again.
	CodeDeliveryUnconfirmed Code = "delivery_unconfirmed"
	// CodeFacilitatorUnavailable: nobody can tell now whether the payment is good.
	CodeFacilitatorUnavailable Code = "facilitator_unavailable"
	// CodeAmbiguousPath: the path has readings with different prices.
	CodeAmbiguousPath Code = "ambiguous_path"
)

// Codes of the official facilitators for what this package checks too. The
// first failure in their order wins, as there.
const (
	// CodeUnsupportedPayload: the payload is of another transfer method than
	// the requirement asks for.
	CodeUnsupportedPayload Code = "unsupported_payload_type"

	CodeRecipientMismatch Code = "invalid_exact_evm_recipient_mismatch"
	CodeValidBefore       Code = "invalid_exact_evm_payload_authorization_valid_before"
	CodeValidAfter        Code = "invalid_exact_evm_payload_authorization_valid_after"
	CodeValueMismatch     Code = "invalid_exact_evm_payload_authorization_value_mismatch"
	CodeSignature         Code = "invalid_exact_evm_signature"

	CodePermit2Spender     Code = "invalid_permit2_spender"
	CodePermit2Recipient   Code = "invalid_permit2_recipient_mismatch"
	CodePermit2Deadline    Code = "permit2_deadline_expired"
	CodePermit2NotYetValid Code = "permit2_not_yet_valid"
	CodePermit2Amount      Code = "permit2_amount_mismatch"
	CodePermit2Token       Code = "permit2_token_mismatch"
	CodePermit2Signature   Code = "invalid_permit2_signature"
	CodeUptoFacilitator    Code = "upto_facilitator_mismatch"

	CodeSolanaTransaction Code = "invalid_exact_svm_payload_transaction_could_not_be_decoded"
)

// Error is a refusal of a payment.
type Error struct {
	// Code is for the payer.
	Code Code
	// Err is for the log, never for the payer. It names members and positions
	// and repeats no values, so that a payer cannot write our log.
	Err error
}

// Error returns code and cause.
func (e *Error) Error() string {
	if e.Err == nil {
		return string(e.Code)
	}
	return string(e.Code) + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// refuse makes an Error with a constant cause.
func refuse(c Code, cause string) *Error {
	return &Error{Code: c, Err: errors.New(cause)}
}

// maxCode is the longest code we pass on; the longest official one has 85
// characters.
const maxCode = 100

// SafeCode returns s if it looks like a code (1 to 100 of a-z, 0-9 and _), else
// fallback. A facilitator's reason goes through it before a payer sees it:
// some facilitators answer with text of their node, keys and addresses
// included.
func SafeCode(s string, fallback Code) Code {
	if len(s) == 0 || len(s) > maxCode {
		return fallback
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return fallback
		}
	}
	return Code(s)
}
