package evm

import (
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
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

// foreignCall says that a transaction is not ours, and may do whatever else.
const foreignCall = -1

// judge says what the receipt of a transaction means for the payment. shared is how
// many payments it is for: 0 for one of ours that does nothing but this payment.
func (r *receipt) judge(hash common.Hash, p *payment, shared int) verdict {
	if r == nil || r.Transaction != hash || r.Block == nil || r.Status == nil {
		return inconclusive
	}
	if *r.Status != 1 {
		return failed
	}
	// What a factory does first, the payer has chosen.
	if p.moved(p, r, shared == 0 && p.signer != byFactory) {
		return paid
	}
	if shared > 0 && !p.uses(r) {
		return failed // the others went on without it
	}
	return mismatch
}

// uses reports whether a transaction has used the authorization at all.
func (p *payment) uses(r *receipt) bool {
	return slices.ContainsFunc(r.Logs, func(e event) bool { return !e.Removed && p.isUse(p, &e) })
}

// cancels reports whether the payer has given up the authorization in it.
func (r *receipt) cancels(p *payment) bool {
	for i := range r.Logs {
		if e := &r.Logs[i]; !e.Removed && p.isCancel(p, e) {
			return true
		}
	}
	return false
}

// of adds what the transaction calls, if that was found.
func (r *receipt) of(call *sentCall) {
	if r != nil && call != nil && call.Hash == r.Transaction {
		r.call = call
	}
}

// isTransfer reports whether the event is the Transfer of this payment.
func (e *event) isTransfer(p *payment) bool {
	value := p.value.Bytes32()
	return len(e.Topics) == 3 && e.Topics[0] == transferTopic &&
		e.Topics[1] == addressTopic(p.from) && e.Topics[2] == addressTopic(p.to) &&
		common.BytesToHash(e.Data) == value && len(e.Data) == len(value)
}
