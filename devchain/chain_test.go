package devchain

import (
	"math/big"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"go.uber.org/zap/zaptest"
)

func TestStartIsFast(t *testing.T) {
	begin := time.Now()
	w := newWorld(t, Options{Logger: zaptest.NewLogger(t)})
	payer := w.Accounts()[1]
	a := w.authorize(payer.Address, payer)
	started := time.Since(begin)
	w.do(w.Accounts()[0], Dollar, a.split(w))
	t.Logf("started after %s, settled after %s", started, time.Since(begin))
	if started > time.Second {
		t.Errorf("the start took %s", started)
	}
}

// The accounts are those that every wallet makes of the mnemonic.
func TestAccounts(t *testing.T) {
	accounts, err := deriveAccounts(accountCount)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range map[int][2]string{
		0: {"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"},
		1: {"0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"},
		9: {"0xa0Ee7A142d267C1f36714E4a8F75612F20a79720", "0x2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6"},
	} {
		if a := accounts[i]; a.Address.Hex() != want[0] || a.PrivateKey != want[1] {
			t.Errorf("account %d: got %s with %s", i, a.Address, a.PrivateKey)
		}
	}
}

func TestGenesis(t *testing.T) {
	w := newWorld(t, Options{})
	supply := int64(0)
	for i, a := range w.Accounts() {
		want := int64(dollarsEach)
		if i == 0 {
			want = 0
		}
		if got := w.balance(a.Address); got != want {
			t.Errorf("account %d has %d, want %d", i, got, want)
		}
		supply += want
		if ether, err := w.client.BalanceAt(t.Context(), a.Address, nil); err != nil || ether.Cmp(etherEach) != 0 {
			t.Errorf("account %d has %s wei (%v)", i, ether, err)
		}
	}
	for method, want := range map[string]any{
		"name": "USDC", "version": "2", "decimals": uint8(6), "paused": false,
		"totalSupply": big.NewInt(supply), "owner": w.owner.Address,
		"DOMAIN_SEPARATOR": [32]byte(unhex(t, "71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818")),
	} {
		if got := w.ask(method)[0]; !equal(got, want) {
			t.Errorf("%s: got %v, want %v", method, got, want)
		}
	}
	first, err := w.client.HeaderByNumber(t.Context(), new(big.Int))
	if err != nil || first.Hash() != w.Genesis() {
		t.Errorf("the first block is %v (%v), want %s", first, err, w.Genesis())
	}
	if got := w.head(); !strings.HasPrefix(string(first.Extra), label) || string(got.Extra) != label {
		t.Errorf("blocks say %q and %q", first.Extra, got.Extra)
	}
}

// A payment costs what it costs on Base, and not what a fork of the future makes
// of it.
func TestGasOfPayment(t *testing.T) {
	w := newWorld(t, Options{})
	payer := w.Accounts()[1]
	receipt := w.do(w.Accounts()[0], Dollar, w.authorize(payer.Address, payer).split(w))
	if receipt.GasUsed < 50_000 || receipt.GasUsed > 110_000 {
		t.Errorf("a payment takes %d gas", receipt.GasUsed)
	}
	if latest := ChainRules().LatestFork(uint64(time.Now().Unix())).String(); latest != "Osaka" {
		t.Errorf("the rules are those of %s", latest)
	}
}

func TestTwoChainsAtOnce(t *testing.T) {
	a, b := newWorld(t, Options{}), newWorld(t, Options{})
	if a.Genesis() == b.Genesis() {
		t.Error("two chains with the same first block: a ledger could not tell them apart")
	}
	if a.RPC() == b.RPC() {
		t.Error("two chains at the same address")
	}
	payer := a.Accounts()[1]
	sold := a.authorize(payer.Address, payer)
	a.do(a.Accounts()[0], Dollar, sold.split(a))
	if got := a.balance(sold.to); got != 10_000 {
		t.Errorf("on the first: %d", got)
	}
	if got := b.balance(sold.to); got != 0 {
		t.Errorf("on the second: %d", got)
	}
}

func TestListensOnLoopbackOnly(t *testing.T) {
	for _, address := range []string{
		"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:0", "localhost.example.com:0",
		"127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "127.0.0.1:-1",
	} {
		if c, err := Start(Options{Listen: address}); err == nil {
			t.Errorf("%s: started", address)
			_ = c.Close()
		}
	}
	w := newWorld(t, Options{Listen: "localhost:0"})
	if _, err := w.client.BlockNumber(t.Context()); err != nil {
		t.Error(err)
	}
	taken := strings.TrimPrefix(w.RPC(), "http://")
	if _, err := Start(Options{Listen: taken}); err == nil {
		t.Error("two chains at the same address")
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	before := goroutines()
	c, err := Start(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Mint(soon(t), common.Address{1}, big.NewInt(1)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Close() }()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error("closing twice:", err)
	}
	port, err := net.Listen("tcp", strings.TrimPrefix(c.RPC(), "http://"))
	if err != nil {
		t.Error("the port is still taken:", err)
	} else {
		port.Close()
	}
	if _, err := c.Balance(common.Address{1}); err == nil {
		t.Error("a closed chain answers")
	}
	for deadline := time.Now().Add(5 * time.Second); goroutines() > before; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines before, %d after:\n%s", before, goroutines(), stacks())
		}
	}
}

// goroutines counts those that are not known to go away by themselves (the buffer
// pool of the database, within half a minute) or to be one set for the process
// (the workers that recover senders).
func goroutines() int {
	n := 0
	for stack := range strings.SplitSeq(stacks(), "\n\n") {
		if !strings.Contains(stack, "mpoolDrain") && !strings.Contains(stack, "txSenderCacher") {
			n++
		}
	}
	return n
}

func stacks() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// What goes to production must not carry a chain with it.
func TestNobodyElseLinksTheChain(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "..", "../cmd/caddy").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	deps := map[string]bool{}
	for dep := range strings.FieldsSeq(string(out)) {
		deps[dep] = true
	}
	if !deps["github.com/caddy-paywall/caddy-paywall"] || !deps["github.com/caddy-paywall/caddy-paywall/cmd/caddy"] {
		t.Fatalf("go list did not list what it was asked for: %.300s", out)
	}
	const geth = "github.com/ethereum/go-ethereum/"
	for _, heavy := range []string{
		geth + "core/vm", geth + "core/state", geth + "eth", geth + "node", geth + "core", geth + "ethclient/simulated",
		"github.com/caddy-paywall/caddy-paywall/devchain", "github.com/caddy-paywall/caddy-paywall/devchain/devfacilitator",
	} {
		if deps[heavy] {
			t.Errorf("the paywall or cmd/caddy reaches %s", heavy)
		}
	}
}

// ask calls a method of the test dollar without arguments.
func (w *world) ask(method string) []any {
	w.t.Helper()
	var answer hexutil.Bytes
	err := w.client.Client().CallContext(w.t.Context(), &answer, "eth_call",
		map[string]any{"to": Dollar, "data": hexutil.Encode(w.pack(method))}, "latest")
	if err != nil {
		w.t.Fatal(method, err)
	}
	values, err := w.token.Unpack(method, answer)
	if err != nil {
		w.t.Fatal(method, err)
	}
	return values
}

func equal(a, b any) bool {
	if x, ok := a.(*big.Int); ok {
		return x.Cmp(b.(*big.Int)) == 0
	}
	return a == b
}
