package evm

import (
	"encoding/binary"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// The gas that one settlement may use, in the simulation and on the chain. What
// is not used is not paid. All of it is fixed, so that no token and no wallet can
// make us pay more.
const (
	// transferGas: a transfer of USDC takes about 65,000, and up to 100,000 to an
	// account that held none. Of the contracts of the development chain, one through
	// Permit2 takes 108,000 to such an account, and 138,000 with a permit.
	transferGas = 300_000
	// defaultWalletGas is what a contract wallet may use in addition, to say whether
	// a signature is good. A passkey on a chain that cannot check it by itself takes
	// most of it.
	defaultWalletGas = 400_000
	// factoryGas is what it may take to make a wallet.
	factoryGas = 1_000_000
)

// gas is what the settlement of the payment may use.
func (p *payment) gas() uint64 {
	switch p.signer {
	case byContract:
		return transferGas + p.walletGas
	case byFactory:
		return transferGas + p.walletGas + factoryGas
	}
	return max(transferGas, p.limit)
}

// value reads what one call returned.
func value[T any](r result3, method string) (v T, ok bool) {
	if !r.Success {
		return v, false
	}
	return chain.Unpack[T](method, r.ReturnData)
}

func appendAddress(b []byte, a common.Address) []byte {
	b = append(b, make([]byte, 12)...)
	return append(b, a[:]...)
}

func appendUint(b []byte, n uint64) []byte {
	b = append(b, make([]byte, 24)...)
	return binary.BigEndian.AppendUint64(b, n)
}

func appendUint256(b []byte, n *uint256.Int) []byte {
	word := n.Bytes32()
	return append(b, word[:]...)
}

// appendBytes appends the tail of an argument of type bytes: its length, and
// itself up to a whole word.
func appendBytes(b, data []byte) []byte {
	b = appendUint(b, uint64(len(data)))
	b = append(b, data...)
	return append(b, make([]byte, (32-len(data)%32)%32)...)
}
