package evm

import (
	"context"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// receipt is what we read of a transaction's receipt. It is our own type,
// because receipts of other chains lack what go-ethereum's type insists on.
type receipt struct {
	Transaction common.Hash     `json:"transactionHash"`
	Block       *hexutil.Uint64 `json:"blockNumber"`
	BlockHash   common.Hash     `json:"blockHash"`
	Status      *hexutil.Uint64 `json:"status"`
	GasUsed     *hexutil.Uint64 `json:"gasUsed"`
	GasPrice    *hexutil.Big    `json:"effectiveGasPrice"`
	L1Fee       *hexutil.Big    `json:"l1Fee"`
	Logs        []event         `json:"logs"`

	// call is what the transaction calls; nil if it was not asked for.
	call *sentCall
}

// sentCall is what we read of a transaction.
type sentCall struct {
	Hash  common.Hash     `json:"hash"`
	To    *common.Address `json:"to"` // nil if it creates a contract
	Input hexutil.Bytes   `json:"input"`
}

// calls reports whether the transaction calls a contract.
func (s *sentCall) calls(contract common.Address) bool { return s.To != nil && *s.To == contract }

// event is a log entry of a contract.
type event struct {
	Address     common.Address `json:"address"`
	Topics      []common.Hash  `json:"topics"`
	Data        hexutil.Bytes  `json:"data"`
	Transaction common.Hash    `json:"transactionHash"`
	Removed     bool           `json:"removed"`
}

// verdict is what a receipt says about a payment.
type verdict int

const (
	// inconclusive: no receipt of that transaction, or an incomplete one.
	inconclusive verdict = iota
	// paid: the token says that this authorization was used, and that it moved
	// the money to the payee.
	paid
	// failed: the transaction was reverted.
	failed
	// mismatch: it was not reverted, and yet the token does not say that it
	// moved what was to be paid.
	mismatch
)

// origin says what else a transaction may have done beside a payment, and with that what
// its receipt proves.
type origin int

const (
	// oForeign: somebody else sent it, and it may have done whatever else.
	oForeign origin = iota
	// oAlone: it is ours, and does nothing but this payment.
	oAlone
	// oPrepared: it is ours, and before this payment calls something that the payer has
	// chosen (ERC-6492).
	oPrepared
	// oAmong: it is ours, and settles other payments, too. One that fails takes no other
	// with it.
	oAmong
)

// judge says what the receipt of a transaction means for the payment.
func (r *receipt) judge(hash common.Hash, p *Payment, from origin) verdict {
	if r == nil || r.Transaction != hash || r.Block == nil || r.Status == nil {
		return inconclusive
	}
	if *r.Status != 1 {
		return failed
	}
	if p.trace().moved(p, r, from == oAlone) {
		return paid
	}
	if from == oAmong && !p.uses(r) {
		return failed // the others went on without it
	}
	return mismatch
}

// cancels reports whether the payer has given up the authorization in it.
func (r *receipt) cancels(p *Payment) bool {
	return slices.ContainsFunc(r.Logs, func(e event) bool { return p.isCancel(&e) })
}

// of adds what the transaction calls, if that was found.
func (r *receipt) of(call *sentCall) {
	if r != nil && call != nil && call.Hash == r.Transaction {
		r.call = call
	}
}

// isTransfer reports whether the event is the Transfer of this payment.
func (e *event) isTransfer(p *Payment) bool {
	value := p.value.Bytes32()
	return len(e.Topics) == 3 && e.Topics[0] == transferTopic &&
		e.Topics[1] == addressTopic(p.from) && e.Topics[2] == addressTopic(p.to) &&
		common.BytesToHash(e.Data) == value && len(e.Data) == len(value)
}

// deep reports whether the block of a receipt has enough blocks upon it.
func (c *Chain) deep(r *receipt, last uint64) bool {
	return c.confirmations <= 1 || last >= uint64(*r.Block) && last-uint64(*r.Block) >= c.confirmations-1
}

// receipt asks for the receipt of somebody else's transaction, for what it called
// if that matters, and whether it is deep enough in the chain.
func (c *Chain) receipt(ctx context.Context, p *Payment, hash common.Hash) (r *receipt, deep bool, err error) {
	var last hexutil.Uint64
	var call *sentCall
	err = c.ask(ctx, func() Batch {
		r, call, last = nil, nil, 0
		var b Batch
		b.add(&r, "eth_getTransactionReceipt", hash)
		b.add(&last, "eth_blockNumber")
		if p.onlyByCall() {
			b.add(&call, "eth_getTransactionByHash", hash)
		}
		return b
	}, Batch.Err)
	r.of(call)
	return r, err == nil && r != nil && r.Block != nil && c.deep(r, uint64(last)) && c.agreed(ctx, p, r, oForeign), err
}

// inBlock is where a receipt says that its transaction is.
func (r *receipt) inBlock() facilitator.Block {
	if r.Block == nil || r.BlockHash == (common.Hash{}) {
		return facilitator.Block{}
	}
	return facilitator.Block{Number: uint64(*r.Block), Hash: r.BlockHash.Hex()}
}
