package evm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Verify implements facilitator.Facilitator. What can be found out without a
// node is, so that junk costs no round trip; a good payment costs one.
func (f *Facilitator) Verify(ctx context.Context, r facilitator.Request) (facilitator.Verdict, error) {
	defer f.users.enter()()
	c, err := f.chainOf(r)
	if err != nil {
		return facilitator.Verdict{}, failure("verify", err)
	}
	p, err := read(r)
	if err == nil {
		err = p.check(r.Requirement, f.now())
	}
	var v view
	if err == nil {
		v, err = c.look(ctx, p, false)
	}
	if err == nil {
		err = c.judge(ctx, p, r.Requirement, v)
	}
	refused, ok := errors.AsType[*x402.Error](err)
	switch {
	case ok:
		return facilitator.Verdict{Reason: codeOf(refused, r), Payer: p.payer(), Detail: detail(refused)}, nil
	case err != nil:
		return facilitator.Verdict{}, failure("verify", err)
	}
	c.account.payments.sawUnused(p.claim(), v.block, f.now())
	return facilitator.Verdict{Valid: true, Payer: p.payer()}, nil
}

// chainOf finds the chain of a request, and whether we may settle it.
func (f *Facilitator) chainOf(r facilitator.Request) (*chain, error) {
	c, ok := f.chains[r.Requirement.Network]
	if !ok {
		return nil, fmt.Errorf("the network %q is not configured here", r.Requirement.Network)
	}
	if r.Requirement.Scheme == "exact" && common.IsHexAddress(r.Requirement.PayTo) && common.HexToAddress(r.Requirement.PayTo) == c.key.address {
		// Its key lies on a machine that the whole world talks to.
		c.notices.error("the seller's address is the account that pays the gas: pay to a wallet whose key is not on this machine")
		return nil, errors.New("the payee is the account that pays the gas")
	}
	return c, nil
}

// judge says what a look at the chain means for a payment. Refusals are
// *x402.Error.
func (c *chain) judge(ctx context.Context, p *payment, r x402.Requirement, v view) error {
	if v.payerCode {
		// Tokens ask the code then, and never fall back to the key, which holds
		// for EIP-7702 accounts too.
		return refuse(x402.CodeSignature, "the payer has code: contract wallets are not supported yet")
	}
	if !v.assetCode {
		return refuse(codeAsset, "the asset has no code on this chain")
	}
	if v.simulation == nil {
		return nil
	}
	refused, err := c.diagnose(ctx, p, r, v.simulation)
	if err != nil {
		return err
	}
	return refused
}

// payer names who pays, if that is known.
func (p *payment) payer() string {
	if p == nil {
		return ""
	}
	return p.authorization.Payer
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
