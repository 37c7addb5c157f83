package evm

import (
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// moody is a node that in part of the cases does not answer, does not take a
// transaction, or has something against the account.
type moody struct {
	chain.Client
	mu   sync.Mutex
	draw *rand.Rand
}

func (m *moody) roll(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.draw.IntN(n)
}

func (m *moody) BatchCallContext(ctx context.Context, b []rpc.BatchElem) error {
	if m.roll(10) == 0 {
		return io.ErrUnexpectedEOF
	}
	err := m.Client.BatchCallContext(ctx, b)
	for i := range b {
		if m.roll(50) == 0 {
			b[i].Error = saysError("internal error")
		}
	}
	return err
}

func (m *moody) CallContext(ctx context.Context, result any, method string, args ...any) error {
	if method != "eth_sendRawTransaction" {
		return m.Client.CallContext(ctx, result, method, args...)
	}
	switch m.roll(10) {
	case 0:
		return saysError("insufficient funds for gas * price + value")
	case 1:
		return saysError("nonce too low")
	case 2:
		return io.ErrUnexpectedEOF
	case 3, 4:
		_ = m.Client.CallContext(ctx, result, method, args...)
		return io.ErrUnexpectedEOF
	}
	return m.Client.CallContext(ctx, result, method, args...)
}

// saysError is what a node answers.
type saysError string

func (e saysError) Error() string { return string(e) }
func (saysError) ErrorCode() int  { return -32000 }

// TestKeysInTrouble: whatever a node does, and however often a payment is tried
// again, each moves its money once, no account gets stuck, and no place is lost.
func TestKeysInTrouble(t *testing.T) {
	genesis, keys := both(t)
	c := startChain(t, withPermit2(t), allows(token, common.HexToAddress(payerAddress)), genesis)
	f, _ := c.start("base-sepolia", keys)
	seed := uint64(time.Now().UnixNano()) // #nosec G115 -- positive
	t.Logf("seed %d", seed)
	node := &moody{Client: keepOpen{c.client}, draw: rand.New(rand.NewPCG(seed, 0))} // #nosec G404 -- a test
	rewire(f, 0, node)
	const payments = 45
	ctx := during(t, 5*time.Minute)
	var wg sync.WaitGroup
	for i := range byte(payments) {
		r := c.sign(order{nonce: i, before: 1e6})
		switch i % 3 {
		case 1:
			r, _ = c.permit(permitOrder{nonce: i, before: 1e6})
		case 2:
			name := []string{signerAddress, secondAddress}[i%2]
			_, r = c.permit(permitOrder{nonce: i, before: 1e6, upto: true, facilitator: name, amount: "20000", charge: "10000"})
		}
		wg.Go(func() {
			var s facilitator.Settlement
			for s = f.Settle(ctx, r); s.Outcome != facilitator.Settled && ctx.Err() == nil; s = f.Settle(ctx, r) {
				if s.Outcome == facilitator.Refused {
					t.Errorf("%+v", s)
					return
				}
			}
			if s.Outcome != facilitator.Settled {
				t.Errorf("%+v", s)
			}
		})
	}
	wg.Wait()
	if moved := c.balance(payee); moved != payments*10000 {
		t.Errorf("%d moved", moved)
	}
	for _, a := range f.chains[baseSepolia].accounts {
		if mined, waiting := c.numbers(a.key.address); a.taken != [kinds]int{} || waiting != 0 || mined == 0 {
			t.Errorf("%s: %d mined, %d wait, %d places are taken", a.key.address, mined, waiting, a.taken)
		}
	}
}
