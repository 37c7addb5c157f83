package evm

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// burner is code that uses up all gas.
var burner = common.HexToAddress("0xb00e000000000000000000000000000000000b00")

func keyNo(n int) *ecdsa.PrivateKey {
	return must(crypto.ToECDSA(crypto.Keccak256(fmt.Append(nil, "payer ", n))))
}

func addressOf(k *ecdsa.PrivateKey) common.Address { return crypto.PubkeyToAddress(k.PublicKey) }

// payersNo gives payers the money for some payments, and puts the burner on the chain.
func payersNo(n int) func(types.GenesisAlloc) {
	return func(g types.GenesisAlloc) {
		g[burner] = types.Account{Code: []byte{0xfe}}
		for i := range n {
			having(addressOf(keyNo(i)), 1_000_000)(g)
		}
	}
}

// delegate has accounts run the burner's code (EIP-7702), in one transaction of a
// stranger that comes before ours.
func (c *testChain) delegate(keys ...*ecdsa.PrivateKey) {
	c.t.Helper()
	client, owner := c.backend.Client(), addressOf(ownerKey)
	number := must(client.PendingNonceAt(context.Background(), owner))
	var list []types.SetCodeAuthorization
	for _, k := range keys {
		list = append(list, must(types.SignSetCode(k, types.SetCodeAuthorization{ChainID: *uint256.NewInt(84532), Address: burner})))
	}
	tx := types.MustSignNewTx(ownerKey, types.LatestSignerForChainID(big.NewInt(84532)), &types.SetCodeTx{
		ChainID: uint256.NewInt(84532), Nonce: number, GasTipCap: uint256.NewInt(50e9), GasFeeCap: uint256.NewInt(60e9),
		Gas: 100_000 + 30_000*uint64(len(keys)), To: owner, AuthList: list,
	})
	if err := client.SendTransaction(context.Background(), tx); err != nil {
		c.t.Error(err)
	}
	for range 1000 {
		if must(client.PendingNonceAt(context.Background(), owner)) > number {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// TestDelegationBurnsNobodyElsesGas: one of the payers of a transaction delegates his
// account to code that burns gas, while the transaction is on its way. The others
// settle, and what is lost is what one may use.
func TestDelegationBurnsNobodyElsesGas(t *testing.T) {
	c := startChain(t, payersNo(20))
	f, _ := c.start("base-sepolia")
	f.chains[baseSepolia].pairing.Store(token, c.now().Add(time.Hour))
	c.idle = true
	outcomes := make(chan facilitator.Outcome, 20)
	for i := range 20 {
		r := c.sign(order{from: keyNo(i), before: 1e6})
		go func() { outcomes <- f.Settle(during(t, time.Minute), r).Outcome }()
	}
	for sent := 0; sent < 20; time.Sleep(5 * time.Millisecond) {
		s := &f.chains[baseSepolia].accounts[0].sender
		s.mu.Lock()
		sent = 0
		for _, fl := range s.flights {
			sent += max(fl.shared, 1)
		}
		s.mu.Unlock()
	}
	c.delegate(keyNo(1), keyNo(2))
	c.seal()
	out := make(map[facilitator.Outcome]int)
	for range 20 {
		out[<-outcomes]++
	}
	lost := f.chains[baseSepolia].losses().today(c.now())
	if out[facilitator.Settled] != 18 || out[facilitator.Unknown] != 2 || c.balance(payee) != 180_000 {
		t.Errorf("%v, %d moved", out, c.balance(payee))
	}
	// The first of all goes alone, and it may be one of the two.
	if lost.Cmp(big.NewInt(transferGas+memberGas)) > 0 || lost.Sign() == 0 {
		t.Errorf("%s gas lost", lost)
	}
}

// TestWhatStrangersCouldBurnIsSetAside: many payers delegate in one transaction. No more
// of theirs is on its way than the budget has room for.
func TestWhatStrangersCouldBurnIsSetAside(t *testing.T) {
	for name, tt := range map[string]struct{ batch, payers int }{"each in a transaction": {1, 60}, "many in a transaction": {20, 120}} {
		t.Run(name, func(t *testing.T) {
			batch, payers := tt.batch, tt.payers
			c := startChain(t, payersNo(payers))
			f, _ := c.start("base-sepolia", func(n *Network) { n.Batch = batch })
			f.chains[baseSepolia].pairing.Store(token, c.now().Add(time.Hour))
			c.idle = true
			ctx, cancel := context.WithCancel(during(t, time.Minute))
			var wg sync.WaitGroup
			var keys []*ecdsa.PrivateKey
			for i := range payers {
				keys = append(keys, keyNo(i))
				r := c.sign(order{from: keyNo(i), before: 1e6})
				wg.Go(func() { f.Settle(ctx, r) })
			}
			for before := uint64(0); ; time.Sleep(500 * time.Millisecond) { // until no more are sent
				_, waiting := c.numbers(first)
				if waiting == before && waiting > 0 {
					break
				}
				before = waiting
			}
			c.delegate(keys...)
			c.seal()
			l := f.chains[baseSepolia].losses()
			for range 30 { // until all have seen it
				time.Sleep(100 * time.Millisecond)
				if l.today(c.now()).Cmp(big.NewInt(defaultGasBudget/2-300_000)) > 0 {
					break
				}
			}
			lost := l.today(c.now())
			if lost.Sign() == 0 || lost.Cmp(big.NewInt(defaultGasBudget/2)) > 0 {
				t.Errorf("%s gas lost, and half of the budget is %d", lost, defaultGasBudget/2)
			}
			cancel()
			wg.Wait()
		})
	}
}

// TestALossIsCountedOnce: however often a payment is asked about whose transaction was
// reverted.
func TestALossIsCountedOnce(t *testing.T) {
	c := startChain(t, payersNo(2))
	f, _ := c.start("base-sepolia", func(n *Network) { n.Batch = 1 })
	r := c.sign(order{from: keyNo(0), before: 1e6})
	done := false
	c.atOnce(f, []facilitator.Request{r}, func() {
		if _, waiting := c.numbers(first); !done && waiting > 0 {
			done = true
			c.delegate(keyNo(0))
		}
	})
	before := f.chains[baseSepolia].losses().today(c.now())
	for range 50 {
		if s := f.Settle(during(t, time.Minute), r); s.Outcome != facilitator.Unknown {
			t.Fatalf("%+v", s)
		}
	}
	if after := f.chains[baseSepolia].losses().today(c.now()); before.Sign() == 0 || after.Cmp(before) != 0 {
		t.Errorf("%s, and after more questions %s", before, after)
	}
}

// TestWhatIsSetAsideComesBack: nobody has waited for the end of a payment.
func TestWhatIsSetAsideComesBack(t *testing.T) {
	now := time.Unix(1e9, 0)
	l := newLosses()
	budget, cost := big.NewInt(1000), big.NewInt(200)
	h, ok := l.hold(ofCode, false, cost, budget, now)
	if !ok {
		t.Fatal("it is refused")
	}
	if _, ok := l.hold(ofCode, false, cost, budget, now); ok {
		t.Fatal("more than a quarter is set aside for strangers with code")
	}
	tomorrow := now.Add(24 * time.Hour)
	next, ok := l.hold(ofCode, false, cost, budget, tomorrow)
	if !ok {
		t.Fatal("what was set aside yesterday is so today")
	}
	h.end(nil)
	if _, ok := l.hold(ofCode, false, cost, budget, tomorrow); ok {
		t.Error("what was set aside yesterday is taken from today")
	}
	next.end(big.NewInt(60))
	next.end(big.NewInt(60)) // again
	if lost := l.today(tomorrow); lost.Int64() != 60 {
		t.Errorf("%s lost", lost)
	}
	if l.spent(ofCode, false, big.NewInt(190), budget, tomorrow) || !l.spent(ofCode, false, big.NewInt(191), budget, tomorrow) {
		t.Error("the quarter of strangers with code is another")
	}
	if l.spent(ofCode, true, big.NewInt(440), budget, tomorrow) || l.spent(ofAccounts, true, big.NewInt(1e9), budget, tomorrow) {
		t.Error("who has paid is refused")
	}
}

// TestPaidGasMakesRoomForStrangers: in a rush more of theirs may be on their way, as
// others have paid.
func TestPaidGasMakesRoomForStrangers(t *testing.T) {
	now := time.Unix(1e9, 0)
	l := newLosses()
	budget, cost := big.NewInt(1000), big.NewInt(500)
	h, ok := l.hold(ofAccounts, false, cost, budget, now)
	if _, more := l.hold(ofAccounts, false, cost, budget, now); !ok || more {
		t.Fatal("half of the budget is another")
	}
	h.paid(big.NewInt(400))
	a, ok := l.hold(ofAccounts, false, cost, budget, now)
	b, more := l.hold(ofAccounts, false, big.NewInt(400), budget, now)
	if !ok || !more {
		t.Error("nothing was gained")
	}
	a.end(big.NewInt(450))
	b.end(big.NewInt(60))
	if !l.spent(ofAccounts, false, big.NewInt(1), budget, now) {
		t.Error("what may be lost has grown")
	}
}
