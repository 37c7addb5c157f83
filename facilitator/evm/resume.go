package evm

import (
	"bytes"
	"context"
	"maps"
	"math/big"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"go.uber.org/zap"
)

// resume finds the transaction that an earlier process has sent for a payment, so that
// it is waited for and no second one is sent. It returns nil if no node knows it, or if it
// was reverted or given up, as this process has seen. No node can invent one: that it is ours, and all
// that is in it, is signed with our key.
func (c *settler) resume(ctx context.Context, p *payment) *flight {
	if p.earlier == "" {
		return nil
	}
	hash := common.HexToHash(p.earlier)
	if over, known := c.shared.payments.public(p.claim()); known && over == hash {
		return nil
	}
	for _, n := range c.Nodes {
		var tx *types.Transaction // a client may write nothing
		if err := n.Call(ctx, &tx, "eth_getTransactionByHash", hash); err != nil || tx == nil || tx.Hash() != hash {
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
func (c *settler) earlierFlight(p *payment, tx *types.Transaction) *flight {
	from, err := types.Sender(types.LatestSignerForChainID(new(big.Int).SetUint64(c.ID)), tx)
	by := c.accountOf(from)
	if err != nil || by == nil {
		return nil
	}
	p.account = by
	to, data := p.encoded()
	fl := &flight{by: by, number: tx.Nonce(), to: to, data: tx.Data(), gas: tx.Gas(), ends: p.ends()}
	switch {
	case tx.To() != nil && *tx.To() == to && bytes.Equal(tx.Data(), data):
	case tx.To() == nil && bytes.Contains(tx.Data(), data):
		fl.to, fl.shared = common.Address{}, 2 // or more
	default:
		return nil
	}
	fl.hashes = hashes{tx.Hash()}
	fl.fees = fees{legacy: tx.Type() == types.LegacyTxType, tip: tx.GasTipCap(), feeCap: tx.GasFeeCap()}
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
