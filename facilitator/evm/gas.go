package evm

import (
	"context"
	"errors"
	"fmt"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/rpc"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// l1InGas are chains that count into the gas of a transaction what it costs them to
// publish it on another one: those of Arbitrum and of the ZK stack. What a transfer
// takes depends on the prices over there, and can be many times what it is elsewhere.
var l1InGas = map[uint64]bool{
	42161: true, 421614: true, // Arbitrum One and its test network
	42170: true,              // Arbitrum Nova
	41923: true,              // Educhain
	324:   true,              // ZKsync Era
	2741:  true, 11124: true, // Abstract and its test network
}

const (
	// maxTransferGas is the most that the settlement of an ordinary account may use where a
	// node says that transferGas is too little. It is as much as a contract wallet may use, so
	// that a payer who turns his account into a wallet in between burns no more than others.
	maxTransferGas = transferGas + defaultWalletGas
	// maxL1Gas is the same on the chains of l1InGas, where one gas costs little.
	maxL1Gas = 3_000_000
)

// inspectGas is inspect, and once more with as much gas as a node says that it takes
// if the usual limit is too low. The limit of a payer with code stays as it is: what
// his code uses is up to him.
func (c *settler) inspectGas(ctx context.Context, p *payment, settling bool) (view, error) {
	v, err := c.inspect(ctx, p, settling)
	if err != nil || p.limit != 0 || p.signer != byKey || v.payerCode || !c.lacksGas(v.simulation) {
		return v, err
	}
	to, data := p.encoded()
	var estimate hexutil.Uint64
	var refused error
	err = c.Ask(ctx, func() chain.Batch {
		estimate = 0
		var b chain.Batch
		b.Add(&estimate, "eth_estimateGas", map[string]any{"from": p.account.key.address, "to": to, "data": hexutil.Bytes(data)})
		return b
	}, func(b chain.Batch) error {
		if refused = nil; chain.Reverted(b[0].Error) {
			refused, b[0].Error = b[0].Error, nil
		}
		return b.Err()
	})
	most := uint64(maxTransferGas)
	if c.l1InGas {
		most = maxL1Gas
	}
	if err != nil {
		return v, notRun(v.simulation, err)
	}
	// A quarter more: prices elsewhere move until it is in a block.
	switch limit := uint64(estimate) + uint64(estimate)/4; {
	case refused != nil, limit <= p.gas():
		return v, nil //nolint:nilerr // it is not the gas, as what was refused says
	case limit > most || limit < uint64(estimate):
		c.Notices.Warn("a settlement takes more gas than is spent on one, so it is not sent", zap.Uint64("gas", uint64(estimate)), zap.Uint64("most", most), zap.Stringer("asset", p.Token))
		return v, notRun(v.simulation, fmt.Errorf("a settlement takes %d gas now, and at most %d are spent on one", uint64(estimate), most))
	default:
		p.limit = limit
	}
	return c.inspect(ctx, p, settling)
}

// notRun returns why a settlement cannot be given more gas, if the chain did not even begin to
// run it: then gas is dear, and that is trouble of ours. A settlement that ran until its gas
// was used up is refused as before, since the asset may be what burns the gas; notRun returns
// nil then.
func notRun(simulation, err error) error {
	if chain.Reverted(simulation) {
		return nil
	}
	return err
}

// lacksGas reports whether more gas may help a settlement that failed when it was simulated.
// On the chains of l1InGas a revert without any reason may be a lack of gas: a contract
// reverts so when a call of its own has run out of it.
func (c *settler) lacksGas(simulation error) bool {
	if simulation == nil || tooLittleGas(simulation) {
		return simulation != nil
	}
	if said, ok := errors.AsType[rpc.DataError](simulation); ok && c.l1InGas {
		data, isText := said.ErrorData().(string)
		return said.ErrorData() == nil || isText && (data == "" || data == "0x")
	}
	return false
}

// tooLittleGas reports whether a node says of a call that its gas did not suffice.
func tooLittleGas(err error) bool {
	return chain.Answered(err) && chain.Mentions(err, "out of gas", "outofgas", "intrinsic gas", "gas required exceeds", "not enough gas")
}
