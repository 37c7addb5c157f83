package evm

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Settle implements facilitator.Facilitator. It sends the transfer and waits for
// its receipt until ctx ends. A repeated call for the same payment finds the
// transaction of the first one and waits for that.
//
// Refused means that nothing was sent, by any call of this process that is
// remembered, and that the payment fails its checks now. That an authorization
// is used is never a reason to refuse, since we or somebody on our behalf may
// have used it, unless the chain shows that its payer cancelled it.
func (f *Facilitator) Settle(ctx context.Context, r facilitator.Request) facilitator.Settlement {
	defer f.looking.Enter()()
	s := f.settle(ctx, r)
	s.Network = r.Requirement.Network
	return s
}

func (f *Facilitator) settle(ctx context.Context, r facilitator.Request) facilitator.Settlement {
	c, err := f.chainOf(r)
	if err != nil {
		return unsent(err)
	}
	p, err := c.read(r)
	if err != nil {
		return notSent(err, p, r)
	}
	// From here on the requirement is the one that the payer signed for. That of
	// upto has the amount to charge in it until now.
	if r.Requirement, err = p.Charge(r.Requirement); err != nil {
		return notSent(err, p, r)
	}
	if !p.Pays(r.Requirement) {
		return notSent(p.check(r.Requirement, f.now(), minLife), p, r)
	}
	if p.Value.IsZero() && p.Upto() {
		return c.chargeNothing(ctx, p, r)
	}
	// What was sent before is waited for whatever the payment is like by now: what its payer
	// signed is in that transaction.
	var resumed *flight
	if !c.shared.payments.has(p.claim()) {
		resumed = c.resume(ctx, p)
	}
	if resumed == nil {
		if err := c.proven(ctx, p, r); err != nil {
			if c.shared.payments.has(p.claim()) {
				return unknown(p, x402.CodeSettlementPending, "", "a good one with this nonce is being settled: "+err.Error())
			}
			return notSent(err, p, r)
		}
	}
	if d, ok := c.shared.payments.wasSettled(p.claim()); ok {
		return c.settledBefore(ctx, p, d)
	}
	rec, first := c.shared.payments.begin(p, f.now())
	switch {
	case first:
		// Its place may be had by the next one, but it still counts as its payer's.
		defer func() { p.place.leave() }()
		c.sendOnce(ctx, p, r, rec, resumed)
	case rec.digest != p.digest:
		return unknown(p, x402.CodeSettlementPending, "", "another authorization with this nonce is being settled")
	case !rec.value.Eq(&p.Value):
		return unknown(p, x402.CodeSettlementPending, "", "another amount of this authorization is being settled")
	default:
		select {
		case <-rec.ready:
		case <-ctx.Done():
			return unknown(p, x402.CodeSettlementPending, "", "an earlier call is still sending this payment")
		}
	}
	return c.outcome(ctx, p, rec)
}

// outcome is what became of a payment after it was sent, or was not.
func (c *settler) outcome(ctx context.Context, p *payment, rec *record) facilitator.Settlement {
	if s := rec.result; rec.flight == nil {
		if p.doubtful && s.Outcome != facilitator.Settled {
			return unknown(p, p.codes().transaction, "", "a node has refused a transaction with it and others, which is no proof: "+s.Reason)
		}
		if earlier, public := c.shared.payments.public(p.claim()); public && s.Outcome == facilitator.Refused {
			// Anybody can send it until it ends, and then it may move money.
			return unknown(p, p.codes().transaction, earlier.Hex(), "an earlier transaction with it was reverted, or given up: "+s.Reason)
		}
		return c.sawOutcome(p, rec, s)
	}
	rec.flight.follow(p)
	return c.sawOutcome(p, rec, c.await(ctx, p, rec))
}

// sawOutcome takes note of a payer who has paid, and returns the settlement as it is.
// What was given to the payer before is paid for then.
func (c *settler) sawOutcome(p *payment, rec *record, s facilitator.Settlement) facilitator.Settlement {
	if s.Outcome == facilitator.Settled && !p.Value.IsZero() {
		rec.counted.Do(func() { c.shared.standings.moved(chain.AddressTopic(p.From), chain.AddressTopic(p.Token), rec.code) })
		c.shared.approvals.unpaid.Remove(gift{p.From, p.Token})
		c.shared.approvals.late.Remove(p.From)
		c.shared.payments.settled(p, rec, common.HexToHash(s.Transaction))
	}
	return s
}

// settledBefore is for a payment that an earlier call has settled: it is looked for
// once more, since a chain can take back what it had.
func (c *settler) settledBefore(ctx context.Context, p *payment, d done) facilitator.Settlement {
	if d.print != p.fingerprint() {
		return unknown(p, x402.CodeSettlementPending, "", "another authorization or amount with this nonce was settled")
	}
	r, deep, err := c.Receipt(ctx, &p.Payment, d.hash)
	switch v := r.Judge(d.hash, &p.Payment, p.origin(int(d.shared))); {
	case err != nil:
		return unknown(p, x402.CodeSettlementPending, d.hash.Hex(), err.Error())
	case v == chain.Paid && deep:
		return settled(p, r)
	case v == chain.Inconclusive:
		// The next call may send it anew, with the number that is free again.
		for _, a := range c.accounts {
			a.sender.wasLost()
		}
		c.shared.payments.unsettle(p.claim(), c.LatestBlock(), c.now())
	}
	return unknown(p, x402.CodeSettlementPending, d.hash.Hex(), "it was in a block, and is not any more")
}

// proven makes sure that the payer has signed before the payment takes the place
// of its nonce: who has not must not be in the way of who has. The code of a wallet
// may answer otherwise later, so that is not asked again.
func (c *settler) proven(ctx context.Context, p *payment, r facilitator.Request) error {
	if p.signer == byKey || c.shared.payments.began(p) {
		return nil
	}
	if err := c.check(p, r, r.Requirement, c.now()); err != nil {
		return err
	}
	v, err := c.inspect(ctx, p, false)
	if err != nil {
		return err
	}
	return p.signed(v)
}

// chargeNothing is for a payment of which the seller takes nothing: it is checked,
// and then there is nothing to send. The authorization stays unused until it ends.
func (c *settler) chargeNothing(ctx context.Context, p *payment, r facilitator.Request) facilitator.Settlement {
	_, err := c.ready(ctx, p, r)
	if err != nil {
		return notSent(err, p, r)
	}
	return settled(p, nil)
}

// sendOnce checks the payment and sends it, unless an earlier process has (resumed), and tells
// those who wait for it. The payment keeps its place among those on their way until leave.
func (c *settler) sendOnce(ctx context.Context, p *payment, r facilitator.Request, rec *record, resumed *flight) {
	var (
		fl     = resumed
		result = facilitator.Settlement{Outcome: facilitator.Unknown, Payer: p.payer(), Reason: string(x402.CodeSettlementPending), Detail: "sending it was cut short"}
	)
	// Also after a panic: others wait for this.
	defer func() {
		if rec.place = p.place; fl == nil {
			c.leave(p)
		}
		c.shared.payments.finish(p, rec, fl, result)
	}()
	if fl != nil {
		rec.since = sinceUnknown
		return
	}
	among, err := c.senders(p)
	if err == nil {
		err = c.check(p, r, r.Requirement, c.now()) // what is no good waits for no place
	}
	if err != nil {
		result = notSent(err, p, r)
		return
	}
	last := false
	for range maxPlaces {
		if err := c.enter(ctx, p, among, last); err != nil {
			result = notSent(err, p, r)
			return
		}
		fl, result, err = c.trySend(ctx, p, r, rec)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errShort):
			last = true
		case errors.Is(err, errOtherPlace), errors.Is(err, errTooRisky):
		case errors.Is(err, errAlone):
			p.solo = true
		case isUnfit(err):
			if among = c.others(among, p.account); len(among) == 0 {
				return
			}
		default:
			return
		}
		c.leave(p)
		result = unsent(&busyError{wait: placeWait, why: "no place was found: " + err.Error()})
	}
}

// maxPlaces bounds how often a payment takes another place: on each account, and some
// times because of what turned out there.
const maxPlaces = maxSigners + 4

// placeWait is when a payment may come again that has found no place.
const placeWait = 10 * time.Second

// Why a payment that was looked at needs another place, or none.
var (
	errShort      = errors.New("the payer has less than what is on its way already")
	errOtherPlace = errors.New("the payer has code, as it turns out")
	errTooRisky   = errors.New("it may cost more gas than there is room for besides what is on its way")
)

// ready checks that the payment would settle now, and sees to the payer's approval
// if there has to be one first.
func (c *settler) ready(ctx context.Context, p *payment, r facilitator.Request) (view, error) {
	if err := c.check(p, r, r.Requirement, c.now()); err != nil {
		return view{}, err
	}
	v, err := c.wouldSettle(ctx, p, r, true)
	if !wouldApprove(err, p) || p.Value.IsZero() {
		return v, err
	}
	notApproved := c.approve(ctx, p, v)
	if notApproved != nil && !isRefusal(notApproved) {
		return view{}, notApproved
	}
	if p.place == nil {
		among, err := c.senders(p)
		if err == nil {
			err = c.enter(ctx, p, among, false)
		}
		if err != nil {
			return view{}, err
		}
	}
	// An earlier payment of the same payer may have brought the allowance meanwhile.
	v, err = c.wouldSettle(ctx, p, r, true)
	if wouldApprove(err, p) && notApproved != nil {
		err = notApproved
	}
	return v, err
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[*x402.Error](err)
	return ok
}

// trySend checks the payment and sends it. The flight is nil if nothing is on
// its way, and the settlement says why; the error is an *unfitError if another of
// our accounts could send it.
func (c *settler) trySend(ctx context.Context, p *payment, r facilitator.Request, rec *record) (*flight, facilitator.Settlement, error) {
	v, err := c.ready(ctx, p, r)
	if err != nil {
		if refused, ok := errors.AsType[*x402.Error](err); ok && refused.Code == p.UsedCode() {
			return nil, c.usedBefore(ctx, p), nil
		}
		return nil, notSent(err, p, r), err
	}
	rec.since, rec.code = v.block, p.code
	if err := c.admit(p, v); err != nil {
		return nil, unsent(err), err
	}
	_, data := p.encoded()
	if err := c.affordable(p.account, p.gas(), len(data), v); err != nil {
		return nil, unsent(err), err
	}
	fl, a, err := c.dispatch(ctx, p, v)
	switch {
	case a == turnedAway:
		return nil, unsent(err), err
	case a == refusedByCall:
		// It is not on its way, but that is no proof; the next call simulates it
		// again.
		c.shared.payments.sawUnused(p.claim(), v.block, c.now())
		return nil, c.refusedByNode(ctx, p, fl, err), nil
	case fl == nil:
		return nil, unknown(p, x402.CodeSettlementPending, "", "it is not known whether it was sent"), nil
	}
	return fl, facilitator.Settlement{}, nil
}

// admit looks once more at what the payment could cost us: the money must be there
// besides what is on its way already, and the place must be one for who the payer is.
func (c *settler) admit(p *payment, v view) error {
	if p.place.wallet != c.isFirstOfWallet(p) || p.place.held != nil && (p.place.held.whose == ofCode) != (p.signer != byKey) {
		return errOtherPlace
	}
	if sum, others := c.shared.queue.onTheirWay(p.place); others && v.owns != nil && v.owns.Lt(sum) {
		return errShort
	}
	return nil
}

// affordable checks that we can pay the gas, before anything is sent.
func (c *settler) affordable(a *account, gas uint64, size int, v view) error {
	offer := v.fees.of(size)
	if offer.excessive(gas) {
		c.Notices.Error("the node asks for more than one whole coin for the gas of one payment, which cannot be right: check the node", zap.Stringer("price", v.fees.feeCap))
		return errors.New("the gas price is beyond all reason")
	}
	if c.tooDear(v.fees) {
		c.tellDear(v.fees)
		return &busyError{wait: dearWait, why: "gas costs more than a settlement may cost"}
	}
	need, balance := needs(a, gas, offer), toBig(v.balance)
	if balance != nil {
		c.spending(new(big.Int).Sub(balance, need), v.fees)
	}
	if balance == nil || balance.Cmp(need) < 0 {
		c.noGas(a, zap.Stringer("balance", balance), zap.Stringer("needed", need))
		return c.unfit(a, fmt.Errorf("the account %s cannot pay the gas", a.key.address))
	}
	return nil
}

// needs is what an account must have for one more transaction.
func needs(a *account, gas uint64, offer fees) *big.Int {
	need := offer.total(gas)
	return need.Add(need, a.sender.committed())
}

// covers reports whether an account can pay for a transaction of several payments, which
// offers much more than one of them does.
func covers(a *account, gas uint64, offer fees, v view) bool {
	balance := toBig(v.balance)
	return balance != nil && !offer.excessive(gas) && balance.Cmp(needs(a, gas, offer)) >= 0
}

// turnedAway logs why nothing could be sent, if an operator can do something, and
// says whether another account could.
func (c *settler) turnedAway(a *account, err error) error {
	switch {
	case chain.Mentions(err, noFunds...):
		c.noGas(a)
	default:
		c.Notices.Of(a.key.address).Error("a payment could not be sent", zap.Error(err))
		if !chain.Mentions(err, perAccount...) {
			return err
		}
	}
	return c.unfit(a, err)
}

// invalidNonceError is how a node shows Permit2's InvalidNonce() if it knows no
// names of errors.
const invalidNonceError = "756688fe"

// refusedByNode is for a transaction that a node refused with words of its own.
func (c *settler) refusedByNode(ctx context.Context, p *payment, fl *flight, err error) facilitator.Settlement {
	if chain.Mentions(err, "used", "canceled", "invalidnonce", invalidNonceError) {
		s := c.usedBefore(ctx, p)
		if s.Outcome == facilitator.Unknown {
			s.Detail += "; " + err.Error()
		}
		return s
	}
	return unknown(p, p.codes().transaction, fl.newest(), err.Error())
}

// usedBefore is for an authorization that is used, though no transaction of
// ours is known to have used it. If it was unused when we first saw it, whoever
// used it since did so with what the payer sent to us.
func (c *settler) usedBefore(ctx context.Context, p *payment) facilitator.Settlement {
	since, ok := c.shared.payments.unusedSince(p.claim(), c.now())
	if !ok {
		return unknown(p, p.UsedCode(), "", "the authorization is used, and nothing shows that it was after we first saw it")
	}
	s, err := c.findUse(ctx, p, since)
	if err != nil {
		return unknown(p, p.UsedCode(), "", "the authorization is used, and the logs cannot be read: "+err.Error())
	}
	c.tellOfRival(ctx, s)
	return s
}

// notSent is for a payment that fails a check, or could not be checked.
func notSent(err error, p *payment, r facilitator.Request) facilitator.Settlement {
	refused, ok := errors.AsType[*x402.Error](err)
	if !ok {
		return unsent(err)
	}
	return facilitator.Settlement{Outcome: facilitator.Refused, Payer: p.payer(), Reason: codeOf(refused, r), Detail: detail(refused)}
}

// unsent is for a payment of which nothing was sent, for no fault of its own.
func unsent(err error) facilitator.Settlement {
	s := facilitator.Settlement{Outcome: facilitator.Unsent, Reason: string(facilitator.CodeUnavailable)}
	if err != nil {
		s.Reason, s.Detail, s.Unreached = string(failure("settle", err).Code), err.Error(), facilitator.NoConnection(err)
	}
	if busy, ok := isBusy(err); ok {
		s.RetryAfter = busy.wait
	}
	return s
}

// unknown is for a payment that may have moved money, or may yet.
func unknown(p *payment, code x402.Code, transaction, detail string) facilitator.Settlement {
	return facilitator.Settlement{
		Outcome: facilitator.Unknown, Payer: p.payer(), Reason: string(code), Transaction: transaction, Detail: detail,
	}
}

// settled is for money that has moved, by the receipt; nil if there was none to move.
func settled(p *payment, r *chain.Receipt) facilitator.Settlement {
	s := facilitator.Settlement{Outcome: facilitator.Settled, Payer: p.payer()}
	if r != nil {
		s.Transaction, s.Block = r.Transaction.Hex(), r.InBlock()
	}
	if p.Upto() {
		s.Amount = p.Value.Dec()
	}
	return s
}
