package evm

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
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
			f.chains[baseSepolia].shared.standings.moved(addressTopic(common.HexToAddress(payerAddress)))
			c.idle = true
			requests := make([]facilitator.Request, n)
			books := make([]announced, n)
			var begin, ended sync.WaitGroup
			ctx, kill := context.WithCancel(during(t, time.Minute))
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
				s := f.Settle(during(t, time.Minute), requests[i])
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
	other := f.Settle(during(t, time.Minute), c.sign(order{nonce: 9}))
	for i, hash := range []string{other.Transaction, "0x" + strings.Repeat("11", 32), "nonsense"} {
		r := c.sign(order{nonce: byte(i)})
		r.Transaction = hash
		if s := f.Settle(during(t, time.Minute), r); s.Outcome != facilitator.Settled || s.Transaction == hash {
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
	if s := f.Settle(during(t, time.Minute), r); s.Outcome != facilitator.Unsent || c.transactions() != 0 {
		t.Errorf("%+v", s)
	}
	var told announced
	r.Announce = told.tell
	if s := f.Settle(during(t, time.Minute), r); s.Outcome != facilitator.Settled || !slices.Equal(told.list, []string{s.Transaction}) {
		t.Errorf("%+v, told %v", s, told.list)
	}
}
