package evm

import (
	"bytes"
	"context"
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"go.uber.org/zap"
)

// sentTransaction is what we read of a transaction that an earlier process sent.
type sentTransaction struct {
	sentCall
	From   common.Address  `json:"from"`
	Number *hexutil.Uint64 `json:"nonce"`
	Gas    hexutil.Uint64  `json:"gas"`
	Price  *hexutil.Big    `json:"gasPrice"`
	Cap    *hexutil.Big    `json:"maxFeePerGas"`
	Tip    *hexutil.Big    `json:"maxPriorityFeePerGas"`
	Block  *hexutil.Uint64 `json:"blockNumber"`
}

// resume finds the transaction that an earlier process has sent for a payment, so that
// it is waited for and no second one is sent. It returns nil if no node knows it.
func (c *chain) resume(ctx context.Context, p *payment) *flight {
	if p.earlier == "" {
		return nil
	}
	hash := common.HexToHash(p.earlier)
	for _, n := range c.nodes {
		var tx *sentTransaction
		if err := n.call(ctx, &tx, "eth_getTransactionByHash", hash); err != nil || tx == nil || tx.Hash != hash || tx.Number == nil {
			continue
		}
		if fl := c.earlierFlight(p, tx); fl != nil {
			c.notices.of(fl.by).logger.Info("a transaction of an earlier process is waited for", zap.Stringer("transaction", hash))
			return fl
		}
	}
	return nil
}

// earlierFlight makes a flight of a transaction that an earlier process has sent; nil if it
// is none of this payment, or the account is not ours any more.
func (c *chain) earlierFlight(p *payment, tx *sentTransaction) *flight {
	by := c.accountOf(tx.From)
	if by == nil {
		return nil
	}
	p.account = by
	to, data := p.encoded()
	fl := &flight{by: by, number: uint64(*tx.Number), to: to, data: tx.Input, gas: uint64(tx.Gas), ends: p.ends()}
	switch {
	case tx.calls(to) && bytes.Equal(tx.Input, data):
	case tx.To == nil && bytes.Contains(tx.Input, data):
		fl.shared = 2 // or more
	default:
		return nil
	}
	fl.hashes = hashes{tx.Hash}
	fl.fees = fees{legacy: tx.Cap == nil, tip: toBig(tx.Tip), feeCap: toBig(tx.Cap)}
	if fl.fees.legacy {
		fl.fees.tip, fl.fees.feeCap = toBig(tx.Price), toBig(tx.Price)
	}
	if fl.fees.feeCap == nil || fl.fees.tip == nil {
		fl.fees = fees{legacy: fl.fees.legacy, tip: new(big.Int), feeCap: new(big.Int)}
	}
	fl.sentAt = c.now()
	if tx.Block == nil {
		by.sender.adopt(fl)
	}
	return fl
}

// adopt records a flight that an earlier process began, if that is not known yet.
func (s *sender) adopt(fl *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, other := range s.flights {
		if other.number == fl.number {
			return
		}
	}
	s.next = max(s.next, fl.number+1)
	s.flights = append(s.flights, fl)
}
