package evm

import (
	"context"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ethereum/go-ethereum/rpc"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// oneSettlement is what one may cost at most on the scripted node.
const oneSettlement = transferGas * 3e9 // twice the base fee and the tip

// TestFundsAreCounted: what is closed follows from what the accounts have. `upto` is
// for the first one alone.
func TestFundsAreCounted(t *testing.T) {
	for name, tt := range map[string]struct {
		first, second int64
		counts        []int64
		empty         []string
	}{
		"both have plenty":         {oneSettlement * 200, oneSettlement * 150, []int64{200, 150}, nil},
		"nobody has anything":      {0, 0, []int64{0, 0}, []string{"exact", "upto"}},
		"nobody has enough":        {oneSettlement - 1, oneSettlement - 1, []int64{0, 0}, []string{"exact", "upto"}},
		"the first has enough":     {oneSettlement, 0, []int64{1, 0}, nil},
		"the second alone has any": {0, oneSettlement * 5, []int64{0, 5}, []string{"upto"}},
	} {
		t.Run(name, func(t *testing.T) {
			f, node, _ := withTwo(t)
			node.balances[first], node.balances[second] = big.NewInt(tt.first), big.NewInt(tt.second)
			funds, err := f.funds(t.Context(), f.chains[baseSepolia])
			if err != nil || !slices.Equal(funds.Empty, tt.empty) {
				t.Fatalf("%+v, %v", funds, err)
			}
			for i, a := range funds.Accounts {
				if a.Settlements != tt.counts[i] || a.Address != []string{signerAddress, secondAddress}[i] || a.Balance.Int64() != []int64{tt.first, tt.second}[i] {
					t.Errorf("%+v", a)
				}
			}
		})
	}
}

// TestCoinPriceSaysWhatASettlementCosts in dollars, rounded up.
func TestCoinPriceSaysWhatASettlementCosts(t *testing.T) {
	f, _, _ := withTwo(t)
	c := f.chains[baseSepolia]
	for price, want := range map[string]string{"": "<nil>", "$3000": "600000", "$0.5": "100", "$0.000001": "1"} {
		c.coinMicros = nil
		if price != "" {
			c.coinMicros = must(parseDollars(price))
		}
		funds, err := f.funds(t.Context(), c) // 100,000 gas of 2 gwei
		if err != nil || funds.CostMicros.String() != want {
			t.Errorf("%s: a settlement costs %s of a coin and %s micros, want %s, %v", price, funds.Cost, funds.CostMicros, want, err)
		}
	}
}

// TestFundsInFlightAreSpent: what transactions on their way can cost is not there for
// the next one.
func TestFundsInFlightAreSpent(t *testing.T) {
	f, node, _ := withTwo(t)
	node.balances[first], node.balances[second] = big.NewInt(3*oneSettlement), big.NewInt(0)
	if _, err := f.Supported(t.Context()); err != nil {
		t.Fatal(err)
	}
	node.world.ReceiptThrows, node.clock.max = true, 5 // it stays on its way
	if s, by := node.pay(f, 1); s.Outcome != facilitator.Unknown || by != first {
		t.Fatalf("%+v by %s", s, by)
	}
	if funds, err := f.funds(t.Context(), f.chains[baseSepolia]); err != nil || funds.Accounts[0].Settlements != 2 {
		t.Errorf("%+v, %v", funds, err)
	}
	node.set(func(s *scripted) { s.nonces[first] = 8 }) // it is in a block
	if funds, err := f.funds(t.Context(), f.chains[baseSepolia]); err != nil || funds.Accounts[0].Settlements != 3 {
		t.Errorf("in a block: %+v, %v", funds, err)
	}
}

// TestUnknownFundsAreNotEmpty: a node that gives no answer, or is on another chain,
// says nothing of balances. A price beyond all reason is one that is known.
func TestUnknownFundsAreNotEmpty(t *testing.T) {
	for name, bad := range map[string]func(*scripted){
		"no balance": func(s *scripted) {
			s.override = func(method string, _ []json.RawMessage) (any, *rpcError, bool) {
				return nil, &rpcError{Code: -32000, Message: "oops"}, method == "eth_getBalance"
			}
		},
		"null": func(s *scripted) {
			s.override = func(method string, _ []json.RawMessage) (any, *rpcError, bool) {
				return nil, nil, method == "eth_getBalance"
			}
		},
		"no price": func(s *scripted) {
			s.override = func(method string, _ []json.RawMessage) (any, *rpcError, bool) {
				return nil, &rpcError{Code: -32000, Message: "oops"}, method == "eth_gasPrice"
			}
		},
		"another chain": func(s *scripted) { s.chain = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			f, node, _ := withTwo(t)
			node.set(bad)
			if funds, err := f.funds(t.Context(), f.chains[baseSepolia]); err == nil {
				t.Errorf("%+v", funds)
			}
		})
	}
	f, node, _ := withTwo(t)
	node.price = 4e18
	if funds, err := f.funds(t.Context(), f.chains[baseSepolia]); err != nil || len(funds.Empty) != 2 {
		t.Errorf("at an absurd price: %+v, %v", funds, err)
	}
	node.price = 0
	if funds, err := f.funds(t.Context(), f.chains[baseSepolia]); err != nil || len(funds.Empty) != 0 || funds.Accounts[0].Settlements == 0 {
		t.Errorf("where gas costs nothing: %+v, %v", funds, err)
	}
}

// inProcess asks a scripted node without a network.
type inProcess struct{ node *scripted }

func (c inProcess) CallContext(_ context.Context, result any, method string, args ...any) error {
	raw, err := json.Marshal(map[string]any{"method": method, "params": args})
	if err != nil {
		return err
	}
	var answer struct {
		Result json.RawMessage
		Error  *rpcError
	}
	if err := json.Unmarshal(c.node.one(raw), &answer); err != nil {
		return err
	}
	if answer.Error != nil {
		return errors.New(answer.Error.Message)
	}
	return json.Unmarshal(answer.Result, result)
}

func (c inProcess) BatchCallContext(ctx context.Context, b []rpc.BatchElem) error {
	for i := range b {
		b[i].Error = c.CallContext(ctx, b[i].Result, b[i].Method, b[i].Args...)
	}
	return nil
}

func (inProcess) Close() {}

// watching runs WatchFunds on time that passes by itself, and keeps what it says.
func watching(t *testing.T, then func(t *testing.T, f *Facilitator, node *scripted, said func() []facilitator.Funds, logs *observer.ObservedLogs)) {
	t.Helper()
	node := script(t, newClock(1e9), world{})
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		f, logs := startIn(t, baseSepolia, &Network{RPC: []string{node.URL}}, surroundings{
			now: func() time.Time { return node.clock.now().Add(time.Since(begun)) }, sleep: node.clock.sleep, client: inProcess{node},
		})
		var mu sync.Mutex
		var all []facilitator.Funds
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			f.WatchFunds(ctx, func(network string, funds facilitator.Funds) {
				if network != baseSepolia {
					t.Errorf("of %s", network)
				}
				mu.Lock()
				defer mu.Unlock()
				all = append(all, funds)
			})
		}()
		then(t, f, node, func() []facilitator.Funds {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(all)
		}, logs)
		stop()
		<-ended
	})
}

// TestFillingUpIsNoticed without anybody who pays, and said.
func TestFillingUpIsNoticed(t *testing.T) {
	watching(t, func(t *testing.T, _ *Facilitator, node *scripted, said func() []facilitator.Funds, logs *observer.ObservedLogs) {
		if got := said(); len(got) != 1 || len(got[0].Empty) != 0 {
			t.Fatalf("%+v", got)
		}
		node.set(func(s *scripted) { s.balance = new(big.Int) })
		time.Sleep(fundsEvery)
		if got := said(); len(got) != 2 || len(got[1].Empty) != 2 {
			t.Fatalf("empty: %+v", got)
		}
		// A node that does not say does not change that.
		node.set(func(s *scripted) { s.chain = 1 })
		time.Sleep(3 * fundsSoon)
		if got := said(); len(got) != 2 {
			t.Fatalf("unknown: %+v", got)
		}
		node.set(func(s *scripted) { s.chain, s.balance = 84532, big.NewInt(1e18) })
		time.Sleep(fundsSoon)
		if got := said(); len(got) != 3 || len(got[2].Empty) != 0 {
			t.Fatalf("filled up: %+v", got)
		}
		if n := logs.FilterMessageSnippet("filled up").Len(); n != 1 {
			t.Errorf("said %d times", n)
		}
	})
}

// TestLittleIsWarnedOf once an hour, and again when it is nothing.
func TestLittleIsWarnedOf(t *testing.T) {
	watching(t, func(t *testing.T, _ *Facilitator, node *scripted, said func() []facilitator.Funds, logs *observer.ObservedLogs) {
		said()
		node.set(func(s *scripted) { s.balance = big.NewInt(oneSettlement * (fewSettlements - 1)) })
		time.Sleep(time.Hour - time.Minute)
		said()
		warned := func() int { return logs.FilterMessageSnippet("little left").FilterLevelExact(zapcore.WarnLevel).Len() }
		if n := warned(); n != 1 {
			t.Errorf("warned %d times", n)
		}
		time.Sleep(time.Hour)
		if said(); warned() != 2 {
			t.Errorf("warned %d times in two hours", warned())
		}
		node.set(func(s *scripted) { s.balance = new(big.Int) })
		time.Sleep(time.Hour / 2)
		said()
		if n := logs.FilterMessageSnippet("cannot pay for one settlement").FilterLevelExact(zapcore.ErrorLevel).Len(); n != 1 {
			t.Errorf("%d errors", n)
		}
	})
}

// TestPaymentsSayThatThereIsLittle: a payment that finds little has the account looked
// at at once, not only when its time comes.
func TestPaymentsSayThatThereIsLittle(t *testing.T) {
	watching(t, func(t *testing.T, f *Facilitator, node *scripted, said func() []facilitator.Funds, _ *observer.ObservedLogs) {
		said()
		node.set(func(s *scripted) { s.balance = big.NewInt(oneSettlement - 1) })
		for range 5 {
			if s := f.Settle(t.Context(), order{}.sign(t, node.clock.now().Unix())); s.Outcome != facilitator.Unsent {
				t.Errorf("%+v", s)
			}
		}
		time.Sleep(fundsPause)
		if got := said(); len(got) != 2 || len(got[1].Empty) != 2 {
			t.Errorf("%+v", got)
		}
	})
}
