package evm

import (
	"context"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// Sees implements facilitator.Witness.
func (f *Facilitator) Sees(network string) bool { return f.looking.Sees(network) }

// Seen implements facilitator.Chains.
func (f *Facilitator) Seen() []string { return f.looking.Seen() }

// Genesis implements facilitator.Chains.
func (f *Facilitator) Genesis(ctx context.Context, network string) ([]string, error) {
	return f.looking.Genesis(ctx, network)
}

// HasBlock implements facilitator.Blocks.
func (f *Facilitator) HasBlock(ctx context.Context, network string, b facilitator.Block) (bool, error) {
	return f.looking.HasBlock(ctx, network, b)
}

// Witness implements facilitator.Witness, as chain.Look does. What this process remembers
// of a payment ends with the proof.
func (f *Facilitator) Witness(ctx context.Context, r facilitator.Request, since time.Time) (facilitator.Proof, error) {
	defer f.looking.Enter()()
	proof, err := f.looking.Witness(ctx, r, since)
	if err != nil || proof.Evidence == facilitator.Open {
		return proof, err
	}
	if p, ok := signedPayment(r); ok {
		f.chains[r.Requirement.Network].decided(ctx, p, proof)
	}
	return proof, nil
}

// decided ends what this process remembers of a payment that it has sent and that others
// have found out about: nobody asks for its settlement any more. Without that its payer
// would never count as one who has paid.
func (c *settler) decided(ctx context.Context, p *payment, proof facilitator.Proof) {
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

// Interface guards
var (
	_ facilitator.Witness = (*Facilitator)(nil)
	_ facilitator.Chains  = (*Facilitator)(nil)
	_ facilitator.Blocks  = (*Facilitator)(nil)
)
