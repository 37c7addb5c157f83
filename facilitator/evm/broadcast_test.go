package evm

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"math/big"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// gatekeeper is a node with an answer of its own to a transaction, and to nothing else.
type gatekeeper struct {
	chain.Client
	asked  atomic.Int64
	closed atomic.Bool
	send   func(ctx context.Context, through func() error) error // nil takes it
}

func (g *gatekeeper) CallContext(ctx context.Context, result any, method string, args ...any) error {
	through := func() error { return g.Client.CallContext(ctx, result, method, args...) }
	if method != "eth_sendRawTransaction" || g.send == nil {
		return through()
	}
	g.asked.Add(1)
	return g.send(ctx, through)
}

func (g *gatekeeper) Close() { g.closed.Store(true) }

// says makes a gatekeeper that says something.
func says(words string) func(context.Context, func() error) error {
	return func(context.Context, func() error) error { return &saidError{words, nil} }
}

// timesOut is what a call to a node comes to that hangs, without the waiting.
func timesOut(context.Context, func() error) error { return context.DeadlineExceeded }

// startBehind makes a facilitator with a node for each gatekeeper.
func (c *testChain) startBehind(gates ...*gatekeeper) (*Facilitator, *settler) {
	c.t.Helper()
	f, _ := c.start("base-sepolia", func(n *Network) {
		n.RPC = nil
		for i := range gates {
			n.RPC = append(n.RPC, "https://node-"+string(rune('1'+i))+".example")
		}
	})
	ch := f.chains[baseSepolia]
	for i, g := range gates {
		g.Client = keepOpen{c.client}
		rewire(f, i, g)
	}
	idle, release := make(chan struct{}), f.looking.Closed
	f.looking.Closed = sync.OnceFunc(func() {
		release()
		close(idle)
	})
	c.t.Cleanup(func() { // the chain is needed until the last node was asked
		_ = f.Cleanup()
		<-idle
	})
	return f, ch
}

// TestHangingSendHoldsUpNobody: a node hangs when it is to take a transaction. The
// other one takes it, and nobody waits for the first. Its connection closes after its
// call.
func TestHangingSendHoldsUpNobody(t *testing.T) {
	c := startChain(t)
	hangs, release := make(chan struct{}, 3), make(chan struct{})
	var ended atomic.Bool
	deaf, good := &gatekeeper{}, &gatekeeper{}
	deaf.send = func(ctx context.Context, _ func() error) error {
		hangs <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		ended.Store(true)
		return errors.New("too late")
	}
	f, _ := c.startBehind(deaf, good)
	for i := range byte(3) {
		s := f.Settle(during(t, 5*time.Minute), c.sign(order{nonce: i}))
		if s.Outcome != facilitator.Settled || ended.Load() {
			t.Fatalf("%+v, waited: %v", s, ended.Load())
		}
		<-hangs // it was asked, too
	}
	_ = f.Cleanup()
	if deaf.closed.Load() {
		t.Error("its connection was closed while it was asked")
	}
	close(release)
	for !deaf.closed.Load() { // else the test ends by its own time
		time.Sleep(time.Millisecond)
	}
}

// TestSilentNodeCostsOneWait: a node that was silent when it was to take a transaction
// gets no other for a minute, so that the clear no of another node is one.
func TestSilentNodeCostsOneWait(t *testing.T) {
	c := startChain(t)
	silent, poor := &gatekeeper{send: timesOut}, &gatekeeper{send: says("txpool is full")}
	f, ch := c.startBehind(silent, poor)
	tx := c.transfer(ch)
	for i, want := range []answer{unclear, turnedAway, turnedAway} {
		if a, err := ch.broadcast(t.Context(), tx); a != want || silent.asked.Load() != 1 {
			t.Errorf("%d: %d, %v; the silent one was asked %d times", i, a, err, silent.asked.Load())
		}
	}
	c.pass(deafFor, 1)
	if a, _ := ch.broadcast(t.Context(), tx); a != unclear || silent.asked.Load() != 2 {
		t.Errorf("a minute later: %d, asked %d times", a, silent.asked.Load())
	}
	poor.send = timesOut
	for range 2 { // all are silent, so all are asked
		if a, _ := ch.broadcast(t.Context(), tx); a != unclear {
			t.Errorf("%d", a)
		}
	}
	if silent.asked.Load() != 3 || poor.asked.Load() != 6 {
		t.Errorf("asked %d and %d times", silent.asked.Load(), poor.asked.Load())
	}
	silent.send, poor.send = nil, nil
	if s := f.Settle(during(t, 5*time.Minute), c.sign(order{})); s.Outcome != facilitator.Settled {
		t.Errorf("%+v", s)
	}
}

// transfer is a transaction of our account.
func (c *testChain) transfer(ch *settler) *types.Transaction {
	c.t.Helper()
	a := ch.accounts[0]
	number := must(c.backend.Client().PendingNonceAt(c.t.Context(), a.key.address))
	return must(ch.transaction(&flight{by: a, number: number, to: a.key.address, gas: fillGas}, market(big.NewInt(1e9), big.NewInt(1e9), nil)))
}

// TestAnswersOfSeveralNodes: what becomes of a transaction, by what the nodes say.
func TestAnswersOfSeveralNodes(t *testing.T) {
	broken := func(context.Context, func() error) error { return errors.New("unexpected EOF") }
	lost := func(_ context.Context, through func() error) error {
		_ = through()
		return errors.New("unexpected EOF")
	}
	panics := func(context.Context, func() error) error { panic("a bug") }
	for name, tt := range map[string]struct {
		first, second func(context.Context, func() error) error // nil takes it
		want          answer
		text          string
	}{
		"both take it":            {nil, nil, taken, ""},
		"one takes it":            {says("txpool is full"), nil, taken, ""},
		"one is silent":           {timesOut, nil, taken, ""},
		"one panics":              {panics, nil, taken, ""},
		"all are full":            {says("txpool is full"), says("txpool is full"), turnedAway, "full"},
		"a no beside silence":     {timesOut, says("txpool is full"), unclear, "deadline"},
		"a no beside an accident": {says("nonce too low"), broken, unclear, "EOF"},
		"the answer is lost":      {lost, broken, unclear, "EOF"},
		"full, and would revert":  {says("txpool is full"), says("execution reverted: no"), refusedByCall, "reverted: no"},
		"reverts, and is used":    {says("execution reverted: no"), says("nonce too low"), numberTaken, "nonce"},
		"used, and full":          {says("nonce too low"), says("txpool is full"), numberTaken, "nonce"},
	} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t)
			_, ch := c.startBehind(&gatekeeper{send: tt.first}, &gatekeeper{send: tt.second})
			a, err := ch.broadcast(t.Context(), c.transfer(ch))
			if a != tt.want || (err == nil) != (tt.text == "") || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%d, %v; want %d", a, err, tt.want)
			}
		})
	}
	t.Run("the caller gives up", func(t *testing.T) {
		c := startChain(t)
		ctx, cancel := context.WithCancel(t.Context())
		release := make(chan struct{})
		defer close(release)
		_, ch := c.startBehind(&gatekeeper{send: func(context.Context, func() error) error {
			cancel()
			<-release
			return nil
		}})
		tx := c.transfer(ch)
		if a, err := ch.broadcast(ctx, tx); a != unclear || !errors.Is(err, context.Canceled) {
			t.Errorf("%d, %v", a, err)
		}
		if a, err := ch.broadcast(ctx, tx); a != turnedAway || err == nil {
			t.Errorf("before it began: %d, %v", a, err)
		}
	})
}

// passesOn takes a transaction, and says something that is no answer to it.
func passesOn(words string) func(context.Context, func() error) error {
	return func(_ context.Context, through func() error) error {
		if err := through(); err != nil {
			return err
		}
		return &saidError{words, nil}
	}
}

// TestWordsThatNobodyKnowsSayNothing: a refusal is believed only in words that are known
// for one.
func TestWordsThatNobodyKnowsSayNothing(t *testing.T) {
	for words, want := range map[string]answer{
		"context deadline exceeded":                   unclear,
		"unexpected EOF":                              unclear,
		"read: connection reset by peer":              unclear,
		"invalid character '<' looking for beginning": unclear,
		"upstream said something odd":                 unclear,
		"":                                            unclear,
		"execution reverted: no":                      refusedByCall,
		"nonce too high":                              refusedByCall,
		"invalid params":                              refusedByCall,
		"FiatTokenV2: authorization is used or canceled": refusedByCall,
		"insufficient funds for gas * price + value":     turnedAway,
		"transaction underpriced":                        turnedAway,
		"nonce too low: next nonce 8, tx nonce 7":        numberTaken,
		"already known": alreadyKnown,
	} {
		if a := read1(&saidError{words, nil}); a != want {
			t.Errorf("%q: %d, want %d", words, a, want)
		}
	}
}

// TestWhatAGarblingNodeTookIsCounted: a node passes transactions on and says odd words.
// They are on their way, so what they could burn stays set aside, and what they burn is
// lost.
func TestWhatAGarblingNodeTookIsCounted(t *testing.T) {
	c := startChain(t, payersNo(48))
	f, _ := c.start("base-sepolia", func(n *Network) { n.Batch, n.GasBudget = 1, "0.006/day" })
	ch := f.chains[baseSepolia]
	rewire(f, 0, &gatekeeper{Client: keepOpen{c.client}, send: passesOn("context deadline exceeded")})
	c.idle = true
	for round := range 3 {
		var keys []*ecdsa.PrivateKey
		var requests []facilitator.Request
		for i := range 16 {
			k := keyNo(round*16 + i)
			keys, requests = append(keys, k), append(requests, c.sign(order{from: k, before: 1e6}))
		}
		stop := c.settleAside(f, requests...)
		time.Sleep(time.Second) // in the last round there may be no room for any
		n, _ := flying(f)
		if _, held, _ := sums(f, ofAccounts); n > 0 && held.Sign() == 0 {
			t.Errorf("%d are on their way, and nothing is set aside", n)
		}
		stop()
		c.delegate(keys...)
		c.seal()
		if _, err := f.funds(t.Context(), ch); err != nil {
			t.Fatal(err)
		}
	}
	_, failed, _ := c.burnt(first)
	lost, held, _ := sums(f, ofAccounts)
	if half := new(big.Int).Rsh(ch.budget(), 1); failed == 0 || lost.Sign() == 0 || lost.Cmp(half) > 0 || held.Sign() != 0 {
		t.Errorf("%d reverted, %s lost, %s set aside", failed, lost, held)
	}
}

// TestAGarblingNodeSendsNotMoreThanThePayerHas: one payer has the money for one payment.
func TestAGarblingNodeSendsNotMoreThanThePayerHas(t *testing.T) {
	c := startChain(t, having(common.HexToAddress(payerAddress), 10000))
	f, _ := c.start("base-sepolia", func(n *Network) { n.Batch = 1 })
	rewire(f, 0, &gatekeeper{Client: keepOpen{c.client}, send: passesOn("context deadline exceeded")})
	c.idle = true
	stop := c.settleAside(f, c.many(30, nil)...)
	untilSteady(f)
	stop()
	c.seal()
	if txs, failed, _ := c.burnt(first); txs != 1 || failed > 0 {
		t.Errorf("%d transactions, %d reverted", txs, failed)
	}
}

// TestAGarbledBatchIsSentOnce: of several payments in one transaction, none is sent again.
func TestAGarbledBatchIsSentOnce(t *testing.T) {
	c := startChain(t, payersNo(12))
	f, _ := c.start("base-sepolia")
	ch := f.chains[baseSepolia]
	ch.pairing.Store(token, c.now().Add(time.Hour))
	rewire(f, 0, &gatekeeper{Client: keepOpen{c.client}, send: passesOn("unexpected EOF")})
	c.idle = true
	var requests []facilitator.Request
	for i := range 12 {
		requests = append(requests, c.sign(order{from: keyNo(i), before: 1e6}))
	}
	stop := c.settleAside(f, requests...)
	defer stop()
	untilSteady(f)
	c.seal()
	if _, failed, _ := c.burnt(first); failed > 0 || c.balance(payee) != 120_000 {
		t.Errorf("%d reverted, the payee has %d", failed, c.balance(payee))
	}
}
