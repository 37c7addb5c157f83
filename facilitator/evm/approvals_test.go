package evm

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
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
		if method != "eth_call" || json.Unmarshal(params[0], &call) != nil || call.To != exactProxy || [4]byte(call.Data) != settleExact {
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
		return nil, &rpcError{Code: 3, Message: "execution reverted", Data: "0x"}, call.To == exactProxy
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
