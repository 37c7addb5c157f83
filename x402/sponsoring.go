package x402

import (
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// Extensions by which a facilitator pays the gas of the approval that Permit2
// needs, so that a payer needs none. A server offers those that its facilitator
// lists; the payer's part travels to the facilitator untouched.
const (
	// EIP2612GasSponsoring is for tokens with EIP-2612: the payer signs a permit.
	EIP2612GasSponsoring = "eip2612GasSponsoring"
	// ERC20ApprovalGasSponsoring is for any token: the payer signs the transaction
	// of the approval, and the facilitator sends it.
	ERC20ApprovalGasSponsoring = "erc20ApprovalGasSponsoring"
)

// DeclareExtensions returns what a challenge declares: the payment-identifier,
// and those of the gas sponsoring extensions that are named.
func DeclareExtensions(names ...string) jsontext.Value {
	declared := slices.Clone(PaymentIdentifier[:len(PaymentIdentifier)-1])
	for _, e := range []struct{ name, declaration string }{
		{EIP2612GasSponsoring, eip2612Sponsoring},
		{ERC20ApprovalGasSponsoring, erc20Sponsoring},
	} {
		if slices.Contains(names, e.name) {
			declared = append(declared, `,"`+e.name+`":`+e.declaration...)
		}
	}
	return append(declared, '}')
}

// The declarations are those of the official servers, word by word: a client may
// validate what it adds against the schema.
const (
	eip2612Sponsoring = `{"info":{` +
		"\"description\":\"The facilitator accepts EIP-2612 gasless Permit to `Permit2` canonical contract.\",\"version\":\"1\"}," +
		`"schema":{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{` +
		`"from":{"type":"string","pattern":"^0x[a-fA-F0-9]{40}$","description":"The address of the sender."},` +
		`"asset":{"type":"string","pattern":"^0x[a-fA-F0-9]{40}$","description":"The address of the ERC-20 token contract."},` +
		`"spender":{"type":"string","pattern":"^0x[a-fA-F0-9]{40}$","description":"The address of the spender (Canonical Permit2)."},` +
		`"amount":{"type":"string","pattern":"^[0-9]+$","description":"The amount to approve (uint256). Typically MaxUint."},` +
		`"nonce":{"type":"string","pattern":"^[0-9]+$","description":"The current nonce of the sender."},` +
		`"deadline":{"type":"string","pattern":"^[0-9]+$","description":"The timestamp at which the signature expires."},` +
		`"signature":{"type":"string","pattern":"^0x[a-fA-F0-9]+$","description":"The 65-byte concatenated signature (r, s, v) as a hex string."},` +
		`"version":{"type":"string","pattern":"^[0-9]+(\\.[0-9]+)*$","description":"Schema version identifier."}},` +
		`"required":["from","asset","spender","amount","nonce","deadline","signature","version"]}}`

	erc20Sponsoring = `{"info":{` +
		`"description":"The facilitator broadcasts a pre-signed ERC-20 approve() transaction to grant Permit2 allowance.","version":"1"},` +
		`"schema":{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{` +
		`"from":{"type":"string","pattern":"^0x[a-fA-F0-9]{40}$","description":"The address of the sender (token owner)."},` +
		`"asset":{"type":"string","pattern":"^0x[a-fA-F0-9]{40}$","description":"The address of the ERC-20 token contract."},` +
		`"spender":{"type":"string","pattern":"^0x[a-fA-F0-9]{40}$","description":"The address of the spender (Canonical Permit2)."},` +
		`"amount":{"type":"string","pattern":"^[0-9]+$","description":"The amount approved (uint256). Always MaxUint256."},` +
		`"signedTransaction":{"type":"string","pattern":"^0x[a-fA-F0-9]+$","description":"The RLP-encoded signed EIP-1559 transaction as a hex string."},` +
		`"version":{"type":"string","pattern":"^[0-9]+(\\.[0-9]+)*$","description":"Schema version identifier."}},` +
		`"required":["from","asset","spender","amount","signedTransaction","version"]}}`
)
