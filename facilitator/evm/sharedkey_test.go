package evm

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-paywall/caddy-paywall/devchain"
	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// TestGatewaysShareAKey: several processes settle with the same key at once, on the
// development chain. Each payment settles, once, though they take each other's
// numbers, and nobody is told to come back.
func TestGatewaysShareAKey(t *testing.T) {
	const each = 20
	for _, gateways := range []int{2, 3} {
		t.Run(fmt.Sprintf("%d gateways", gateways), func(t *testing.T) {
			t.Parallel()
			chain, err := devchain.Start(devchain.Options{BlockEvery: 200 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = chain.Close() }()
			key := keyFile(t, chain.Accounts()[0].PrivateKey)
			payer := chain.Accounts()[9]
			var all sync.WaitGroup
			for i := range gateways {
				f, logs := start(t, "base-sepolia", &Network{RPC: []string{chain.RPC()}, Signers: []string{key}}, nil)
				forget(f)
				for j := range each {
					r := order{from: payer.Key(), nonce: byte(i*each + j)}.sign(t, time.Now().Unix())
					all.Go(func() {
						if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled {
							t.Errorf("%+v\n%s", s, logged(logs))
						}
					})
				}
			}
			all.Wait()
			if got, err := chain.Balance(common.HexToAddress(payee)); err != nil || got.Int64() != int64(gateways*each*10000) {
				t.Errorf("%s moved, %v", got, err)
			}
		})
	}
}

// TestNumberIsLost: another gateway with the same key puts a transaction in the place
// of ours, as a node allows for a higher fee. Whoever waits for ours notices without
// any other payment, and the repeat settles it under another number.
func TestNumberIsLost(t *testing.T) {
	f, node, r, _ := at(t, world{})
	node.clock.max = 1000
	begin := node.clock.now()
	stolen := false
	node.override = func(method string, params []json.RawMessage) (any, *rpcError, bool) {
		if method == "eth_sendRawTransaction" && !stolen {
			stolen = true
			node.nonce++ // the block has the other one
			return transaction(t, params[0]).Hash(), nil, true
		}
		return nil, nil, false
	}
	s := f.Settle(context.Background(), r)
	if s.Outcome != facilitator.Unknown || s.Reason != string(x402.CodeSettlementPending) || len(node.sent) != 0 {
		t.Fatalf("%+v", s)
	}
	if waited := node.clock.now().Sub(begin); waited >= stuckAfter {
		t.Errorf("noticed after %s", waited)
	}
	if s = f.Settle(context.Background(), r); s.Outcome != facilitator.Settled || node.sent[0].Nonce() != 8 {
		t.Errorf("%+v", s)
	}
}

// TestShallowIsNotLost: a transaction that is in a block is not given up because the
// blocks upon it take their time.
func TestShallowIsNotLost(t *testing.T) {
	c := newClock(1e9)
	c.max = 1000
	node := script(t, c, world{})
	f, _ := start(t, baseSepolia, &Network{RPC: []string{node.URL}, Confirmations: 50}, c)
	f.chains[baseSepolia].sleep = func(ctx context.Context, d time.Duration) error {
		if node.count("eth_getTransactionReceipt") == 4*lostAfter {
			node.set(func(s *scripted) {
				s.override = func(method string, _ []json.RawMessage) (any, *rpcError, bool) {
					return "0x100", nil, method == "eth_blockNumber"
				}
			})
		}
		return c.sleep(ctx, d)
	}
	if s := f.Settle(context.Background(), order{}.sign(t, c.now().Unix())); s.Outcome != facilitator.Settled || len(node.sent) != 1 {
		t.Errorf("%+v, %d sent", s, len(node.sent))
	}
}
