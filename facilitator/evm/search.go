package evm

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
	// maxCandidates bounds how many events one look considers.
	maxCandidates = 200
)

// spans are how many blocks are searched at once, widest first: what nodes allow
// differs, and only their errors tell.
var spans = [...]uint64{10_000, 2_000, 500, 100, 10}

// blockAt returns a block to begin with, when everything since a time is to be
// seen: the first of that time, or one a little before it.
func (n *node) blockAt(ctx context.Context, last *head, unix int64) (uint64, error) {
	after := uint64(*last.Number) + 1 // the next blocks are younger for all we know
	if last.unix() < unix {
		return after, nil
	}
	before, step := uint64(*last.Number), uint64(firstStep)
	for after = before; ; step *= 4 {
		if before == 0 {
			return 0, nil
		}
		before -= min(before, step)
		h, err := n.block(ctx, before)
		if err != nil {
			return 0, err
		}
		if h.unix() < unix {
			break
		}
		after = before
	}
	for after-before > goodEnough {
		middle := before + (after-before)/2
		h, err := n.block(ctx, middle)
		if err != nil {
			return 0, err
		}
		if h.unix() < unix {
			before = middle
		} else {
			after = middle
		}
	}
	return before + 1, nil
}

// events returns the events in a range of blocks that tell what became of an
// authorization: the first ones if they can only be of this one, else all.
func (n *node) events(ctx context.Context, p *payment, from, to uint64) ([]event, error) {
	span := 0
	var all []event
	filter := p.filter(p)
	for range maxSearches {
		if from > to {
			return all, nil
		}
		end := min(to, from+spans[span]-1)
		var found []event
		filter["fromBlock"], filter["toBlock"] = hexutil.Uint64(from), hexutil.Uint64(end)
		err := n.call(ctx, &found, "eth_getLogs", filter)
		switch {
		case err == nil:
			if all = append(all, p.own(found)...); len(all) > 0 && !p.direct() {
				return all, nil
			}
			if len(all) > maxCandidates {
				return nil, errTooMany
			}
			from = end + 1
		case tooWide(err) && span < len(spans)-1 && ctx.Err() == nil:
			span++
		default:
			return nil, err
		}
	}
	return nil, errTooFar
}

// tooWide reports whether fewer blocks may help. Nodes have many words for it,
// and some answer with a status only; a try costs little.
func tooWide(err error) bool {
	if status, ok := errors.AsType[rpc.HTTPError](err); ok {
		return status.StatusCode == http.StatusBadRequest || status.StatusCode == http.StatusRequestEntityTooLarge
	}
	return answered(err) || errors.Is(err, context.DeadlineExceeded)
}

// own picks the events that may be of this authorization: not every node filters
// well.
func (p *payment) own(events []event) []event {
	var list []event
	for _, e := range events {
		if !e.Removed && (p.isUse(p, &e) || p.isCancel(p, &e)) {
			list = append(list, e)
		}
	}
	return list
}
