package evm

import (
	"context"
	"fmt"
	"math/big"
	"strings"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/go-json-experiment/json"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// multicall3 is the contract that makes several calls in one. It has the same
// address on nearly every chain.
var multicall3 = common.HexToAddress("0xcA11bde05977b3631167028862bE2a173976CA11")

// contracts is what we call and read besides the transfer itself. None of it is
// on the path of a good payment.
var contracts = func() abi.ABI {
	parsed, err := abi.JSON(strings.NewReader(`[
		{"type":"function","name":"balanceOf","inputs":[{"name":"","type":"address"}],"outputs":[{"name":"","type":"uint256"}]},
		{"type":"function","name":"name","inputs":[],"outputs":[{"name":"","type":"string"}]},
		{"type":"function","name":"version","inputs":[],"outputs":[{"name":"","type":"string"}]},
		{"type":"function","name":"authorizationState","inputs":[{"name":"","type":"address"},{"name":"","type":"bytes32"}],"outputs":[{"name":"","type":"bool"}]},
		{"type":"function","name":"tryAggregate","inputs":[{"name":"requireSuccess","type":"bool"},
			{"name":"calls","type":"tuple[]","components":[{"name":"target","type":"address"},{"name":"callData","type":"bytes"}]}],
			"outputs":[{"name":"","type":"tuple[]","components":[{"name":"success","type":"bool"},{"name":"returnData","type":"bytes"}]}]}]`))
	if err != nil {
		panic("evm: " + err.Error()) // a constant
	}
	return parsed
}()

// call3 and result3 are the tuples of Multicall3.tryAggregate.
type call3 struct {
	Target   common.Address
	CallData []byte
}

type result3 struct {
	Success    bool
	ReturnData []byte
}

// The questions of a diagnosis, in the order in which they are asked.
const (
	askedBalance = iota
	askedName
	askedVersion
	askedState
	questions
)

// diagnose finds out why the token would not make the transfer. Only an error of
// the nodes is an error.
func (c *chain) diagnose(ctx context.Context, p *payment, r x402.Requirement, simulation error) (*x402.Error, error) {
	calls3, err := diagnosis(p)
	if err != nil {
		return nil, err
	}
	together, err := contracts.Pack("tryAggregate", false, calls3)
	if err != nil {
		return nil, err
	}
	var answer hexutil.Bytes
	build := func() calls {
		answer = nil
		var b calls
		b.add(&answer, "eth_call", map[string]any{"to": multicall3, "data": hexutil.Bytes(together)}, "latest")
		return b
	}
	err = c.ask(ctx, build, func(b calls) error {
		if reverted(b[0].Error) {
			b[0].Error = nil // no answer, as from an account without code
		}
		return every(b)
	})
	if err != nil {
		return nil, err
	}
	results, err := readResults(answer)
	if err != nil {
		// There is no Multicall3 on this chain.
		if results, err = c.askSingly(ctx, calls3); err != nil {
			return nil, err
		}
	}
	c.tellOperator(simulation)
	return &x402.Error{Code: reason(p, r, results), Err: simulation}, nil
}

// diagnosis lists the calls of a diagnosis.
func diagnosis(p *payment) ([]call3, error) {
	var list [questions]call3
	for i, q := range [questions]struct {
		method string
		args   []any
	}{
		askedBalance: {"balanceOf", []any{p.From}},
		askedName:    {"name", nil},
		askedVersion: {"version", nil},
		askedState:   {"authorizationState", []any{p.From, p.Nonce}},
	} {
		data, err := contracts.Pack(q.method, q.args...)
		if err != nil {
			return nil, err
		}
		list[i] = call3{p.token, data}
	}
	return list[:], nil
}

// readResults reads what tryAggregate returned.
func readResults(b []byte) ([]result3, error) {
	values, err := contracts.Unpack("tryAggregate", b)
	if err != nil {
		return nil, err
	}
	results := *abi.ConvertType(values[0], new([]result3)).(*[]result3)
	if len(results) != questions {
		return nil, fmt.Errorf("%d results for %d calls", len(results), questions)
	}
	return results, nil
}

// askSingly is tryAggregate by hand.
func (c *chain) askSingly(ctx context.Context, list []call3) ([]result3, error) {
	answers := make([]hexutil.Bytes, len(list))
	results := make([]result3, len(list))
	build := func() calls {
		var b calls
		for i := range list {
			answers[i] = nil
			b.add(&answers[i], "eth_call", map[string]any{"to": list[i].Target, "data": hexutil.Bytes(list[i].CallData)}, "latest")
		}
		return b
	}
	err := c.ask(ctx, build, func(b calls) error {
		for i := range b {
			results[i].Success = !reverted(b[i].Error)
			if !results[i].Success {
				b[i].Error = nil
			}
		}
		return every(b)
	})
	for i := range results {
		results[i].ReturnData = answers[i]
	}
	return results, err
}

// reason is the code for what a diagnosis found, the first that applies. What a
// token does not tell is not held against the payment.
func reason(p *payment, r x402.Requirement, found []result3) x402.Code {
	var extra struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	_ = json.Unmarshal(r.Extra, &extra) // read before, or there were no domain
	used, ok := value[bool](found[askedState], "authorizationState")
	if !ok {
		return codeNotEIP3009
	}
	if used {
		return codeNonceUsed
	}
	if name, ok := value[string](found[askedName], "name"); ok && name != extra.Name {
		return codeTokenName
	}
	if version, ok := value[string](found[askedVersion], "version"); ok && version != extra.Version {
		return codeTokenVersion
	}
	if balance, ok := value[*big.Int](found[askedBalance], "balanceOf"); ok && balance.Cmp(p.Value.ToBig()) < 0 {
		return codeBalance
	}
	return codeSimulation
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

// tellOperator logs a refusal of the token that a seller can do something about.
func (c *chain) tellOperator(simulation error) {
	text := strings.ToLower(simulation.Error())
	switch {
	case containsAny(text, "paused"):
		c.notices.error("the token is paused, so that nobody can pay with it: wait for its issuer, or accept another asset", zap.Error(simulation))
	case containsAny(text, "blacklist", "blocklist", "frozen", "sanction"):
		c.notices.warn("the token refuses an account: if it happens to every payer, its issuer has blocked the seller's address", zap.Error(simulation))
	}
}
