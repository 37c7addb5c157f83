package evm

import (
	"context"
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// HasBlock implements facilitator.Blocks.
func (f *Facilitator) HasBlock(ctx context.Context, network string, b facilitator.Block) (bool, error) {
	defer f.users.enter()()
	return hasBlock(ctx, f.chains, network, b)
}

// HasBlock implements facilitator.Blocks.
func (l *Look) HasBlock(ctx context.Context, network string, b facilitator.Block) (bool, error) {
	defer l.users.enter()()
	return hasBlock(ctx, l.chains, network, b)
}

// hasBlock asks the nodes in turn, until one of them knows a block of that number.
func hasBlock(ctx context.Context, chains map[string]*chain, network string, b facilitator.Block) (bool, error) {
	c, ok := chains[network]
	if !ok {
		return false, fmt.Errorf("the network %q is not configured here", network)
	}
	var h *head
	err := c.ask(ctx, func() calls {
		h = nil
		var batch calls
		batch.add(&h, "eth_getBlockByNumber", hexutil.Uint64(b.Number), false)
		return batch
	}, func(batch calls) error {
		if err := every(batch); err != nil {
			return err
		}
		if !h.complete() || uint64(*h.Number) != b.Number {
			return fmt.Errorf("the node does not know block %d", b.Number)
		}
		return nil
	})
	return err == nil && h.Hash == common.HexToHash(b.Hash), err
}

// block is where a receipt says that its transaction is.
func (r *receipt) block() facilitator.Block {
	if r.Block == nil || r.BlockHash == (common.Hash{}) {
		return facilitator.Block{}
	}
	return facilitator.Block{Number: uint64(*r.Block), Hash: r.BlockHash.Hex()}
}

// Interface guards
var (
	_ facilitator.Blocks = (*Facilitator)(nil)
	_ facilitator.Blocks = (*Look)(nil)
)
