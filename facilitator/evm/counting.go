package evm

import (
	"math/big"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// countGas is what it may take to ask for two balances.
const countGas = 200_000

// call3f is the tuple of Multicall3.aggregate3.
type call3f struct {
	Target       common.Address
	AllowFailure bool
	CallData     []byte
}

// mayMiscount reports whether an asset is to be tried out: whether the payee would have as
// much more after a payment as was paid. That finds tokens that take a fee, or that only say
// that they move money, before anybody has paid. A good answer is kept as long as the one
// about the asset's code. Payments of upto cannot be tried, since only we may settle them.
func (c *settler) mayMiscount(p *payment) bool {
	return !p.Upto() && p.From != p.To && p.signer != byFactory && !c.seen(&c.counting, p.Token)
}

// countingCall settles between two looks at the payee's balance. Who settles does
// not matter to the contracts, so it can be Multicall3.
func (c *settler) countingCall(p *payment) map[string]any {
	to, data := p.encoded()
	balance := call3f{p.Token, false, chain.Pack("balanceOf", p.To)}
	return map[string]any{
		"from": p.account.key.address, "to": multicall3, "gas": hexutil.Uint64(p.gas() + countGas),
		"data": hexutil.Bytes(chain.Pack("aggregate3", []call3f{balance, {to, false, data}, balance})),
	}
}

// readCount reads how much more the payee would have. Without Multicall3, or if
// the settlement fails, there is no answer.
func readCount(b []byte) (*big.Int, bool) {
	values, err := chain.Contracts.Unpack("aggregate3", b)
	if err != nil {
		return nil, false
	}
	results := *abi.ConvertType(values[0], new([]result3)).(*[]result3)
	if len(results) != 3 {
		return nil, false
	}
	before, ok := value[*big.Int](results[0], "balanceOf")
	after, ok2 := value[*big.Int](results[2], "balanceOf")
	if !ok || !ok2 {
		return nil, false
	}
	return after.Sub(after, before), true
}
