package evm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// Sees implements facilitator.Witness.
func (f *Facilitator) Sees(network string) bool {
	_, ok := f.chains[network]
	return ok
}

// Witness implements facilitator.Witness. All nodes of the chain are asked.
//
// Moved takes as many nodes as a settlement does, and none that contradicts; if a
// quorum says how many, then more than contradict. Who is behind the block does not
// contradict. Of EIP-3009 it is a use of the
// authorization in a block not older than our claim, and directly after it the
// transfer that was signed, with enough confirmations. Who sent it does not
// matter, nor by which function of the token, since a nonce is used once. Of
// Permit2, which writes nothing about a use, it is a transaction that calls the
// proxy with this very nonce and moved this amount (of upto, the one of the
// requirement); one in which the call is hidden inside another proves nothing.
//
// Void takes two nodes, where there are two, and none that contradicts. It is
// said of an authorization that is unused after it has ended, that was
// cancelled, or that was used to pay something else; each of that in blocks that
// are final. A Permit2 nonce can be given up after its use as well, so that there
// must have been no payment to the payee at all.
func (f *Facilitator) Witness(ctx context.Context, r facilitator.Request, since time.Time) (facilitator.Proof, error) {
	defer f.users.enter()()
	return testify(ctx, f.chains, r, since)
}

// testify is Witness for whoever has chains to look at.
func testify(ctx context.Context, chains map[string]*chain, r facilitator.Request, since time.Time) (facilitator.Proof, error) {
	c, ok := chains[r.Requirement.Network]
	if !ok {
		return facilitator.Proof{}, fmt.Errorf("the network %q is not configured here", r.Requirement.Network)
	}
	p, ok := signed(r)
	if !ok {
		return facilitator.Proof{}, nil
	}
	proof, err := c.witness(ctx, p, since)
	if err == nil && c.shared != nil {
		c.decided(ctx, p, proof)
	}
	return proof, err
}

// decided ends what this process remembers of a payment that it has sent and that others
// have found out about: nobody asks for its settlement any more. Without that its payer
// would never count as one who has paid.
func (c *chain) decided(ctx context.Context, p *payment, proof facilitator.Proof) {
	if proof.Evidence == facilitator.Open {
		return
	}
	rec := c.shared.payments.sentAs(p)
	if rec == nil {
		return
	}
	if proof.Evidence == facilitator.Moved {
		c.sawOutcome(p, rec, facilitator.Settlement{Outcome: facilitator.Settled, Transaction: proof.Transaction})
	} else {
		c.shared.payments.forget(p.claim(), rec)
	}
	// What was set aside for it is known by the receipt.
	a := rec.flight.by
	if mined, _, err := c.accountNow(ctx, a); err == nil {
		c.reached(ctx, a, mined)
	}
	c.audit(ctx, a)
}

// signed decodes what the payer signed. The signature itself is not looked at:
// whether it is any good, the contracts have decided by using it or not, and
// contract wallets have signatures that only the chain understands.
func signed(r facilitator.Request) (*payment, bool) {
	if r.Payment == nil || !common.IsHexAddress(r.Requirement.Asset) {
		return nil, false
	}
	a, err := r.Payment.Authorization(r.Requirement)
	if err != nil {
		return nil, false
	}
	p, err := decode(a, r.Requirement)
	if err != nil {
		return nil, false
	}
	signedFor, err := p.charge(r.Requirement)
	return p, err == nil && p.pays(signedFor)
}

// statement is what one node says, or why it says nothing.
type statement struct {
	testimony
	err error
}

// witness asks all nodes at once, so that one that hangs does not use up the time
// of the others.
func (c *chain) witness(ctx context.Context, p *payment, since time.Time) (facilitator.Proof, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	said := make(chan statement, len(c.nodes))
	for _, n := range c.nodes {
		go func() {
			var s statement
			// The caller's own protection does not reach into this goroutine.
			defer func() {
				if v := recover(); v != nil {
					s = statement{err: fmt.Errorf("panic: %v", v)}
				}
				said <- s
			}()
			s.testimony, s.err = c.examine(ctx, n, p, since)
			if _, done := errors.AsType[*nodeError](s.err); s.err != nil && !done {
				s.err = n.clean(s.err)
			}
		}()
	}
	var all []statement
	for range c.nodes { // all of them: the connections are in use until then
		s := <-said
		if s.err == nil && s.Evidence == facilitator.Moved {
			// The others may contradict, but not by being slow.
			defer time.AfterFunc(callTimeout, cancel).Stop()
		}
		all = append(all, s)
	}
	if proof, decided := c.moved(all); decided {
		return proof, nil
	}
	return c.agree(all)
}

// moved judges whether money has moved, if a node says so.
func (c *chain) moved(all []statement) (proof facilitator.Proof, decided bool) {
	says := make(map[facilitator.Proof]int)
	for _, s := range all {
		if s.err == nil && s.Evidence == facilitator.Moved {
			says[s.Proof]++
			if says[s.Proof] > says[proof] {
				proof = s.Proof
			}
		}
	}
	if proof.Evidence != facilitator.Moved {
		return facilitator.Proof{}, false
	}
	objections := 0
	for _, s := range all {
		switch {
		case s.err != nil || s.Proof == proof:
		case s.Evidence != facilitator.Open, s.state == stateUnused && s.at >= proof.Block.Number:
			objections++
		}
	}
	if c.outweighs(says[proof], objections) {
		return proof, true
	}
	if objections > 0 {
		c.notices.warn("the nodes disagree whether a payment has moved money, so it stays in doubt: one of them is wrong, or lies",
			zap.String("transaction", proof.Transaction))
	} else {
		c.notices.warn("a payment stays in doubt until as many nodes have seen it as the quorum says", zap.String("transaction", proof.Transaction))
	}
	return facilitator.Proof{}, true
}

// outweighs reports whether so many nodes that say that a payment has moved are
// enough, beside so many that say otherwise.
func (c *chain) outweighs(say, object int) bool {
	if c.quorum < 2 {
		return say > 0 && object == 0
	}
	return say >= c.quorum && say > object
}

// agree makes one proof of what the nodes say, none of which has seen the money
// move.
func (c *chain) agree(all []statement) (facilitator.Proof, error) {
	var (
		errs           []error
		proof          facilitator.Proof
		voids          int
		used, isUnused bool
	)
	for _, s := range all {
		if s.err != nil {
			errs = append(errs, s.err)
			continue
		}
		used, isUnused = used || s.state == stateUsed, isUnused || s.state == stateUnused
		if s.Evidence == facilitator.Void {
			proof = s.Proof
			voids++
		}
	}
	switch {
	case len(errs) == len(all):
		return facilitator.Proof{}, errors.Join(errs...)
	case used && isUnused:
		// One is a moment behind, or lies.
		c.notices.warn("the nodes disagree whether an authorization is used, so its payment stays in doubt")
	case voids >= max(c.quorum, min(2, len(all))):
		return proof, nil
	case voids > 0:
		c.notices.warn("a payment stays in doubt until a second node confirms that it did not move money", zap.Errors("errors", errs))
	}
	return facilitator.Proof{}, nil
}
