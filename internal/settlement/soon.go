package settlement

import (
	"context"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// Where a facilitator does not say whether it has moved the money, or keeps silent, and somebody
// can look at the chain, that is done while the payer waits: most payers call once, and would
// never come back for what they have paid for.

const (
	// maxLooks is how often the chain is looked at for one payment while its payer waits. The
	// reconciler looks after that.
	maxLooks = 2
	// betweenLooks is about the time that a chain with blocks of two seconds takes to put a
	// transaction so deep that it counts.
	betweenLooks = 6 * time.Second
)

// said is what a facilitator said, and which of them.
type said struct {
	facilitator.Settlement
	name string
}

// askAndLook is ask, which ends early where the chain shows that the payment has moved the
// money.
func (s *Settler) askAndLook(ctx context.Context, o Order) (facilitator.Settlement, string) {
	witnesses := s.lookers(o)
	if len(witnesses) == 0 {
		return ask(ctx, o.Facilitators, o.Request)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of a call that still waits for an answer
	asked := make(chan said, 1)
	go func() {
		answer, name := ask(ctx, o.Facilitators, o.Request)
		asked <- said{answer, name}
	}()
	begun := time.Now()
	end := begun.Add(o.AnswerWithin)
	next := time.NewTimer(o.AnswerWithin / 2) // a facilitator may be silent
	defer next.Stop()
	var doubt *said
	for looks := 0; ; {
		select {
		case answer := <-asked:
			if answer.Outcome != facilitator.Unknown || looks == maxLooks || !time.Now().Before(end) {
				return answer.Settlement, answer.name
			}
			if doubt = &answer; looks > 0 {
				continue // the next look is near
			}
		case <-next.C:
		}
		looks++
		if proof, found := lookUntil(ctx, end, witnesses, o.Request); found {
			return provenBy(proof, o, doubt)
		}
		wait := min(betweenLooks, time.Until(end)*4/5)
		switch {
		case looks < maxLooks && wait > 0:
			next.Reset(wait)
		case doubt != nil:
			return doubt.Settlement, doubt.name
		}
	}
}

// lookers are those who can look for a payment that others are asked to settle. Who pays for
// settlements itself follows its own transactions.
func (s *Settler) lookers(o Order) []facilitator.Witness {
	network := o.Request.Requirement.Network
	if o.AnswerWithin <= 0 || NothingDue(o.Request) {
		return nil // nobody waits, or no money is due
	}
	if s.Facilitators.Closed(network) {
		return nil // what another chain says of it is worth nothing
	}
	for _, n := range o.Facilitators {
		if _, follows := n.Facilitator.(facilitator.Funded); follows {
			return nil
		}
	}
	return s.Facilitators.Witnesses(network)
}

// lookUntil looks at the chain once, for a payer who waits until end. It reports whether the
// money has moved. That it has not, and never will, nobody needs to know in such a hurry.
func lookUntil(ctx context.Context, end time.Time, witnesses []facilitator.Witness, r facilitator.Request) (facilitator.Proof, bool) {
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	proof, ok := look(ctx, witnesses, r, r.Since)
	return proof, ok && proof.Evidence == facilitator.Moved
}

// provenBy is a settlement that the chain shows. doubt is what the facilitator said, nil if it
// has said nothing yet.
func provenBy(proof facilitator.Proof, o Order, doubt *said) (facilitator.Settlement, string) {
	s := facilitator.Settlement{
		Outcome: facilitator.Settled, Network: o.Request.Requirement.Network,
		Transaction: proof.Transaction, Block: proof.Block, Detail: "the chain shows it, and the facilitator said nothing",
	}
	name := o.Facilitators[0].Name
	if doubt != nil {
		name, s.Detail = doubt.name, "the chain shows it, and the facilitator said: "+doubt.Detail
	}
	return s, name
}
