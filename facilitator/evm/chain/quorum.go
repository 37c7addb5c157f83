package chain

import (
	"context"
	"fmt"
	"math/big"
	"slices"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/pricing/money"
)

// opinion is what one node says about a receipt that another one gave.
type opinion int

const (
	// noOpinion: it does not answer, or has not seen enough blocks.
	noOpinion opinion = iota
	// agrees: it has the same.
	agrees
	// objects: it has the block, and not this receipt in it.
	objects
)

// quorum is how many nodes must say that a payment has moved.
func (c *Chain) quorum(p *Payment) int {
	if c.Quorum < 2 || c.QuorumAbove == nil {
		return max(c.Quorum, 1)
	}
	asset, known := money.FindAsset(c.CAIP2, p.Token.Hex())
	if !known || !asset.PegUSD {
		return c.Quorum
	}
	// value / 10^decimals > above / 10^6
	value := new(big.Int).Mul(p.Value.ToBig(), big.NewInt(1e6))
	above := new(big.Int).Mul(c.QuorumAbove, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(asset.Decimals)), nil))
	if value.Cmp(above) > 0 {
		return c.Quorum
	}
	return 1
}

// outweighs reports whether so many nodes that say that a payment has moved are
// enough, beside so many that say otherwise.
func outweighs(quorum, say, object int) bool {
	if quorum < 2 {
		return say > 0 && object == 0
	}
	return say >= quorum && say > object
}

// voidTakes is how many of some nodes must say that a payment never moved money.
func voidTakes(quorum, nodes int) int { return max(quorum, min(2, nodes)) }

// Agreed reports whether enough nodes say what a receipt says about a payment: as many as the
// Quorum, and more than object. Without a quorum the node that gave the receipt is enough, and
// none is asked.
func (c *Chain) Agreed(ctx context.Context, p *Payment, r *Receipt, from Origin) bool {
	quorum := c.quorum(p)
	if quorum < 2 {
		return true
	}
	counts := c.opinions(ctx, func(ctx context.Context, n *Node) opinion { return c.compare(ctx, n, p, r, from) }, func(agree int) bool {
		return outweighs(quorum, agree, len(c.Nodes)-agree) // whatever the others say
	})
	if outweighs(quorum, counts[agrees], counts[objects]) {
		return true
	}
	if counts[objects] > 0 {
		c.Notices.Warn("the nodes disagree about a transaction, so its payment does not count yet: one of them is a moment behind, or wrong, or lies",
			zap.Stringer("transaction", r.Transaction), zap.Int("agree", counts[agrees]), zap.Int("disagree", counts[objects]))
	}
	return false
}

// opinions counts what the nodes say, all of which are asked at once, until so many agree that
// it is enough.
func (c *Chain) opinions(ctx context.Context, ask func(context.Context, *Node) opinion, enough func(agree int) bool) map[opinion]int {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	said := atOnce(c.Nodes, func(n *Node) opinion { return ask(ctx, n) }, func(v any) opinion {
		c.Notices.Error("a bug in the look at a receipt", zap.String("panic", fmt.Sprint(v)))
		return noOpinion
	})
	counts := make(map[opinion]int)
	for range c.Nodes { // all of them: the connections are in use until then
		counts[<-said]++
		if enough(counts[agrees]) {
			cancel()
		}
	}
	return counts
}

// GaveUp reports whether it is certain that the payer gave up the nonce in the transaction of
// a receipt and did not use it after a block. That takes as many nodes as Witness takes to say
// that a payment never moved money, and none that contradicts: by having another receipt, or
// an event of a use. If there is only one node, there is nobody to ask.
func (c *Chain) GaveUp(ctx context.Context, p *Payment, r *Receipt, after uint64) bool {
	if len(c.Nodes) < 2 {
		return true
	}
	counts := c.opinions(ctx, func(ctx context.Context, n *Node) opinion {
		said := c.compare(ctx, n, p, r, Foreign)
		if said != agrees {
			return said
		}
		var events []Event
		if err := n.Call(ctx, &events, "eth_getLogs", p.since(after)); err != nil {
			return noOpinion
		}
		if slices.ContainsFunc(events, func(e Event) bool { return p.IsUse(&e) }) {
			return objects
		}
		return agrees
	}, func(int) bool { return false })
	return counts[objects] == 0 && counts[agrees] >= voidTakes(c.quorum(p), len(c.Nodes))
}

// atOnce asks all nodes at once, and returns a channel of what each of them says, as it comes.
// A panic of ask says what bug makes of it, since no caller recovers from it; an errgroup would
// have the caller panic instead, and end with the first error.
func atOnce[T any](nodes []*Node, ask func(*Node) T, bug func(panicked any) T) <-chan T {
	said := make(chan T, len(nodes))
	for _, n := range nodes {
		go func() {
			var answer T
			defer func() {
				if v := recover(); v != nil {
					answer = bug(v)
				}
				said <- answer
			}()
			answer = ask(n)
		}()
	}
	return said
}

// AnotherSays reports whether a second node has the same to say of a receipt. If there is
// only one, there is nobody to ask.
func (c *Chain) AnotherSays(ctx context.Context, p *Payment, r *Receipt, from Origin) bool {
	if len(c.Nodes) < 2 {
		return true
	}
	saying := 0
	for _, n := range c.Nodes { // among them the one that gave it
		if c.compare(ctx, n, p, r, from) == agrees {
			saying++
		}
	}
	return saying >= 2
}

// compare asks a node for a receipt that another one gave.
func (c *Chain) compare(ctx context.Context, n *Node, p *Payment, r *Receipt, from Origin) opinion {
	var theirs *Receipt
	var call *Transaction
	var last hexutil.Uint64
	var b Batch
	b.Add(&theirs, "eth_getTransactionReceipt", r.Transaction)
	b.Add(&last, "eth_blockNumber")
	if from == Foreign && p.OnlyByCall() {
		b.Add(&call, "eth_getTransactionByHash", r.Transaction)
	}
	if n.Ask(ctx, b) != nil || b.Err() != nil {
		return noOpinion
	}
	theirs.setCall(call)
	v := theirs.Judge(r.Transaction, p, from)
	same := v != Inconclusive && v == r.Judge(r.Transaction, p, from) && theirs.BlockHash == r.BlockHash && theirs.Cancels(p) == r.Cancels(p)
	switch {
	case same && c.Deep(theirs, uint64(last)):
		return agrees
	case !same && uint64(last) >= uint64(*r.Block):
		return objects
	}
	return noOpinion
}
