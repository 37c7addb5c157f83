package promises

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/eth/ethconfig"
	"github.com/ethereum/go-ethereum/ethclient/simulated"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/caddy-paywall/caddy-paywall/devchain"
	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// restless is a real chain in the process that can be made to take blocks back.
type restless struct {
	t       *testing.T
	backend *simulated.Backend
	client  *rpc.Client
	url     string
	gas     *gate.Payer // who settles

	mu   sync.Mutex // one makes blocks
	calm bool       // no blocks by themselves
}

// startRestless starts one, with money for the payers.
func startRestless(t *testing.T, payers ...*gate.Payer) *restless {
	t.Helper()
	code := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("..", "interop", "token", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		var file struct{ DeployedBytecode hexutil.Bytes }
		if err := json.Unmarshal(b, &file); err != nil {
			t.Fatal(err)
		}
		return file.DeployedBytecode
	}
	c := &restless{t: t, gas: gate.NewPayer(t)}
	balances := map[common.Hash]common.Hash{}
	for _, p := range payers {
		slot := crypto.Keccak256Hash(common.LeftPadBytes(p.Address[:], 32), common.BigToHash(big.NewInt(2)).Bytes())
		balances[slot] = common.BigToHash(big.NewInt(1e9))
	}
	address := loopback.FreeAddress(t)
	c.url = "http://" + address
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	c.backend = simulated.NewBackend(types.GenesisAlloc{
		common.HexToAddress(gate.USDC):                                    {Code: code("TestDollar"), Storage: balances},
		common.HexToAddress("0xcA11bde05977b3631167028862bE2a173976CA11"): {Code: code("Multicall3")},
		c.gas.Address: {Balance: big.NewInt(1e18)},
	}, func(n *node.Config, e *ethconfig.Config) {
		e.Genesis.Config = devchain.ChainRules()
		n.HTTPHost, n.HTTPModules = host, []string{"eth"}
		n.HTTPPort, _ = strconv.Atoi(port)
	})
	t.Cleanup(func() { _ = c.backend.Close() })
	if c.client, err = rpc.Dial(c.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.client.Close)
	c.seal(1)
	ctx, stop := context.WithCancel(context.Background())
	var sealing sync.WaitGroup
	sealing.Go(func() {
		for ctx.Err() == nil {
			c.sealWaiting()
			time.Sleep(5 * time.Millisecond)
		}
	})
	t.Cleanup(sealing.Wait)
	t.Cleanup(stop)
	return c
}

// sealWaiting makes a block if something waits.
func (c *restless) sealWaiting() {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx := context.Background()
	waiting, err := c.backend.Client().PendingNonceAt(ctx, c.gas.Address)
	mined, err2 := c.backend.Client().NonceAt(ctx, c.gas.Address, nil)
	if err == nil && err2 == nil && waiting > mined && !c.calm {
		c.backend.Commit()
	}
}

func (c *restless) seal(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range n {
		c.backend.Commit()
	}
}

func (c *restless) setCalm(calm bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calm = calm
}

func (c *restless) height() uint64 {
	c.t.Helper()
	n, err := c.backend.Client().BlockNumber(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// reorganise takes blocks back and makes one more than those in their place. What
// was in them goes into the new ones, or is forgotten.
func (c *restless) reorganise(depth uint64, forget bool) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	parent, err := c.backend.Client().HeaderByNumber(context.Background(), new(big.Int).SetUint64(c.height()-depth))
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.backend.Fork(parent.Hash()); err != nil {
		c.t.Fatal(err)
	}
	if forget {
		c.backend.Rollback()
	}
	for range depth + 1 {
		c.backend.Commit()
	}
}

// income is what the seller has.
func (c *restless) income() int64 {
	c.t.Helper()
	var out hexutil.Bytes
	call := map[string]any{"to": gate.USDC, "data": "0x70a08231" + strings.Repeat("0", 24) + strings.ToLower(gate.PayTo[2:])}
	if err := c.client.Call(&out, "eth_call", call, "latest"); err != nil {
		c.t.Fatal(err)
	}
	return new(big.Int).SetBytes(out).Int64()
}

// onRestless is a world whose money is on such a chain, and its Caddyfile.
func onRestless(t *testing.T, c *restless, network, options string) (w *gate.World, s *gate.Ledger, config string) {
	t.Helper()
	t.Cleanup(gate.ForgetPayers)
	w = gate.Prepare(t)
	s = w.WithLedger()
	s.Visible.Store(true)
	key := filepath.Join(t.TempDir(), "gas_key")
	if err := os.WriteFile(key, fmt.Appendf(nil, "%x", crypto.FromECDSA(c.gas.Key)), 0o600); err != nil {
		t.Fatal(err)
	}
	own := fmt.Sprintf("facilitator own evm {\n network base-sepolia {\n rpc %s\n signer {file.%s}\n %s\n }\n }\n", c.url, key, network)
	config = strings.Replace(gate.OnLedger(w.Caddyfile("facilitator own\n"+options)), "facilitator fake http", own+"facilitator fake http", 1)
	w.Load(config)
	w.Until(func() bool { return w.Get("/paid/x").StatusCode == 402 })
	return w, s, config
}

// rowOf is the one payment of a payer.
func rowOf(t *testing.T, s *gate.Ledger, p *gate.Payer) ledger.Payment {
	t.Helper()
	var found []ledger.Payment
	for row, err := range s.Ledger.List(t.Context(), ledger.Filter{Payer: p.Address.Hex()}) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, row)
	}
	if len(found) != 1 {
		t.Fatalf("%d payments", len(found))
	}
	return found[0]
}

// A reorganisation takes back three blocks, with a payment each that was delivered,
// and the chain forgets them. The rows say so, the payers pay first, and what they
// have signed brings the money back.
func TestForgottenPaymentOfADeliveryIsSettledAgain(t *testing.T) {
	payers := []*gate.Payer{gate.NewPayer(t), gate.NewPayer(t), gate.NewPayer(t)}
	c := startRestless(t, payers...)
	w, s, _ := onRestless(t, c, "", "price /paid/* $0.01")
	c.seal(3)
	height := c.height()
	for _, p := range payers {
		w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/x", p).V2(t)), 200, "")
	}
	if got := c.height(); got != height+3 || c.income() != 30_000 {
		t.Fatalf("%d blocks, %d income", got-height, c.income())
	}
	is := func(state ledger.State, reason string) func() bool {
		return func() bool {
			for _, p := range payers {
				if row := rowOf(t, s, p); row.State != state || row.Reason != reason {
					return false
				}
			}
			return true
		}
	}
	w.Until(is(ledger.Delivered, ""))
	before := gate.Series(t)
	c.setCalm(true) // nothing that is sent gets into a block
	c.reorganise(3, true)
	if c.income() != 0 {
		t.Fatalf("%d income", c.income())
	}
	gate.LookAtBlocks()
	w.Until(is(ledger.Delivered, ledger.ReasonReverted))
	w.WaitForLog("does not show it in another block")
	if got := gate.Series(t)["reorganised_total outcome=reverted"] - before["reorganised_total outcome=reverted"]; got != 3 {
		t.Errorf("counted %v", got)
	}
	c.setCalm(false)
	for range 3 { // it takes the facilitator some seconds to give its transaction up
		if !is(ledger.Delivered, "")() {
			gate.LookAtBlocks()
			patient(w, is(ledger.Delivered, ""))
		}
	}
	if !is(ledger.Delivered, "")() || c.income() != 30_000 {
		t.Errorf("%d income", c.income())
	}
	for _, p := range payers {
		var receipt *struct{ Status string }
		if err := c.client.Call(&receipt, "eth_getTransactionReceipt", rowOf(t, s, p).Transaction); err != nil || receipt == nil || receipt.Status != "0x1" {
			t.Errorf("%+v, %v", receipt, err)
		}
	}
	if got := gate.Series(t)["reorganised_total outcome=restored"] - before["reorganised_total outcome=restored"]; got != 3 {
		t.Errorf("counted %v", got)
	}

	// Who was served for money that went away pays first now.
	income := make(chan int64, 1)
	w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
		income <- c.income()
		_, _ = rw.Write([]byte(gate.Goods))
	})
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/x", payers[0]).V2(t)), 200, "")
	if got := <-income; got != 40_000 {
		t.Errorf("the upstream ran when the seller had %d", got)
	}
}

// patient waits for what takes some seconds.
func patient(w *gate.World, so func() bool) {
	for range 1000 {
		if so() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// What a reorganisation puts into another block needs nothing.
func TestPaymentInAnotherBlockNeedsNothing(t *testing.T) {
	p := gate.NewPayer(t)
	c := startRestless(t, p)
	w, s, config := onRestless(t, c, "", "price /paid/* $0.01")
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/x", p).V2(t)), 200, "")
	w.Until(func() bool { return rowOf(t, s, p).State == ledger.Delivered })
	before, first := gate.Series(t), rowOf(t, s, p)
	w.Load(strings.Replace(config, "$0.01", "$0.02", 1)) // what is watched survives it
	c.reorganise(1, false)
	if c.income() != 10_000 {
		t.Fatalf("%d income", c.income())
	}
	gate.LookAtBlocks()
	w.Until(func() bool {
		return gate.Series(t)["reorganised_total outcome=moved"] > before["reorganised_total outcome=moved"]
	})
	if row := rowOf(t, s, p); row.State != ledger.Delivered || row.Reason != "" || row.Transaction != first.Transaction {
		t.Errorf("%+v", row)
	}
}

// What is paid for and owed is settled again before it can be fetched.
func TestForgottenPaymentIsSettledBeforeItIsFetched(t *testing.T) {
	p := gate.NewPayer(t)
	c := startRestless(t, p)
	w, s, _ := onRestless(t, c, "", "price /paid/* $0.01 {\n settle first\n}")
	w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusInternalServerError) })
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/x", p).V2(t)), 500, "")
	w.Until(func() bool { row := rowOf(t, s, p); return row.State == ledger.Settled && row.Lease.IsZero() })
	c.setCalm(true)
	c.reorganise(1, true)
	gate.LookAtBlocks()
	w.Until(func() bool { st := rowOf(t, s, p).State; return st == ledger.Unknown || st == ledger.Settling })
	w.Upstream.On(nil)
	pay := func() gate.Answer {
		return w.Get("/paid/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/x", p).V2(t))
	}
	w.Expect(pay(), 503, "settlement_pending")
	if c.income() != 0 {
		t.Errorf("%d income", c.income())
	}
	c.setCalm(false)
	patient(w, func() bool { return rowOf(t, s, p).State == ledger.Settled })
	w.Expect(w.Again(pay), 200, "")
	if c.income() != 10_000 {
		t.Errorf("%d income", c.income())
	}
	// What the reconciler has settled is watched too.
	w.Until(func() bool { return rowOf(t, s, p).State == ledger.Delivered })
	before := gate.Series(t)
	c.reorganise(1, false)
	gate.LookAtBlocks()
	w.Until(func() bool {
		return gate.Series(t)["reorganised_total outcome=moved"] > before["reorganised_total outcome=moved"]
	})
}

// With three confirmations nothing is handed out before the third block.
func TestNothingIsHandedOutBeforeThreeConfirmations(t *testing.T) {
	p := gate.NewPayer(t)
	c := startRestless(t, p)
	w, s, _ := onRestless(t, c, "confirmations 3", "price /paid/* $0.01")
	height := c.height()
	c.setCalm(true)
	answer := make(chan gate.Answer, 1)
	header := w.Sign(http.MethodGet, "/paid/x", p).V2(t)
	go func() { answer <- w.Get("/paid/x", "PAYMENT-SIGNATURE", header) }()
	w.Until(func() bool {
		waiting, err := c.backend.Client().PendingNonceAt(t.Context(), c.gas.Address)
		return err == nil && waiting > 0
	})
	for n := range uint64(2) {
		c.seal(1)
		time.Sleep(1100 * time.Millisecond) // it looks once a second at least
		select {
		case res := <-answer:
			t.Fatalf("after %d blocks: %d", n+1, res.StatusCode)
		default:
		}
		if row := rowOf(t, s, p); row.State != ledger.Settling || c.income() != 10_000 {
			t.Errorf("%s, %d income", row.State, c.income())
		}
	}
	c.seal(1)
	w.Expect(<-answer, 200, "")
	if c.height() != height+3 {
		t.Errorf("%d blocks", c.height()-height)
	}
}
