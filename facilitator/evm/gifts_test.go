package evm

import (
	"context"
	"crypto/ecdsa"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// eager is a node on which something happens before each batch.
type eager struct {
	chain.Client
	before func()
}

func (n *eager) BatchCallContext(ctx context.Context, b []rpc.BatchElem) error {
	n.before()
	return n.Client.BatchCallContext(ctx, b)
}

// TestWhoKeepsAGiftGetsNoOther: a payer moves each gift away in the moment that it is
// there, and signs the next approval.
func TestWhoKeepsAGiftGetsNoOther(t *testing.T) {
	c := startChain(t, withPermit2(t), poor)
	f, _ := c.start("base-sepolia", budget("0.01/day"))
	thief, payer := common.HexToAddress("0x7417000000000000000000000000000000000001"), common.HexToAddress(payerAddress)
	var number uint64
	armed := false
	node := &eager{Client: keepOpen{c.client}, before: func() {
		if !armed {
			return
		}
		price := quarterMore(must(c.backend.Client().HeaderByNumber(context.Background(), nil)).BaseFee)
		fee := new(big.Int).Mul(price, big.NewInt(21_000))
		if have := c.coins(payerAddress); have.Cmp(fee) > 0 {
			armed = false
			tx := types.MustSignNewTx(payerECDSA, types.LatestSignerForChainID(big.NewInt(84532)), &types.LegacyTx{
				Nonce: number, GasPrice: price, Gas: 21_000, To: &thief, Value: new(big.Int).Sub(have, fee),
			})
			c.send(tx)
			c.seal()
		}
	}}
	rewire(f, 0, node)
	next := func() map[string]any {
		return sponsorApproval(func(tx *types.DynamicFeeTx, _ **ecdsa.PrivateKey) {
			base := must(c.backend.Client().HeaderByNumber(t.Context(), nil)).BaseFee
			tx.Nonce, tx.GasTipCap, tx.GasFeeCap = number, big.NewInt(1e6), new(big.Int).Lsh(base, 1)
		}, nil)
	}
	take := func(nonce byte) (facilitator.Settlement, *big.Int) {
		before := c.coins(thief.Hex())
		number = must(c.backend.Client().NonceAt(t.Context(), payer, nil))
		armed = true
		r, _ := c.permit(permitOrder{asset: tether.Hex(), nonce: nonce, before: 1e6, extensions: next()})
		s := f.Settle(during(t, 5*time.Second), r)
		return s, new(big.Int).Sub(c.coins(thief.Hex()), before)
	}
	if s, taken := take(0); s.Outcome == facilitator.Settled || taken.Sign() == 0 {
		t.Fatalf("%+v; the thief has taken %s", s, taken)
	}
	sent := c.transactions()
	for i := range byte(7) {
		if s, taken := take(i + 1); s.Outcome != facilitator.Refused || !strings.Contains(s.Detail, "has not paid since") || taken.Sign() != 0 {
			t.Errorf("%d: %+v; the thief has taken %s", i, s, taken)
		}
	}
	if c.transactions() != sent {
		t.Errorf("%d more were sent", c.transactions()-sent)
	}
	// Whoever has paid since is a customer like any other.
	f.chains[baseSepolia].sawOutcome(must(read(first2(c.permit(permitOrder{asset: tether.Hex(), nonce: 99})))), new(record), facilitator.Settlement{Outcome: facilitator.Settled})
	armed = false
	r, _ := c.permit(permitOrder{asset: tether.Hex(), nonce: 100, extensions: next()})
	if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled {
		t.Errorf("after a payment: %+v", s)
	}
}

func first2[A, B any](a A, _ B) A { return a }

// TestGiftThatWasNotSentIsNone: a gift that no node took is not held against the payer.
func TestGiftThatWasNotSentIsNone(t *testing.T) {
	c := startChain(t, withPermit2(t), poor)
	f, _ := c.start("base-sepolia", budget("0.01/day"))
	client := keepOpen{c.client}
	rewire(f, 0, turnsAway{client})
	r, _ := c.permit(permitOrder{asset: tether.Hex(), extensions: sponsorApproval(nil, nil)})
	if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Unsent {
		t.Errorf("%+v", s)
	}
	a := &f.chains[baseSepolia].shared.approvals
	if a.spent.Sign() != 0 || a.ofStrangers.Sign() != 0 {
		t.Errorf("%s of the budget is spent, %s of that of strangers", a.spent, a.ofStrangers)
	}
	rewire(f, 0, client)
	if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled {
		t.Errorf("%+v", s)
	}
}

// turnsAway is a node that takes no transaction.
type turnsAway struct{ chain.Client }

func (n turnsAway) CallContext(ctx context.Context, result any, method string, args ...any) error {
	if method == "eth_sendRawTransaction" {
		return saysError("txpool is full")
	}
	return n.Client.CallContext(ctx, result, method, args...)
}

// TestGiftsAreAtTheMarketPrice: what a payer's own transaction offers for its gas, or
// asks for, does not make the gift larger.
func TestGiftsAreAtTheMarketPrice(t *testing.T) {
	now := market(big.NewInt(1e9), big.NewInt(1e9), nil) // 3 gwei for who sends now
	for name, tt := range map[string]struct {
		gas, price, most int64
	}{
		"as the official client asks": {gas: 70_000, price: 2e9, most: 70_000 * 45e8},
		"little gas":                  {gas: 30_000, price: 2e9, most: 30_000 * 45e8},
		"much gas":                    {gas: 200_000, price: 2e9, most: giftGas * 45e8},
		"a high price":                {gas: 70_000, price: 1e15, most: 70_000 * 45e8},
	} {
		t.Run(name, func(t *testing.T) {
			tx := types.NewTx(&types.DynamicFeeTx{Gas: uint64(tt.gas), GasFeeCap: big.NewInt(tt.price)})
			if most := mostGiven(tx, now); most.Cmp(big.NewInt(tt.most)) != 0 {
				t.Errorf("%s, want %d", most, tt.most)
			}
		})
	}
	for name, change := range map[string]func(tx *types.DynamicFeeTx, _ **ecdsa.PrivateKey){
		"five times the market": func(tx *types.DynamicFeeTx, _ **ecdsa.PrivateKey) { tx.GasFeeCap = big.NewInt(15e9) },
		"more gas than it takes": func(tx *types.DynamicFeeTx, _ **ecdsa.PrivateKey) {
			tx.Gas, tx.GasFeeCap = maxApprovalGas, big.NewInt(3e9)
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := permitOrder{asset: tether.Hex(), extensions: sponsorApproval(change, nil)}
			c := startChain(t, withPermit2(t), poor)
			f, _ := c.start("base-sepolia", budget("1/day"))
			r, _ := c.permit(o)
			refusedBoth(t, f, r, codePermit2Allowance)
			if c.transactions() != 0 {
				t.Error("something was sent")
			}
			// Who has the gas may offer what he likes.
			c = startChain(t, withPermit2(t))
			f, _ = c.start("base-sepolia", budget("1/day"))
			r, _ = c.permit(o)
			if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestManyAddressesLeaveCustomersTheirShare: however many new addresses ask, half of a
// day's budget is left for those who have paid here before.
func TestManyAddressesLeaveCustomersTheirShare(t *testing.T) {
	a := &newShared().approvals
	total, now := big.NewInt(1000), time.Unix(86_400*100, 0)
	strangers, customers := 0, 0
	for range 1000 {
		if a.take(big.NewInt(10), total, now, false) {
			strangers++
		}
	}
	for range 1000 {
		if a.take(big.NewInt(10), total, now, true) {
			customers++
		}
	}
	if strangers != 50 || customers != 50 {
		t.Errorf("strangers got %d gifts, and customers %d", strangers, customers)
	}
	if !a.take(big.NewInt(10), total, now.Add(24*time.Hour), false) {
		t.Error("another day is no new budget")
	}

	c := startChain(t, withPermit2(t), poor)
	f, logs := c.start("base-sepolia", budget("0.01/day"))
	shared := f.chains[baseSepolia].shared
	shared.approvals.take(big.NewInt(5e15), big.NewInt(1e16), c.now(), false)
	r, _ := c.permit(permitOrder{asset: tether.Hex(), extensions: sponsorApproval(nil, nil)})
	refusedBoth(t, f, r, codePermit2Allowance)
	if !strings.Contains(logged(logs), "who have not paid here before") {
		t.Errorf("log %s", logged(logs))
	}
	shared.standings.moved(chain.AddressTopic(common.HexToAddress(payerAddress)))
	if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled {
		t.Errorf("who has paid before: %+v", s)
	}
}

// TestGiftsPayForPublication: on a chain of the OP stack no node takes a transaction
// whose sender cannot pay for its publication, too.
func TestGiftsPayForPublication(t *testing.T) {
	cost := new(big.Int).Mul(big.NewInt(70_000), big.NewInt(2e9)) // as signed
	for name, tt := range map[string]struct {
		code string
		want *big.Int
	}{
		"no such chain":    {want: cost},
		"1 gwei":           {code: "0x633b9aca005f5260205ff3", want: new(big.Int).Add(cost, quarterMore(big.NewInt(1e9)))},
		"it is not there":  {code: "0x5f5ffd", want: cost},
		"an odd answer":    {code: "0x60015ff3", want: cost},
		"beyond all shame": {code: "0x7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff5f5260205ff3"},
	} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t, withPermit2(t), poor, func(a types.GenesisAlloc) {
				if tt.code != "" {
					a[feeOracle] = types.Account{Code: common.FromHex(tt.code)}
				}
			})
			f, logs := c.start("base-sepolia", budget("0.01/day"))
			r, _ := c.permit(permitOrder{asset: tether.Hex(), extensions: sponsorApproval(nil, nil)})
			if tt.want == nil {
				if v, err := f.Verify(during(t, 5*time.Minute), r); err != nil || v.Reason != string(codePermit2Allowance) {
					t.Errorf("%+v, %v", v, err)
				}
				if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome == facilitator.Settled || c.transactions() != 0 {
					t.Errorf("%+v, %d sent", s, c.transactions())
				}
				return
			}
			if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled {
				t.Fatalf("%+v", s)
			}
			said := logs.FilterMessageSnippet("was given the gas").All()
			if len(said) != 1 || said[0].ContextMap()["amount"] != tt.want.String() {
				t.Errorf("log %s, want %s", logged(logs), tt.want)
			}
		})
	}
}
