package evm

import (
	"encoding/binary"
	"strings"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
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

// contracts is what we call and read besides the transfer itself. None of it is
// on the path of a good payment of an ordinary account.
var contracts = func() abi.ABI {
	parsed, err := abi.JSON(strings.NewReader(`[
		{"type":"function","name":"balanceOf","inputs":[{"name":"","type":"address"}],"outputs":[{"name":"","type":"uint256"}]},
		{"type":"function","name":"allowance","inputs":[{"name":"","type":"address"},{"name":"","type":"address"}],"outputs":[{"name":"","type":"uint256"}]},
		{"type":"function","name":"name","inputs":[],"outputs":[{"name":"","type":"string"}]},
		{"type":"function","name":"version","inputs":[],"outputs":[{"name":"","type":"string"}]},
		{"type":"function","name":"authorizationState","inputs":[{"name":"","type":"address"},{"name":"","type":"bytes32"}],"outputs":[{"name":"","type":"bool"}]},
		{"type":"function","name":"nonceBitmap","inputs":[{"name":"","type":"address"},{"name":"","type":"uint256"}],"outputs":[{"name":"","type":"uint256"}]},
		{"type":"function","name":"PERMIT2","inputs":[],"outputs":[{"name":"","type":"address"}]},
		{"type":"function","name":"isValidSignature","inputs":[{"name":"","type":"bytes32"},{"name":"","type":"bytes"}],"outputs":[{"name":"","type":"bytes32"}]},
		{"type":"function","name":"tryAggregate","inputs":[{"name":"requireSuccess","type":"bool"},
			{"name":"calls","type":"tuple[]","components":[{"name":"target","type":"address"},{"name":"callData","type":"bytes"}]}],
			"outputs":[{"name":"","type":"tuple[]","components":[{"name":"success","type":"bool"},{"name":"returnData","type":"bytes"}]}]},
		{"type":"function","name":"aggregate3","inputs":[
			{"name":"calls","type":"tuple[]","components":[{"name":"target","type":"address"},{"name":"allowFailure","type":"bool"},{"name":"callData","type":"bytes"}]}],
			"outputs":[{"name":"","type":"tuple[]","components":[{"name":"success","type":"bool"},{"name":"returnData","type":"bytes"}]}]}]`))
	if err != nil {
		panic("evm: " + err.Error()) // a constant
	}
	return parsed
}()

// pack encodes a call. The arguments are of the types that the ABI above wants,
// so it cannot fail; if it did, an empty call is refused by every contract here.
func pack(method string, args ...any) []byte {
	b, err := contracts.Pack(method, args...)
	if err != nil {
		return nil
	}
	return b
}

// value reads what one call returned.
func value[T any](r result3, method string) (v T, ok bool) {
	if !r.Success {
		return v, false
	}
	values, err := contracts.Unpack(method, r.ReturnData)
	if err != nil || len(values) != 1 {
		return v, false
	}
	v, ok = values[0].(T)
	return v, ok
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

// addressTopic is an address as an indexed member of an event.
func addressTopic(a common.Address) common.Hash { return common.BytesToHash(a[:]) }
