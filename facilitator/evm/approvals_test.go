package evm

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"math/big"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// TestApprovalComesInBetween: the simulation fails for want of an allowance, which
// is there when the reason is looked for, since an earlier payment of the same payer
// has just brought it.
func TestApprovalComesInBetween(t *testing.T) {
	c := newClock(1e9)
	node := script(t, c, world{})
	f, _ := start(t, baseSepolia, &Network{RPC: []string{node.URL}, ApprovalBudget: "0.01/day"}, c)
	r, _ := permitOrder{extensions: sponsorApproval(
		func(tx *types.DynamicFeeTx, _ **ecdsa.PrivateKey) { tx.To = &token },
		func(info map[string]any) { info["asset"] = usdc },
	)}.sign(t, c.now().Unix())
	simulations := 0
	node.override = func(method string, params []json.RawMessage) (any, *rpcError, bool) {
		var call struct {
			To   common.Address
			Data hexutil.Bytes
		}
		if method != "eth_call" || json.Unmarshal(params[0], &call) != nil || call.To != chain.ExactProxy || [4]byte(call.Data) != chain.SettleExact {
			return nil, nil, false
		}
		simulations++
		return nil, &rpcError{Code: 3, Message: "execution reverted: TRANSFER_FROM_FAILED", Data: "0x"}, simulations == 1
	}
	if v, err := f.Verify(context.Background(), r); err != nil || !v.Valid {
		t.Errorf("verify: %+v, %v", v, err)
	}
	simulations = 0
	if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Settled {
		t.Errorf("settle: %+v", s)
	}
	// Once more is enough.
	node.override = func(method string, params []json.RawMessage) (any, *rpcError, bool) {
		if method != "eth_call" {
			return nil, nil, false
		}
		var call struct{ To common.Address }
		_ = json.Unmarshal(params[0], &call)
		return nil, &rpcError{Code: 3, Message: "execution reverted", Data: "0x"}, call.To == chain.ExactProxy
	}
	before := node.count("eth_chainId")
	if v, err := f.Verify(context.Background(), r); err != nil || v.Reason != string(codePermit2Simulation) || node.count("eth_chainId")-before != 2 {
		t.Errorf("%+v, %v after %d looks", v, err, node.count("eth_chainId")-before)
	}
}

// TestApprovalsOfBadPayers: what a payer has signed badly is said of the payer, and
// not of us: whoever asks us would leave us alone, with everybody's payments.
func TestApprovalsOfBadPayers(t *testing.T) {
	for name, tt := range map[string]struct {
		do     func(*Facilitator, *scripted)
		verify x402.Code // if that sees it
		reason x402.Code
	}{
		"in no block": {do: func(_ *Facilitator, s *scripted) { s.world.ReceiptThrows = true }, reason: codeApprovalFailed},
		"too little for a node": {do: func(_ *Facilitator, s *scripted) {
			s.world.WriteError = "transaction underpriced: gas tip cap 0, minimum needed 1"
		}, reason: codeApprovalBroadcast},
		"too many": {do: func(f *Facilitator, _ *scripted) {
			for i := range byte(maxApprovals) {
				f.chains[baseSepolia].shared.approvals.running[common.Address{i}] = nil
			}
		}, verify: codePermit2Allowance, reason: codePermit2Allowance},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock(1e9)
			c.max = 1000
			node := script(t, c, world{Allowance: "1", Sim: new(bool)})
			node.nonce = 0
			f, _ := start(t, baseSepolia, &Network{RPC: []string{node.URL}, ApprovalBudget: "0.01/day"}, c)
			r, _ := permitOrder{extensions: sponsorApproval(
				func(tx *types.DynamicFeeTx, _ **ecdsa.PrivateKey) { tx.To = &token },
				func(info map[string]any) { info["asset"] = usdc },
			)}.sign(t, c.now().Unix())
			tt.do(f, node)
			if v, err := f.Verify(context.Background(), r); err != nil || v.Reason != string(tt.verify) {
				t.Errorf("verify: %+v, %v", v, err)
			}
			if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Refused || s.Reason != string(tt.reason) {
				t.Errorf("settle: %+v", s)
			}
			if len(f.chains[baseSepolia].accounts[0].sender.flights) != 0 || f.chains[baseSepolia].accounts[0].taken != [kinds]int{} {
				t.Error("something of ours is on its way")
			}
		})
	}
}

// TestStrangersKeepNoPlacesOfApprovals: who has not paid has half of them, what no block
// would take gets none, and whose approval was in no block waits.
func TestStrangersKeepNoPlacesOfApprovals(t *testing.T) {
	now, payer := time.Unix(1e9, 0), common.Address{0xff}
	a := &newShared().approvals
	for i := range byte(maxApprovals / strangersShare) {
		if _, first, err := a.begin(common.Address{i}, false, now); err != nil || !first {
			t.Fatal(err)
		}
	}
	if _, _, err := a.begin(payer, false, now); err == nil || a.refuses(payer, false, now) == nil {
		t.Error("strangers have more than half of the places")
	}
	done, _, err := a.begin(payer, true, now)
	if err != nil {
		t.Fatalf("who has paid has no place: %v", err)
	}
	a.end(payer, done)
	a.late.Add(payer, now)
	if a.refuses(payer, true, now.Add(approvalPause-1)) == nil || a.refuses(payer, true, now.Add(approvalPause)) != nil {
		t.Error("whose approval was late waits for another time")
	}
	a.end(common.Address{}, a.running[common.Address{}])
	if err := a.refuses(common.Address{0xfe}, false, now); err != nil {
		t.Errorf("a place that is free is not: %v", err)
	}
}

// TestApprovalsOfferEnough: what blocks may leave out is not waited for.
func TestApprovalsOfferEnough(t *testing.T) {
	big1 := func(n int64) *big.Int { return big.NewInt(n) }
	market := market(big1(800), big1(100), nil)
	for name, tt := range map[string]struct {
		tip, feeCap int64
		cheap       bool
	}{
		"as the market":             {100, 1700, false},
		"half of the tip, and room": {50, 950, false},
		"hardly a tip":              {1, 1700, true},
		"no room for a block":       {50, 949, true},
		"the base fee and no more":  {1, 800, true},
	} {
		t.Run(name, func(t *testing.T) {
			tx := types.NewTx(&types.DynamicFeeTx{GasTipCap: big1(tt.tip), GasFeeCap: big1(tt.feeCap)})
			if got := tooCheap(tx, (*hexutil.Big)(big1(800)), market); got != tt.cheap {
				t.Errorf("%v", got)
			}
		})
	}
	if tx := types.NewTx(&types.LegacyTx{GasPrice: big1(40)}); !tooCheap(tx, nil, fees{legacy: true, tip: big1(100), feeCap: big1(100)}) {
		t.Error("on a chain with one price")
	}
}
