package chain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	// claimSkew is how much older than our claim a block may be that proves a
	// payment. The time of a block is when it was begun, which may be some
	// seconds before what is in it was sent, and clocks differ by a little. It
	// must be small: what was used before our claim was for something else.
	claimSkew = 5 * time.Second
	// endMargin is how long after the end of an authorization a block must be
	// that shows it unused. Tokens refuse it from its end on.
	endMargin = 5 * time.Second
	// finalDepth is how deep a block must be to count as final, if the node
	// cannot say which ones are.
	finalDepth = 256
)

// state is what a contract has of an authorization.
type state int

const (
	stateUnclear state = iota // the contract does not tell
	stateUnused
	stateUsed // or cancelled
)

// testimony is what one node says about one authorization.
type testimony struct {
	facilitator.Proof
	state state
	at    uint64 // the last block of the node
}

// void is the proof that an authorization has not moved the money and never
// will.
func void(reason x402.Code) facilitator.Proof {
	return facilitator.Proof{Evidence: facilitator.Void, Reason: string(reason)}
}

// examine asks one node what became of an authorization.
func (c *Chain) examine(ctx context.Context, n *Node, p *Payment, since time.Time) (testimony, error) {
	last, err := c.last(ctx, n)
	if err != nil {
		return testimony{}, err
	}
	t := testimony{at: uint64(*last.Number)}
	if t.state, err = n.stateOf(ctx, p, last); err != nil {
		return testimony{}, err
	}
	switch {
	case t.state == stateUnused:
		t.Proof, err = c.ended(ctx, n, p, last)
	case !since.IsZero():
		t.Proof, err = c.search(ctx, n, p, last, since)
	}
	return t, err
}

// last returns the node's last block, if the node is of any use.
func (c *Chain) last(ctx context.Context, n *Node) (*Head, error) {
	var id hexutil.Uint64
	var h *Head
	var b Batch
	b.Add(&id, "eth_chainId")
	b.Add(&h, "eth_getBlockByNumber", "latest", false)
	if err := n.Ask(ctx, b); err != nil {
		return nil, err
	}
	if err := b.Err(); err != nil {
		return nil, err
	}
	return h, c.CheckNode(id, h)
}

// stateOf asks the contract that keeps account of the nonces. The block is given by its number: of several machines
// behind one URL, one that lags behind does not know it, and fails.
func (n *Node) stateOf(ctx context.Context, p *Payment, at *Head) (state, error) {
	var answer hexutil.Bytes
	question := map[string]any{"to": p.Keeper(), "data": hexutil.Bytes(p.AskUsed())}
	err := n.Call(ctx, &answer, "eth_call", question, at.Number)
	if err != nil && !Reverted(err) {
		return stateUnclear, err
	}
	used, ok := p.ReadUsed(answer, err == nil)
	switch {
	case !ok:
		return stateUnclear, nil
	case used:
		return stateUsed, nil
	}
	return stateUnused, nil
}

// ended judges an authorization that is unused after the last block. What is
// used once stays so; therefore it was unused in all blocks before as well, and
// if a final one of them is past its end, no block to come can use it.
func (c *Chain) ended(ctx context.Context, n *Node, p *Payment, last *Head) (facilitator.Proof, error) {
	end := time.Unix(p.Authorization.ValidBefore, 0).Add(endMargin).Unix()
	if last.unix() < end {
		return facilitator.Proof{}, nil
	}
	final, err := c.final(ctx, n, last)
	if err != nil || final.unix() < end {
		return facilitator.Proof{}, err
	}
	if p.OnlyByCall() {
		return void(x402.CodePermit2Deadline), nil
	}
	return void(x402.CodeValidBefore), nil
}

// search looks for the use of an authorization, or its cancellation.
func (c *Chain) search(ctx context.Context, n *Node, p *Payment, last *Head, since time.Time) (facilitator.Proof, error) {
	from, err := n.blockAt(ctx, last, since.Add(-claimSkew).Unix())
	if err != nil {
		return facilitator.Proof{}, err
	}
	if p.Permit != nil {
		calls := callSearch{c: c, n: n, p: p, w: permit2Trace{p.Permit}, last: last, since: since}
		return calls.run(ctx, from)
	}
	var proof facilitator.Proof
	err = n.events(ctx, p, from, uint64(*last.Number), func(events []Event) (done bool, err error) {
		for i := range events {
			if proof, err = c.weigh(ctx, n, p, &events[i], last, since); err != nil || proof.Evidence != facilitator.Open {
				return true, err
			}
		}
		return len(events) > 0, nil // they can only be of this authorization
	})
	return proof, err
}

// callSearch is search for what Permit2 moves, which writes nothing about a use: each
// payment of the payer to the payee may be this one, and only what its transaction
// called tells.
type callSearch struct {
	c     *Chain
	n     *Node
	p     *Payment
	w     permit2Trace
	last  *Head
	since time.Time

	proof   facilitator.Proof
	paid    bool // something
	weighed int  // payments
	givenUp *Event
}

// run looks at the blocks up to the end of the authorization: no block after that can hold
// the payment, whatever else the payer has bought since. That the payer gave up the nonce may
// be in a later one.
func (s *callSearch) run(ctx context.Context, from uint64) (facilitator.Proof, error) {
	end, err := s.n.blockAfter(ctx, s.last, time.Unix(s.p.Authorization.ValidBefore, 0).Add(endMargin).Unix())
	if err != nil {
		return facilitator.Proof{}, err
	}
	err = s.n.events(ctx, s.p, from, end, func(events []Event) (done bool, err error) { return s.visit(ctx, events) })
	if err != nil || s.paid || s.proof.Evidence != facilitator.Open {
		return s.proof, err
	}
	if s.givenUp == nil {
		err = s.n.events(ctx, s.p, end+1, uint64(*s.last.Number), func(events []Event) (done bool, err error) {
			for i := range events {
				if !s.p.IsUse(&events[i]) {
					s.givenUp = &events[i]
				}
			}
			return s.givenUp != nil, nil
		})
	}
	if err != nil || s.givenUp == nil {
		return facilitator.Proof{}, err
	}
	return s.c.givenUp(ctx, s.n, s.p, s.givenUp, s.last)
}

// visit weighs the payments among some events, until one of them proves something.
func (s *callSearch) visit(ctx context.Context, events []Event) (done bool, err error) {
	var payments []Event
	for i := range events {
		e := &events[i]
		switch {
		case !s.p.IsUse(e):
			s.givenUp = e
		case e.isTransfer(s.p):
			payments = append(payments, *e)
			s.paid = true
		default:
			s.paid = true
		}
	}
	for few := range slices.Chunk(payments, callsAtOnce) {
		if s.weighed += len(few); s.weighed > maxCandidates {
			return true, errTooMany
		}
		own, err := s.n.calling(ctx, s.p, s.w, few)
		if err != nil {
			return true, err
		}
		for i := range own {
			if s.proof, err = s.c.weigh(ctx, s.n, s.p, &own[i], s.last, s.since); err != nil || s.proof.Evidence != facilitator.Open {
				return true, err
			}
		}
	}
	return false, nil
}

// calling picks the events whose transactions call for this very payment.
func (n *Node) calling(ctx context.Context, p *Payment, w permit2Trace, events []Event) (own []Event, err error) {
	found := make([]*Transaction, len(events))
	var b Batch
	for i := range events {
		b.Add(&found[i], "eth_getTransactionByHash", events[i].Transaction)
	}
	if err := n.Ask(ctx, b); err != nil {
		return nil, err
	}
	if err := b.Err(); err != nil {
		return nil, err
	}
	for i, call := range found {
		if call != nil && call.Hash == events[i].Transaction && call.Calls(w.proxy()) && w.isCall(p, call.Input) {
			own = append(own, events[i])
		}
	}
	return own, nil
}

// givenUp judges a Permit2 nonce that is used: if the payer gave it up in a final
// block, and from our claim to the end of the authorization paid nothing to the payee,
// then no payment has used it.
func (c *Chain) givenUp(ctx context.Context, n *Node, p *Payment, givenUp *Event, last *Head) (facilitator.Proof, error) {
	var r *Receipt
	if err := n.Call(ctx, &r, "eth_getTransactionReceipt", givenUp.Transaction); err != nil {
		return facilitator.Proof{}, err
	}
	if r == nil || r.Transaction != givenUp.Transaction || r.Block == nil || r.Status == nil || *r.Status != 1 {
		return facilitator.Proof{}, nil
	}
	final, err := c.final(ctx, n, last)
	if err != nil || *r.Block > *final.Number {
		return facilitator.Proof{}, err
	}
	block, err := n.block(ctx, uint64(*r.Block))
	if err != nil || block.Hash != r.BlockHash {
		return facilitator.Proof{}, err
	}
	return void(p.UsedCode()), nil
}

// weigh judges one event by the transaction that it is of.
func (c *Chain) weigh(ctx context.Context, n *Node, p *Payment, e *Event, last *Head, since time.Time) (facilitator.Proof, error) {
	r, err := n.receiptOf(ctx, p, e.Transaction)
	if err != nil {
		return facilitator.Proof{}, err
	}
	verdict := r.Judge(e.Transaction, p, Foreign)
	if verdict == Inconclusive || verdict == Failed || !c.Deep(r, uint64(*last.Number)) {
		return facilitator.Proof{}, nil // taken back by a reorganisation, or may be yet
	}
	block, err := n.block(ctx, uint64(*r.Block))
	if err != nil || block.Hash != r.BlockHash {
		return facilitator.Proof{}, err
	}
	switch {
	case verdict == Paid && block.unix() >= since.Add(-claimSkew).Unix():
		return facilitator.Proof{Evidence: facilitator.Moved, Transaction: e.Transaction.Hex(), Block: r.InBlock()}, nil
	case verdict == Paid:
		return facilitator.Proof{}, nil // for something else, before our claim
	case p.trace().wentElsewhere(p, r):
		final, err := c.final(ctx, n, last)
		if err != nil || *r.Block > *final.Number {
			return facilitator.Proof{}, err
		}
		return void(p.UsedCode()), nil
	}
	return facilitator.Proof{}, nil
}

// receiptOf asks for the receipt of a transaction, and for what it called if that
// matters.
func (n *Node) receiptOf(ctx context.Context, p *Payment, hash common.Hash) (*Receipt, error) {
	var r *Receipt
	var call *Transaction
	var b Batch
	b.Add(&r, "eth_getTransactionReceipt", hash)
	if p.OnlyByCall() {
		b.Add(&call, "eth_getTransactionByHash", hash)
	}
	if err := n.Ask(ctx, b); err != nil {
		return nil, err
	}
	r.setCall(call)
	return r, b.Err()
}

// final returns the newest block up to last that no reorganisation takes back,
// according to the node; if it cannot say, one that is deep below.
func (c *Chain) final(ctx context.Context, n *Node, last *Head) (*Head, error) {
	confirmed := below(last, c.Confirmations-1)
	if c.Development {
		// It has no validators to make anything final.
		return n.block(ctx, confirmed)
	}
	var h *Head
	err := n.Call(ctx, &h, "eth_getBlockByNumber", "finalized", false)
	switch {
	case err != nil && !Answered(err):
		return nil, err
	case err != nil || !h.complete():
		return n.block(ctx, min(confirmed, below(last, finalDepth)))
	case uint64(*h.Number) > confirmed:
		return n.block(ctx, confirmed)
	}
	return h, nil
}

// below is the number of the block that is so deep below another.
func below(h *Head, depth uint64) uint64 {
	return uint64(*h.Number) - min(uint64(*h.Number), depth)
}

// block asks for a block by its number.
func (n *Node) block(ctx context.Context, number uint64) (*Head, error) {
	var h *Head
	if err := n.Call(ctx, &h, "eth_getBlockByNumber", hexutil.Uint64(number), false); err != nil {
		return nil, err
	}
	if !h.complete() || uint64(*h.Number) != number {
		return nil, fmt.Errorf("the node does not know block %d", number)
	}
	return h, nil
}

// complete reports whether a block was given, with what we need of it.
func (h *Head) complete() bool {
	return h != nil && h.Number != nil && h.Time != nil && h.Hash != (common.Hash{})
}

// unix is the time of a block.
func (h *Head) unix() int64 {
	return int64(*h.Time) // #nosec G115 -- a hostile time only makes it far away
}

// errTooFar is for a search through more blocks than a node likes to be asked
// about.
var errTooFar = errors.New("the claim is too long ago for the few blocks that the node searches at once: use a node that searches more")

// errTooMany is for a payer who made more payments to the payee than one look can
// tell apart.
var errTooMany = errors.New("the payer made too many payments to the payee since the claim to tell this one from the others")
