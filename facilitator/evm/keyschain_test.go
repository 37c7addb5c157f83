package evm

import (
	"context"
	"fmt"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/caddy-paywall/caddy-paywall/devchain"
	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// both lets the second key settle too, and gives its account some coin.
func both(t testing.TB) (genesis func(types.GenesisAlloc), keys func(*Network)) {
	t.Helper()
	signers := []string{keyFile(t, signerKey), keyFile(t, secondKey)}
	return func(a types.GenesisAlloc) { a[second] = types.Account{Balance: big.NewInt(1e18)} },
		func(n *Network) { n.Signers, n.Batch = signers, 1 }
}

// numbers is how many transactions of an account are in blocks, and how many are
// on their way besides.
func (c *testChain) numbers(a common.Address) (mined, waiting uint64) {
	c.t.Helper()
	mined = must(c.backend.Client().NonceAt(context.Background(), a, nil))
	return mined, must(c.backend.Client().PendingNonceAt(context.Background(), a)) - mined
}

// insist settles a payment, and tries again while nothing is sent: on a slow machine
// a node may not answer in time.
func insist(ctx context.Context, f *Facilitator, r facilitator.Request) facilitator.Settlement {
	s := f.Settle(ctx, r)
	for s.Outcome == facilitator.Unsent && ctx.Err() == nil {
		s = f.Settle(ctx, r)
	}
	return s
}

// leaveWaiting settles a payment while no blocks are made, until it is on its way
// from one of our accounts and no longer.
func (c *testChain) leaveWaiting(f *Facilitator, r facilitator.Request) facilitator.Settlement {
	c.t.Helper()
	if !c.idle {
		c.idle = true
	}
	sent := func() (n uint64) {
		for _, a := range []common.Address{first, second} {
			_, waiting := c.numbers(a)
			n += waiting
		}
		return n
	}
	before := sent()
	ctx, stop := context.WithCancel(during(c.t, time.Minute))
	defer stop()
	done := make(chan facilitator.Settlement, 1)
	go func() { done <- insist(ctx, f, r) }()
	for sent() == before && len(done) == 0 {
		time.Sleep(time.Millisecond)
	}
	stop()
	s := <-done
	if s.Outcome != facilitator.Unknown {
		c.t.Fatalf("%+v", s)
	}
	return s
}

// TestSeveralKeysOnDevChain: many payments at once, with two and with three keys,
// on the development chain. All of them settle, each once; all keys have their
// part; no number is left out.
func TestSeveralKeysOnDevChain(t *testing.T) {
	const payments = 32
	for _, keys := range []int{2, 3} {
		for _, empty := range []bool{false, true} {
			name := fmt.Sprintf("%d keys", keys)
			if empty {
				name += ", one of them without gas"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				chain, err := devchain.Start(devchain.Options{BlockEvery: 200 * time.Millisecond})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = chain.Close() }()
				n := &Network{RPC: []string{chain.RPC()}, Batch: 1}
				var accounts []common.Address
				for i := range keys {
					a := chain.Accounts()[i]
					key, address := a.PrivateKey, a.Address
					if empty && i == 0 {
						poor := must(crypto.GenerateKey())
						key, address = common.Bytes2Hex(crypto.FromECDSA(poor)), crypto.PubkeyToAddress(poor.PublicKey)
					}
					n.Signers = append(n.Signers, keyFile(t, key))
					accounts = append(accounts, address)
				}
				f, _ := start(t, "base-sepolia", n, nil)
				var requests []facilitator.Request
				payer := chain.Accounts()[9]
				for i := range payments {
					requests = append(requests, order{from: payer.Key(), nonce: byte(i)}.sign(t, time.Now().Unix()))
				}
				var wg sync.WaitGroup
				for _, r := range requests {
					wg.Go(func() {
						if s := insist(during(t, 5*time.Minute), f, r); s.Outcome != facilitator.Settled {
							t.Errorf("%+v", s)
						}
					})
				}
				wg.Wait()
				if got, err := chain.Balance(common.HexToAddress(payee)); err != nil || got.Int64() != payments*10000 {
					t.Errorf("%s moved, %v", got, err)
				}
				client := must(ethclient.Dial(chain.RPC()))
				defer client.Close()
				sum := uint64(0)
				for i, a := range accounts {
					mined := must(client.NonceAt(context.Background(), a, nil))
					if pending := must(client.PendingNonceAt(context.Background(), a)); pending != mined {
						t.Errorf("of %s, %d wait", a, pending-mined)
					}
					sum += mined
					with := uint64(keys)
					if empty {
						with--
					}
					least := payments / with / 4
					if poor := empty && i == 0; poor && mined != 0 || !poor && mined < least {
						t.Errorf("%s has sent %d", a, mined)
					}
				}
				if sum != payments {
					t.Errorf("%d transactions", sum)
				}
			})
		}
	}
}

// TestKeyRemovedWhileItsPaymentWaits: a reload takes a key out of the config while
// a payment that it has sent is in no block yet. The payment settles by that
// transaction, or by what replaces it, and the other key sends nothing.
func TestKeyRemovedWhileItsPaymentWaits(t *testing.T) {
	for name, tt := range map[string]struct {
		stuck, upto bool
	}{"waits": {}, "is stuck": {stuck: true}, "waits, upto": {upto: true}, "is stuck, upto": {true, true}} {
		t.Run(name, func(t *testing.T) {
			genesis, keys := both(t)
			c := startChain(t, withPermit2(t), allows(token, common.HexToAddress(payerAddress)), genesis)
			old, _ := c.start("base-sepolia", keys)
			r := c.sign(order{before: 5000})
			if tt.upto {
				_, r = c.permit(permitOrder{upto: true, before: 5000})
			}
			s := c.leaveWaiting(old, r)
			if _, waiting := c.numbers(first); waiting != 1 {
				t.Fatalf("%+v, %d of it wait", s, waiting)
			}
			f, logs := c.start("base-sepolia", withKey(t, secondKey))
			if err := old.Cleanup(); err != nil {
				t.Fatal(err)
			}
			if s := f.Settle(during(t, 100*time.Millisecond), r); s.Outcome != facilitator.Unknown {
				t.Fatalf("still in no block: %+v", s)
			}
			if tt.stuck {
				fl := old.chains[baseSepolia].accounts[0].sender.flights[0]
				fl.mu.Lock()
				fl.sentAt = fl.sentAt.Add(-stuckAfter)
				fl.mu.Unlock()
				c.asleep = func() {
					if logs.FilterMessageSnippet("sent again for a higher fee").Len() > 0 {
						c.asleep, c.idle = nil, false
					}
				}
			} else {
				c.idle = false
			}
			settlement := f.Settle(during(t, 5*time.Minute), r)
			if settlement.Outcome != facilitator.Settled || (settlement.Transaction == s.Transaction) == tt.stuck {
				t.Errorf("%+v after %s", settlement, s.Transaction)
			}
			mined, waiting := c.numbers(first)
			byOther, waitingOther := c.numbers(second)
			if mined != 1 || waiting+byOther+waitingOther != 0 || c.balance(payee) != 10000 {
				t.Errorf("%d mined, %d wait, %d and %d of the other; %d moved", mined, waiting, byOther, waitingOther, c.balance(payee))
			}
			// New payments are the other's. One that names the removed key is refused.
			if s := f.Settle(during(t, 5*time.Minute), c.sign(order{nonce: 1})); s.Outcome != facilitator.Settled {
				t.Errorf("%+v", s)
			}
			if byOther, _ := c.numbers(second); byOther != 1 {
				t.Errorf("the other has sent %d", byOther)
			}
			v, late := c.permit(permitOrder{upto: true, nonce: 2})
			if v, err := f.Verify(during(t, 5*time.Minute), v); err != nil || v.Reason != string(x402.CodeUptoFacilitator) {
				t.Errorf("%+v, %v", v, err)
			}
			if s := f.Settle(during(t, 5*time.Minute), late); s.Outcome != facilitator.Refused || s.Reason != string(x402.CodeUptoFacilitator) {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestKeyComesBack: a key that was taken out and put back while its transactions
// wait goes on with the number after theirs.
func TestKeyComesBack(t *testing.T) {
	genesis, keys := both(t)
	c := startChain(t, genesis)
	old, _ := c.start("base-sepolia", withKey(t, signerKey))
	waiting := []facilitator.Request{c.sign(order{nonce: 1}), c.sign(order{nonce: 2})}
	for _, r := range waiting {
		c.leaveWaiting(old, r)
	}
	without, _ := c.start("base-sepolia", withKey(t, secondKey))
	if err := old.Cleanup(); err != nil {
		t.Fatal(err)
	}
	f, _ := c.start("base-sepolia", keys)
	if err := without.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if a := f.chains[baseSepolia].accounts[0]; len(a.sender.flights) != 2 || a.sender.next != 2 {
		t.Fatalf("%d in flight, the next is %d", len(a.sender.flights), a.sender.next)
	}
	for n := range byte(4) {
		waiting = append(waiting, c.sign(order{nonce: 3 + n}))
	}
	c.idle = false
	c.settleAll(f, waiting)
	one, _ := c.numbers(first)
	two, _ := c.numbers(second)
	if one+two != 6 || one < 3 || two < 1 || c.balance(payee) != 60000 {
		t.Errorf("%d and %d transactions, %d moved", one, two, c.balance(payee))
	}
}

// settleAll settles payments at once.
func (c *testChain) settleAll(f *Facilitator, requests []facilitator.Request) {
	c.t.Helper()
	ctx := during(c.t, time.Minute)
	var wg sync.WaitGroup
	for _, r := range requests {
		wg.Go(func() {
			if s := insist(ctx, f, r); s.Outcome != facilitator.Settled {
				c.t.Errorf("%+v", s)
			}
		})
	}
	wg.Wait()
}

// TestTwoConfigsWithOneKey: while a reload is under way, the old and the new config
// send from the same account.
func TestTwoConfigsWithOneKey(t *testing.T) {
	genesis, keys := both(t)
	c := startChain(t, genesis)
	old, _ := c.start("base-sepolia", withKey(t, signerKey), func(n *Network) { n.Batch = 1 })
	f, _ := c.start("base-sepolia", keys)
	var one, two []facilitator.Request
	for n := range byte(20) {
		one, two = append(one, c.sign(order{nonce: n, before: 50_000})), append(two, c.sign(order{nonce: 100 + n, before: 50_000}))
	}
	var wg sync.WaitGroup
	wg.Go(func() { c.settleAll(old, one) })
	wg.Go(func() { c.settleAll(f, two) })
	wg.Wait()
	mined, waiting := c.numbers(first)
	other, _ := c.numbers(second)
	if mined+other != 40 || waiting != 0 || mined < 20 || c.balance(payee) != 400000 {
		t.Errorf("%d and %d transactions, %d wait, %d moved", mined, other, waiting, c.balance(payee))
	}
}

// TestRestartWithSeveralKeys: another process knows nothing of what the first one
// sent, and may send a payment from another account. It moves once.
func TestRestartWithSeveralKeys(t *testing.T) {
	genesis, keys := both(t)
	c := startChain(t, genesis, func(a types.GenesisAlloc) { a[second] = types.Account{Balance: big.NewInt(2e18)} })
	before, _ := c.start("base-sepolia", withKey(t, signerKey))
	r := c.sign(order{})
	c.leaveWaiting(before, r)
	f, _ := c.start("base-sepolia", keys)
	forget(f)
	if _, err := f.Supported(context.Background()); err != nil { // the second has more coin
		t.Fatal(err)
	}
	c.idle = false
	var s facilitator.Settlement
	for range 3 { // as the reconciler does
		if s = f.Settle(during(t, 5*time.Minute), r); s.Outcome == facilitator.Settled {
			break
		}
	}
	if s.Outcome != facilitator.Settled || c.balance(payee) != 10000 {
		t.Errorf("%+v, %d moved", s, c.balance(payee))
	}
	for range 100 { // both are in blocks, sooner or later
		one, _ := c.numbers(first)
		two, _ := c.numbers(second)
		if one == 1 && two == 1 {
			return
		}
		c.seal()
		time.Sleep(time.Millisecond)
	}
	t.Error("there are not two transactions, of which one was for nothing")
}

// TestGiftsComeFromWhoeverHasGas: an account that cannot pay for a gift leaves it to
// another, and one that can pay for nothing more afterwards leaves the settlement.
func TestGiftsComeFromWhoeverHasGas(t *testing.T) {
	for name, tt := range map[string]struct {
		has      int64
		one, two uint64
	}{
		"for neither":  {has: 1e14, two: 2},
		"for the gift": {has: 1e15, one: 1, two: 1},
	} {
		t.Run(name, func(t *testing.T) {
			genesis, keys := both(t)
			c := startChain(t, withPermit2(t), poor, genesis, func(a types.GenesisAlloc) { a[first] = types.Account{Balance: big.NewInt(tt.has)} })
			f, _ := c.start("base-sepolia", keys, budget("0.1/day"))
			r, _ := c.permit(permitOrder{asset: tether.Hex(), extensions: sponsorApproval(nil, nil)})
			if s := insist(during(t, 5*time.Minute), f, r); s.Outcome != facilitator.Settled || c.of(tether, payee) != 10000 {
				t.Fatalf("%+v", s)
			}
			one, _ := c.numbers(first)
			two, _ := c.numbers(second)
			if one != tt.one || two != tt.two {
				t.Errorf("%d and %d transactions", one, two)
			}
			if spent := f.chains[baseSepolia].shared.approvals.spent; spent.Sign() <= 0 || spent.Cmp(big.NewInt(1e16)) > 0 {
				t.Errorf("%s of the budget", spent)
			}
		})
	}
}

// TestWalletIsJudgedAsWhoeverHasGas: whether a contract wallet tells a simulation is
// found out with the gas paid for, which an account without gas cannot.
func TestWalletIsJudgedAsWhoeverHasGas(t *testing.T) {
	genesis, keys := both(t)
	c := startChain(t, withWallets(t), genesis, func(a types.GenesisAlloc) { delete(a, first) })
	f, logs := c.start("base-sepolia", keys)
	r := c.sign(order{account: wallet})
	if v, err := f.Verify(during(t, 5*time.Minute), r); err != nil || !v.Valid {
		t.Errorf("verify: %+v, %v", v, err)
	}
	if logs.FilterMessageSnippet("passed over").Len() != 1 {
		t.Errorf("log: %s", logged(logs))
	}
	f, _ = c.start("base-sepolia", keys)
	forget(f)
	if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled {
		t.Errorf("settle: %+v", s)
	}
	if two, _ := c.numbers(second); two != 1 {
		t.Errorf("%d transactions", two)
	}
	alone, _ := c.start("base-sepolia", withKey(t, signerKey))
	if s := alone.Settle(during(t, 5*time.Minute), c.sign(order{account: wallet, nonce: 1})); s.Outcome != facilitator.Unsent {
		t.Errorf("without gas: %+v", s)
	}
}

// TestNetworkComesBack: a network that was taken out of the config and put back
// while a payment is waited for is found as it was left.
func TestNetworkComesBack(t *testing.T) {
	c := startChain(t)
	old, _ := c.start("base-sepolia")
	r := c.sign(order{before: 5000})
	c.idle = true
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { insist(ctx, old, r) })
	for _, waiting := c.numbers(first); waiting == 0; _, waiting = c.numbers(first) {
		time.Sleep(time.Millisecond)
	}
	if err := old.Cleanup(); err != nil {
		t.Fatal(err)
	}
	f, _ := c.start("base-sepolia")
	if f.chains[baseSepolia].shared != old.chains[baseSepolia].shared {
		t.Error("the new config knows nothing of it")
	}
	stop()
	wg.Wait()
	c.idle = false
	if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled || c.transactions() != 1 {
		t.Errorf("%+v, %d transactions", s, c.transactions())
	}
}
