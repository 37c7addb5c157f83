package evm

import (
	"context"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	// firstPoll and lastPoll bound the pauses between looks for a receipt.
	firstPoll = 100 * time.Millisecond
	lastPoll  = time.Second
	// shareLook is how old a look at a transaction of several payments may be.
	shareLook = 250 * time.Millisecond
	// countAfter is how many looks find no receipt before our number is looked at, too:
	// another gateway with the same key may have put its own transaction in the place of ours.
	countAfter = 5
	// lostAfter is how many looks find no receipt, though our number is in a
	// block, before the transaction is given up. Nodes behind one URL may lag.
	lostAfter = 10
	// maxDoubts is how often a second node is asked whether a transaction has moved
	// nothing, before only one node says so.
	maxDoubts = 5
)

// await waits for the receipt of a payment that was sent, until ctx ends.
func (c *settler) await(ctx context.Context, p *payment, rec *record) facilitator.Settlement {
	fl := rec.flight
	missed, looks, doubts := 0, 0, 0
	for pause := firstPoll; ; pause = min(pause*3/2, lastPoll) {
		looks++
		sent, passed := fl.sent()
		r, v, err := c.receipts(ctx, p, fl, sent, looks > countAfter)
		switch {
		case err != nil:
		case v == chain.Paid:
			c.landed(fl)
			c.paid(p, rec, r)
			return settled(p, r)
		case v == chain.Mismatch:
			c.landed(fl)
			another := c.AnotherSays(ctx, &p.Payment, r, p.origin(fl.shared))
			if doubts++; !another && doubts < maxDoubts {
				break // it may be a moment behind
			}
			if another {
				c.costUs(rec, r, chain.AddressTopic(p.Token))
				c.Notices.Error("a transaction succeeded without moving the money: do not accept this asset", zap.Stringer("transaction", r.Transaction), zap.Stringer("asset", p.Token))
			} else {
				c.conclude(fl, r)
				c.Notices.Warn("a node says that a transaction succeeded without moving the money, and no other node says the same: one of them is wrong, or lies", zap.Stringer("transaction", r.Transaction), zap.Stringer("asset", p.Token))
			}
			return unknown(p, codeEventMismatch, r.Transaction.Hex(), "the token does not say that it moved the money")
		case v == chain.Failed:
			c.landed(fl)
			return c.failed(ctx, p, rec, r)
		case r != nil:
			c.landed(fl) // it waits for more blocks, and holds up nobody
		case passed:
			missed++
		}
		if missed >= lostAfter && c.isAround(ctx, fl) {
			missed = 0 // a node was wrong about its number, or lags
		}
		if missed >= lostAfter {
			// Something else took the number, or the chain took it back. The next call
			// may send it anew.
			fl.by.sender.wasLost()
			if _, fillers := fl.mayCount(); rec.place != nil && (fillers == 0 || !c.readReceipt(ctx, fl)) {
				c.unused(fl, rec.place.held)
			}
			rec.place.landed()
			if hash, given := fl.givenUp(); given {
				c.shared.payments.isOver(p, rec, hash)
			} else {
				c.shared.payments.forget(p.claim(), rec)
			}
			c.shared.payments.sawUnused(p.claim(), rec.since, c.now())
			return c.lost(ctx, p, rec, sent)
		}
		fl.by.sender.nudge(ctx, c)
		if err := c.sleep(ctx, pause); err != nil {
			return unknown(p, x402.CodeSettlementPending, fl.newest(), "no receipt yet")
		}
	}
}

// receipts looks for the receipt of any of the transactions, deep enough in the
// chain to count. If the verdict is inconclusive, it is one that is not deep enough,
// or nil. counting also looks whether their number is in a block.
func (c *settler) receipts(ctx context.Context, p *payment, fl *flight, sent hashes, counting bool) (*chain.Receipt, chain.Verdict, error) {
	found, last, err := c.found(ctx, fl, sent, counting)
	if err != nil {
		return nil, chain.Inconclusive, err
	}
	var shallow *chain.Receipt
	for i, r := range found {
		switch v := r.Judge(sent[i], &p.Payment, p.origin(fl.shared)); {
		case v == chain.Inconclusive:
		case c.Deep(r, last) && c.Agreed(ctx, &p.Payment, r, p.origin(fl.shared)):
			return r, v, nil
		default:
			shallow = r
		}
	}
	return shallow, chain.Inconclusive, nil
}

// found asks for the receipts of transactions and for the last block. Those who wait
// for one transaction share a look.
func (c *settler) found(ctx context.Context, fl *flight, sent hashes, counting bool) ([]*chain.Receipt, uint64, error) {
	if fl.shared > 0 {
		fl.look.Lock()
		defer fl.look.Unlock()
		// A caller who has seen the number in a block needs the receipts of now.
		_, passed := fl.sent()
		if seen := &fl.seen; !passed && len(seen.receipts) == len(sent) && time.Since(seen.at) < shareLook {
			return seen.receipts, seen.last, nil
		}
	}
	found := make([]*chain.Receipt, len(sent))
	var last, mined hexutil.Uint64
	err := c.Ask(ctx, func() chain.Batch {
		var b chain.Batch
		for i, h := range sent {
			found[i] = nil
			b.Add(&found[i], "eth_getTransactionReceipt", h)
		}
		if c.Confirmations > 1 {
			last = 0
			b.Add(&last, "eth_blockNumber")
		}
		if counting {
			mined = 0
			b.Add(&mined, "eth_getTransactionCount", fl.by.key.address, "latest")
		}
		return b
	}, chain.Batch.Err)
	if err != nil {
		return nil, 0, err
	}
	if counting {
		c.reached(ctx, fl.by, uint64(mined))
	}
	if fl.shared > 0 {
		fl.seen = seen{found, uint64(last), time.Now()}
	}
	return found, uint64(last), nil
}

// landed drops a flight whose number is in a block.
func (c *settler) landed(fl *flight) { fl.by.sender.prune(fl.number+1, c.now()) }

// failed is for a transaction of ours that was reverted: most likely, somebody
// was faster with the same authorization.
func (c *settler) failed(ctx context.Context, p *payment, rec *record, r *chain.Receipt) facilitator.Settlement {
	s, err := c.findUse(ctx, p, rec.since)
	if err == nil && s.Outcome == facilitator.Settled {
		c.conclude(rec.flight, r) // the payer has paid, and ours was for nothing
		rec.place.landed()
		return s
	}
	c.costUs(rec, r, chain.AddressTopic(p.From), rec.code)
	if err == nil && s.Outcome != facilitator.Unknown {
		return s
	}
	// The next call may send it anew, if it would settle then.
	c.shared.payments.isOver(p, rec, r.Transaction)
	if rec.since != sinceUnknown {
		c.shared.payments.sawUnused(p.claim(), rec.since, c.now())
	}
	// Not a refusal: what the payer signed is public now, and anyone can send
	// it until it ends.
	return unknown(p, p.codes().transaction, r.Transaction.Hex(), "the transaction was reverted, and the authorization is not seen to be used")
}

// paid takes note of money that a transaction of ours has moved.
func (c *settler) paid(p *payment, rec *record, r *chain.Receipt) {
	c.conclude(rec.flight, r)
	rec.place.landed()
	if p.Permit == nil && r.Judge(r.Transaction, &p.Payment, chain.Foreign) == chain.Paid {
		c.sawPair(p.Token)
	}
}

// costUs takes note of a transaction that cost us gas and moved nothing; whose are the payer,
// code or asset that it is counted for.
func (c *settler) costUs(rec *record, r *chain.Receipt, whose ...common.Hash) {
	c.conclude(rec.flight, r)
	rec.place.landed()
	if rec.place != nil {
		rec.counted.Do(func() { c.shared.standings.reverted(c.now(), whose...) })
	}
}

// lost finds out about a payment whose transactions will never be in a block.
func (c *settler) lost(ctx context.Context, p *payment, rec *record, sent hashes) facilitator.Settlement {
	s, err := c.findUse(ctx, p, rec.since)
	if err != nil || s.Outcome != facilitator.Settled {
		c.blame(p, rec)
	}
	if err == nil && s.Outcome != facilitator.Unknown {
		return s
	}
	return unknown(p, x402.CodeSettlementPending, sent.newest(), "another transaction has taken its number")
}

// findUse looks for who used an authorization after a block. Anyone can send
// what a payer signed; if that moved the money to the payee, the payer has paid.
// If the payer cancelled the authorization, it never will.
func (c *settler) findUse(ctx context.Context, p *payment, since uint64) (facilitator.Settlement, error) {
	if since == sinceUnknown {
		return unknown(p, p.UsedCode(), "", "it is not known whether it was used before"), nil
	}
	events, err := c.EventsSince(ctx, &p.Payment, since)
	if err != nil {
		return facilitator.Settlement{}, err
	}
	s := unknown(p, p.UsedCode(), "", "the chain has no event of its use since we first saw it")
	uses := 0
	for _, e := range events {
		if !p.IsUse(&e) {
			continue
		}
		uses++
		if s, err = c.foreign(ctx, p, e.Transaction); err != nil || s.Outcome == facilitator.Settled || !p.OnlyByCall() {
			return s, err
		}
	}
	for _, e := range events {
		// A nonce that is used can be given up as well, which says nothing then.
		if p.IsCancel(&e) && uses == 0 {
			return c.canceled(ctx, p, e.Transaction, since)
		}
	}
	return s, nil
}

// foreign judges the transaction of somebody else that used an authorization.
func (c *settler) foreign(ctx context.Context, p *payment, hash common.Hash) (facilitator.Settlement, error) {
	r, deep, err := c.Receipt(ctx, &p.Payment, hash)
	switch {
	case err != nil:
		return facilitator.Settlement{}, err
	case !deep:
		return unknown(p, x402.CodeSettlementPending, hash.Hex(), "somebody else sent it, and it is not confirmed yet"), nil
	case r.Judge(hash, &p.Payment, chain.Foreign) == chain.Paid:
		return settled(p, r), nil
	}
	return unknown(p, p.UsedCode(), hash.Hex(), "the authorization was used for something else"), nil
}

// canceled refuses a payment that its payer has cancelled, once that is certain: a transaction
// of ours may have moved the money, so one node is not believed where there are several. Its
// use was not seen after a block.
func (c *settler) canceled(ctx context.Context, p *payment, hash common.Hash, since uint64) (facilitator.Settlement, error) {
	used := p.UsedCode()
	r, deep, err := c.Receipt(ctx, &p.Payment, hash)
	if err != nil || r == nil || !deep || !r.Cancels(&p.Payment) || !c.GaveUp(ctx, &p.Payment, r, since) {
		return unknown(p, used, "", "the payer is cancelling the authorization"), err
	}
	return facilitator.Settlement{Outcome: facilitator.Refused, Payer: p.payer(), Reason: string(used), Detail: "the payer has cancelled the authorization"}, nil
}
