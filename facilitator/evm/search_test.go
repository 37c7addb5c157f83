package evm

import (
	"context"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// buys has the payer pay for something else so many times, with nonces from first on.
func (c *testChain) buys(first, times int) {
	c.t.Helper()
	for i := range times {
		other, _ := c.permit(permitOrder{nonce: byte(first + i)})
		c.transactCall(ownerKey, other)
		if i%40 == 39 {
			c.seal()
		}
	}
	c.seal()
}

// weighing counts the transactions that are looked at.
type weighing struct {
	chain.Client
	looked int
}

func (w *weighing) BatchCallContext(ctx context.Context, b []rpc.BatchElem) error {
	for _, e := range b {
		if e.Method == "eth_getTransactionByHash" {
			w.looked++
		}
	}
	return w.Client.BatchCallContext(ctx, b)
}

// TestBusyPayerIsFound: of a Permit2 payment in doubt it is found out what became of
// it, however often its payer has paid the same since.
func TestBusyPayerIsFound(t *testing.T) {
	payer := common.HexToAddress(payerAddress)
	moved, givenUp := facilitator.Proof{Evidence: facilitator.Moved}, voided(chain.CodePermit2Nonce)
	settle := func(c *testChain, r facilitator.Request) common.Hash { return c.transactCall(ownerKey, r) }
	giveUp := func(c *testChain, r facilitator.Request) common.Hash { c.giveUp(r); return common.Hash{} }
	for name, tt := range map[string]struct {
		before, after, later int // payments: before it, after it, and after its end
		do, end              func(*testChain, facilitator.Request) common.Hash
		want                 facilitator.Proof
		most                 int // payments that are looked at
	}{
		"among many":                   {before: 150, after: 60, do: settle, want: moved, most: 212},
		"at the end of many":           {before: 210, do: settle, want: moved, most: 212},
		"many after its end":           {before: 3, later: 210, do: settle, want: moved, most: 5},
		"given up, many after its end": {later: 210, do: giveUp, want: givenUp},
		"given up after its end, too":  {later: 3, end: giveUp, want: givenUp},
		"given up after another":       {before: 3, later: 3, end: giveUp, most: 3},
		"given up between others":      {before: 1, after: 1, do: giveUp, most: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startChain(t, withPermit2(t), allows(token, payer))
			f, _ := c.start("base-sepolia")
			node := &weighing{Client: keepOpen{c.client}}
			rewire(f, 0, node)
			r, _ := c.permit(permitOrder{nonce: 255, before: 600})
			since := c.now()
			c.buys(0, tt.before)
			want := tt.want
			var theirs common.Hash
			if tt.do != nil {
				theirs = tt.do(c, r)
			}
			c.buys(tt.before, tt.after)
			c.seal()
			c.seal()
			c.pass(10*time.Minute+5*time.Second, 65)
			c.pass(time.Hour, 1)
			if tt.end != nil {
				tt.end(c, r)
			}
			c.buys(tt.before+tt.after, tt.later)
			c.seal()
			c.seal()
			c.finalize()
			if want.Evidence == facilitator.Moved {
				want.Transaction, want.Block = theirs.Hex(), c.blockOf(theirs)
			}
			got, err := f.Witness(during(t, 5*time.Minute), r, since)
			if err != nil || got != want {
				t.Errorf("%+v, %v; want %+v", got, err, want)
			}
			if node.looked > tt.most {
				t.Errorf("%d payments were looked at, want at most %d", node.looked, tt.most)
			}
		})
	}
}
