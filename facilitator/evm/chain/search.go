package chain

import (
	"context"
	"errors"
	"net/http"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/rpc"
)

const (
	// firstStep is how many blocks the search for a time goes back at first, and
	// goodEnough when it is close enough.
	firstStep, goodEnough = 256, 64
	// maxSearches bounds how often one look asks a node for events.
	maxSearches = 200
	// maxCandidates bounds how many payments one look weighs, callsAtOnce in one round
	// trip. Each of them has cost its payer the price.
	maxCandidates, callsAtOnce = 5000, 20
)

// spans are how many blocks are searched at once, widest first: what nodes allow
// differs, and only their errors tell.
var spans = [...]uint64{10_000, 2_000, 500, 100, 10}

// blockAt returns a block to begin with, when everything since a time is to be
// seen: the first of that time, or one a little before it.
func (n *Node) blockAt(ctx context.Context, last *Head, unix int64) (uint64, error) {
	from, _, err := n.around(ctx, last, unix)
	return from, err
}

// blockAfter returns a block to end with, when everything before a time is to be seen:
// the first of that time, or one a little after it, or the last.
func (n *Node) blockAfter(ctx context.Context, last *Head, unix int64) (uint64, error) {
	_, to, err := n.around(ctx, last, unix)
	return to, err
}

// around returns two blocks near to each other, so that all blocks before from are
// older than a time, and none after to is, up to the last.
func (n *Node) around(ctx context.Context, last *Head, unix int64) (from, to uint64, err error) {
	to = uint64(*last.Number)
	if last.unix() < unix {
		return to + 1, to, nil // the next blocks are younger for all we know
	}
	before := to
	for step := uint64(firstStep); ; step *= 4 {
		if before == 0 {
			return 0, to, nil
		}
		before -= min(before, step)
		h, err := n.block(ctx, before)
		if err != nil {
			return 0, 0, err
		}
		if h.unix() < unix {
			break
		}
		to = before
	}
	for to-before > goodEnough {
		middle := before + (to-before)/2
		h, err := n.block(ctx, middle)
		if err != nil {
			return 0, 0, err
		}
		if h.unix() < unix {
			before = middle
		} else {
			to = middle
		}
	}
	return before + 1, to, nil
}

// events goes through the events in a range of blocks that tell what became of an
// authorization, in their order, until visit is done.
func (n *Node) events(ctx context.Context, p *Payment, from, to uint64, visit func([]Event) (done bool, err error)) error {
	span := 0
	filter := p.trace().filter(p)
	for range maxSearches {
		if from > to {
			return nil
		}
		end := min(to, from+spans[span]-1)
		var found []Event
		filter["fromBlock"], filter["toBlock"] = hexutil.Uint64(from), hexutil.Uint64(end)
		err := n.Call(ctx, &found, "eth_getLogs", filter)
		switch {
		case err == nil:
			if done, err := visit(p.own(found)); done || err != nil {
				return err
			}
			from = end + 1
		case tooWide(err) && span < len(spans)-1 && ctx.Err() == nil:
			span++
		default:
			return err
		}
	}
	return errTooFar
}

// tooWide reports whether fewer blocks may help. Nodes have many words for it,
// and some answer with a status only; a try costs little.
func tooWide(err error) bool {
	if status, ok := errors.AsType[rpc.HTTPError](err); ok {
		return status.StatusCode == http.StatusBadRequest || status.StatusCode == http.StatusRequestEntityTooLarge
	}
	return Answered(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errTooLong)
}

// EventsSince asks for the events that tell what became of an authorization in the blocks
// after one. Nodes that search few blocks at once may refuse it.
func (c *Chain) EventsSince(ctx context.Context, p *Payment, block uint64) ([]Event, error) {
	var events []Event
	filter := p.since(block)
	err := c.Ask(ctx, func() Batch {
		events = nil
		var b Batch
		b.Add(&events, "eth_getLogs", filter)
		return b
	}, Batch.Err)
	if err != nil {
		return nil, err
	}
	return p.own(events), nil
}

// since is the filter for the events that tell what became of an authorization in the blocks
// after one.
func (p *Payment) since(block uint64) map[string]any {
	filter := p.trace().filter(p)
	filter["fromBlock"], filter["toBlock"] = hexutil.Uint64(block+1), "latest"
	return filter
}
