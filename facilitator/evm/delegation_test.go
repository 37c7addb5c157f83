package evm

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rpc"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
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
		g[refuser] = types.Account{Code: []byte{0x5f, 0x5f, 0xfd}}
		for i := range n {
			having(addressOf(keyNo(i)), 1_000_000)(g)
		}
	}
}

// refuser is code that refuses everything at once.
var refuser = common.HexToAddress("0xb00e000000000000000000000000000000000b01")

// delegate has accounts run the burner's code (EIP-7702), in one transaction of a
// stranger that comes before ours.
func (c *testChain) delegate(keys ...*ecdsa.PrivateKey) { c.delegateTo(burner, keys...) }

// delegateTo is delegate to some code. It returns the transaction.
func (c *testChain) delegateTo(code common.Address, keys ...*ecdsa.PrivateKey) common.Hash {
	c.t.Helper()
	client, owner := c.backend.Client(), addressOf(ownerKey)
	number := must(client.PendingNonceAt(context.Background(), owner))
	var list []types.SetCodeAuthorization
	for _, k := range keys {
		list = append(list, must(types.SignSetCode(k, types.SetCodeAuthorization{ChainID: *uint256.NewInt(84532), Address: code})))
	}
	tx := types.MustSignNewTx(ownerKey, types.LatestSignerForChainID(big.NewInt(84532)), &types.SetCodeTx{
		ChainID: uint256.NewInt(84532), Nonce: number, GasTipCap: uint256.NewInt(50e9), GasFeeCap: uint256.NewInt(60e9),
		Gas: 100_000 + 30_000*uint64(len(keys)), To: owner, AuthList: list,
	})
	c.send(tx)
	return tx.Hash()
}

// flying is how many payments are on their way, and in how many transactions.
func flying(f *Facilitator) (payments, transactions int) {
	for _, a := range f.chains[baseSepolia].accounts {
		a.sender.mu.Lock()
		for _, fl := range a.sender.flights {
			payments += max(fl.shared, 1)
			transactions++
		}
		a.sender.mu.Unlock()
	}
	return payments, transactions
}

// placed is how many payments have a place: they are on their way, or are looked at for that.
func placed(f *Facilitator) (n int) {
	q := f.chains[baseSepolia].shared.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.payers {
		n += len(p.flying)
	}
	return n
}

// untilSteady waits until no more payments are sent, those that have a place among them if
// that does not take too long, and returns how many are on their way.
func untilSteady(f *Facilitator) int {
	last, end := 0, time.Now().Add(20*time.Second)
	for same := 0; same < 6 || placed(f) > last && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		n, _ := flying(f)
		if same++; n != last || n == 0 {
			same, last = 0, n
		}
	}
	return last
}

// settleAside settles payments while something else is done, until it is stopped.
func (c *testChain) settleAside(f *Facilitator, requests ...facilitator.Request) (stop func()) {
	ctx, cancel := context.WithCancel(during(c.t, time.Minute))
	var wg sync.WaitGroup
	for _, r := range requests {
		wg.Go(func() { f.Settle(ctx, r) })
	}
	return func() { cancel(); wg.Wait() }
}

// sums are what is lost, set aside and paid for payers of a class.
func sums(f *Facilitator, class int) (lost, held, paid *big.Int) {
	l := f.chains[baseSepolia].losses()
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.of[class]
	return new(big.Int).Set(of.lost), new(big.Int).Set(of.held), new(big.Int).Set(of.paid)
}

// untilNothingIsHeld waits until what is set aside has come back.
func untilNothingIsHeld(t *testing.T, f *Facilitator, class int) {
	t.Helper()
	for range 200 {
		if _, held, _ := sums(f, class); held.Sign() == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	_, held, _ := sums(f, class)
	t.Errorf("%s is still set aside", held)
}

// used is the gas of all transactions that an account of ours has in blocks.
func (c *testChain) used(signer common.Address) (gas uint64) {
	ctx, cl := context.Background(), c.backend.Client()
	for n := range must(cl.BlockNumber(ctx)) {
		for _, tx := range must(cl.BlockByNumber(ctx, new(big.Int).SetUint64(n+1))).Transactions() {
			if must(types.Sender(types.LatestSignerForChainID(tx.ChainId()), tx)) == signer {
				gas += must(cl.TransactionReceipt(ctx, tx.Hash())).GasUsed
			}
		}
	}
	return gas
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
		go func() { outcomes <- f.Settle(during(t, 5*time.Minute), r).Outcome }()
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
	if lost.Cmp(big.NewInt(transferGas+int64(programGas(2, pairSize)/2))) > 0 || lost.Sign() == 0 {
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
			ctx, cancel := context.WithCancel(during(t, 5*time.Minute))
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
		if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Unknown {
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
	l := newLosses(newStandings())
	budget, cost := big.NewInt(1000), big.NewInt(200)
	h, ok := l.hold(ofCode, false, cost, budget, now)
	if !ok {
		t.Fatal("it is refused")
	}
	if _, ok := l.hold(ofCode, false, cost, budget, now); ok {
		t.Fatal("more than a quarter is set aside for strangers with code")
	}
	tomorrow := now.Add(24 * time.Hour)
	if _, ok := l.hold(ofCode, false, cost, budget, tomorrow); ok {
		t.Fatal("what is on its way at midnight can be lost a second time")
	}
	h.end(nil)
	h.end(nil) // again
	next, ok := l.hold(ofCode, false, cost, budget, tomorrow)
	if !ok {
		t.Fatal("what was set aside does not come back")
	}
	next.end(big.NewInt(60))
	next.end(big.NewInt(60)) // again
	if lost := l.today(tomorrow); lost.Int64() != 60 {
		t.Errorf("%s lost", lost)
	}
	if l.spent(ofCode, false, big.NewInt(190), budget, tomorrow) || !l.spent(ofCode, false, big.NewInt(191), budget, tomorrow) {
		t.Error("the quarter of strangers with code is another")
	}
	if l.spent(ofCode, true, big.NewInt(440), budget, tomorrow) || l.spent(ofCustomers, true, big.NewInt(500), budget, tomorrow) {
		t.Error("who has paid is refused")
	}
}

// TestPaidGasMakesRoomForStrangers: in a rush more of theirs may be on their way, as
// others have paid.
func TestPaidGasMakesRoomForStrangers(t *testing.T) {
	now := time.Unix(1e9, 0)
	l := newLosses(newStandings())
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

// TestAsMuchIsSetAsideAsIsSent: a payment that could go together with others goes alone,
// and may use more gas then. It waits until there is room for that.
func TestAsMuchIsSetAsideAsIsSent(t *testing.T) {
	genesis, keys := both(t)
	c := startChain(t, payersNo(64), genesis)
	f, _ := c.start("base-sepolia", keys, func(n *Network) { n.Batch = defaultBatch })
	f.chains[baseSepolia].pairing.Store(token, c.now().Add(time.Hour))
	c.idle = true
	var stops []func()
	var all []*ecdsa.PrivateKey
	for i := range 64 { // one after the other, so that each is alone
		all = append(all, keyNo(i))
		before, _ := flying(f)
		stops = append(stops, c.settleAside(f, c.sign(order{from: keyNo(i), before: 1e6})))
		after := before
		for tries := 0; tries < 400 && after == before; tries++ {
			time.Sleep(10 * time.Millisecond)
			after, _ = flying(f)
		}
		if after == before {
			break
		}
	}
	payments, transactions := flying(f)
	_, held, _ := sums(f, ofAccounts)
	if payments < 25 || payments != transactions || held.Cmp(big.NewInt(int64(payments)*transferGas)) < 0 {
		t.Errorf("%d payments in %d transactions, and %s set aside", payments, transactions, held)
	}
	c.delegate(all...)
	c.seal()
	for range 100 {
		if lost, _, _ := sums(f, ofAccounts); lost.Cmp(big.NewInt(9e6)) > 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, stop := range stops {
		stop()
	}
	_, _, one := c.burnt(first)
	_, _, two := c.burnt(second)
	if one+two > defaultGasBudget/2 || one+two < defaultGasBudget/4 {
		t.Errorf("%d gas burnt", one+two)
	}
}

// TestWhatABatchCostIsSharedOut: what is counted is what the transactions have used, and
// not what they might have.
func TestWhatABatchCostIsSharedOut(t *testing.T) {
	for name, fails := range map[string]bool{"all pay": false, "all fail at little cost": true} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t, payersNo(60))
			f, _ := c.start("base-sepolia")
			f.chains[baseSepolia].pairing.Store(token, c.now().Add(time.Hour))
			c.idle = true
			var keys []*ecdsa.PrivateKey
			var requests []facilitator.Request
			for i := range 60 {
				keys, requests = append(keys, keyNo(i)), append(requests, c.sign(order{from: keyNo(i), before: 1e6}))
			}
			stop := c.settleAside(f, requests...)
			defer stop()
			if n := untilSteady(f); n < 40 {
				t.Fatalf("%d on their way", n)
			}
			if fails {
				c.delegateTo(refuser, keys...)
			}
			c.seal()
			time.Sleep(time.Second)
			stop()
			lost, _, paid := sums(f, ofAccounts)
			counted, other := paid, lost
			if fails {
				counted, other = lost, paid
			}
			gas := c.used(first)
			if other.Sign() != 0 || counted.Uint64() > gas || counted.Uint64() < gas*9/10 {
				t.Errorf("lost %s and paid %s for %d gas", lost, paid, gas)
			}
		})
	}
}

// TestSharesOfATransaction: those that failed have cost what the transaction used, but for
// what the others must have used.
func TestSharesOfATransaction(t *testing.T) {
	number := func(n uint64) *hexutil.Uint64 { return (*hexutil.Uint64)(&n) }
	fl := &flight{gas: 1_000_000, fees: gwei(1)}
	for name, tt := range map[string]struct {
		used          *hexutil.Uint64
		failed, moved int
		lost, cost    int64 // -1 is unknown
	}{
		"one pays":                        {number(80_000), 0, 1, 0, 80_000},
		"one fails":                       {number(80_000), 1, 0, 80_000, 0},
		"one of two burns":                {number(35_000 + 300_000), 1, 1, 300_000, 35_000},
		"one of ten cannot burn all":      {number(900_000), 1, 9, 100_000, 88_888},
		"all fail":                        {number(500_000), 10, 0, 50_000, 0},
		"a node says too much":            {number(1 << 60), 1, 0, 1_000_000, 0},
		"a node says too little":          {number(0), 1, 0, leastGas, 0},
		"a node says less than it can be": {number(50_000), 1, 9, 5_000, 5_000},
		"a node does not tell":            {nil, 1, 1, -1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			lost, cost := shares(fl, &chain.Receipt{GasUsed: tt.used}, tt.failed, tt.moved, true)
			if (lost == nil) != (tt.lost < 0) || lost != nil && lost.Int64() != tt.lost || cost.Int64() != tt.cost {
				t.Errorf("%s and %s", lost, cost)
			}
		})
	}
}

// TestWhatAPublicationCostsIsSetAside: chains of the OP stack take something for it
// besides the gas.
func TestWhatAPublicationCostsIsSetAside(t *testing.T) {
	// It says 0.0005 whatever it is asked.
	oracle := func(g types.GenesisAlloc) {
		g[feeOracle] = types.Account{Code: append(append([]byte{0x66}, common.FromHex("01c6bf52634000")...), 0x5f, 0x52, 0x60, 0x20, 0x5f, 0xf3)}
	}
	c := startChain(t, payersNo(40), oracle)
	f, _ := c.start("base-sepolia", func(n *Network) { n.Batch, n.GasBudget = 1, "0.02/day" })
	rewire(f, 0, publishing{keepOpen{c.client}})
	c.idle = true
	var keys []*ecdsa.PrivateKey
	var requests []facilitator.Request
	for i := range 40 {
		keys, requests = append(keys, keyNo(i)), append(requests, c.sign(order{from: keyNo(i), before: 1e6}))
	}
	stop := c.settleAside(f, requests...)
	defer stop()
	untilSteady(f)
	_, held, _ := sums(f, ofAccounts)
	c.delegate(keys...)
	half, lost := f.chains[baseSepolia].budget().Int64()/2, new(big.Int)
	for end := time.Now().Add(30 * time.Second); lost.Int64() < half/2 && time.Now().Before(end); {
		c.seal() // on a slow machine a block does not hold all
		time.Sleep(100 * time.Millisecond)
		if _, err := f.funds(t.Context(), f.chains[baseSepolia]); err != nil {
			t.Fatal(err)
		}
		lost, _, _ = sums(f, ofAccounts)
	}
	stop()
	if lost.Int64() > half || lost.Cmp(held) > 0 || lost.Int64() < half/2 {
		t.Errorf("%s set aside, and %s lost", held, lost)
	}
	dear, _ := c.start("base-sepolia", func(n *Network) { n.MaxFee = "0.0005" })
	if s := dear.Settle(during(t, 5*time.Minute), c.sign(order{before: 1e6})); s.Outcome != facilitator.Unsent || s.RetryAfter != dearWait {
		t.Errorf("%+v", s)
	}
}

// publishing adds to receipts what the publication has cost.
type publishing struct{ chain.Client }

func (n publishing) BatchCallContext(ctx context.Context, b []rpc.BatchElem) error {
	err := n.Client.BatchCallContext(ctx, b)
	for i := range b {
		if r, ok := b[i].Result.(**chain.Receipt); ok && *r != nil {
			(*r).L1Fee = (*hexutil.Big)(big.NewInt(5e14))
		}
	}
	return err
}

// TestCustomersCloseNobodyOut: wallets that have each paid once burn gas. That is bounded
// by a sum of its own.
func TestCustomersCloseNobodyOut(t *testing.T) {
	c := startChain(t, payersNo(40))
	f, _ := c.start("base-sepolia", func(n *Network) { n.Batch, n.GasBudget = 1, "0.01/day" })
	var keys []*ecdsa.PrivateKey
	var requests []facilitator.Request
	for i := range 30 {
		keys = append(keys, keyNo(i))
		f.chains[baseSepolia].shared.standings.moved(chain.AddressTopic(addressOf(keyNo(i))))
		requests = append(requests, c.sign(order{from: keyNo(i), before: 1e6}), c.sign(order{from: keyNo(i), nonce: 1, before: 1e6}))
	}
	c.idle = true
	stop := c.settleAside(f, requests...)
	defer stop()
	if n := untilSteady(f); n >= maxInFlight {
		t.Fatalf("%d are on their way, and the budget has room for fewer", n)
	}
	c.delegate(keys...)
	c.seal()
	time.Sleep(time.Second)
	stop()
	c.idle = false
	lost, _, _ := sums(f, ofCustomers)
	if others, _, _ := sums(f, ofAccounts); lost.Cmp(f.chains[baseSepolia].budget()) > 0 || lost.Sign() == 0 || others.Sign() != 0 {
		t.Errorf("%s lost, and of strangers %s", lost, others)
	}
	if s := f.Settle(during(t, 5*time.Minute), c.sign(order{from: keyNo(35), before: 1e6})); s.Outcome != facilitator.Settled {
		t.Errorf("a newcomer: %+v", s)
	}
}

// TestCustomersDoNotCloseOutCustomers: accounts that have each paid once burn all that they
// sign. Who has paid and burnt nothing goes on.
func TestCustomersDoNotCloseOutCustomers(t *testing.T) {
	const accounts, aRound = 30, 10
	c := startChain(t, payersNo(accounts+1))
	f, _ := c.start("base-sepolia", func(n *Network) { n.Batch = 1 })
	ch := f.chains[baseSepolia]
	for i := range accounts + 1 {
		ch.shared.standings.moved(chain.AddressTopic(addressOf(keyNo(i))))
	}
	c.idle = true
	for round := range accounts / aRound {
		var keys []*ecdsa.PrivateKey
		var requests []facilitator.Request
		for i := round * aRound; i < (round+1)*aRound; i++ {
			keys = append(keys, keyNo(i))
			for n := range byte(3) {
				requests = append(requests, c.sign(order{from: keyNo(i), nonce: n, before: 1e7}))
			}
		}
		stop := c.settleAside(f, requests...)
		untilSteady(f)
		c.delegate(keys...)
		c.seal()
		time.Sleep(time.Second)
		stop()
		c.seal()
		if _, err := f.funds(t.Context(), ch); err != nil {
			t.Fatal(err)
		}
	}
	c.idle = false
	lost, _, _ := sums(f, ofCustomers)
	others, _, _ := sums(f, ofUnbacked)
	if half := new(big.Int).Rsh(ch.budget(), 1); lost.Sign() == 0 || others.Sign() == 0 || lost.Cmp(half) > 0 || others.Cmp(half) > 0 {
		t.Errorf("%s lost, and %s without a payment against it", lost, others)
	}
	if s := f.Settle(during(t, 5*time.Minute), c.sign(order{from: keyNo(accounts), before: 1e7})); s.Outcome != facilitator.Settled {
		t.Errorf("who has paid is closed out by others: %+v", s)
	}
}

// TestAPaymentBacksOneBurn: what a customer can take of the half of those who pay more
// than they burn grows with what the customer has paid, and with nothing else.
func TestAPaymentBacksOneBurn(t *testing.T) {
	now, who := time.Unix(1e9, 0), payerNo(1)
	known := newStandings()
	l := newLosses(known)
	budget, cost := big.NewInt(1000), big.NewInt(100)
	takes := func(want int) *held {
		t.Helper()
		h, ok := l.holdOf(who, cost, budget, now)
		if !ok || h.whose != want {
			t.Fatalf("%v, %+v", ok, h)
		}
		return h
	}
	known.moved(chain.AddressTopic(who))
	first := takes(ofCustomers)
	second := takes(ofUnbacked) // one more is on its way than was paid for
	first.end(nil)
	takes(ofUnbacked).end(nil) // the second one still is
	second.end(cost)
	takes(ofUnbacked).end(nil) // one is lost
	now = now.Add(24 * time.Hour)
	takes(ofUnbacked).end(nil) // tomorrow, too
	known.moved(chain.AddressTopic(who))
	takes(ofCustomers).paid(cost)
	if len(l.backing) != 0 {
		t.Errorf("%v", l.backing)
	}
}

// TestARevertCountsWhoeverPaid: strangers pay by a transaction of their own, and have ours
// burn its gas.
func TestARevertCountsWhoeverPaid(t *testing.T) {
	c := startChain(t, payersNo(2))
	f, _ := c.start("base-sepolia", func(n *Network) { n.Batch = 1 })
	r := c.sign(order{from: keyNo(0), before: 1e6})
	c.idle = true
	done := make(chan facilitator.Settlement, 1)
	go func() { done <- f.Settle(during(t, 5*time.Minute), r) }()
	untilSteady(f)
	c.transact(ownerKey, token, calldata(t, r), 50e9)
	c.seal()
	if s := <-done; s.Outcome != facilitator.Settled {
		t.Errorf("%+v", s)
	}
	_, failed, gas := c.burnt(first)
	if lost, held, _ := sums(f, ofAccounts); failed != 1 || lost.Uint64() != gas || held.Sign() != 0 {
		t.Errorf("%d reverted for %d gas, %s lost, %s set aside", failed, gas, lost, held)
	}
}

// TestWhatIsSetAsideComesBackWithoutItsCaller: settlements are not waited for until their
// end. Whoever comes next has room, and whom the chain has seen pay is known as one who has.
func TestWhatIsSetAsideComesBackWithoutItsCaller(t *testing.T) {
	c := startChain(t, payersNo(60))
	f, _ := c.start("base-sepolia")
	f.chains[baseSepolia].pairing.Store(token, c.now().Add(time.Hour))
	since := c.now()
	c.idle = true
	var requests []facilitator.Request
	for i := range 50 {
		requests = append(requests, c.sign(order{from: keyNo(i), before: 300}))
	}
	stop := c.settleAside(f, requests...)
	for end := time.Now().Add(30 * time.Second); untilSteady(f) < 40; {
		if time.Now().After(end) {
			t.Fatal("too few are on their way")
		}
	}
	stop()
	if _, held, _ := sums(f, ofAccounts); held.Sign() == 0 {
		t.Fatal("nothing is set aside")
	}
	c.seal()
	c.idle = false
	c.seal()
	moved := 0
	standings := f.chains[baseSepolia].shared.standings
	for i, r := range requests {
		if p, err := f.Witness(during(t, 5*time.Minute), r, since); err != nil || p.Evidence != facilitator.Moved {
			continue
		}
		if moved++; standings.paid(addressOf(keyNo(i))) != 1 {
			t.Fatal("who has paid is not known")
		}
	}
	untilNothingIsHeld(t, f, ofAccounts)
	if lost, _, paid := sums(f, ofAccounts); lost.Sign() != 0 || paid.Sign() == 0 {
		t.Errorf("%s lost, %s paid", lost, paid)
	}
	if left := &f.chains[baseSepolia].shared.payments; moved < 40 || len(left.sent) != 50-moved {
		t.Errorf("%d of 50 have paid, and %d are remembered as on their way", moved, len(left.sent))
	}
}

// TestAnAuditReadsWhatNobodyWaitedFor: payers are gone and nobody asks. The look at the
// accounts ends what was set aside: as it turned out, and as lost where nobody can tell.
func TestAnAuditReadsWhatNobodyWaitedFor(t *testing.T) {
	for name, tt := range map[string]struct {
		before     func(*testChain)
		forgets    bool // the node has no receipts
		lost, paid bool
	}{
		"they have paid": {before: func(*testChain) {}, paid: true},
		"they burn":      {before: func(c *testChain) { c.delegate(keyNo(0)) }, lost: true},
		"nobody tells":   {before: func(*testChain) {}, forgets: true, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t, payersNo(2))
			f, _ := c.start("base-sepolia", func(n *Network) { n.Batch = 1 })
			if tt.forgets {
				rewire(f, 0, denying{keepOpen{c.client}})
			}
			c.idle = true
			stop := c.settleAside(f, c.sign(order{from: keyNo(0), before: 1e6}))
			untilSteady(f)
			stop()
			tt.before(c)
			c.seal()
			for range 2 {
				if _, err := f.funds(t.Context(), f.chains[baseSepolia]); err != nil {
					t.Fatal(err)
				}
				_, held, _ := sums(f, ofAccounts)
				if held.Sign() == 0 {
					break
				}
				if !tt.forgets {
					t.Errorf("%s is still set aside", held)
				}
				c.pass(settlementWait, 1)
			}
			lost, held, paid := sums(f, ofAccounts)
			if held.Sign() != 0 || lost.Sign() > 0 != tt.lost || paid.Sign() > 0 != tt.paid {
				t.Errorf("%s set aside, %s lost, %s paid", held, lost, paid)
			}
		})
	}
}

// garbling changes the receipts that a node has.
type garbling struct {
	chain.Client
	change func(*rpc.BatchElem, *chain.Receipt)
}

func (n garbling) BatchCallContext(ctx context.Context, b []rpc.BatchElem) error {
	err := n.Client.BatchCallContext(ctx, b)
	for i := range b {
		if r, ok := b[i].Result.(**chain.Receipt); ok && *r != nil {
			n.change(&b[i], *r)
		}
	}
	return err
}

// TestAReceiptSaysNoMoreThanWasOffered: a node says that the publication of a payment was
// dear beyond measure, where there is none. That makes no room for others.
func TestAReceiptSaysNoMoreThanWasOffered(t *testing.T) {
	c := startChain(t, payersNo(1))
	f, _ := c.start("base-sepolia", func(n *Network) { n.Batch, n.GasBudget = 1, "0.02/day" })
	ch := f.chains[baseSepolia]
	rewire(f, 0, garbling{keepOpen{c.client}, func(_ *rpc.BatchElem, r *chain.Receipt) { r.L1Fee = (*hexutil.Big)(big.NewInt(1e18)) }})
	if s := f.Settle(during(t, 5*time.Minute), c.sign(order{from: keyNo(0), before: 1e6})); s.Outcome != facilitator.Settled {
		t.Fatalf("%+v", s)
	}
	if _, _, paid := sums(f, ofAccounts); paid.Sign() == 0 || paid.Cmp(ch.budget()) > 0 {
		t.Errorf("one payment counts as %s", paid)
	}
}

// TestAPaymentMakesNoMoreRoomThanWasSetAside: whatever it is said to have cost.
func TestAPaymentMakesNoMoreRoomThanWasSetAside(t *testing.T) {
	l := newLosses(newStandings())
	h, _ := l.hold(ofAccounts, false, big.NewInt(100), big.NewInt(1000), time.Unix(1e9, 0))
	h.paid(big.NewInt(5000))
	if paid := l.of[ofAccounts].paid; paid.Int64() != 100 {
		t.Errorf("%s", paid)
	}
}

// TestAReloadKeepsSumsInTheirUnit: a payment was sent by a config that counts in gas, and
// is read by one that counts in coin.
func TestAReloadKeepsSumsInTheirUnit(t *testing.T) {
	c := startChain(t, payersNo(1))
	old, _ := c.start("base-sepolia", func(n *Network) { n.Batch = 1 })
	c.idle = true
	stop := c.settleAside(old, c.sign(order{from: keyNo(0), before: 1e6}))
	untilSteady(old)
	next, _ := c.start("base-sepolia", func(n *Network) { n.Batch, n.GasBudget = 1, "0.01/day" })
	stop()
	c.seal()
	if _, err := next.funds(t.Context(), next.chains[baseSepolia]); err != nil {
		t.Fatal(err)
	}
	if _, held, paid := sums(old, ofAccounts); held.Sign() != 0 || paid.Sign() == 0 || paid.Cmp(big.NewInt(1e6)) > 0 {
		t.Errorf("%s gas set aside, one payment counts as %s", held, paid)
	}
}

// TestAnotherNodeHasTheReceipt: the first of two nodes has no receipts. Nothing counts as
// lost for that.
func TestAnotherNodeHasTheReceipt(t *testing.T) {
	c := startChain(t, payersNo(1))
	f, _ := c.start("base-sepolia", func(n *Network) {
		n.RPC, n.Batch = []string{"https://node-1.example", "https://node-2.example"}, 1
	})
	rewire(f, 0, denying{keepOpen{c.client}})
	c.idle = true
	stop := c.settleAside(f, c.sign(order{from: keyNo(0), before: 1e6}))
	untilSteady(f)
	stop()
	c.seal()
	c.lookTwice(f)
	if lost, held, paid := sums(f, ofAccounts); lost.Sign() != 0 || held.Sign() != 0 || paid.Sign() == 0 {
		t.Errorf("%s lost, %s set aside, %s paid", lost, held, paid)
	}
}

// lookTwice looks at the accounts, and once more after the time in which receipts are to be
// there.
func (c *testChain) lookTwice(f *Facilitator) {
	c.t.Helper()
	for range 2 {
		if _, err := f.funds(c.t.Context(), f.chains[baseSepolia]); err != nil {
			c.t.Fatal(err)
		}
		c.pass(settlementWait, 1)
	}
}

// TestAGarbledReceiptHoldsUpNoOther: a node has nonsense in the place of one receipt, for
// ever. The others are read, and that one counts as lost in the end.
func TestAGarbledReceiptHoldsUpNoOther(t *testing.T) {
	c := startChain(t, payersNo(4))
	f, _ := c.start("base-sepolia", func(n *Network) { n.Batch = 1 })
	ch := f.chains[baseSepolia]
	var which common.Hash
	rewire(f, 0, garbling{keepOpen{c.client}, func(b *rpc.BatchElem, r *chain.Receipt) {
		if r.Transaction == which {
			*b.Result.(**chain.Receipt), b.Error = nil, errors.New("json: cannot unmarshal object")
		}
	}})
	c.idle = true
	var requests []facilitator.Request
	for i := range 4 {
		requests = append(requests, c.sign(order{from: keyNo(i), before: 1e6}))
	}
	stop := c.settleAside(f, requests...)
	n := untilSteady(f)
	stop()
	s := &ch.accounts[0].sender
	s.mu.Lock()
	which = common.HexToHash(s.flights[0].newest())
	s.mu.Unlock()
	c.seal()
	c.lookTwice(f)
	if lost, held, paid := sums(f, ofAccounts); n != 4 || lost.Sign() == 0 || held.Sign() != 0 || paid.Sign() == 0 {
		t.Errorf("%d sent; %s lost, %s set aside, %s paid", n, lost, held, paid)
	}
}

// TestARemovedKeyKeepsNothingSetAside: a reload removes a key while a payment of it is on
// its way, and nobody waits for that.
func TestARemovedKeyKeepsNothingSetAside(t *testing.T) {
	c := startChain(t, payersNo(1))
	old, _ := c.start("base-sepolia", func(n *Network) { n.Batch = 1 })
	c.idle = true
	stop := c.settleAside(old, c.sign(order{from: keyNo(0), before: 1e6}))
	untilSteady(old)
	next, _ := c.start("base-sepolia", func(n *Network) { n.Batch, n.Signers = 1, []string{keyFile(t, secondKey)} })
	stop()
	c.seal()
	if _, err := next.funds(t.Context(), next.chains[baseSepolia]); err != nil {
		t.Fatal(err)
	}
	q := next.chains[baseSepolia].shared.queue
	q.mu.Lock()
	payers := len(q.payers)
	q.mu.Unlock()
	if _, held, paid := sums(next, ofAccounts); held.Sign() != 0 || paid.Sign() == 0 || payers != 0 {
		t.Errorf("%s set aside, %s paid, %d payers with places", held, paid, payers)
	}
}
