package evm

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rpc"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/pricing/money"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	// approvalWait is how long an approval, and the gas for it, are waited for
	// together. Nothing of the payment itself has been sent by then.
	approvalWait = 45 * time.Second
	// fundGas is the gas for a payment of the chain's own coin to an account without code.
	// Rollups count their costs of publication into it.
	fundGas = 100_000
	// maxApprovals bounds how many payers' approvals are waited for at once: it costs
	// a payer nothing to sign one that no block takes.
	maxApprovals = 32
	// headroom is how many eighths of the base fee an approval must be able to pay: it
	// can rise by one with each block. Of the market's tip it must offer a half.
	headroom, tipShare = 9, 2
	// approvalPause is how long a payer's approvals are not sent after one that no block
	// has taken.
	approvalPause = time.Hour
	// giftTries is how often an approval is sent again whose gas the node does not see
	// yet, for some seconds in all.
	giftTries = 8
	// fundShare: one payer gets at most this part of a day's budget.
	fundShare = 4
	// giftGas is the most gas that is given, and giftMargin at how many halves of the market's
	// price: the payer has signed a fee some time ago. The payer keeps what the approval does
	// not use.
	giftGas    = 100_000
	giftMargin = 3
)

// sponsorsApprovals reports whether payers' approvals are sent, and paid for if
// need be.
func (c *settler) sponsorsApprovals() bool { return c.approvalBudget != nil }

// parseBudget reads an amount of the chain's own coin a day, like 0.01/day, in
// the smallest unit.
func parseBudget(s string) (*big.Int, error) {
	amount, ok := strings.CutSuffix(s, "/day")
	if !ok {
		return nil, fmt.Errorf("%q: write an amount of the chain's own coin a day, like 0.01/day", s)
	}
	return parseCoin(amount)
}

// parseCoin reads an amount of the chain's own coin, in the smallest unit.
func parseCoin(s string) (*big.Int, error) {
	atomic, err := money.Money{Decimal: s}.Atomic(18)
	if err != nil {
		return nil, err
	}
	n, ok := new(big.Int).SetString(atomic, 10)
	if !ok || n.Sign() <= 0 {
		return nil, fmt.Errorf("%q is no amount", s)
	}
	return n, nil
}

// wouldApprove reports whether all that a payment lacks is an allowance that the
// payer has signed with it.
func wouldApprove(err error, p *payment) bool {
	refused, ok := errors.AsType[*x402.Error](err)
	return ok && refused.Code == codePermit2Allowance && p.approval != nil
}

// approvable checks that the payer's approval can be sent and paid for. Refusals
// are *x402.Error; what the payer can do about most of them is to approve without
// us.
func (c *settler) approvable(ctx context.Context, p *payment, v view) error {
	if err := c.shared.approvals.refuses(p.From, c.hasPaid(p.From), c.now()); err != nil {
		return err
	}
	_, err := c.missingGas(ctx, p, v)
	return err
}

// missingGas returns what the payer lacks of the gas for the approval, in the
// chain's smallest unit, after a look at what would become of it.
func (c *settler) missingGas(ctx context.Context, p *payment, v view) (*big.Int, error) {
	seen, err := c.lookAtApproval(ctx, p)
	if err != nil {
		return nil, err
	}
	tx := p.approval.tx
	switch {
	case seen.refused != nil:
		return nil, &x402.Error{Code: codeApprovalFailed, Err: seen.refused}
	case tx.Nonce() != uint64(seen.number):
		return nil, refuse(codeApprovalFailed, "the number of the transaction is not the payer's next")
	}
	market := seen.now.fees(c)
	if tooCheap(tx, seen.now.head.BaseFee, market) {
		return nil, refuse(codeApprovalFailed, "the transaction offers too little for its gas")
	}
	published := readL1Fee(seen.published)
	missing := new(big.Int).Add(tx.Cost(), published)
	missing.Sub(missing, toBig(seen.balance))
	if missing.Sign() <= 0 {
		return new(big.Int), nil
	}
	most := new(big.Int).Add(mostGiven(tx, market), published)
	if err := c.refusesGift(p, v, missing, most); err != nil {
		return nil, err
	}
	return missing, nil
}

// approvalView is what one round trip says about a payer's approval.
type approvalView struct {
	number            hexutil.Uint64 // the payer's next
	balance           *hexutil.Big   // of the payer
	result, published hexutil.Bytes
	refused           error // why the approval would be reverted
	now               prices
}

// lookAtApproval asks what would become of a payer's approval.
func (c *settler) lookAtApproval(ctx context.Context, p *payment) (*approvalView, error) {
	tx, seen := p.approval.tx, new(approvalView)
	err := c.Ask(ctx, func() chain.Batch {
		*seen = approvalView{}
		var b chain.Batch
		b.Add(&seen.number, "eth_getTransactionCount", p.From, "latest")
		b.Add(&seen.balance, "eth_getBalance", p.From, "latest")
		b.Add(&seen.result, "eth_call", map[string]any{
			"from": p.From, "to": p.Token, "gas": hexutil.Uint64(tx.Gas()), "data": hexutil.Bytes(tx.Data()),
		}, "latest")
		b.Add(&seen.published, "eth_call", l1FeeCall(p.approval.raw), "latest")
		seen.now.ask(&b)
		return b
	}, func(b chain.Batch) error {
		if chain.Reverted(b[2].Error) {
			seen.refused, b[2].Error = b[2].Error, nil
		}
		if chain.Reverted(b[3].Error) {
			seen.published, b[3].Error = nil, nil
		}
		if err := seen.now.judge(c, b); err != nil {
			return err
		}
		if seen.balance == nil {
			return errors.New("the node knows no balance of the payer")
		}
		return nil
	})
	return seen, err
}

// refusesGift refuses to give a payer what is missing for the gas of the approval; most is
// what its gas is worth.
func (c *settler) refusesGift(p *payment, v view, missing, most *big.Int) error {
	const without = "the payer has no gas for the approval, and "
	hasPaid := c.hasPaid(p.From)
	switch {
	case v.payerCode:
		return refuse(codePermit2Allowance, without+"code that a gift of it would run")
	case c.shared.approvals.unpaid.Contains(gift{p.From, p.Token}):
		return refuse(codePermit2Allowance, without+"was given some before and has not paid since")
	case missing.Cmp(most) > 0:
		return refuse(codePermit2Allowance, without+"offers more for it than the market wants, or asks for much")
	case new(big.Int).Mul(missing, big.NewInt(fundShare)).Cmp(c.approvalBudget) > 0:
		return refuse(codePermit2Allowance, without+"offers too much of our budget for it")
	case !c.shared.approvals.left(missing, c.approvalBudget, c.now(), hasPaid):
		if hasPaid {
			c.Notices.Warn("payers' approvals are not paid for any more today: approval_budget is used up")
		} else {
			c.Notices.Warn("approvals of payers who have not paid here before are not paid for any more today: their half of approval_budget is used up")
		}
		return refuse(codePermit2Allowance, without+"the budget of today is used up")
	}
	return nil
}

// feeOracle is a contract on chains of the OP stack, as Base, that tells what a transaction
// costs besides its gas, for its publication on Ethereum. Other chains have no contract there.
var (
	feeOracle = common.HexToAddress("0x420000000000000000000000000000000000000F")
	askL1Fee  = [4]byte(crypto.Keccak256([]byte("getL1Fee(bytes)")))
)

// ordinary is a transaction as long as that of an ordinary payment, and of bytes that
// cannot be compressed.
var ordinary = func() (raw []byte) {
	for word := crypto.Keccak256(nil); len(raw) < transferSize+120; word = crypto.Keccak256(word) {
		raw = append(raw, word...)
	}
	return raw
}()

// sawPublished takes note of what the oracle said, if it answered. On chains without the
// oracle the answer is empty.
func (c *settler) sawPublished(asked *rpc.BatchElem, answer []byte) {
	switch {
	case asked.Error == nil:
		c.published.Store(readL1Fee(answer))
	case chain.Answered(asked.Error):
		asked.Error = nil // what was said last holds
	}
}

// l1FeeCall asks it about a transaction.
func l1FeeCall(raw []byte) map[string]any {
	return map[string]any{"to": feeOracle, "data": hexutil.Bytes(appendBytes(appendUint(askL1Fee[:], 32), raw))}
}

// readL1Fee reads the answer, and adds a quarter since it changes with each block of
// Ethereum.
func readL1Fee(answer []byte) *big.Int {
	if len(answer) != 32 {
		return new(big.Int)
	}
	return quarterMore(new(big.Int).SetBytes(answer))
}

// tooCheap reports whether an approval offers so little for its gas that blocks may leave it
// out: it would hold a place for nothing.
func tooCheap(tx *types.Transaction, base *hexutil.Big, now fees) bool {
	tip := new(big.Int).Quo(now.tip, big.NewInt(tipShare))
	if now.legacy {
		return tx.GasFeeCap().Cmp(tip) < 0
	}
	least := new(big.Int).Mul(toBig(base), big.NewInt(headroom))
	least.Rsh(least, 3)
	return tx.GasTipCap().Cmp(tip) < 0 || tx.GasFeeCap().Cmp(least.Add(least, tip)) < 0
}

// mostGiven is the most that a payer is given for an approval: what its gas costs now,
// with a margin. What the payer's own transaction offers is up to the payer.
func mostGiven(tx *types.Transaction, now fees) *big.Int {
	most := now.total(min(tx.Gas(), giftGas))
	most.Mul(most, big.NewInt(giftMargin))
	return most.Rsh(most, 1)
}

// approve sends the payer's approval and waits until it is in a block, one of a payer at a
// time. It gives back the place of the payment first, since the payer decides how long that
// takes. Afterwards the caller looks at the chain again. The error is an *x402.Error if there
// will be no allowance.
func (c *settler) approve(ctx context.Context, p *payment, v view) error {
	until := c.now().Add(approvalWait)
	done, first, err := c.shared.approvals.begin(p.From, c.hasPaid(p.From), c.now())
	if err != nil {
		return err
	}
	if !first {
		c.leave(p)
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return errors.New("another approval of this payer is under way")
		}
	}
	defer c.shared.approvals.end(p.From, done)
	missing, err := c.missingGas(ctx, p, v)
	if err != nil {
		return err
	}
	if missing.Sign() > 0 {
		if err := c.fund(ctx, p, missing, until, v); err != nil {
			return fmt.Errorf("paying for the payer's approval: %w", err)
		}
	}
	c.leave(p)
	tx := p.approval.tx
	switch a, err := c.sendApproval(ctx, tx, missing.Sign() > 0); a {
	case taken, unclear, numberTaken:
	case turnedAway:
		if !chain.Answered(err) {
			return fmt.Errorf("sending the payer's approval: %w", err)
		}
		return &x402.Error{Code: codeApprovalBroadcast, Err: err}
	default:
		return &x402.Error{Code: codeApprovalBroadcast, Err: err}
	}
	r, err := c.landing(ctx, p.account, until, func() hashes { return hashes{tx.Hash()} })
	switch {
	case errors.Is(err, errNoBlock):
		if missing.Sign() == 0 { // else he waits until he has paid for the gift
			c.shared.approvals.late.Add(p.From, c.now())
		}
		return &x402.Error{Code: codeApprovalFailed, Err: err}
	case err != nil:
		return fmt.Errorf("the payer's approval is in no block: %w", err)
	case *r.Status != 1:
		return refuse(codeApprovalFailed, "the approval was reverted")
	}
	return nil
}

// sendApproval sends the payer's approval. A node may learn a moment later than we
// that its gas was given.
func (c *settler) sendApproval(ctx context.Context, tx *types.Transaction, given bool) (answer, error) {
	pause := firstPoll
	for tries := 0; ; tries++ {
		a, err := c.broadcast(ctx, tx)
		if a != turnedAway || !given || tries == giftTries || !chain.Mentions(err, noFunds...) {
			return a, err
		}
		if err := c.sleep(ctx, pause); err != nil {
			return turnedAway, err
		}
		pause = min(pause*3/2, lastPoll)
	}
}

// fund pays a payer what is missing for the gas of the approval.
func (c *settler) fund(ctx context.Context, p *payment, missing *big.Int, until time.Time, v view) error {
	budget := &c.shared.approvals
	cost := new(big.Int).Add(missing, v.fees.total(fundGas))
	if v.fees.excessive(fundGas) {
		return errors.New("the gas price is beyond all reason")
	}
	if balance := toBig(v.balance); balance == nil || balance.Cmp(cost) < 0 {
		c.noGas(p.account, zap.Stringer("balance", balance), zap.Stringer("needed", cost))
		return c.unfit(p.account, fmt.Errorf("the account %s cannot pay for it", p.account.key.address))
	}
	hasPaid, unpaid := c.hasPaid(p.From), gift{p.From, p.Token}
	if !budget.take(cost, c.approvalBudget, c.now(), hasPaid) {
		return errors.New("the budget of today is used up")
	}
	budget.unpaid.Add(unpaid, struct{}{}) // before it is sent: it may be on its way whatever we hear
	fl, a, err := c.sendGift(ctx, p, v, missing)
	if a == turnedAway || a == refusedByCall {
		budget.give(cost, hasPaid)
		budget.unpaid.Remove(unpaid)
		return errors.Join(errors.New("it was not sent"), err)
	}
	r, err := c.landing(ctx, p.account, until, func() hashes { sent, _ := fl.sent(); return sent })
	if err != nil {
		return err
	}
	c.landed(fl)
	if *r.Status != 1 {
		return errors.New("it was reverted")
	}
	c.Notices.Of(p.account.key.address).Logger.Info("a payer was given the gas for an approval", zap.Stringer("payer", p.From), zap.Stringer("amount", missing))
	return nil
}

// sendGift sends the payer some of the chain's own coin.
func (c *settler) sendGift(ctx context.Context, p *payment, v view, amount *big.Int) (*flight, answer, error) {
	leave, err := c.turn(ctx, p.account)
	if err != nil {
		return nil, turnedAway, err
	}
	defer leave()
	return c.send(ctx, v, &flight{by: p.account, to: p.From, gas: fundGas, value: amount})
}

// errNoBlock is for a transaction that no block has taken in time.
var errNoBlock = errors.New("no block has taken it")

// landing waits until a block holds one of some transactions, and returns its receipt, which
// has a status. Meanwhile it nudges the account.
func (c *settler) landing(ctx context.Context, a *account, until time.Time, sent func() hashes) (*chain.Receipt, error) {
	for pause := firstPoll; ; pause = min(pause*3/2, lastPoll) {
		list := sent()
		found := make([]*chain.Receipt, len(list))
		err := c.Ask(ctx, func() chain.Batch {
			var b chain.Batch
			for i, h := range list {
				found[i] = nil
				b.Add(&found[i], "eth_getTransactionReceipt", h)
			}
			return b
		}, chain.Batch.Err)
		for i, r := range found {
			if err == nil && r != nil && r.Transaction == list[i] && r.Block != nil && r.Status != nil {
				return r, nil
			}
		}
		a.sender.nudge(ctx, c)
		switch late := c.now().After(until); {
		case late && err != nil:
			return nil, err
		case late:
			return nil, errNoBlock
		}
		if err := c.sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}
