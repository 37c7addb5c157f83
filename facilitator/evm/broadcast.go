package evm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// answer is what became of sending a transaction.
type answer int

const (
	// unclear: it may be on its way.
	unclear answer = iota
	// taken: a node has it.
	taken
	// numberTaken: another transaction has its number, so it never counts.
	numberTaken
	// turnedAway: it was not taken, for a reason that is ours.
	turnedAway
	// refusedByCall: the node says that the contract would revert, or that something
	// about the transaction is wrong. It has not taken it as far as one can tell.
	refusedByCall
)

// reply is what one node said to a transaction.
type reply struct {
	answer
	err error
}

// broadcast sends a transaction to all nodes at once; the first that takes it is
// enough, so that one that hangs holds up nobody. All of them get the same one, which
// cannot be counted twice. It returns while some may still be asked.
//
// A clear no counts only when all nodes have answered: one that has not may have taken the
// transaction.
func (c *settler) broadcast(ctx context.Context, tx *types.Transaction) (answer, error) {
	raw, err := tx.MarshalBinary()
	if err != nil {
		return turnedAway, err
	}
	if err := ctx.Err(); err != nil {
		return turnedAway, err
	}
	to := c.listening()
	replies := make(chan reply, len(to))
	for _, n := range to {
		leave := c.looking.Enter() // the connection is in use for longer than by our caller
		go func() {
			defer leave()
			replies <- c.sendTo(context.WithoutCancel(ctx), n, raw, tx.Hash())
		}()
	}
	said := make(map[answer][]error)
	for range to {
		select {
		case r := <-replies:
			if r.answer == taken {
				return taken, nil
			}
			said[r.answer] = append(said[r.answer], r.err)
		case <-ctx.Done():
			return unclear, errors.Join(append(said[unclear], ctx.Err())...)
		}
	}
	// The result does not depend on which node was faster. If one node says that the number is
	// used, another number is tried. That nothing was sent for a reason of ours is returned
	// only if no node says anything else.
	for _, a := range []answer{unclear, numberTaken, refusedByCall, turnedAway} {
		if errs := said[a]; len(errs) > 0 {
			return a, errors.Join(errs...)
		}
	}
	return turnedAway, errors.Join(said[turnedAwayAtDoor]...)
}

// listening returns the nodes that a transaction is sent to: not those that were silent
// a moment ago, unless all were.
func (c *settler) listening() []*chain.Node {
	var list []*chain.Node
	for _, n := range c.Nodes {
		if !c.wasSilent(n) {
			list = append(list, n)
		}
	}
	if len(list) == 0 {
		return c.Nodes
	}
	return list
}

// deafFor is how long a node that was silent to a transaction gets no other one: each payment
// would wait for it if no other node took its transaction.
const deafFor = time.Minute

func (c *settler) wasSilent(n *chain.Node) bool {
	at, ok := c.silent.Load(n)
	return ok && c.now().Sub(at.(time.Time)) < deafFor
}

// sendTo sends a transaction to one node.
func (c *settler) sendTo(ctx context.Context, n *chain.Node, raw []byte, hash common.Hash) (r reply) {
	// A panic in this goroutine would end the process: no caller recovers from it.
	defer func() {
		if v := recover(); v != nil {
			r = reply{unclear, fmt.Errorf("panic: %v", v)}
		}
	}()
	var ignored common.Hash
	err := n.Call(ctx, &ignored, "eth_sendRawTransaction", hexutil.Bytes(raw))
	if err == nil {
		return reply{taken, nil}
	}
	if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() {
		c.silent.Store(n, c.now())
	}
	a := read1(err)
	if a != alreadyKnown && !mayHavePassedItOn(err) {
		return reply{a, err}
	}
	var found *chain.Transaction
	asked := n.Call(ctx, &found, "eth_getTransactionByHash", hash)
	switch {
	case asked == nil && found != nil && found.Hash == hash:
		return reply{taken, nil}
	case a != alreadyKnown:
		return reply{a, err}
	case asked != nil:
		return reply{unclear, errors.Join(err, asked)}
	}
	// A payer's contract may have said these words, on nodes that run a call before they take
	// the transaction; such a node does not have it. If it then counted as sent, its number
	// would hold up all payments of the account. So the node has to show the transaction.
	return reply{refusedByCall, err}
}

// mayHavePassedItOn reports whether a refusal may be one of several that a proxy has got from
// its nodes, of which another has taken the transaction: limits are told so.
func mayHavePassedItOn(err error) bool {
	status, ok := errors.AsType[rpc.HTTPError](err)
	return ok && status.StatusCode == http.StatusTooManyRequests || chain.Answered(err) && nodeTakesNothing(err)
}

const (
	// turnedAwayAtDoor: the node was not reached, and the next one may be.
	turnedAwayAtDoor answer = -1 - iota
	// alreadyKnown: the node says that it has the transaction.
	alreadyKnown
)

// read1 says what one node's error means. Nodes have no codes for it, so that their words
// count. Unknown words leave it unclear: a node may have passed the transaction on before
// something else went wrong.
func read1(err error) answer {
	if !chain.Answered(err) {
		if chain.NeverSent(err) {
			return turnedAwayAtDoor
		}
		return unclear
	}
	switch {
	case nodeTakesNothing(err) && chain.Mentions(err, "timeout", "timed out", "deadline", "all upstreams"):
		return unclear // of several nodes behind a proxy one may have it
	case chain.Reverted(err):
		// The words may be the payer's, whose wallet is called: they say nothing about
		// the node, and no other number helps.
		return refusedByCall
	case chain.Mentions(err, "already known", "alreadyknown", "known transaction", "already imported", "already in mempool", "already in the mempool"):
		return alreadyKnown
	case chain.Mentions(err, "nonce too low", "noncetoolow", "nonce is too low", "oldnonce", "replacement transaction underpriced",
		"replacementnotallowed", "could not replace", "gas price too low to replace"):
		return numberTaken
	case chain.Mentions(err, noFunds...), chain.Mentions(err, notOurDay...), nodeTakesNothing(err):
		return turnedAway
	case chain.Mentions(err, refusals...):
		return refusedByCall
	default:
		return unclear
	}
}

// refusals are the words of a node that finds fault with a transaction or a call, besides
// those of reverted: it has not taken it.
var refusals = []string{
	"policy", "restricted", "blocked", "sanction",
	"nonce too high", "nonce is too high", "nonce gap", "gapped", "oversized data", "max initcode size", "negative value",
	"invalid transaction", "invalid signature", "invalid argument", "invalid param", "invalid request", "invalid nonce", "invalid input", "rlp:",
	"max priority fee per gas higher", "tip above fee cap", "blacklisted", "denylist", "not allowed", "not whitelisted",
	// Tokens and Permit2, where a node leaves out that the call was reverted.
	"authorization is used", "authorization is expired", "authorization is not yet valid", "invalidnonce", invalidNonceError, "exceeds balance", "exceeds allowance",
}

// noFunds are the words for an account that cannot pay the gas.
var noFunds = []string{"insufficient funds", "insufficientfunds", "insufficient balance for gas", "not enough funds", "upfront cost exceeds account balance"}

// perAccount are the words for what holds for one account and not for another.
var perAccount = []string{"account limit exceeded", "in-flight transaction limit"}

// notOurDay are the words for transactions that no node takes, whatever the
// payment: fees that are too low, limits, wrong settings.
var notOurDay = []string{
	"underpriced", "less than block base fee", "feetoolow", "fee too low", "gas price below", "gas price too low",
	"intrinsic gas", "block gas limit", "gas limit too high", "exceeds the configured cap",
	"txpool is full", "sub-pool is full", "pool is full", "out of capacity", "account limit exceeded", "in-flight transaction limit",
	"transaction type not supported", "replay-protected", "invalid sender", "invalid chain id",
}

// noMore are the words of a provider for who has asked too much of it, or has not paid: it
// has not looked at the transaction, and another node may take it.
var noMore = []string{
	"rate limit", "ratelimit", "rate-limit", "rate exceeded", "request limit", "rps limit", "too many request", "request count exceeded",
	"quota", "capacity limit exceeded", "exceeded its compute units", "compute units per second", "usage limit", "credits",
	"upgrade your account", "upgrade your plan", "upgrade to pay", "upgrade to paid", "must be authenticated", "project id setting", "api key is not allowed",
}

// noSuchMethod are the words that, beside the word for a method or its name, say that a node
// takes transactions from nobody, or not from us.
var noSuchMethod = []string{
	"not found", "does not exist", "not exist", "not available", "not supported", "unsupported", "not whitelisted", "not allowed",
	"not enabled", "disabled", "forbidden", "not permitted", "denied", "unknown method", "blocked", "restricted",
}

// nodeTakesNothing reports whether a node refuses the call and not the transaction: it has
// not looked at that.
func nodeTakesNothing(err error) bool {
	return chain.Mentions(err, noMore...) || chain.Mentions(err, "method", "eth_sendrawtransaction") && chain.Mentions(err, noSuchMethod...)
}

// prices are what a node says of the cost of gas, in a batch that is also asked for
// other things.
type prices struct {
	id         hexutil.Uint64
	head       *chain.Head
	tip, price *hexutil.Big
	published  hexutil.Bytes
}

// ask adds the questions to a batch, of which they must be the last.
func (p *prices) ask(b *chain.Batch) {
	*p = prices{}
	b.Add(&p.id, "eth_chainId")
	b.Add(&p.head, "eth_getBlockByNumber", "latest", false)
	b.Add(&p.published, "eth_call", l1FeeCall(ordinary), "latest")
	b.Add(&p.price, "eth_gasPrice")
	b.Add(&p.tip, "eth_maxPriorityFeePerGas")
}

// judge says whether the answers of a batch are of use.
func (p *prices) judge(c *settler, b chain.Batch) error {
	b[len(b)-1].Error = nil // not every chain has a tip
	c.sawPublished(&b[len(b)-3], p.published)
	if err := b.Err(); err != nil {
		return err
	}
	return c.CheckNode(p.id, p.head)
}

func (p *prices) fees(c *settler) fees {
	return c.market(toBig(p.head.BaseFee), toBig(p.tip), toBig(p.price))
}

// pendingOf asks for the next number of an account of ours, transactions in the pool
// counted; 0 if no node says.
func (c *settler) pendingOf(ctx context.Context, a *account) uint64 {
	var pending hexutil.Uint64
	err := c.Ask(ctx, func() chain.Batch {
		pending = 0
		var b chain.Batch
		b.Add(&pending, "eth_getTransactionCount", a.key.address, "pending")
		return b
	}, chain.Batch.Err)
	if err != nil {
		return 0
	}
	return uint64(pending)
}

// accountNow asks how many transactions of an account of ours are in blocks, and what gas
// costs.
func (c *settler) accountNow(ctx context.Context, a *account) (mined uint64, f fees, err error) {
	var count hexutil.Uint64
	var now prices
	err = c.Ask(ctx, func() chain.Batch {
		count = 0
		var b chain.Batch
		b.Add(&count, "eth_getTransactionCount", a.key.address, "latest")
		now.ask(&b)
		return b
	}, func(b chain.Batch) error { return now.judge(c, b) })
	if err != nil {
		return 0, fees{}, err
	}
	return uint64(count), now.fees(c), nil
}
