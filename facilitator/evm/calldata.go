package evm

import (
	"encoding/binary"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/eip712"
)

// transferGas is the gas that one settlement may use, in the simulation and on
// the chain. A transfer of USDC takes about 65,000, and up to 100,000 to an
// account that held none; what is not used is not paid. It is fixed, so that no
// token can make us pay more.
const transferGas = 300_000

// Selectors and topics, see EIP-3009.
var (
	transferSelector = [4]byte{0xe3, 0xee, 0x16, 0x0e} // transferWithAuthorization(…, uint8 v, bytes32 r, bytes32 s)

	usedTopic     = crypto.Keccak256Hash([]byte("AuthorizationUsed(address,bytes32)"))
	canceledTopic = crypto.Keccak256Hash([]byte("AuthorizationCanceled(address,bytes32)"))
	transferTopic = crypto.Keccak256Hash([]byte("Transfer(address,address,uint256)"))
)

// transferCalldata encodes transferWithAuthorization(from, to, value,
// validAfter, validBefore, nonce, v, r, s).
func transferCalldata(t *eip712.Transfer, s eip712.Signature) []byte {
	b := make([]byte, 0, 4+9*32)
	b = append(b, transferSelector[:]...)
	b = appendAddress(b, t.From)
	b = appendAddress(b, t.To)
	value := t.Value.Bytes32()
	b = append(b, value[:]...)
	b = appendUint(b, t.ValidAfter)
	b = appendUint(b, t.ValidBefore)
	b = append(b, t.Nonce[:]...)
	b = appendUint(b, uint64(s.V))
	b = append(b, s.R[:]...)
	return append(b, s.S[:]...)
}

func appendAddress(b []byte, a common.Address) []byte {
	b = append(b, make([]byte, 12)...)
	return append(b, a[:]...)
}

func appendUint(b []byte, n uint64) []byte {
	b = append(b, make([]byte, 24)...)
	return binary.BigEndian.AppendUint64(b, n)
}

// addressTopic is an address as an indexed member of an event.
func addressTopic(a common.Address) common.Hash { return common.BytesToHash(a[:]) }
