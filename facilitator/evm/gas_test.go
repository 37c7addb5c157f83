package evm

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// TestGasLimitFollowsTheChain: where the usual limit is too low, a node is asked for a
// better one, up to a ceiling, and never for a payer with code.
func TestGasLimitFollowsTheChain(t *testing.T) {
	const runsOut, intrinsic, nothing = "out of gas", "intrinsic gas too low", "execution reverted"
	for name, tt := range map[string]struct {
		says     string // of a simulation with too little gas
		takes    uint64
		code     bool // the payer has some
		l1       bool // the chain counts another one's prices
		estimate *rpcError
		gas      uint64 // of what is sent
		asked    int
		outcome  facilitator.Outcome
	}{
		"the usual":                   {takes: 65_000, gas: transferGas, outcome: facilitator.Settled},
		"more":                        {says: runsOut, takes: 400_000, gas: 500_000, asked: 1, outcome: facilitator.Settled},
		"more before it runs":         {says: intrinsic, takes: 400_000, gas: 500_000, asked: 1, outcome: facilitator.Settled},
		"more, and no reason":         {says: nothing, takes: 400_000, asked: 0, outcome: facilitator.Refused},
		"more than is spent":          {says: runsOut, takes: 600_000, asked: 1, outcome: facilitator.Refused},
		"more than is spent at once":  {says: intrinsic, takes: 600_000, asked: 1, outcome: facilitator.Unsent},
		"beyond all numbers":          {says: intrinsic, takes: 1<<64 - 1, asked: 1, outcome: facilitator.Unsent},
		"for L1":                      {says: intrinsic, takes: 2_000_000, l1: true, gas: 2_500_000, asked: 1, outcome: facilitator.Settled},
		"for L1, and no reason":       {says: nothing, takes: 2_000_000, l1: true, gas: 2_500_000, asked: 1, outcome: facilitator.Settled},
		"for L1, more than is spent":  {says: intrinsic, takes: 2_500_000, l1: true, asked: 1, outcome: facilitator.Unsent},
		"a payer with code":           {says: runsOut, takes: 800_000, code: true, outcome: facilitator.Refused},
		"a payer with code, for L1":   {says: nothing, takes: 800_000, code: true, l1: true, outcome: facilitator.Refused},
		"it is not the gas":           {says: runsOut, takes: 400_000, estimate: &rpcError{Code: 3, Message: "execution reverted: paused"}, asked: 1, outcome: facilitator.Refused},
		"no estimate":                 {says: runsOut, takes: 400_000, estimate: &rpcError{Code: -32601, Message: "no such method"}, asked: 1, outcome: facilitator.Refused},
		"no estimate before it runs":  {says: intrinsic, takes: 400_000, estimate: &rpcError{Code: -32601, Message: "no such method"}, asked: 1, outcome: facilitator.Unsent},
		"an estimate below the usual": {says: nothing, takes: 1_000_000, l1: true, estimate: &rpcError{}, asked: 1, outcome: facilitator.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			clock := newClock(1e9)
			w := world{}
			if tt.code {
				w.Code, w.ERC1271 = map[string]string{strings.ToLower(payerAddress): "0x60"}, true
			}
			node := script(t, clock, w)
			f, logs := start(t, baseSepolia, &Network{RPC: []string{node.URL}}, clock)
			f.chains[baseSepolia].l1InGas = tt.l1
			node.override = func(method string, params []json.RawMessage) (any, *rpcError, bool) {
				var call struct {
					Gas  hexutil.Uint64
					Data hexutil.Bytes
				}
				switch {
				case method == "eth_estimateGas" && tt.estimate != nil && tt.estimate.Code == 0:
					return hexutil.Uint64(50_000), nil, true
				case method == "eth_estimateGas" && tt.estimate != nil:
					return nil, tt.estimate, true
				case method == "eth_estimateGas":
					return hexutil.Uint64(tt.takes), nil, true
				case method != "eth_call" || json.Unmarshal(params[0], &call) != nil || [4]byte(call.Data) != transferSelector && [4]byte(call.Data) != transferBytesSelector ||
					uint64(call.Gas) >= tt.takes:
					return nil, nil, false
				case tt.says == nothing:
					return nil, &rpcError{Code: 3, Message: tt.says, Data: "0x"}, true
				}
				return nil, &rpcError{Code: -32000, Message: tt.says}, true
			}
			s := f.Settle(context.Background(), order{}.sign(t, clock.now().Unix()))
			if asked := node.count("eth_estimateGas"); s.Outcome != tt.outcome || asked != tt.asked {
				t.Errorf("%+v, asked %d times", s, asked)
			}
			switch {
			case (tt.gas == 0) != (len(node.sent) == 0):
				t.Errorf("%d were sent", len(node.sent))
			case tt.gas != 0 && node.sent[0].Gas() != tt.gas:
				t.Errorf("%d gas, want %d", node.sent[0].Gas(), tt.gas)
			}
			if told := logs.FilterMessageSnippet("more gas than is spent").Len() > 0; told != (strings.Contains(name, "than is spent") || name == "beyond all numbers") {
				t.Errorf("log %s", logged(logs))
			}
		})
	}
}

// TestVerifyEstimatesAsSettleDoes: what settles with more gas is good when it is verified.
func TestVerifyEstimatesAsSettleDoes(t *testing.T) {
	clock := newClock(1e9)
	node := script(t, clock, world{})
	f, _ := start(t, baseSepolia, &Network{RPC: []string{node.URL}}, clock)
	node.override = func(method string, params []json.RawMessage) (any, *rpcError, bool) {
		var call struct {
			Gas  hexutil.Uint64
			Data hexutil.Bytes
		}
		switch {
		case method == "eth_estimateGas":
			return hexutil.Uint64(400_000), nil, true
		case method == "eth_call" && json.Unmarshal(params[0], &call) == nil && [4]byte(call.Data) == transferSelector && call.Gas < 400_000:
			return nil, &rpcError{Code: -32000, Message: "intrinsic gas too low"}, true
		}
		return nil, nil, false
	}
	verify(t, f, order{}.sign(t, clock.now().Unix()))
}

// TestTheRaisedLimitIsSetAside: a settlement takes more gas than usual, which turns out
// after it has got its place.
func TestTheRaisedLimitIsSetAside(t *testing.T) {
	const takes = 2_400_000
	node := script(t, newClock(time.Now().Unix()), world{})
	f, _ := start(t, baseSepolia, &Network{RPC: []string{node.URL}}, nil)
	f.chains[baseSepolia].l1InGas = true
	node.override = func(method string, params []json.RawMessage) (any, *rpcError, bool) {
		var call struct {
			Gas  hexutil.Uint64
			Data hexutil.Bytes
		}
		switch {
		case method == "eth_estimateGas":
			return hexutil.Uint64(takes), nil, true
		case method == "eth_call" && json.Unmarshal(params[0], &call) == nil && len(call.Data) > 4 && [4]byte(call.Data) == transferSelector && uint64(call.Gas) < takes:
			return nil, &rpcError{Code: -32000, Message: "intrinsic gas too low"}, true
		case method == "eth_getTransactionReceipt":
			return nil, nil, true
		}
		return nil, nil, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range byte(12) {
		r := order{from: keyNo(int(i)), nonce: i, before: 1e6}.sign(t, time.Now().Unix())
		wg.Go(func() { f.Settle(ctx, r) })
	}
	n := untilSteady(f)
	_, held, _ := sums(f, ofAccounts)
	cancel()
	wg.Wait()
	if n != defaultGasBudget/2/(takes*5/4) || held.Int64() != int64(n)*takes*5/4 {
		t.Errorf("%d are on their way, and %s set aside", n, held)
	}
}
