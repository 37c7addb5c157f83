package evm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Verify implements facilitator.Facilitator. What can be found out without a
// node is, so that junk costs no round trip; a good payment of an ordinary account
// costs one.
func (f *Facilitator) Verify(ctx context.Context, r facilitator.Request) (facilitator.Verdict, error) {
	defer f.looking.Enter()()
	c, err := f.chainOf(r)
	if err != nil {
		return facilitator.Verdict{}, failure("verify", err)
	}
	p, err := c.read(r)
	if err == nil {
		err = c.check(p, r, r.Requirement, f.now())
	}
	var v view
	if err == nil {
		v, err = c.wouldSettle(ctx, p, r, false)
	}
	if wouldApprove(err, p) {
		if err = c.approvable(ctx, p, v); isRefusal(err) {
			// An earlier payment of the same payer may have brought the allowance.
			if _, again := c.wouldSettle(ctx, p, r, false); !wouldApprove(again, p) {
				err = again
			}
		}
	}
	refused, ok := errors.AsType[*x402.Error](err)
	switch {
	case ok:
		return facilitator.Verdict{Reason: codeOf(refused, r), Payer: p.payer(), Detail: detail(refused)}, nil
	case err != nil:
		return facilitator.Verdict{}, failure("verify", err)
	}
	c.shared.payments.sawUnused(p.claim(), v.block, f.now())
	return facilitator.Verdict{Valid: true, Payer: p.payer()}, nil
}

// check compares a payment with the requirement that its payer signed for, and
// reads what else the payer signed. It asks no node.
func (c *settler) check(p *payment, r facilitator.Request, signedFor x402.Requirement, now time.Time) error {
	if err := p.check(signedFor, now, c.leastLife()); err != nil {
		return err
	}
	if _, err := c.senders(p); err != nil {
		return err // the requirement's own facilitatorAddress is not ours either
	}
	if c.shared.standings.of(chain.AddressTopic(p.From)).bad(now) {
		return refuse(codeReverts, "too many transactions for this payer were reverted")
	}
	if c.shared.standings.of(chain.AddressTopic(p.Token)).bad(now) {
		return refuse(codeEventMismatch, "too many transactions did not move this asset")
	}
	return c.readExtensions(p, r, now)
}

// read is read, with what the config of the chain says.
func (c *settler) read(r facilitator.Request) (*payment, error) {
	p, err := read(r)
	if p != nil {
		p.walletGas, p.announce, p.earlier = c.walletGas, r.Announce, r.Transaction
	}
	return p, err
}

// chainOf finds the chain of a request, and whether we may settle it.
func (f *Facilitator) chainOf(r facilitator.Request) (*settler, error) {
	c, ok := f.chains[r.Requirement.Network]
	if !ok {
		return nil, fmt.Errorf("the network %q is not configured here", r.Requirement.Network)
	}
	if common.IsHexAddress(r.Requirement.PayTo) && c.accountOf(common.HexToAddress(r.Requirement.PayTo)) != nil {
		// Its key lies on a machine that the whole world talks to.
		c.Notices.Error("the seller's address is an account that pays the gas: pay to a wallet whose key is not on this machine")
		return nil, errors.New("the payee is an account that pays the gas")
	}
	return c, nil
}

// payer names who pays, if that is known.
func (p *payment) payer() string {
	if p == nil {
		return ""
	}
	return p.Authorization.Payer
}

// detail is the cause of a refusal, for the log.
func detail(refused *x402.Error) string {
	if refused.Err == nil {
		return ""
	}
	return refused.Err.Error()
}

// failure is the Error for a payment that was not judged.
func failure(op string, err error) *facilitator.Error {
	e := &facilitator.Error{Op: op, Code: facilitator.CodeUnavailable, Status: http.StatusServiceUnavailable, Err: err}
	if slow, ok := errors.AsType[net.Error](err); ok && slow.Timeout() {
		e.Code = facilitator.CodeTimeout
	}
	return e
}
