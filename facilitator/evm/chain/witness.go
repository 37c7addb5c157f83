package chain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// Sees implements facilitator.Witness.
func (l *Look) Sees(network string) bool {
	_, err := l.of(network)
	return err == nil
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
func (l *Look) Witness(ctx context.Context, r facilitator.Request, since time.Time) (facilitator.Proof, error) {
	defer l.Enter()()
	c, err := l.of(r.Requirement.Network)
	if err != nil {
		return facilitator.Proof{}, err
	}
	p, ok := Signed(r)
	if !ok {
		return facilitator.Proof{}, nil
	}
	return c.witness(ctx, p, since)
}

// statement is what one node says, or why it says nothing.
type statement struct {
	testimony
	err error
}

// witness asks all nodes at once, so that one that hangs does not use up the time
// of the others.
func (c *Chain) witness(ctx context.Context, p *Payment, since time.Time) (facilitator.Proof, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	said := atOnce(c.Nodes, func(n *Node) (s statement) {
		s.testimony, s.err = c.examine(ctx, n, p, since)
		if _, done := errors.AsType[*nodeError](s.err); s.err != nil && !done {
			s.err = n.clean(s.err)
		}
		return s
	}, func(v any) statement { return statement{err: fmt.Errorf("panic: %v", v)} })
	var all []statement
	for range c.Nodes { // all of them: the connections are in use until then
		s := <-said
		if s.err == nil && s.Evidence == facilitator.Moved {
			// The others may contradict, but not by being slow.
			defer time.AfterFunc(callTimeout, cancel).Stop()
		}
		all = append(all, s)
	}
	if proof, decided := moved(c.Notices, c.quorum(p), all); decided {
		return proof, nil
	}
	return agree(c.Notices, c.quorum(p), all)
}

// moved judges whether money has moved, if a node says so.
func moved(notices *Notices, quorum int, all []statement) (proof facilitator.Proof, decided bool) {
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
	if outweighs(quorum, says[proof], objections) {
		return proof, true
	}
	if objections > 0 {
		notices.Warn("the nodes disagree whether a payment has moved money, so it stays in doubt: one of them is wrong, or lies",
			zap.String("transaction", proof.Transaction))
	} else {
		notices.Warn("a payment stays in doubt until as many nodes have seen it as the quorum says", zap.String("transaction", proof.Transaction))
	}
	return facilitator.Proof{}, true
}

// agree makes one proof of what the nodes say, none of which has seen the money
// move.
func agree(notices *Notices, quorum int, all []statement) (facilitator.Proof, error) {
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
		notices.Warn("the nodes disagree whether an authorization is used, so its payment stays in doubt")
	case voids >= voidTakes(quorum, len(all)):
		return proof, nil
	case voids > 0:
		notices.Warn("a payment stays in doubt until a second node confirms that it did not move money", zap.Errors("errors", errs))
	}
	return facilitator.Proof{}, nil
}

// Interface guard
var _ facilitator.Witness = (*Look)(nil)
