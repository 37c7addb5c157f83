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
	unknown := slices.DeleteFunc(p.needs(), c.isContract)
	q := &questions{
		c: c, p: p, settling: settling,
		contracts:  unknown,
		code:       make([]hexutil.Bytes, len(unknown)),
		asksWallet: p.signer == byContract,
		counts:     c.mayMiscount(p),
		fees:       settling || p.signer != byKey, // else nothing depends on them
	}
	if err := c.Ask(ctx, q.build, q.judge); err != nil {
		return view{}, err
	}
	return q.view(ctx), nil
}

// questions are what one look asks about a payment, and what a node answered.
type questions struct {
	c *settler
	p *payment

	// What is asked besides what always is.
	settling, asksWallet, counts, fees bool
	contracts                          []common.Address // whether they have code

	// Where in the batch the answers are that may be errors.
	simulationAt, nextAt, walletAt, countAt, ownedAt int

	id, pending, mined  hexutil.Uint64
	head                *chain.Head
	payerCode           hexutil.Bytes
	code                []hexutil.Bytes // of contracts
	result, next        hexutil.Bytes   // of the simulations, which nobody reads
	agrees              hexutil.Bytes
	counted, owned      hexutil.Bytes
	published           hexutil.Bytes
	balance, tip, price *hexutil.Big
	simulation          error // why the settlement would be reverted
}

// build makes the batch for one node.
func (q *questions) build() chain.Batch {
	c, p := q.c, q.p
	q.head, q.balance, q.tip, q.price = nil, nil, nil, nil
	q.payerCode, q.result, q.agrees, q.counted, q.owned = nil, nil, nil, nil, nil
	q.id, q.pending, q.mined = 0, 0, 0
	var b chain.Batch
	b.Add(&q.id, "eth_chainId")
	b.Add(&q.head, "eth_getBlockByNumber", "latest", false)
	b.Add(&q.payerCode, "eth_getCode", p.From, "latest")
	q.simulationAt = len(b)
	b.Add(&q.result, "eth_call", c.settleCall(p), "latest")
	if p.learned {
		q.nextAt = len(b)
		b.Add(&q.next, "eth_call", c.settleCall(p), "latest", struct{}{}, c.blockOverride())
	}
	if q.asksWallet {
		q.walletAt = len(b)
		b.Add(&q.agrees, "eth_call", c.walletCall(p), "latest")
	}
	if q.counts {
		q.countAt = len(b)
		b.Add(&q.counted, "eth_call", c.countingCall(p), "latest")
	}
	for i, contract := range q.contracts {
		q.code[i] = nil
		b.Add(&q.code[i], "eth_getCode", contract, "latest")
	}
	if q.settling {
		q.ownedAt = len(b)
		b.Add(&q.owned, "eth_call", map[string]any{"to": p.Token, "data": hexutil.Bytes(chain.Pack("balanceOf", p.From))}, "latest")
		b.Add(&q.balance, "eth_getBalance", p.account.key.address, "latest")
		b.Add(&q.pending, "eth_getTransactionCount", p.account.key.address, "pending")
		b.Add(&q.mined, "eth_getTransactionCount", p.account.key.address, "latest")
	}
	if q.fees {
		q.published = nil
		b.Add(&q.published, "eth_call", l1FeeCall(ordinary), "latest")
		b.Add(&q.price, "eth_gasPrice")
		b.Add(&q.tip, "eth_maxPriorityFeePerGas")
	}
	return b
}

// judge says whether the answers of one node are of use. Errors that are answers, and those
// of what not every node knows, are taken out of the batch.
func (q *questions) judge(b chain.Batch) error {
	c, p := q.c, q.p
	q.simulation = nil
	switch err := b[q.simulationAt].Error; {
	case chain.Reverted(err), tooLittleGas(err):
		q.simulation, b[q.simulationAt].Error = err, nil
	case chain.Answered(err) && chain.Mentions(err, noFunds...):
		c.noGas(p.account)
		return c.unfit(p.account, err)
	}
	if p.learned {
		if err := b[q.nextAt].Error; chain.Reverted(err) {
			q.simulation = err
		}
		b[q.nextAt].Error = nil // not every node simulates in a block that is not there yet
	}
	if q.asksWallet && chain.Reverted(b[q.walletAt].Error) {
		q.agrees, b[q.walletAt].Error = nil, nil
	}
	if q.counts {
		b[q.countAt].Error = nil // the simulation itself tells what is wrong
	}
	if q.fees {
		b[len(b)-1].Error = nil // not every chain has a tip
		c.sawPublished(&b[len(b)-3], q.published)
	}
	if q.settling && chain.Reverted(b[q.ownedAt].Error) {
		q.owned, b[q.ownedAt].Error = nil, nil
	}
	if err := b.Err(); err != nil {
		return err
	}
	return c.CheckNode(q.id, q.head)
}

// view is what the answers say. What holds for other payments, too, is kept.
func (q *questions) view(ctx context.Context) view {
	c, p, h := q.c, q.p, q.head
	v := view{simulation: q.simulation}
	for i := range q.contracts {
		if len(q.code[i]) > 0 {
			c.contracts.Store(q.contracts[i], c.now())
		} else if v.lacking == nil {
			v.lacking = &q.contracts[i]
		}
	}
	if moved, ok := readCount(q.counted); ok && q.counts {
		if v.miscounts = moved.Cmp(p.Value.ToBig()) != 0; !v.miscounts {
			c.counting.Store(p.Token, c.now())
		}
	}
	v.block, v.base = uint64(*h.Number), toBig(h.BaseFee)
	v.payerCode, v.code = len(q.payerCode) > 0, codeHash(q.payerCode)
	v.walletAgrees = v.payerCode && len(q.agrees) >= 32 && bytes.Equal(q.agrees[:32], magic1271)
	v.balance, v.pending, v.mined = q.balance, uint64(q.pending), uint64(q.mined)
	if q.fees {
		v.fees = c.market(v.base, toBig(q.tip), toBig(q.price))
	}
	if q.settling {
		c.shared.queue.sawBalance(p.account, toBig(q.balance))
		c.reached(ctx, p.account, v.mined)
		if n, ok := value[*big.Int](result3{true, q.owned}, "balanceOf"); ok {
			v.owns = uint256.MustFromBig(n)
		}
	}
	return v
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
