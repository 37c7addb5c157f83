// Package typeddata is what payers sign (EIP-712), by go-ethereum's general
// encoder. Tests sign with it what our own encoder, which is faster, is to
// understand.
package typeddata

import (
	"crypto/ecdsa"
	"math/big"

	"github.com/ethereum/go-ethereum/common/math"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/signer/core/apitypes"
)

// Token is the domain of a token.
func Token(name, version string, chain *big.Int, address string) apitypes.TypedDataDomain {
	return apitypes.TypedDataDomain{Name: name, Version: version, ChainId: (*math.HexOrDecimal256)(chain), VerifyingContract: address}
}

// Transfer is a transfer by EIP-3009.
func Transfer(token apitypes.TypedDataDomain, message apitypes.TypedDataMessage) apitypes.TypedData {
	return apitypes.TypedData{
		Types: apitypes.Types{
			"EIP712Domain": tokenDomain,
			"TransferWithAuthorization": {
				{Name: "from", Type: "address"},
				{Name: "to", Type: "address"},
				{Name: "value", Type: "uint256"},
				{Name: "validAfter", Type: "uint256"},
				{Name: "validBefore", Type: "uint256"},
				{Name: "nonce", Type: "bytes32"},
			},
		},
		PrimaryType: "TransferWithAuthorization",
		Domain:      token,
		Message:     message,
	}
}

// Permit is an approval by EIP-2612.
func Permit(token apitypes.TypedDataDomain, message apitypes.TypedDataMessage) apitypes.TypedData {
	return apitypes.TypedData{
		Types: apitypes.Types{
			"EIP712Domain": tokenDomain,
			"Permit": {
				{Name: "owner", Type: "address"},
				{Name: "spender", Type: "address"},
				{Name: "value", Type: "uint256"},
				{Name: "nonce", Type: "uint256"},
				{Name: "deadline", Type: "uint256"},
			},
		},
		PrimaryType: "Permit",
		Domain:      token,
		Message:     message,
	}
}

var tokenDomain = []apitypes.Type{
	{Name: "name", Type: "string"},
	{Name: "version", Type: "string"},
	{Name: "chainId", Type: "uint256"},
	{Name: "verifyingContract", Type: "address"},
}

// Permit2 is a transfer through Permit2 by the proxies of x402, whose witness
// names the facilitator for upto.
func Permit2(chain *big.Int, upto bool, message apitypes.TypedDataMessage) apitypes.TypedData {
	witness := []apitypes.Type{{Name: "to", Type: "address"}, {Name: "validAfter", Type: "uint256"}}
	if upto {
		witness = []apitypes.Type{witness[0], {Name: "facilitator", Type: "address"}, witness[1]}
	}
	return apitypes.TypedData{
		Types: apitypes.Types{
			"EIP712Domain": {
				{Name: "name", Type: "string"},
				{Name: "chainId", Type: "uint256"},
				{Name: "verifyingContract", Type: "address"},
			},
			"TokenPermissions": {{Name: "token", Type: "address"}, {Name: "amount", Type: "uint256"}},
			"Witness":          witness,
			"PermitWitnessTransferFrom": {
				{Name: "permitted", Type: "TokenPermissions"},
				{Name: "spender", Type: "address"},
				{Name: "nonce", Type: "uint256"},
				{Name: "deadline", Type: "uint256"},
				{Name: "witness", Type: "Witness"},
			},
		},
		PrimaryType: "PermitWitnessTransferFrom",
		Domain: apitypes.TypedDataDomain{
			Name: "Permit2", ChainId: (*math.HexOrDecimal256)(chain), VerifyingContract: "0x000000000022D473030F116dDEE9F6B43aC78BA3",
		},
		Message: message,
	}
}

// Sign signs as wallets do, with a v of 27 or 28.
func Sign(data apitypes.TypedData, key *ecdsa.PrivateKey) ([]byte, error) {
	digest, _, err := apitypes.TypedDataAndHash(data)
	if err != nil {
		return nil, err
	}
	signature, err := crypto.Sign(digest, key)
	if err != nil {
		return nil, err
	}
	signature[64] += 27
	return signature, nil
}
