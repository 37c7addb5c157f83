package remote

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	// firstLook and lastLook bound the pause between two looks at the chain.
	firstLook = 250 * time.Millisecond
	lastLook  = 2 * time.Second
	// confirmWithin is how long a settlement may take to show on the chain before
	// the facilitator is asked again. A payer is not kept waiting for as long.
	confirmWithin = 20 * time.Second
)

// confirmed is what a settlement is worth that the facilitator says has happened,
// where that is not taken on its word: the chain shows it, or nobody knows.
func (f *Facilitator) confirmed(ctx context.Context, r facilitator.Request, s facilitator.Settlement) facilitator.Settlement {
	if !f.Confirm || s.Outcome != facilitator.Settled || s.Transaction == "" || !f.Sees(r.Requirement.Network) {
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, confirmWithin)
	defer cancel()
	since := r.Since
	if since.IsZero() {
		since = time.Now()
	}
	var proof facilitator.Proof
	var err error
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		if proof, err = f.witness(ctx, r, since); err == nil && proof.Evidence != facilitator.Open {
			break
		}
		if f.sleep(ctx, pause) != nil {
			break
		}
	}
	if err == nil && proof.Evidence == facilitator.Moved {
		if proof.Transaction != "" {
			s.Transaction = proof.Transaction
		}
		s.Block = proof.Block
		return s
	}
	f.logger.Error("the facilitator says that a payment is settled, and the chain does not show it",
		zap.String("network", r.Requirement.Network), zap.String("transaction", s.Transaction), zap.String("payer", r.Payer), zap.Error(err))
	return facilitator.Settlement{
		Outcome: facilitator.Unknown, Network: r.Requirement.Network, Transaction: s.Transaction,
		Reason: string(x402.CodeSettlementPending), Detail: "not confirmed on the chain; " + s.Detail,
	}
}
