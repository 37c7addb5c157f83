package evm

import (
	"context"
	"errors"
	"math/big"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/core/types"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// gatekeeper is a node with an answer of its own to a transaction, and to nothing else.
type gatekeeper struct {
	caller
	asked  atomic.Int64
	closed atomic.Bool
	send   func(ctx context.Context, through func() error) error // nil takes it
}

func (g *gatekeeper) CallContext(ctx context.Context, result any, method string, args ...any) error {
	through := func() error { return g.caller.CallContext(ctx, result, method, args...) }
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
func (c *testChain) startBehind(gates ...*gatekeeper) (*Facilitator, *chain) {
	c.t.Helper()
	f, _ := c.start("base-sepolia", func(n *Network) {
		n.RPC = nil
		for i := range gates {
			n.RPC = append(n.RPC, "https://node-"+string(rune('1'+i))+".example")
		}
	})
	ch := f.chains[baseSepolia]
	for i, g := range gates {
		g.caller = keepOpen{c.client}
		ch.nodes[i].dial = func(context.Context, *url.URL) (caller, error) { return g, nil }
		ch.nodes[i].now = c.now
	}
	c.t.Cleanup(func() { // the chain is needed until the last node was asked
		for ch.users.busy() {
			time.Sleep(time.Millisecond)
		}
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
	f, ch := c.startBehind(deaf, good)
	for i := range byte(3) {
		s := f.Settle(during(t, time.Minute), c.sign(order{nonce: i}))
		if s.Outcome != facilitator.Settled || ended.Load() {
			t.Fatalf("%+v, waited: %v", s, ended.Load())
		}
		<-hangs // it was asked, too
	}
	ch.users.close()
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
	if s := f.Settle(during(t, time.Minute), c.sign(order{})); s.Outcome != facilitator.Settled {
		t.Errorf("%+v", s)
	}
}

func (u *users) busy() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.n > 0
}

// transfer is a transaction of our account.
func (c *testChain) transfer(ch *chain) *types.Transaction {
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
