package evm

import (
	"context"
	"crypto/ecdsa"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// sponsor2612 is the extension by which the payer lets Permit2 move an amount of
// the test dollar, as clients fill it in.
func (c *testChain) sponsor2612(amount int64, change func(info map[string]any)) map[string]any {
	deadline := c.now().Unix() + 300
	digest := eip712.NewDomain("USDC", "2", 84532, token).ApprovalDigest(&eip712.Approval{
		Owner: common.HexToAddress(payerAddress), Spender: eip712.Permit2, Value: *uint256.NewInt(uint64(amount)), Deadline: uint64(deadline),
	})
	signature := must(crypto.Sign(digest[:], payerECDSA))
	signature[64] += 27
	info := map[string]any{
		"description": "…", "version": "1", "from": payerAddress, "asset": usdc, "spender": eip712.Permit2.Hex(),
		"amount": big.NewInt(amount).String(), "nonce": "0", "deadline": big.NewInt(deadline).String(), "signature": hexutil.Encode(signature),
	}
	if change != nil {
		change(info)
	}
	return map[string]any{eip2612Extension: map[string]any{"info": info, "schema": map[string]any{}}}
}

// sponsorApproval is the extension by which the payer signs a transaction that
// approves Permit2, as clients fill it in.
func sponsorApproval(change func(tx *types.DynamicFeeTx, key **ecdsa.PrivateKey), bend func(info map[string]any)) map[string]any {
	to, key := tether, payerECDSA
	tx := &types.DynamicFeeTx{
		ChainID: big.NewInt(84532), GasTipCap: big.NewInt(1e9), GasFeeCap: big.NewInt(2e9), Gas: 70_000, To: &to,
		Data: append(approveSelector[:], append(common.LeftPadBytes(eip712.Permit2[:], 32), common.MaxHash[:]...)...),
	}
	if change != nil {
		change(tx, &key)
	}
	raw := must(types.MustSignNewTx(key, types.LatestSignerForChainID(tx.ChainID), tx).MarshalBinary())
	info := map[string]any{
		"description": "…", "version": "1", "from": payerAddress, "asset": tether.Hex(), "spender": eip712.Permit2.Hex(),
		"amount": common.MaxHash.Big().String(), "signedTransaction": hexutil.Encode(raw),
	}
	if bend != nil {
		bend(info)
	}
	return map[string]any{approvalExtension: map[string]any{"info": info, "schema": map[string]any{}}}
}

func budget(amount string) func(*Network) {
	return func(n *Network) { n.ApprovalBudget = amount }
}

// TestPermitSponsoringOnChain: a payer without gas and without an allowance pays,
// because the allowance is signed too.
func TestPermitSponsoringOnChain(t *testing.T) {
	for name, o := range map[string]permitOrder{"exact": {}, "upto": {upto: true, charge: "77"}} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t, withPermit2(t), poor)
			f, _ := c.start("base-sepolia")
			o.extensions = c.sponsor2612(10000, nil)
			r, toSettle := c.permit(o)
			verify(t, f, r)
			s := f.Settle(during(t, 5*time.Minute), toSettle)
			if s.Outcome != facilitator.Settled || c.transactions() != 1 {
				t.Errorf("%+v, %d transactions", s, c.transactions())
			}
			if want := toSettle.Requirement.Amount; big.NewInt(c.balance(payee)).String() != want {
				t.Errorf("%d moved, want %s", c.balance(payee), want)
			}
		})
	}
	member := func(name string, value any) func(map[string]any) {
		return func(info map[string]any) { info[name] = value }
	}
	c := startChain(t, withPermit2(t))
	f, _ := c.start("base-sepolia")
	for name, tt := range map[string]struct {
		amount int64
		change func(map[string]any)
		reason x402.Code
	}{
		"from":                {change: member("from", payee), reason: code2612From},
		"from, no address":    {change: member("from", "me"), reason: code2612Format},
		"asset":               {change: member("asset", payee), reason: code2612Asset},
		"spender":             {change: member("spender", x402.ExactPermit2Proxy), reason: code2612Spender},
		"amount":              {amount: 10001, reason: code2612Amount},
		"amount, only said":   {change: member("amount", "10001"), reason: code2612Amount},
		"amount, no number":   {change: member("amount", "1e4"), reason: code2612Format},
		"amount, a number":    {change: member("amount", 10000), reason: code2612Format},
		"amount, huge":        {change: member("amount", strings.Repeat("9", 78)), reason: code2612Format},
		"nonce, no number":    {change: member("nonce", "-1"), reason: code2612Format},
		"deadline, past":      {change: member("deadline", "5"), reason: code2612Deadline},
		"deadline, for ever":  {change: member("deadline", common.MaxHash.Big().String()), reason: code2612Format},
		"deadline, another":   {change: member("deadline", "9999999999"), reason: codePermit2Allowance},
		"signature, short":    {change: member("signature", "0x1234"), reason: code2612Format},
		"signature, odd":      {change: member("signature", "0x123"), reason: code2612Format},
		"signature, no hex":   {change: member("signature", "0xzz"), reason: code2612Format},
		"signature, another":  {change: member("signature", "0x"+strings.Repeat("12", 64)+"1b"), reason: codePermit2Allowance},
		"version, odd":        {change: member("version", "one"), reason: code2612Format},
		"signature, left out": {change: func(info map[string]any) { delete(info, "signature") }, reason: codePermit2Allowance},
		"signature, null":     {change: member("signature", nil), reason: codePermit2Allowance},
		"info, a list":        {change: nil, reason: code2612Format},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.amount == 0 {
				tt.amount = 10000
			}
			extensions := c.sponsor2612(tt.amount, tt.change)
			if name == "info, a list" {
				extensions[eip2612Extension] = map[string]any{"info": []int{1}}
			}
			r, _ := c.permit(permitOrder{extensions: extensions})
			refusedBoth(t, f, r, tt.reason)
			if c.transactions() != 0 {
				t.Error("a transaction was sent")
			}
		})
	}
}

// refusedBoth wants a payment refused for a reason, verified or settled.
func refusedBoth(t *testing.T, f *Facilitator, r facilitator.Request, reason x402.Code) {
	t.Helper()
	if v, err := f.Verify(during(t, 5*time.Minute), r); err != nil || v.Valid || v.Reason != string(reason) {
		t.Errorf("verify: %+v, %v; want %s", v, err, reason)
	}
	if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Refused || s.Reason != string(reason) {
		t.Errorf("settle: %+v", s)
	}
}

// coins is what an account has of the chain's own coin.
func (c *testChain) coins(account string) *big.Int {
	c.t.Helper()
	return must(c.backend.Client().BalanceAt(c.t.Context(), common.HexToAddress(account), nil))
}

// TestApprovalSponsoringOnChain: a payer with a token that has nothing but ERC-20
// pays without gas and without an allowance.
func TestApprovalSponsoringOnChain(t *testing.T) {
	order := permitOrder{asset: tether.Hex(), extensions: sponsorApproval(nil, nil)}
	for name, o := range map[string]struct {
		genesis func(types.GenesisAlloc)
		order   permitOrder
		sent    uint64 // by us
	}{
		"without gas":       {poor, order, 2},
		"with gas":          {func(types.GenesisAlloc) {}, order, 1},
		"upto, without gas": {poor, permitOrder{asset: tether.Hex(), upto: true, charge: "77", extensions: order.extensions}, 2},
		"has an allowance":  {allows(tether, common.HexToAddress(payerAddress)), order, 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t, withPermit2(t), o.genesis)
			f, _ := c.start("base-sepolia", budget("0.01/day"))
			r, toSettle := c.permit(o.order)
			verify(t, f, r)
			if c.transactions() != 0 {
				t.Error("verifying sent something")
			}
			for range 2 {
				if s := f.Settle(during(t, 5*time.Minute), toSettle); s.Outcome != facilitator.Settled {
					t.Fatalf("%+v", s)
				}
			}
			if c.transactions() != o.sent || big.NewInt(c.of(tether, payee)).String() != toSettle.Requirement.Amount {
				t.Errorf("%d moved, %d transactions", c.of(tether, payee), c.transactions())
			}
			// The next payment of this payer needs none of it.
			o.order.nonce = 1
			_, next := c.permit(o.order)
			if s := f.Settle(during(t, 5*time.Minute), next); s.Outcome != facilitator.Settled || c.transactions() != o.sent+1 {
				t.Errorf("%+v, %d transactions", s, c.transactions())
			}
		})
	}
	t.Run("two payments at once", func(t *testing.T) {
		c := startChain(t, withPermit2(t), poor)
		f, _ := c.start("base-sepolia", budget("0.01/day"))
		other := order
		other.nonce = 1
		first, _ := c.permit(order)
		second, _ := c.permit(other)
		var wg sync.WaitGroup
		for _, r := range []facilitator.Request{first, second} {
			wg.Go(func() {
				if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled {
					t.Errorf("%+v", s)
				}
			})
		}
		wg.Wait()
		if c.transactions() != 3 || c.of(tether, payee) != 20000 {
			t.Errorf("%d transactions, %d moved", c.transactions(), c.of(tether, payee))
		}
	})
}

// TestApprovalBudget: what is given away is bounded, and a payer who gets nothing
// is told what to do.
func TestApprovalBudget(t *testing.T) {
	order := permitOrder{asset: tether.Hex(), extensions: sponsorApproval(nil, nil)}
	for name, tt := range map[string]struct {
		budget func(*Network)
		order  permitOrder
		reason x402.Code
	}{
		"none":      {func(*Network) {}, order, codePermit2Allowance},
		"too small": {budget("0.0005/day"), order, codePermit2Allowance},
		"price too high": {budget("0.01/day"), permitOrder{asset: tether.Hex(), extensions: sponsorApproval(func(tx *types.DynamicFeeTx, _ **ecdsa.PrivateKey) {
			tx.GasFeeCap = big.NewInt(1e15)
		}, nil)}, codePermit2Allowance},
		"price too low": {budget("0.01/day"), permitOrder{asset: tether.Hex(), extensions: sponsorApproval(func(tx *types.DynamicFeeTx, _ **ecdsa.PrivateKey) {
			tx.GasFeeCap, tx.GasTipCap = common.Big1, common.Big1
		}, nil)}, codeApprovalFailed},
		"no money":          {budget("0.01/day"), permitOrder{asset: tether.Hex(), amount: "1000000001", extensions: order.extensions}, codePermit2Balance},
		"another signature": {budget("0.01/day"), permitOrder{asset: tether.Hex(), extensions: order.extensions, change: highS}, x402.CodePermit2Signature},
	} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t, withPermit2(t), poor)
			f, _ := c.start("base-sepolia", tt.budget)
			r, _ := c.permit(tt.order)
			refusedBoth(t, f, r, tt.reason)
			if c.transactions() != 0 || c.coins(payerAddress).Sign() != 0 {
				t.Error("something was sent")
			}
		})
	}
	t.Run("used up by others", func(t *testing.T) {
		c := startChain(t, withPermit2(t), poor)
		f, logs := c.start("base-sepolia", budget("0.01/day"))
		f.chains[baseSepolia].shared.approvals.take(big.NewInt(99e14), big.NewInt(1e16), c.now(), true)
		f.chains[baseSepolia].shared.standings.moved(chain.AddressTopic(common.HexToAddress(payerAddress)))
		r, _ := c.permit(order)
		refusedBoth(t, f, r, codePermit2Allowance)
		if c.transactions() != 0 || !strings.Contains(logged(logs), "approval_budget is used up") {
			t.Errorf("%d transactions; %s", c.transactions(), logged(logs))
		}
	})
	t.Run("used up, and there again the next day", func(t *testing.T) {
		a := &newShared().approvals
		total, now := big.NewInt(100), time.Unix(86_400*100, 0)
		if !a.take(big.NewInt(60), total, now, true) || a.take(big.NewInt(41), total, now, true) || !a.take(big.NewInt(40), total, now, true) || a.take(common.Big1, total, now, true) {
			t.Error("it is not the sum that counts")
		}
		a.give(big.NewInt(10), true)
		if a.left(big.NewInt(11), total, now.Add(time.Hour), true) || !a.left(big.NewInt(10), total, now.Add(time.Hour), true) {
			t.Error("what was given back does not count")
		}
		if !a.take(total, total, now.Add(24*time.Hour), true) {
			t.Error("another day is no new budget")
		}
		a.give(big.NewInt(1000), true)
		if a.take(big.NewInt(101), total, now.Add(24*time.Hour), true) {
			t.Error("more was given back than was taken")
		}
	})
	t.Run("the payer takes the gift and keeps it", func(t *testing.T) {
		// The gift arrives, and before the approval does, the payer uses the number of
		// the transaction for something else.
		c := startChain(t, withPermit2(t), poor)
		f, _ := c.start("base-sepolia", budget("0.01/day"))
		r, _ := c.permit(order)
		c.asleep = func() {
			if c.coins(payerAddress).Sign() > 0 {
				c.asleep = nil
				to := common.HexToAddress(payee)
				tx := types.MustSignNewTx(payerECDSA, types.LatestSignerForChainID(big.NewInt(84532)), &types.DynamicFeeTx{
					ChainID: big.NewInt(84532), GasTipCap: big.NewInt(2e9), GasFeeCap: big.NewInt(4e9), Gas: 21_000, To: &to,
				})
				_ = c.backend.Client().SendTransaction(t.Context(), tx)
			}
		}
		s := f.Settle(during(t, 500*time.Millisecond), r)
		if s.Outcome == facilitator.Settled && c.of(tether, payee) != 10000 || s.Outcome == facilitator.Unknown {
			t.Errorf("%+v", s)
		}
		// It cannot be had twice.
		again := f.Settle(during(t, 500*time.Millisecond), r)
		if c.transactions() > 2 || again.Outcome == facilitator.Unknown {
			t.Errorf("%d transactions, %+v", c.transactions(), again)
		}
	})
}

// TestBentApproval bends every member of the extension and of the transaction in
// it.
func TestBentApproval(t *testing.T) {
	member := func(name string, value any) map[string]any {
		return sponsorApproval(nil, func(info map[string]any) { info[name] = value })
	}
	tx := func(change func(*types.DynamicFeeTx)) map[string]any {
		return sponsorApproval(func(tx *types.DynamicFeeTx, _ **ecdsa.PrivateKey) { change(tx) }, nil)
	}
	stranger := common.HexToAddress(payee)
	c := startChain(t, withPermit2(t))
	f, _ := c.start("base-sepolia", budget("0.01/day"))
	for name, tt := range map[string]struct {
		extensions map[string]any
		reason     x402.Code
	}{
		"from":              {member("from", payee), codeApprovalFrom},
		"from, no address":  {member("from", "0x1"), codeApprovalFormat},
		"asset":             {member("asset", usdc), codeApprovalAsset},
		"spender":           {member("spender", payee), codeApprovalSpender},
		"amount":            {member("amount", "all"), codeApprovalFormat},
		"version":           {member("version", "v1"), codeApprovalFormat},
		"no hex":            {member("signedTransaction", "0xzz"), codeApprovalParse},
		"no 0x":             {member("signedTransaction", "02"), codeApprovalFormat},
		"no transaction":    {member("signedTransaction", "0x02"), codeApprovalParse},
		"empty":             {member("signedTransaction", "0x"), codeApprovalFormat},
		"a number":          {member("signedTransaction", 5), codeApprovalFormat},
		"left out":          {member("signedTransaction", nil), codePermit2Allowance},
		"info, a list":      {map[string]any{approvalExtension: map[string]any{"info": []int{1}}}, codeApprovalFormat},
		"no object":         {map[string]any{approvalExtension: 5}, codeApprovalFormat},
		"target":            {tx(func(tx *types.DynamicFeeTx) { tx.To = &stranger }), codeApprovalTarget},
		"creates":           {tx(func(tx *types.DynamicFeeTx) { tx.To = nil }), codeApprovalTarget},
		"transfers":         {tx(func(tx *types.DynamicFeeTx) { copy(tx.Data, crypto.Keccak256([]byte("transfer(address,uint256)"))) }), codeApprovalSelector},
		"approves another":  {tx(func(tx *types.DynamicFeeTx) { copy(tx.Data[16:], stranger[:]) }), codeApprovalTxSpender},
		"dirty address":     {tx(func(tx *types.DynamicFeeTx) { tx.Data[4] = 1 }), codeApprovalTxSpender},
		"cut":               {tx(func(tx *types.DynamicFeeTx) { tx.Data = tx.Data[:67] }), codeApprovalCalldata},
		"longer":            {tx(func(tx *types.DynamicFeeTx) { tx.Data = append(tx.Data, 0) }), codeApprovalCalldata},
		"too little":        {tx(func(tx *types.DynamicFeeTx) { clear(tx.Data[36:]); tx.Data[67] = 1 }), codeApprovalCalldata},
		"value":             {tx(func(tx *types.DynamicFeeTx) { tx.Value = common.Big1 }), codeApprovalCalldata},
		"gas":               {tx(func(tx *types.DynamicFeeTx) { tx.Gas = maxApprovalGas + 1 }), codeApprovalCalldata},
		"access list":       {tx(func(tx *types.DynamicFeeTx) { tx.AccessList = types.AccessList{{}} }), codeApprovalCalldata},
		"chain":             {tx(func(tx *types.DynamicFeeTx) { tx.ChainID = big.NewInt(8453) }), codeApprovalSigner},
		"too little gas":    {tx(func(tx *types.DynamicFeeTx) { tx.Gas = 22_000 }), codeApprovalFailed},
		"number ahead":      {tx(func(tx *types.DynamicFeeTx) { tx.Nonce = 1 }), codeApprovalFailed},
		"signed by another": {sponsorApproval(func(_ *types.DynamicFeeTx, key **ecdsa.PrivateKey) { *key = ownerKey }, nil), codeApprovalSigner},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := c.permit(permitOrder{asset: tether.Hex(), extensions: tt.extensions})
			refusedBoth(t, f, r, tt.reason)
		})
	}
	if c.transactions() != 0 || c.of(tether, payee) != 0 {
		t.Error("something was sent")
	}
}

// TestApprovalsTakeNoPlaces: approvals that no block takes are in nobody's way but
// that of other approvals.
func TestApprovalsTakeNoPlaces(t *testing.T) {
	keys := make([]*ecdsa.PrivateKey, maxApprovals+1)
	c := startChain(t, withPermit2(t), func(a types.GenesisAlloc) {
		for i := range keys {
			keys[i] = must(crypto.GenerateKey())
			payer := crypto.PubkeyToAddress(keys[i].PublicKey)
			a[payer] = types.Account{Balance: big.NewInt(1e18)}
			a[tether].Storage[balanceSlot(payer)] = common.BigToHash(big.NewInt(1e9))
		}
	})
	f, _ := c.start("base-sepolia", budget("0.01/day"))
	ordinary := c.sign(order{before: 5000})
	var requests []facilitator.Request
	for _, key := range keys {
		r, _ := c.permit(permitOrder{from: key, asset: tether.Hex(), before: 5000, extensions: sponsorApproval(
			func(_ *types.DynamicFeeTx, k **ecdsa.PrivateKey) { *k = key },
			func(info map[string]any) { info["from"] = crypto.PubkeyToAddress(key.PublicKey).Hex() },
		)})
		requests = append(requests, r)
	}
	for _, key := range keys { // of others there are fewer
		f.chains[baseSepolia].shared.standings.moved(chain.AddressTopic(addressOf(key)))
	}
	c.idle = true
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, r := range requests[:maxApprovals] {
		wg.Go(func() {
			if s := insist(ctx, f, r); s.Outcome != facilitator.Unsent {
				t.Errorf("an approval that is in no block: %+v", s)
			}
		})
	}
	for _, key := range keys[:maxApprovals] { // until all of them are on their way
		for must(c.backend.Client().PendingNonceAt(ctx, crypto.PubkeyToAddress(key.PublicKey))) == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	if s := f.Settle(during(t, 5*time.Minute), requests[maxApprovals]); s.Outcome != facilitator.Refused || s.Reason != string(codePermit2Allowance) {
		t.Errorf("one more: %+v", s)
	}
	if must(c.backend.Client().PendingNonceAt(ctx, crypto.PubkeyToAddress(keys[maxApprovals].PublicKey))) != 0 {
		t.Error("one more was sent")
	}
	c.leaveWaiting(f, ordinary)
	stop()
	wg.Wait()
	if a := f.chains[baseSepolia].accounts[0]; a.taken != [kinds]int{} {
		t.Errorf("%d places are taken", a.taken)
	}
	// And when there are blocks again, they are settled.
	c.idle = false
	c.settleAll(f, append(requests, ordinary))
	if c.of(tether, payee) != int64(len(requests))*10000 || c.balance(payee) != 10000 {
		t.Errorf("%d and %d moved", c.of(tether, payee), c.balance(payee))
	}
}
