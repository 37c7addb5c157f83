package chain

import (
	"strings"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
)

// Contracts are the functions that are called by eth_call: of tokens (ERC-20, EIP-3009),
// of Permit2, of contract wallets (ERC-1271), and Multicall3, which calls several at once.
// Nobody changes it.
var Contracts = func() abi.ABI {
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
		panic("chain: " + err.Error()) // a constant
	}
	return parsed
}()

// Pack encodes a call of one of the Contracts. The arguments are of the types that their ABI
// wants, so it cannot fail; if it did, an empty call is refused by every contract here.
func Pack(method string, args ...any) []byte {
	b, err := Contracts.Pack(method, args...)
	if err != nil {
		return nil
	}
	return b
}

// Unpack reads the one value that a call of one of the Contracts returned; ok is false if the data is something
// else, or the value of another type.
func Unpack[T any](method string, data []byte) (v T, ok bool) {
	values, err := Contracts.Unpack(method, data)
	if err != nil || len(values) != 1 {
		return v, false
	}
	v, ok = values[0].(T)
	return v, ok
}

// AddressTopic is an address as an indexed member of an event: on the right of a word.
func AddressTopic(a common.Address) common.Hash { return common.BytesToHash(a[:]) }
