package chain

import (
	"context"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// Receipt is what we read of a transaction's receipt; what the node left out is nil. It is
// our own type, because receipts of other chains lack what go-ethereum's type insists on.
// Fees are in the chain's smallest unit.
type Receipt struct {
	Transaction common.Hash     `json:"transactionHash"`
	Block       *hexutil.Uint64 `json:"blockNumber"`
	BlockHash   common.Hash     `json:"blockHash"`
	Status      *hexutil.Uint64 `json:"status"` // EIP-658: 1 unless it was reverted
	GasUsed     *hexutil.Uint64 `json:"gasUsed"`
	GasPrice    *hexutil.Big    `json:"effectiveGasPrice"` // of one gas, tip included (EIP-1559)
	L1Fee       *hexutil.Big    `json:"l1Fee"`             // for the publication, of the OP stack
	Logs        []Event         `json:"logs"`

	// call is what the transaction calls; nil if it was not asked for.
	call *Transaction
}

// Transaction is what we read of a transaction.
type Transaction struct {
	Hash  common.Hash     `json:"hash"`
	To    *common.Address `json:"to"` // nil if it creates a contract
	Input hexutil.Bytes   `json:"input"`
}

// Calls reports whether the transaction calls a contract.
func (s *Transaction) Calls(contract common.Address) bool { return s.To != nil && *s.To == contract }

// Event is a log entry of a contract. Removed says that a reorganisation took it back.
type Event struct {
	Address     common.Address `json:"address"`
	Topics      []common.Hash  `json:"topics"`
	Data        hexutil.Bytes  `json:"data"`
	Transaction common.Hash    `json:"transactionHash"`
	Removed     bool           `json:"removed"`
}

// Verdict is what a receipt says about a payment.
type Verdict int

const (
	// Inconclusive: no receipt of that transaction, or an incomplete one.
	Inconclusive Verdict = iota
	// Paid: the token says that this authorization was used, and that it moved
	// the money to the payee.
	Paid
	// Failed: the transaction was reverted.
	Failed
	// Mismatch: it was not reverted, and yet the token does not say that it
	// moved what was to be paid.
	Mismatch
)

// Origin says what else a transaction may have done beside a payment, and with that what
// its receipt proves.
type Origin int

const (
	// Foreign: somebody else sent it, and it may have done whatever else.
	Foreign Origin = iota
	// Alone: it is ours, and does nothing but this payment.
	Alone
	// Prepared: it is ours, and before this payment calls something that the payer has
	// chosen (ERC-6492).
	Prepared
	// Among: it is ours, and settles other payments, too. One that fails takes no other
	// with it.
	Among
)

// Judge says what the receipt of the transaction with this hash means for a payment. A nil
// receipt is Inconclusive, and so is that of another transaction.
func (r *Receipt) Judge(hash common.Hash, p *Payment, from Origin) Verdict {
	if r == nil || r.Transaction != hash || r.Block == nil || r.Status == nil {
		return Inconclusive
	}
	if *r.Status != 1 {
		return Failed
	}
	if p.trace().moved(p, r, from == Alone) {
		return Paid
	}
	if from == Among && !p.uses(r) {
		return Failed // the others went on without it
	}
	return Mismatch
}

// Cancels reports whether the payer has given up the nonce in the transaction.
func (r *Receipt) Cancels(p *Payment) bool {
	return slices.ContainsFunc(r.Logs, func(e Event) bool { return p.IsCancel(&e) })
}

// setCall adds what the transaction calls, if that was found.
func (r *Receipt) setCall(call *Transaction) {
	if r != nil && call != nil && call.Hash == r.Transaction {
		r.call = call
	}
}

// isTransfer reports whether the event is the Transfer of this payment.
func (e *Event) isTransfer(p *Payment) bool {
	value := p.Value.Bytes32()
	return len(e.Topics) == 3 && e.Topics[0] == transferTopic &&
		e.Topics[1] == AddressTopic(p.From) && e.Topics[2] == AddressTopic(p.To) &&
		common.BytesToHash(e.Data) == value && len(e.Data) == len(value)
}

// Deep reports whether enough blocks hold the transaction, when the chain's last one is last.
func (c *Chain) Deep(r *Receipt, last uint64) bool {
	return c.Confirmations <= 1 || last >= uint64(*r.Block) && last-uint64(*r.Block) >= c.Confirmations-1
}

// Receipt asks for the receipt of a transaction that may be somebody else's, and for what it
// called if that matters. deep says that it is deep enough in the chain to count, and that a
// quorum has it. r is nil if no node has it.
func (c *Chain) Receipt(ctx context.Context, p *Payment, hash common.Hash) (r *Receipt, deep bool, err error) {
	var last hexutil.Uint64
	var call *Transaction
	err = c.Ask(ctx, func() Batch {
		r, call, last = nil, nil, 0
		var b Batch
		b.Add(&r, "eth_getTransactionReceipt", hash)
		b.Add(&last, "eth_blockNumber")
		if p.OnlyByCall() {
			b.Add(&call, "eth_getTransactionByHash", hash)
		}
		return b
	}, Batch.Err)
	r.setCall(call)
	return r, err == nil && r != nil && r.Block != nil && c.Deep(r, uint64(last)) && c.Agreed(ctx, p, r, Foreign), err
}

// InBlock returns the block that a receipt says its transaction is in; a zero one if it does
// not say.
func (r *Receipt) InBlock() facilitator.Block {
	if r.Block == nil || r.BlockHash == (common.Hash{}) {
		return facilitator.Block{}
	}
	return facilitator.Block{Number: uint64(*r.Block), Hash: r.BlockHash.Hex()}
}
