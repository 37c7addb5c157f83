package evm

import (
	"context"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// rivalNoticeEvery is how often the log says that another gateway may be there.
const rivalNoticeEvery = time.Hour

// tellOfRival logs that a payment was settled by a transaction of somebody else
// before this process had sent anything. Nobody can have taken it off the chain then:
// its payer has sent it himself, or has given it to another gateway as well. If that
// one has another ledger, both of them deliver for one payment, and neither can know.
func (c *settler) tellOfRival(ctx context.Context, s facilitator.Settlement) {
	const message = "a payment was settled by somebody else before this gateway had sent anything: its payer did it, or another gateway with a ledger of its own takes payments for the same payee, and then both deliver for one payment: have them share a ledger, or give each its own payee"
	if s.Outcome != facilitator.Settled || !c.Notices.Due(message, rivalNoticeEvery) {
		return
	}
	// An account of ours is this gateway before a restart, or one that shares its ledger.
	var sent struct {
		From common.Address `json:"from"`
	}
	err := c.Ask(ctx, func() chain.Batch {
		sent.From = common.Address{}
		var b chain.Batch
		b.Add(&sent, "eth_getTransactionByHash", common.HexToHash(s.Transaction))
		return b
	}, chain.Batch.Err)
	if err != nil || sent.From == (common.Address{}) || c.accountOf(sent.From) != nil {
		return
	}
	c.Notices.Logger.Warn(message, zap.String("transaction", s.Transaction), zap.Stringer("sender", sent.From), zap.String("payer", s.Payer))
}
