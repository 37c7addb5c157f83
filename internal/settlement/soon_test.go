package settlement

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// lookout is a facilitator that says what it is told to, after a time, and can look at the
// chain, which has the payment from a time on.
type lookout struct {
	facilitator.Facilitator // nobody asks for the rest

	says   facilitator.Settlement
	after  time.Duration
	moved  time.Duration // since the beginning; 0 is never
	void   bool
	begun  time.Time
	looks  atomic.Int64
	settle atomic.Int64
}

func (l *lookout) Settle(ctx context.Context, _ facilitator.Request) facilitator.Settlement {
	l.settle.Add(1)
	select {
	case <-time.After(l.after):
		return l.says
	case <-ctx.Done():
		return facilitator.Settlement{Detail: "ended"}
	}
}

func (l *lookout) Sees(network string) bool { return network == watchedNetwork }

func (l *lookout) Witness(context.Context, facilitator.Request, time.Time) (facilitator.Proof, error) {
	l.looks.Add(1)
	switch {
	case l.void:
		return facilitator.Proof{Evidence: facilitator.Void}, nil
	case l.moved != 0 && time.Since(l.begun) >= l.moved:
		return facilitator.Proof{Evidence: facilitator.Moved, Transaction: "0x1", Block: facilitator.Block{Number: 7}}, nil
	}
	return facilitator.Proof{}, nil
}

// paysGas is a facilitator that pays for settlements itself.
type paysGas struct{ *lookout }

func (paysGas) WatchFunds(context.Context, func(string, facilitator.Funds)) {}

// TestChainIsLookedAtWhileThePayerWaits: a facilitator does not say whether it has moved the
// money. Whether that is so the chain is asked at most twice, and only what it proves counts.
func TestChainIsLookedAtWhileThePayerWaits(t *testing.T) {
	settled := facilitator.Settlement{Outcome: facilitator.Settled, Transaction: "0x2"}
	refused := facilitator.Settlement{Outcome: facilitator.Refused}
	lost := facilitator.Settlement{Outcome: facilitator.Unknown, Detail: "lost"}
	const s = time.Second
	for name, c := range map[string]struct {
		lookout *lookout
		own     bool
		want    facilitator.Outcome
		looks   int64
		within  time.Duration
	}{
		"it answers":                         {&lookout{says: settled, after: 3 * s, moved: 1}, false, facilitator.Settled, 0, 3 * s},
		"it refuses":                         {&lookout{says: refused, after: s, moved: 1}, false, facilitator.Refused, 0, s},
		"lost, and in a block":               {&lookout{says: lost, after: s, moved: 1}, false, facilitator.Settled, 1, 3 * s},
		"lost, and in a block soon":          {&lookout{says: lost, after: s, moved: 5 * s}, false, facilitator.Settled, 2, 9 * s},
		"lost, and never in a block":         {&lookout{says: lost, after: s}, false, facilitator.Unknown, 2, 15 * s},
		"lost, and void":                     {&lookout{says: lost, after: s, void: true}, false, facilitator.Unknown, 2, 15 * s},
		"silent, and in a block":             {&lookout{says: lost, after: 100 * s, moved: 2 * s}, false, facilitator.Settled, 1, 8 * s},
		"silent, and in a block late":        {&lookout{says: lost, after: 100 * s, moved: 9 * s}, false, facilitator.Settled, 2, 15 * s},
		"silent for long":                    {&lookout{says: lost, after: 50 * s}, false, facilitator.Unknown, 2, 120 * s},
		"slow, and then it answers":          {&lookout{says: settled, after: 30 * s}, false, facilitator.Settled, 2, 31 * s},
		"silent, then lost between looks":    {&lookout{says: lost, after: 9 * s / 2, moved: 13 * s}, false, facilitator.Settled, 2, 15 * s},
		"it follows its own transactions":    {&lookout{says: lost, after: 20 * s, moved: 1}, true, facilitator.Unknown, 0, 60 * s},
		"it is lost when the payer has gone": {&lookout{says: lost, after: 16 * s, moved: 16 * s}, false, facilitator.Unknown, 2, 60 * s},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.lookout.begun = time.Now()
				var f facilitator.Facilitator = c.lookout
				if c.own {
					f = paysGas{c.lookout}
				}
				set := facilitator.NewSet()
				member := set.Add(f, &facilitator.Memory{Name: "f"}, zap.NewNop())
				by := &Settler{Facilitators: set, Logger: zap.NewNop()}
				said, who := by.askAndLook(t.Context(), Order{
					Request:      facilitator.Request{Requirement: x402.Requirement{Network: watchedNetwork, Amount: "1"}},
					Facilitators: []facilitator.Named{member.Named}, AnswerWithin: 15 * s,
				})
				if took := time.Since(c.lookout.begun); said.Outcome != c.want || who != "f" || c.lookout.looks.Load() != c.looks || took > c.within {
					t.Errorf("%+v by %q, looked %d times, %s", said, who, c.lookout.looks.Load(), took)
				}
				if proven := c.want == facilitator.Settled && said.Transaction == "0x1"; proven && said.Block.Number != 7 {
					t.Errorf("no block to watch: %+v", said)
				}
				synctest.Wait()
			})
		})
	}
}
