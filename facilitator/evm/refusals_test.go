package evm

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// quotedError is what a node says in a JSON-RPC error.
type quotedError struct {
	code int
	text string
}

func (e *quotedError) Error() string  { return e.text }
func (e *quotedError) ErrorCode() int { return e.code }

// quoted are the errors, as nodes and providers word them, that say nothing of the transaction.
var quoted = map[string]*quotedError{
	"Alchemy, throughput":      {429, "Your app has exceeded its compute units per second capacity. If you have retries enabled, you can safely ignore this message."},
	"Alchemy, month":           {429, "Monthly capacity limit exceeded. Visit https://dashboard.alchemy.com/settings/billing to upgrade your scaling policy for continued service."},
	"Alchemy, method":          {-32601, "Unsupported method: eth_sendRawTransaction. See available methods at https://docs.alchemy.com/alchemy/documentation/apis"},
	"Infura, second":           {-32005, "project ID request rate exceeded"},
	"Infura, day":              {-32005, "daily request count exceeded, request rate limited"},
	"Infura, settings":         {-32002, "rejected due to project ID settings"},
	"QuickNode, second":        {-32007, "50/second request limit reached - reduce calls per second or upgrade your account at quicknode.com"},
	"Chainstack":               {-32005, "You've exceeded the RPS limit available on the current plan."},
	"dRPC, free":               {35, "method is not available on freetier, please upgrade to paid tier"},
	"proxyd, limit":            {-32016, "over rate limit"},
	"proxyd, method":           {-32001, "rpc method is not whitelisted"},
	"op-geth, its sequencer":   {-32000, "429 Too Many Requests: {\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32016,\"message\":\"over rate limit\"},\"id\":1}"},
	"geth, full":               {-32000, "txpool is full"},
	"geth, method":             {-32601, "the method eth_sendRawTransaction does not exist/is not available"},
	"erigon, full":             {-32000, "pending sub-pool is full"},
	"Besu, method not enabled": {-32604, "Method not enabled"},
	"Nethermind, method":       {-32600, "The method 'eth_sendRawTransaction' is found but the namespace is disabled"},
	"a quota":                  {-32000, "exceeded the quota usage"},
}

// TestNextNodeTakesWhatOneRefuses: a node that answers as quoted takes no transactions, the
// next one works. The payment settles, by one transaction, whose bytes both were given.
func TestNextNodeTakesWhatOneRefuses(t *testing.T) {
	c := startChain(t)
	refuses, works := &recording{}, &recording{}
	first, second := &gatekeeper{}, &gatekeeper{}
	f, _ := c.startBehind(first, second)
	refuses.Client, works.Client = first.Client, second.Client
	first.Client, second.Client = refuses, works
	i := byte(0)
	for name, said := range quoted {
		i++
		t.Run(name, func(t *testing.T) {
			refuses.forget()
			works.forget()
			refuses.says(said)
			before := c.transactions()
			if s := f.Settle(during(t, 5*time.Minute), c.sign(order{nonce: i})); s.Outcome != facilitator.Settled {
				t.Fatalf("%+v", s)
			}
			if n := c.transactions() - before; n != 1 {
				t.Errorf("%d transactions", n)
			}
			for !slices.Equal(refuses.sent(), works.sent()) { // the second may answer before the first was asked
				if len(refuses.sent()) > len(works.sent()) || len(works.sent()) != 1 {
					t.Fatalf("%v and %v", refuses.sent(), works.sent())
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// TestRefusalByAllNodesLeavesThePaymentFree: no node has looked at the transaction, so nothing
// is on its way: the payment can come again, its number is free, and nothing after it waits.
func TestRefusalByAllNodesLeavesThePaymentFree(t *testing.T) {
	i := byte(0)
	c := startChain(t)
	g := &gatekeeper{}
	f, _ := c.startBehind(g)
	for name, said := range quoted {
		i++
		t.Run(name, func(t *testing.T) {
			r := c.sign(order{nonce: i})
			g.send = func(context.Context, func() error) error { return said }
			if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Unsent {
				t.Errorf("refused by all: %+v", s)
			}
			if n, _ := flying(f); n != 0 {
				t.Errorf("%d count as on their way", n)
			}
			g.send = nil
			if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled {
				t.Errorf("later: %+v", s)
			}
		})
	}
}

// TestProxyThatHasPassedItOnIsAsked: a proxy gives the transaction to several nodes. One takes
// it and is silent, the others are over their limits, and the proxy hands that on. It shows the
// transaction, so the payment settles, and nobody pays twice.
func TestProxyThatHasPassedItOnIsAsked(t *testing.T) {
	c := startChain(t)
	g := &gatekeeper{}
	f, _ := c.startBehind(g)
	said := map[string]error{
		"by HTTP":          rpc.HTTPError{StatusCode: http.StatusTooManyRequests, Status: "429 Too Many Requests"},
		"eRPC":             &quotedError{-32005, "rate-limit exceeded"},
		"several at once":  &quotedError{-32603, "all upstreams failed: node-1: context deadline exceeded; node-2: rate limit exceeded"},
		"a limit too late": &quotedError{-32005, "1 timeout, 1 rate limited"},
	}
	for name, q := range quoted {
		if nodeTakesNothing(q) {
			said[name] = q
		}
	}
	i := byte(0)
	for name, says := range said {
		i++
		t.Run(name, func(t *testing.T) {
			g.send = func(_ context.Context, send func() error) error {
				if err := send(); err != nil {
					t.Error(err)
				}
				return says
			}
			before := c.transactions()
			if s := f.Settle(during(t, 5*time.Minute), c.sign(order{nonce: i})); s.Outcome != facilitator.Settled {
				t.Errorf("%+v", s)
			}
			if n := c.transactions() - before; n != 1 {
				t.Errorf("%d transactions", n)
			}
		})
	}
}

// TestRefusalBesideDoubtIsDoubt: one node refuses, and of the other nobody knows whether it
// has the transaction. It may be on its way, so the payer is not told to sign again.
func TestRefusalBesideDoubtIsDoubt(t *testing.T) {
	for name, said := range quoted {
		t.Run(name, func(t *testing.T) {
			c := startChain(t)
			_, ch := c.startBehind(
				&gatekeeper{send: func(context.Context, func() error) error { return said }},
				&gatekeeper{send: says("an unexpected condition was met by the method handler")})
			if a, err := ch.broadcast(t.Context(), c.transfer(ch)); a != unclear {
				t.Errorf("%d, %v", a, err)
			}
		})
	}
}

// recording is a node of which is known which transactions it was given.
type recording struct {
	chain.Client

	mu    sync.Mutex
	said  *quotedError // instead of taking one; nil takes it
	given []string
}

func (r *recording) CallContext(ctx context.Context, result any, method string, args ...any) error {
	if method != "eth_sendRawTransaction" {
		return r.Client.CallContext(ctx, result, method, args...)
	}
	raw, _ := json.Marshal(args[0].(hexutil.Bytes))
	r.mu.Lock()
	r.given = append(r.given, string(raw))
	said := r.said
	r.mu.Unlock()
	if said != nil {
		return said
	}
	return r.Client.CallContext(ctx, result, method, args...)
}

func (r *recording) says(said *quotedError) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = said
}

func (r *recording) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.given = nil
}

func (r *recording) sent() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.given)
}
