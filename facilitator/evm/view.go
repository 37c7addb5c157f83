package evm

import (
	"bytes"
	"context"
	"errors"
	"math/big"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// view is what one round trip says about a payment.
type view struct {
	block     uint64   // what follows is true after this block, or a later one
	base      *big.Int // the fee of its gas; nil on chains that have none
	fees      fees
	payerCode bool
	code      common.Hash  // of the payer, or where it is delegated to; zero if there is none
	owns      *uint256.Int // of the asset; nil if the asset does not tell. Only for a settlement
	// lacking is a contract that the settlement needs and that is not there, to
	// which a call would succeed in silence; nil if all are.
	lacking *common.Address
	// miscounts: the payee would not have as much more as was paid.
	miscounts bool
	// walletAgrees: the code of the payer says that the signature is good. It is
	// only asked if the payer's key has not signed.
	walletAgrees bool
	// simulation is why the settlement would be reverted; nil if it would not.
	simulation error

	// Only for a settlement.
	balance *hexutil.Big
	pending uint64 // our account's next number, transactions in the pool counted
	mined   uint64 // the same, blocks alone counted
}

// inspect looks at the chain until it is clear who has to say that the payment is
// signed: once for an ordinary account, the first time twice for a contract wallet.
func (c *settler) inspect(ctx context.Context, p *payment, settling bool) (view, error) {
	if p.place != nil {
		return c.inspectAs(ctx, p, settling)
	}
	among, err := c.senders(p)
	var v view
	for len(among) > 0 {
		p.account = c.shared.queue.likely(among)
		if v, err = c.inspectAs(ctx, p, settling); !isUnfit(err) || ctx.Err() != nil {
			break
		}
		among = c.others(among, p.account)
	}
	return v, err
}

// inspectAs is inspect for a payment whose account is chosen.
func (c *settler) inspectAs(ctx context.Context, p *payment, settling bool) (view, error) {
	v, err := c.look(ctx, p, settling)
	if err != nil || p.learned || !p.learn(v, c.factories) {
		return v, err
	}
	return c.look(ctx, p, settling)
}

// look asks everything about a payment in one round trip. settling also asks
// about our own account. The settlement of a payer who is known to have code is
// simulated as what it will be: one that pays for its gas, in the next block.
func (c *settler) look(ctx context.Context, p *payment, settling bool) (view, error) {
	var (
		v                   view
		id, pending, mined  hexutil.Uint64
		h                   *chain.Head
		payerCode           hexutil.Bytes
		result, agrees      hexutil.Bytes
		balance, tip, price *hexutil.Big
		asksWallet          = p.signer == byContract
		unknown             = slices.DeleteFunc(p.needs(), c.isContract)
		code                = make([]hexutil.Bytes, len(unknown))
		counts              = c.mayMiscount(p)
		counted, owned      hexutil.Bytes
		next                hexutil.Bytes
		fees                = settling || p.signer != byKey // else nothing depends on them
	)
	var simulationAt, nextAt, walletAt, countAt, ownedAt int // in the batch
	var published hexutil.Bytes
	build := func() chain.Batch {
		h, balance, tip, price = nil, nil, nil, nil
		payerCode, result, agrees, counted, owned = nil, nil, nil, nil, nil
		id, pending, mined = 0, 0, 0
		var b chain.Batch
		b.Add(&id, "eth_chainId")
		b.Add(&h, "eth_getBlockByNumber", "latest", false)
		b.Add(&payerCode, "eth_getCode", p.From, "latest")
		simulationAt = len(b)
		b.Add(&result, "eth_call", c.settleCall(p), "latest")
		if p.learned {
			nextAt = len(b)
			b.Add(&next, "eth_call", c.settleCall(p), "latest", struct{}{}, c.blockOverride())
		}
		if asksWallet {
			walletAt = len(b)
			b.Add(&agrees, "eth_call", c.walletCall(p), "latest")
		}
		if counts {
			countAt = len(b)
			b.Add(&counted, "eth_call", c.countingCall(p), "latest")
		}
		for i, contract := range unknown {
			code[i] = nil
			b.Add(&code[i], "eth_getCode", contract, "latest")
		}
		if settling {
			ownedAt = len(b)
			b.Add(&owned, "eth_call", map[string]any{"to": p.Token, "data": hexutil.Bytes(chain.Pack("balanceOf", p.From))}, "latest")
			b.Add(&balance, "eth_getBalance", p.account.key.address, "latest")
			b.Add(&pending, "eth_getTransactionCount", p.account.key.address, "pending")
			b.Add(&mined, "eth_getTransactionCount", p.account.key.address, "latest")
		}
		if fees {
			published = nil
			b.Add(&published, "eth_call", l1FeeCall(ordinary), "latest")
			b.Add(&price, "eth_gasPrice")
			b.Add(&tip, "eth_maxPriorityFeePerGas")
		}
		return b
	}
	judge := func(b chain.Batch) error {
		v.simulation = nil
		switch err := b[simulationAt].Error; {
		case chain.Reverted(err), tooLittleGas(err):
			v.simulation, b[simulationAt].Error = err, nil
		case chain.Answered(err) && chain.Mentions(err, noFunds...):
			c.noGas(p.account)
			return c.unfit(p.account, err)
		}
		if p.learned {
			if err := b[nextAt].Error; chain.Reverted(err) {
				v.simulation = err
			}
			b[nextAt].Error = nil // not every node simulates in a block that is not there yet
		}
		if asksWallet && chain.Reverted(b[walletAt].Error) {
			agrees, b[walletAt].Error = nil, nil
		}
		if counts {
			b[countAt].Error = nil // the simulation itself tells what is wrong
		}
		if fees {
			b[len(b)-1].Error = nil // not every chain has a tip
			c.sawPublished(&b[len(b)-3], published)
		}
		if settling && chain.Reverted(b[ownedAt].Error) {
			owned, b[ownedAt].Error = nil, nil
		}
		if err := b.Err(); err != nil {
			return err
		}
		return c.CheckNode(id, h)
	}
	if err := c.Ask(ctx, build, judge); err != nil {
		return view{}, err
	}
	for i := range unknown {
		if len(code[i]) > 0 {
			c.contracts.Store(unknown[i], c.now())
		} else if v.lacking == nil {
			v.lacking = &unknown[i]
		}
	}
	if moved, ok := readCount(counted); ok && counts {
		if v.miscounts = moved.Cmp(p.Value.ToBig()) != 0; !v.miscounts {
			c.counting.Store(p.Token, c.now())
		}
	}
	v.block, v.base = uint64(*h.Number), toBig(h.BaseFee)
	v.payerCode, v.code = len(payerCode) > 0, codeHash(payerCode)
	v.walletAgrees = v.payerCode && len(agrees) >= 32 && bytes.Equal(agrees[:32], magic1271)
	v.balance, v.pending, v.mined = balance, uint64(pending), uint64(mined)
	if fees {
		v.fees = c.market(v.base, toBig(tip), toBig(price))
	}
	if settling {
		c.shared.queue.sawBalance(p.account, toBig(balance))
		c.reached(ctx, p.account, v.mined)
		if n, ok := value[*big.Int](result3{true, owned}, "balanceOf"); ok {
			v.owns = uint256.MustFromBig(n)
		}
	}
	return v, nil
}

// codeHash is what a payer's code is known by: its hash, or by EIP-7702 the account
// whose code it is.
func codeHash(code []byte) common.Hash {
	if to, ok := types.ParseDelegation(code); ok {
		return chain.AddressTopic(to)
	}
	if len(code) == 0 {
		return common.Hash{}
	}
	return crypto.Keccak256Hash(code)
}

// needs lists the contracts that must be there for the settlement to mean
// anything.
func (p *payment) needs() []common.Address {
	list := []common.Address{p.Token}
	if w, ok := p.way.(*permit2); ok {
		list = append(list, w.proxy)
	}
	if p.signer == byFactory {
		list = append(list, multicall3)
	}
	return list
}

// settleCall is the settlement as eth_call takes it. Of a payer with code it is one
// that offers for its gas what will be offered, as far as that is known: a wallet can
// tell a simulation by its price.
func (c *settler) settleCall(p *payment) map[string]any {
	to, data := p.encoded()
	call := map[string]any{
		"from": p.account.key.address, "to": to, "gas": hexutil.Uint64(p.gas()), "data": hexutil.Bytes(data),
	}
	if !p.learned || p.base == nil || p.base.Sign() == 0 {
		return call
	}
	offer := market(p.base, new(big.Int), nil)
	if last := c.lastFees.Load(); last != nil && !last.legacy {
		offer = market(p.base, last.tip, nil)
	}
	call["maxFeePerGas"], call["maxPriorityFeePerGas"] = (*hexutil.Big)(offer.feeCap), (*hexutil.Big)(offer.tip)
	return call
}

// blockOverride is the block that a settlement will be in at the earliest, as eth_call of
// geth takes it besides the state that it is to run on.
func (c *settler) blockOverride() map[string]any {
	number, at := c.NextBlock()
	return map[string]any{"number": hexutil.Uint64(number), "time": hexutil.Uint64(at)}
}

// walletCall asks the code of the payer whether the signature is good. It is from
// the account that will pay for the answer, and has as much gas as that one will.
func (c *settler) walletCall(p *payment) map[string]any {
	return map[string]any{
		"from": p.account.key.address, "to": p.From, "gas": hexutil.Uint64(p.walletGas),
		"data": hexutil.Bytes(chain.Pack("isValidSignature", p.digest, p.signature)),
	}
}

// wouldSettle checks on the chain that a payment would settle now. Refusals are
// *x402.Error.
func (c *settler) wouldSettle(ctx context.Context, p *payment, r facilitator.Request, settling bool) (v view, err error) {
	for again := false; ; again = true {
		if v, err = c.inspectGas(ctx, p, settling); err == nil {
			err = c.judge(ctx, p, r.Requirement, v)
		}
		refused, ok := errors.AsType[*x402.Error](err)
		if !ok || refused.Code != codePermit2Simulation || p.approval == nil || again {
			return v, err
		}
		// Nothing is wrong any more. Perhaps the allowance came after the simulation.
	}
}

// judge says what a look at the chain means for a payment. Refusals are
// *x402.Error.
func (c *settler) judge(ctx context.Context, p *payment, r x402.Requirement, v view) error {
	if err := p.signed(v); err != nil {
		return err
	}
	switch {
	case v.lacking == nil:
	case *v.lacking == p.Token:
		return refuse(codeAsset, "the asset has no code on this chain")
	case *v.lacking == multicall3:
		return refuse(codeFactory, "without Multicall3 on this chain no wallet can be made")
	default:
		return refuse(codePermit2Proxy, "the proxy has no code on this chain")
	}
	if v.simulation == nil && v.miscounts {
		c.Notices.Error("an asset does not give the payee what was paid, as tokens with a fee do not: do not accept it", zap.Stringer("asset", p.Token))
		return refuse(codeEventMismatch, "the payee would not have as much more as was paid")
	}
	if v.simulation == nil {
		return c.refusesRisk(p)
	}
	refused, err := c.diagnose(ctx, p, r, v.simulation)
	if err != nil {
		return err
	}
	return refused
}
