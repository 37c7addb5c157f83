package evm

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// announced keeps what a facilitator is about to send, as a ledger does.
type announced struct {
	mu   sync.Mutex
	list []string
}

func (a *announced) tell(transaction string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, transaction)
	return nil
}

// TestWhatAnEarlierProcessSentIsNotSentAgain: a process has written down what it was
// about to send, sent it, and ended. The next one waits for that.
func TestWhatAnEarlierProcessSentIsNotSentAgain(t *testing.T) {
	for name, n := range map[string]int{"alone": 1, "together with others": 3} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t)
			f, _ := c.start("base-sepolia")
			f.chains[baseSepolia].pairing.Store(token, c.now().Add(time.Hour))
			f.chains[baseSepolia].shared.standings.moved(chain.AddressTopic(common.HexToAddress(payerAddress)))
			c.idle = true
			requests := make([]facilitator.Request, n)
			books := make([]announced, n)
			var begin, ended sync.WaitGroup
			ctx, kill := context.WithCancel(during(t, 5*time.Minute))
			for i := range n {
				requests[i] = c.sign(order{nonce: byte(i), before: 1000})
				requests[i].Announce = books[i].tell
				begin.Add(1)
				ended.Go(func() { begin.Done(); f.Settle(ctx, requests[i]) })
			}
			begin.Wait()
			for told := 0; told < n; time.Sleep(10 * time.Millisecond) {
				told = 0
				for i := range books {
					books[i].mu.Lock()
					told += min(len(books[i].list), 1)
					books[i].mu.Unlock()
				}
			}
			time.Sleep(300 * time.Millisecond) // until the last one is sent, too
			kill()
			ended.Wait()
			_, waiting := c.numbers(first)
			forget(f)
			c.idle = false
			for i := range n {
				requests[i].Transaction, requests[i].Announce = books[i].list[len(books[i].list)-1], nil
				s := f.Settle(during(t, 5*time.Minute), requests[i])
				if s.Outcome != facilitator.Settled || s.Transaction != requests[i].Transaction {
					t.Errorf("%d: %+v", i, s)
				}
			}
			if mined, _ := c.numbers(first); mined != waiting || c.balance(payee) != int64(n)*10000 {
				t.Errorf("%d transactions, and %d were sent before; %d moved", mined, waiting, c.balance(payee))
			}
		})
	}
}

// TestATransactionOfSomethingElseIsNotWaitedFor: what a ledger has says nothing of the
// payment, or nobody knows it.
func TestATransactionOfSomethingElseIsNotWaitedFor(t *testing.T) {
	c := startChain(t)
	f, _ := c.start("base-sepolia")
	other := f.Settle(during(t, 5*time.Minute), c.sign(order{nonce: 9}))
	for i, hash := range []string{other.Transaction, "0x" + strings.Repeat("11", 32), "nonsense"} {
		r := c.sign(order{nonce: byte(i)})
		r.Transaction = hash
		if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled || s.Transaction == hash {
			t.Errorf("%s: %+v", hash, s)
		}
	}
}

// TestWhatCannotBeAnnouncedIsNotSent: the ledger is away, so nobody would know of the
// transaction if this process ended now.
func TestWhatCannotBeAnnouncedIsNotSent(t *testing.T) {
	c := startChain(t)
	f, _ := c.start("base-sepolia")
	r := c.sign(order{})
	r.Announce = func(string) error { return errors.New("the ledger is away") }
	if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Unsent || c.transactions() != 0 {
		t.Errorf("%+v", s)
	}
	var told announced
	r.Announce = told.tell
	if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled || !slices.Equal(told.list, []string{s.Transaction}) {
		t.Errorf("%+v, told %v", s, told.list)
	}
}

// earlierBatch has a process send payments of one payer in one transaction, and end. It
// returns them as the next process asks for them.
func (c *testChain) earlierBatch(f *Facilitator, n int) []facilitator.Request {
	c.t.Helper()
	ch := f.chains[baseSepolia]
	ch.pairing.Store(token, c.now().Add(time.Hour))
	ch.batchWait = time.Second
	for range 8 {
		ch.shared.standings.moved(chain.AddressTopic(common.HexToAddress(payerAddress)))
	}
	c.idle = true
	first := c.settleAside(f, c.sign(order{nonce: 99, before: 100_000}))
	untilSteady(f)
	books := make([]announced, n)
	requests := make([]facilitator.Request, n)
	for i := range n {
		requests[i] = c.sign(order{nonce: byte(i), before: 100_000})
		requests[i].Announce = books[i].tell
	}
	kill := c.settleAside(f, requests...)
	if sent := untilSteady(f); sent != n+1 {
		c.t.Fatalf("%d on their way", sent)
	}
	kill()
	first()
	forget(f)
	ch.pairing.Store(token, c.now().Add(time.Hour))
	for i := range n {
		requests[i].Transaction = books[i].list[len(books[i].list)-1]
		requests[i].Announce = nil
	}
	return requests
}

// TestAllPaymentsOfAnEarlierBatchShareItsFate: the next process is asked for each of them,
// before a block has their transaction. Then that is sent again for a higher fee, or
// somebody else uses its number.
func TestAllPaymentsOfAnEarlierBatchShareItsFate(t *testing.T) {
	const n = 3
	for name, tt := range map[string]struct{ bumped bool }{
		"sent again": {bumped: true},
		"replaced":   {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startChain(t)
			f, _ := c.start("base-sepolia")
			requests := c.earlierBatch(f, n)
			ch := f.chains[baseSepolia]
			for i, r := range requests {
				if s := f.Settle(during(t, 200*time.Millisecond), r); s.Outcome != facilitator.Unknown || s.Transaction != r.Transaction {
					t.Fatalf("%d: %+v", i, s)
				}
			}
			s := &ch.accounts[0].sender
			s.mu.Lock()
			list := slices.Clone(s.flights)
			s.mu.Unlock()
			if len(list) != 1 {
				t.Fatalf("%d transactions", len(list))
			}
			fl := list[0]
			_, fees, err := ch.accountNow(t.Context(), ch.accounts[0])
			if err != nil {
				t.Fatal(err)
			}
			if tt.bumped {
				if a, err := ch.resend(t.Context(), fl, fees, false); a != taken {
					t.Fatal(a, err)
				}
			} else { // by another process
				other := &flight{by: fl.by, number: fl.number, to: fl.by.key.address, gas: fillGas}
				if a, err := ch.broadcast(t.Context(), must(ch.transaction(other, fl.offers().bumped(fees)))); a != taken {
					t.Fatal(a, err)
				}
			}
			c.idle = false
			for i, r := range requests {
				s := f.Settle(during(t, 20*time.Second), r)
				if !tt.bumped && s.Outcome == facilitator.Unknown && s.Transaction == r.Transaction {
					s = f.Settle(during(t, 20*time.Second), r) // it was lost, and is sent anew
				}
				if s.Outcome != facilitator.Settled || s.Transaction == r.Transaction {
					t.Fatalf("%d: %+v", i, s)
				}
			}
			if moved := c.balance(payee); moved != (n+1)*10_000 {
				t.Errorf("%d moved", moved)
			}
		})
	}
}

// TestARevertedTransactionIsNotWaitedForAgain: the money was away for one block, and is
// back. Who asks again tells what the ledger has of it; the payment is sent anew, and the
// revert counts once.
func TestARevertedTransactionIsNotWaitedForAgain(t *testing.T) {
	for name, restarted := range map[string]bool{"by the process that sent it": false, "by the next process": true} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t)
			f, _ := c.start("base-sepolia")
			for i := range byte(3) {
				if s := f.Settle(during(t, time.Minute), c.sign(order{nonce: 100 + i, before: 1e6})); s.Outcome != facilitator.Settled {
					t.Fatalf("%+v", s)
				}
			}
			r := c.sign(order{before: 1e6})
			var told announced
			r.Announce = told.tell
			transfer := func(key *ecdsa.PrivateKey, to common.Address, amount int64) {
				data := crypto.Keccak256([]byte("transfer(address,uint256)"))[:4]
				c.transact(key, token, appendUint(appendAddress(data, to), uint64(amount)), 9e9) // #nosec G115 -- a balance
			}
			var away int64
			c.asleep = func() {
				c.asleep = nil
				away = c.balance(payerAddress)
				transfer(payerECDSA, crypto.PubkeyToAddress(ownerKey.PublicKey), away)
			}
			if s := f.Settle(during(t, time.Minute), r); s.Outcome != facilitator.Unknown {
				t.Fatalf("%+v", s)
			}
			transfer(ownerKey, common.HexToAddress(payerAddress), away)
			c.seal()
			counted := 1
			if restarted {
				forget(f)
				counted = 0
				f.chains[baseSepolia].shared.standings.moved(chain.AddressTopic(common.HexToAddress(payerAddress)))
			}
			r.Transaction = told.list[0]
			s := f.Settle(during(t, time.Minute), r)
			if restarted && s.Outcome == facilitator.Unknown { // it has seen by now that it was reverted
				s = f.Settle(during(t, time.Minute), r)
			}
			if s.Outcome != facilitator.Settled || s.Transaction == told.list[0] {
				t.Errorf("%+v", s)
			}
			if known := f.chains[baseSepolia].shared.standings.of(chain.AddressTopic(common.HexToAddress(payerAddress))); known.reverted != counted {
				t.Errorf("%d reverts are counted, want %d", known.reverted, counted)
			}
		})
	}
}

// inventing is a node that has a transaction for every hash.
type inventing struct {
	chain.Client
	tx *types.Transaction
}

func (n inventing) CallContext(ctx context.Context, result any, method string, args ...any) error {
	if tx, ok := result.(**types.Transaction); ok && method == "eth_getTransactionByHash" {
		*tx = n.tx
		return nil
	}
	return n.Client.CallContext(ctx, result, method, args...)
}

// TestNoNodeInventsATransactionOfOurs: one that was announced and never sent is not waited
// for because a node says that it has it, with a number far ahead.
func TestNoNodeInventsATransactionOfOurs(t *testing.T) {
	c := startChain(t, payersNo(2))
	f, _ := c.start("base-sepolia")
	r := c.sign(order{before: 100_000})
	to := token
	rewire(f, 0, inventing{keepOpen{c.client}, types.MustSignNewTx(must(crypto.HexToECDSA(signerKey)), types.LatestSignerForChainID(big.NewInt(84532)), &types.DynamicFeeTx{
		ChainID: big.NewInt(84532), Nonce: 1000, GasTipCap: big.NewInt(1e9), GasFeeCap: big.NewInt(1e9), Gas: 1 << 50, To: &to, Data: calldata(t, r),
	})})
	r.Transaction = crypto.Keccak256Hash([]byte("announced, and not sent")).Hex()
	for i, r := range []facilitator.Request{r, c.sign(order{nonce: 1, from: keyNo(1), before: 100_000})} {
		begun := c.now()
		if s := f.Settle(during(t, time.Minute), r); s.Outcome != facilitator.Settled || c.now().Sub(begun) > 30*time.Second {
			t.Errorf("%d: %+v, after %s", i, s, c.now().Sub(begun))
		}
	}
}

// TestTwoOfOneNumberShareItsFate: two payments were announced in transactions of one
// number, of which a block can have one.
func TestTwoOfOneNumberShareItsFate(t *testing.T) {
	now := time.Unix(1e9, 0)
	flightOf := func(hash byte, data string) *flight {
		return &flight{number: 7, data: []byte(data), hashes: hashes{{hash}}, ends: now.Add(time.Duration(hash) * time.Second)}
	}
	s := new(sender)
	one := s.adopt(flightOf(1, "one"))
	if again := s.adopt(flightOf(2, "one")); again != one || !slices.Equal(one.hashes, hashes{{2}, {1}}) || !one.ends.Equal(now.Add(2*time.Second)) {
		t.Errorf("the same for another fee is %+v", again)
	}
	other := s.adopt(flightOf(3, "other"))
	if again := s.adopt(flightOf(3, "other")); other == one || again != other || len(s.flights) != 1 {
		t.Errorf("something else is %+v, and then %+v", other, again)
	}
	s.prune(8, now)
	for _, fl := range []*flight{one, other} {
		if _, passed := fl.sent(); !passed {
			t.Errorf("nobody is told that the number of %v is used up", fl.hashes)
		}
	}
}

// TestAnEarlierBatchIsGivenUp: what it settles is not good any more, or no block takes it.
func TestAnEarlierBatchIsGivenUp(t *testing.T) {
	f, node, _, _ := at(t, world{})
	now := node.clock.now()
	for name, tt := range map[string]struct {
		ends  time.Time
		bumps int
		given bool
	}{
		"it is good":                 {now.Add(time.Minute), maxBumps - 1, false},
		"it has ended":               {now, 0, true},
		"it was sent again so often": {now.Add(time.Minute), maxBumps, true},
	} {
		fl := &flight{data: []byte{1}, shared: 2, ends: tt.ends, bumps: tt.bumps}
		if why := f.chains[baseSepolia].hopeless(t.Context(), fl, gwei(1)); (why != "") != tt.given {
			t.Errorf("%s: %q", name, why)
		}
	}
}

// TestWhatIsSentAgainIsAnnounced: a process has sent payments again for higher fees, and
// ended. The next one waits for what was sent last.
func TestWhatIsSentAgainIsAnnounced(t *testing.T) {
	const n = 4
	c := startChain(t, payersNo(n))
	f, _ := c.start("base-sepolia", func(n *Network) { n.Batch = 1 })
	ch := f.chains[baseSepolia]
	c.idle = true
	requests, books := make([]facilitator.Request, n), make([]announced, n)
	for i := range n {
		requests[i] = c.sign(order{from: keyNo(i), before: 100_000})
		requests[i].Announce = books[i].tell
	}
	kill := c.settleAside(f, requests...)
	untilSteady(f)
	s := &ch.accounts[0].sender
	s.mu.Lock()
	list := slices.Clone(s.flights)
	s.mu.Unlock()
	_, fees, err := ch.accountNow(t.Context(), ch.accounts[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, fl := range list {
		if a, err := ch.resend(t.Context(), fl, fees, false); a != taken {
			t.Fatal(a, err)
		}
	}
	kill()
	forget(f)
	c.idle = false
	for i, r := range requests {
		r.Transaction = books[i].list[len(books[i].list)-1]
		if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled || s.Transaction != r.Transaction {
			t.Errorf("%d: %+v, and %v were announced", i, s, books[i].list)
		}
	}
	if txs, failed, _ := c.burnt(first); txs != n || failed != 0 {
		t.Errorf("%d transactions, %d reverted", txs, failed)
	}
}

// TestWhatCannotBeAnnouncedIsNotSentAgain: the ledger takes nothing down any more when a
// transaction waits. It goes on when the ledger is back; if that takes long, its number is
// used up.
func TestWhatCannotBeAnnouncedIsNotSentAgain(t *testing.T) {
	for name, tt := range map[string]struct {
		away time.Duration
		sent int // transactions with the payment
	}{"for a moment": {stuckAfter + 2*untoldPause, 2}, "for long": {time.Hour, 1}} {
		t.Run(name, func(t *testing.T) {
			f, node, r, log := at(t, world{ReceiptThrows: true})
			node.clock.max = 400
			begin := node.clock.now()
			var told announced
			asked := 0
			r.Announce = func(transaction string) error {
				asked++
				if len(told.list) > 0 && node.clock.now().Sub(begin) < tt.away {
					return errors.New("the ledger is away")
				}
				return told.tell(transaction)
			}
			node.override = func(method string, _ []json.RawMessage) (any, *rpcError, bool) {
				if method == "eth_sendRawTransaction" && len(node.sent) == 1 {
					node.world.ReceiptThrows = false // a block takes the next one
				}
				return nil, nil, false
			}
			s := f.Settle(context.Background(), r)
			var sent []string
			for _, tx := range node.sent {
				if len(tx.Data()) > 0 {
					sent = append(sent, tx.Hash().Hex())
				}
			}
			if len(sent) != tt.sent || len(node.sent) != 2 || !slices.Equal(told.list, sent) || asked > 10 {
				t.Errorf("%+v: %d were sent, %d with the payment; %d attempts to tell, told %v", s, len(node.sent), len(sent), asked, told.list)
			}
			if !strings.Contains(log(), "the ledger does not take that down") {
				t.Errorf("log: %s", log())
			}
		})
	}
}

// TestWhoAsksNowIsTold: the caller of a payment has gone, and it is asked for again before
// it is sent again.
func TestWhoAsksNowIsTold(t *testing.T) {
	f, node, r, _ := at(t, world{ReceiptThrows: true})
	var before, now announced
	r.Announce = before.tell
	if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Unknown || len(before.list) != 1 {
		t.Fatalf("%+v, told %v", s, before.list)
	}
	r.Announce = now.tell
	node.clock.max = 400
	node.override = func(method string, _ []json.RawMessage) (any, *rpcError, bool) {
		if method == "eth_sendRawTransaction" {
			node.world.ReceiptThrows = false
		}
		return nil, nil, false
	}
	s := f.Settle(context.Background(), r)
	if len(node.sent) != 2 || len(before.list) != 1 || !slices.Equal(now.list, []string{node.sent[1].Hash().Hex()}) {
		t.Errorf("%+v, told %v, and before %v", s, now.list, before.list)
	}
}

// TestWhatStaysIsAnnouncedAgain: the node takes nothing in the place of a transaction.
// That one is what the next process has to look for.
func TestWhatStaysIsAnnouncedAgain(t *testing.T) {
	f, node, r, _ := at(t, world{ReceiptThrows: true})
	node.clock.max = 60
	var told announced
	r.Announce = told.tell
	node.override = func(method string, _ []json.RawMessage) (any, *rpcError, bool) {
		refused := method == "eth_sendRawTransaction" && len(node.sent) > 0
		return nil, &rpcError{Code: -32000, Message: "replacement transaction underpriced"}, refused
	}
	s := f.Settle(context.Background(), r)
	if stays := node.sent[0].Hash().Hex(); len(told.list) < 3 || told.list[len(told.list)-1] != stays || s.Transaction != stays {
		t.Errorf("%+v, told %v", s, told.list)
	}
}

// TestAnEarlierPaymentIsFoundWhateverBecameOfIt: what an earlier process sent has moved the
// money, and is asked for after the authorization has ended. The code of a wallet, too, is
// not asked then.
func TestAnEarlierPaymentIsFoundWhateverBecameOfIt(t *testing.T) {
	for name, account := range map[string]common.Address{"of a key": {}, "of a wallet": wallet} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t, withPermit2(t), withWallets(t))
			f, _ := c.start("base-sepolia")
			r := c.sign(order{account: account, before: 60})
			var told announced
			r.Announce = told.tell
			c.idle = true
			kill := c.settleAside(f, r)
			untilSteady(f)
			kill()
			forget(f)
			c.seal()
			c.idle = false
			f.chains[baseSepolia].now = func() time.Time { return c.now().Add(2 * time.Minute) }
			r.Transaction = told.list[0]
			if s := f.Settle(during(t, time.Minute), r); s.Outcome != facilitator.Settled || c.balance(payee) != 10_000 {
				t.Errorf("%+v; %d moved", s, c.balance(payee))
			}
		})
	}
}
