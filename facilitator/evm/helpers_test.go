package evm

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/rpc"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	baseSepolia = "eip155:84532"
	// The well-known development keys: what they own is worth nothing.
	signerKey     = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
	signerAddress = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
	secondKey     = "7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6"
	secondAddress = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"
	payerKey      = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
	payerAddress  = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
	usdc          = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
	payee         = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
)

// clock is a clock that stands still until it is told otherwise, and on which
// sleeping takes no time.
type clock struct {
	mu     sync.Mutex
	at     time.Time
	sleeps int
	max    int // after so many sleeps the caller's time is over
}

func newClock(unix int64) *clock { return &clock{at: time.Unix(unix, 0), max: 20} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
	if c.sleeps++; c.sleeps > c.max {
		c.sleeps = 0
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// after is sleep that waits for something first, as a transaction that is still being
// sent to a second node.
func (c *clock) after(done func() bool) func(context.Context, time.Duration) error {
	return func(ctx context.Context, d time.Duration) error {
		for !done() && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		return c.sleep(ctx, d)
	}
}

// keyFile writes a key where a config can point to it.
func keyFile(t testing.TB, key string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return "{file." + path + "}"
}

// start makes a facilitator for one network, and a log to look into.
func start(t testing.TB, network string, n *Network, c *clock, factories ...string) (*Facilitator, *observer.ObservedLogs) {
	t.Helper()
	if c == nil {
		return startIn(t, network, n, surroundings{now: time.Now, sleep: facilitator.Sleep}, factories...)
	}
	return startIn(t, network, n, surroundings{now: c.now, sleep: c.sleep}, factories...)
}

// surroundings are what a facilitator finds around it.
type surroundings struct {
	now    func() time.Time
	sleep  func(context.Context, time.Duration) error
	client chain.Client // of its nodes; nil if their URLs lead to some
	pool   *caddy.UsagePool
}

// startIn is start in certain surroundings.
func startIn(t testing.TB, network string, n *Network, around surroundings, factories ...string) (*Facilitator, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	if n.Signers == nil {
		n.Signers = []string{keyFile(t, signerKey)}
	}
	f := &Facilitator{Networks: map[string]*Network{network: n}, ERC6492Factories: factories, logger: zap.New(core)}
	f.pool, f.now, f.sleep, f.dial = around.pool, around.now, around.sleep, func(ctx context.Context, u *url.URL) (chain.Client, error) {
		w := wireTo(f, u.String())
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.client == nil {
			w.client = around.client
		}
		var err error
		if w.client == nil {
			w.client, err = chain.Dial(ctx, u)
		}
		return w, err
	}
	t.Cleanup(func() { wires.Delete(f) })
	if err := f.provision(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	return f, logs
}

// wires are the connections of facilitators to their nodes: a *sync.Map of each, from a URL
// to a *wire.
var wires sync.Map

// wire is the connection to a node, behind which a test can put another node at any time.
type wire struct {
	mu     sync.Mutex
	client chain.Client
}

func wireTo(f *Facilitator, url string) *wire {
	of, _ := wires.LoadOrStore(f, new(sync.Map))
	w, _ := of.(*sync.Map).LoadOrStore(url, new(wire))
	return w.(*wire)
}

// rewire puts another node behind a URL of a facilitator's only network.
func rewire(f *Facilitator, node int, client chain.Client) {
	for _, n := range f.Networks {
		w := wireTo(f, must(url.Parse(n.RPC[node])).String())
		w.mu.Lock()
		defer w.mu.Unlock()
		w.client = client
	}
}

func (w *wire) behind() chain.Client {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.client
}

func (w *wire) CallContext(ctx context.Context, result any, method string, args ...any) error {
	return w.behind().CallContext(ctx, result, method, args...)
}

func (w *wire) BatchCallContext(ctx context.Context, b []rpc.BatchElem) error {
	return w.behind().BatchCallContext(ctx, b)
}

func (w *wire) Close() { w.behind().Close() }

// request decodes a payment as the gate would.
func request(t testing.TB, payload json.RawMessage, r x402.Requirement) facilitator.Request {
	t.Helper()
	var version struct{ X402Version int }
	if err := json.Unmarshal(payload, &version); err != nil {
		t.Fatal(err)
	}
	name := x402.HeaderPaymentSignature
	if version.X402Version == x402.V1 {
		name = x402.HeaderXPayment
	}
	p, err := x402.Decode(http.Header{name: {base64.StdEncoding.EncodeToString(payload)}})
	if err != nil {
		t.Fatal(err)
	}
	return facilitator.Request{Payment: p, Requirement: r, Payer: payerAddress}
}

// logged returns what was logged, in one text.
func logged(logs *observer.ObservedLogs) string {
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	var b strings.Builder
	for _, e := range logs.All() {
		line, err := encoder.EncodeEntry(e.Entry, e.Context)
		if err != nil {
			return err.Error()
		}
		b.Write(line.Bytes())
	}
	return b.String()
}
