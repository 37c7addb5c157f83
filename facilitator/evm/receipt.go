package evm

import (
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
	Logs        []event         `json:"logs"`
}

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

// judge says what the receipt of a transaction means for the payment. own says
// that the transaction is one of ours, which does nothing but this payment.
//
// One event proves one payment. In the transaction of somebody else that is not
// as easy as it sounds: who may put several calls into one transaction can use
// one authorization for a transfer to himself, and a second one for the only
// transfer to the payee. Tokens write AuthorizationUsed and its Transfer in
// succession, so that pair is what we want to see.
func (r *receipt) judge(hash common.Hash, p *payment, own bool) verdict {
	if r == nil || r.Transaction != hash || r.Block == nil || r.Status == nil {
		return inconclusive
	}
	if *r.Status != 1 {
		return failed
	}
	var used, afterUsed, moved bool
	for i := range r.Logs {
		e := &r.Logs[i]
		if e.Removed || e.Address != p.token {
			continue
		}
		switch {
		case e.isUse(p):
			used, afterUsed = true, true
			continue
		case e.isTransfer(p) && (own || afterUsed):
			moved = true
		}
		afterUsed = false
	}
	if used && moved {
		return paid
	}
	return mismatch
}

// wentElsewhere reports whether the token says, beyond doubt, that the
// authorization was used to pay somebody else or another amount. The payer
// signed one nonce twice then, and this payment can never move money.
//
// Any transfer to the payee in the same transaction leaves doubt: there are
// tokens that take a fee, or that write their events in another order.
func (r *receipt) wentElsewhere(p *payment) bool {
	var afterUsed, elsewhere bool
	for i := range r.Logs {
		e := &r.Logs[i]
		if e.Removed || e.Address != p.token {
			continue
		}
		transfer := len(e.Topics) == 3 && e.Topics[0] == transferTopic && e.Topics[1] == addressTopic(p.From)
		if transfer && e.Topics[2] == addressTopic(p.To) {
			return false
		}
		elsewhere = elsewhere || transfer && afterUsed
		afterUsed = e.isUse(p)
	}
	return elsewhere
}

// hasCancel reports whether the token says that the payer cancelled the
// authorization.
func (r *receipt) hasCancel(p *payment) bool {
	for i := range r.Logs {
		if e := &r.Logs[i]; !e.Removed && e.Address == p.token && e.isCancel(p) {
			return true
		}
	}
	return false
}

// isCancel reports whether the event is AuthorizationCanceled of this payment.
func (e *event) isCancel(p *payment) bool {
	return len(e.Topics) == 3 && e.Topics[0] == canceledTopic &&
		e.Topics[1] == addressTopic(p.From) && e.Topics[2] == p.Nonce
}

// isUse reports whether the event is AuthorizationUsed of this payment.
func (e *event) isUse(p *payment) bool {
	return len(e.Topics) == 3 && e.Topics[0] == usedTopic &&
		e.Topics[1] == addressTopic(p.From) && e.Topics[2] == p.Nonce
}

// isTransfer reports whether the event is the Transfer of this payment.
func (e *event) isTransfer(p *payment) bool {
	value := p.Value.Bytes32()
	return len(e.Topics) == 3 && e.Topics[0] == transferTopic &&
		e.Topics[1] == addressTopic(p.From) && e.Topics[2] == addressTopic(p.To) &&
		common.BytesToHash(e.Data) == value && len(e.Data) == len(value)
}
