package evm

import (
	"bytes"
	"context"
	"maps"
	"math/big"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// sentTransaction is what we read of a transaction that an earlier process sent.
type sentTransaction struct {
	chain.Transaction
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
func (c *settler) resume(ctx context.Context, p *payment) *flight {
	if p.earlier == "" {
		return nil
	}
	hash := common.HexToHash(p.earlier)
	for _, n := range c.Nodes {
		var tx *sentTransaction
		if err := n.Call(ctx, &tx, "eth_getTransactionByHash", hash); err != nil || tx == nil || tx.Hash != hash || tx.Number == nil {
			continue
		}
		if fl := c.earlierFlight(p, tx); fl != nil {
			c.Notices.Of(fl.by.key.address).Logger.Info("a transaction of an earlier process is waited for", zap.Stringer("transaction", hash))
			return fl
		}
	}
	return nil
}

// earlierFlight makes a flight of a transaction that an earlier process has sent; nil if it
// is none of this payment, or the account is not ours any more.
func (c *settler) earlierFlight(p *payment, tx *sentTransaction) *flight {
	by := c.accountOf(tx.From)
	if by == nil {
		return nil
	}
	p.account = by
	to, data := p.encoded()
	fl := &flight{by: by, number: uint64(*tx.Number), to: to, data: tx.Input, gas: uint64(tx.Gas), ends: p.ends()}
	switch {
	case tx.Calls(to) && bytes.Equal(tx.Input, data):
	case tx.To == nil && bytes.Contains(tx.Input, data):
		fl.to, fl.shared = common.Address{}, 2 // or more
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
	fl.follow(p)
	return by.sender.adopt(fl)
}

// adopt records a flight that an earlier process began, and returns the flight that the
// payment is to wait for: a known one if it does the same, for example because another payment
// of the same batch was resumed before. If the number is known for something else, only that
// is sent again, and the receipt of the number decides about both. The number may be in a
// block already: the chain can take that back, and the callers have to learn that it was used
// otherwise.
func (s *sender) adopt(fl *flight) *flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, known := range s.flights {
		if known.number != fl.number {
			continue
		}
		for _, one := range known.withTwins() {
			if one.to == fl.to && bytes.Equal(one.data, fl.data) && (one.shared > 0) == (fl.shared > 0) {
				one.merge(fl)
				return one
			}
		}
		known.twins = append(known.twins, fl)
		return fl
	}
	s.next = max(s.next, fl.number+1)
	s.flights = append(s.flights, fl)
	return fl
}

// withTwins are a flight and its twins.
func (fl *flight) withTwins() []*flight { return append([]*flight{fl}, fl.twins...) }

// merge adds to a flight what it lacks of a new one that does the same.
func (fl *flight) merge(other *flight) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if hash := other.hashes[0]; !slices.Contains(fl.hashes, hash) {
		fl.hashes = slices.Insert(fl.hashes, 0, hash) // the newest stays the last
	}
	if other.ends.After(fl.ends) {
		fl.ends = other.ends
	}
	if fl.announces == nil {
		fl.announces = make(map[claim]func(string) error)
	}
	maps.Copy(fl.announces, other.announces)
}
