package chain

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// Seen implements facilitator.Chains.
func (l *Look) Seen() []string {
	if l == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(l.chains))
}

// Genesis implements facilitator.Chains.
func (l *Look) Genesis(ctx context.Context, network string) ([]string, error) {
	defer l.Enter()()
	c, err := l.of(network)
	if err != nil {
		return nil, err
	}
	return c.genesis(ctx)
}

// genesis asks all nodes of a chain at once. The errors of all of them are wanted if none
// answers, so this is no errgroup.
func (c *Chain) genesis(ctx context.Context) ([]string, error) {
	hashes, errs := make([]string, len(c.Nodes)), make([]error, len(c.Nodes))
	var wg sync.WaitGroup
	for i, n := range c.Nodes {
		wg.Go(func() { hashes[i], errs[i] = c.firstBlock(ctx, n) })
	}
	wg.Wait()
	slices.Sort(hashes)
	hashes = slices.DeleteFunc(slices.Compact(hashes), func(h string) bool { return h == "" })
	if len(hashes) == 0 {
		return nil, errors.Join(errs...)
	}
	return hashes, nil
}

// firstBlock returns the hash of a node's first block. A node with another chain
// id is asked for nothing (see checkNode), and says nothing.
func (c *Chain) firstBlock(ctx context.Context, n *Node) (string, error) {
	var id hexutil.Uint64
	var first *struct {
		Number *hexutil.Uint64 `json:"number"`
		Hash   *common.Hash    `json:"hash"`
	}
	var b Batch
	b.Add(&id, "eth_chainId")
	b.Add(&first, "eth_getBlockByNumber", "0x0", false)
	err := n.Ask(ctx, b)
	if err == nil {
		err = b.Err()
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: %w", n.Host, err)
	case uint64(id) != c.ID:
		return "", fmt.Errorf("%s: %w", n.Host, &WrongChainError{want: c.ID, got: uint64(id)})
	case first == nil || first.Hash == nil || first.Number == nil || *first.Number != 0:
		return "", fmt.Errorf("%s: the node does not know the first block", n.Host)
	}
	return first.Hash.Hex(), nil
}

// Interface guard
var _ facilitator.Chains = (*Look)(nil)
