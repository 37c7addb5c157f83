package evm

import (
	"context"
	"fmt"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// multicall3 is the contract that makes several calls in one. It has the same
// address on nearly every chain.
var multicall3 = common.HexToAddress("0xcA11bde05977b3631167028862bE2a173976CA11")

// call3 and result3 are the tuples of Multicall3.tryAggregate.
type call3 struct {
	Target   common.Address
	CallData []byte
}

type result3 struct {
	Success    bool
	ReturnData []byte
}

// diagnose finds out why the transfer would not be made. Only an error of
// the nodes is an error.
func (c *settler) diagnose(ctx context.Context, p *payment, r x402.Requirement, simulation error) (*x402.Error, error) {
	calls3 := p.questions(p)
	together := chain.Pack("tryAggregate", false, calls3)
	var answer hexutil.Bytes
	build := func() chain.Batch {
		answer = nil
		var b chain.Batch
		b.Add(&answer, "eth_call", map[string]any{"to": multicall3, "data": hexutil.Bytes(together)}, "latest")
		return b
	}
	err := c.Ask(ctx, build, func(b chain.Batch) error {
		if chain.Reverted(b[0].Error) {
			b[0].Error = nil // no answer, as from an account without code
		}
		return b.Err()
	})
	if err != nil {
		return nil, err
	}
	results, err := readResults(answer, len(calls3))
	if err != nil {
		// There is no Multicall3 on this chain.
		if results, err = c.askSingly(ctx, calls3); err != nil {
			return nil, err
		}
	}
	c.tellOperator(simulation)
	return &x402.Error{Code: p.reason(p, r, results), Err: simulation}, nil
}

// readResults reads what tryAggregate returned.
func readResults(b []byte, want int) ([]result3, error) {
	values, err := chain.Contracts.Unpack("tryAggregate", b)
	if err != nil {
		return nil, err
	}
	results := *abi.ConvertType(values[0], new([]result3)).(*[]result3)
	if len(results) != want {
		return nil, fmt.Errorf("%d results for %d calls", len(results), want)
	}
	return results, nil
}

// askSingly is tryAggregate by hand.
func (c *settler) askSingly(ctx context.Context, list []call3) ([]result3, error) {
	answers := make([]hexutil.Bytes, len(list))
	results := make([]result3, len(list))
	build := func() chain.Batch {
		var b chain.Batch
		for i := range list {
			answers[i] = nil
			b.Add(&answers[i], "eth_call", map[string]any{"to": list[i].Target, "data": hexutil.Bytes(list[i].CallData)}, "latest")
		}
		return b
	}
	err := c.Ask(ctx, build, func(b chain.Batch) error {
		for i := range b {
			results[i].Success = !chain.Reverted(b[i].Error)
			if !results[i].Success {
				b[i].Error = nil
			}
		}
		return b.Err()
	})
	for i := range results {
		results[i].ReturnData = answers[i]
	}
	return results, err
}

// tellOperator logs a refusal of the token that a seller can do something about.
func (c *settler) tellOperator(simulation error) {
	switch {
	case chain.Mentions(simulation, "paused"):
		c.Notices.Error("the token is paused, so that nobody can pay with it: wait for its issuer, or accept another asset", zap.Error(simulation))
	case chain.Mentions(simulation, "blacklist", "blocklist", "frozen", "sanction"):
		c.Notices.Warn("the token refuses an account: if it happens to every payer, its issuer has blocked the seller's address", zap.Error(simulation))
	}
}
