package chain

import (
	"context"
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// HasBlock implements facilitator.Blocks.
func (l *Look) HasBlock(ctx context.Context, network string, b facilitator.Block) (bool, error) {
	defer l.Enter()()
	c, err := l.of(network)
	if err != nil {
		return false, err
	}
	return c.hasBlock(ctx, b)
}

// hasBlock asks the nodes in turn, until one of them knows a block of that number.
func (c *Chain) hasBlock(ctx context.Context, b facilitator.Block) (bool, error) {
	var h *Head
	err := c.Ask(ctx, func() Batch {
		h = nil
		var batch Batch
		batch.Add(&h, "eth_getBlockByNumber", hexutil.Uint64(b.Number), false)
		return batch
	}, func(batch Batch) error {
		if err := batch.Err(); err != nil {
			return err
		}
		if !h.complete() || uint64(*h.Number) != b.Number {
			return fmt.Errorf("the node does not know block %d", b.Number)
		}
		return nil
	})
	return err == nil && h.Hash == common.HexToHash(b.Hash), err
}

// Interface guard
var _ facilitator.Blocks = (*Look)(nil)
