package promises

import (
	"context"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/caddy-paywall/caddy-paywall/devchain"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// gasAccount is an account that pays the gas of an embedded facilitator on a
// development chain, and has nothing at first.
type gasAccount struct {
	*gate.Payer
	t      *testing.T
	chain  *devchain.Chain
	client *ethclient.Client
	lines  string // of the global options
}

func newGasAccount(t *testing.T) *gasAccount {
	t.Helper()
	chain, err := devchain.Start(devchain.Options{BlockEvery: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chain.Close() })
	client, err := ethclient.Dial(chain.RPC())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	g := &gasAccount{Payer: gate.NewPayer(t), t: t, chain: chain, client: client}
	key := filepath.Join(t.TempDir(), "gas_key")
	if err := os.WriteFile(key, fmt.Appendf(nil, "%x", crypto.FromECDSA(g.Key)), 0o600); err != nil {
		t.Fatal(err)
	}
	g.lines = fmt.Sprintf("facilitator own evm {\n network base-sepolia {\n rpc %s\n signer {file.%s}\n coin_price $1000000\n }\n }\n", chain.RPC(), key)
	return g
}

// move sends coin from one account to another; nil is all but the fee.
func (g *gasAccount) move(from *gate.Payer, to common.Address, amount *big.Int) {
	g.t.Helper()
	ctx := context.Background()
	number, err := g.client.PendingNonceAt(ctx, from.Address)
	if err != nil {
		g.t.Fatal(err)
	}
	fee := big.NewInt(10e9)
	if amount == nil {
		balance, err := g.client.BalanceAt(ctx, from.Address, nil)
		if err != nil {
			g.t.Fatal(err)
		}
		amount = balance.Sub(balance, new(big.Int).Mul(fee, big.NewInt(21_000)))
	}
	tx := types.MustSignNewTx(from.Key, types.LatestSignerForChainID(g.chain.ChainID()), &types.DynamicFeeTx{
		ChainID: g.chain.ChainID(), Nonce: number, GasTipCap: fee, GasFeeCap: fee, Gas: 21_000, To: &to, Value: amount,
	})
	if err := g.client.SendTransaction(ctx, tx); err != nil {
		g.t.Fatal(err)
	}
	for range 1000 {
		if r, err := g.client.TransactionReceipt(ctx, tx.Hash()); err == nil && r.Status == types.ReceiptStatusSuccessful {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	g.t.Fatal("the chain does not take a transaction")
}

// rich is an account of the chain with coin and dollars.
func (g *gasAccount) rich(i int) *gate.Payer {
	a := g.chain.Accounts()[i]
	return &gate.Payer{Key: a.Key(), Address: a.Address}
}

func (g *gasAccount) income() int64 {
	g.t.Helper()
	n, err := g.chain.Balance(common.HexToAddress(gate.PayTo))
	if err != nil {
		g.t.Fatal(err)
	}
	return n.Int64()
}

// What cannot be settled since nobody pays the gas is closed before anybody signs, as
// if the facilitator were away, and opens by itself when the account is filled up. A
// payment that was signed before it ran dry moves nothing.
func TestEmptyGasAccountClosesPrices(t *testing.T) {
	g := newGasAccount(t)
	w := gate.Prepare(t)
	w.Load(strings.Replace(w.Caddyfile("facilitator own\nprice /paid/* $0.01"), "facilitator fake http", g.lines+"facilitator fake http", 1))
	closed := func() bool {
		res := w.Get("/paid/x")
		if !res.Is(503) {
			return false
		}
		w.ExpectBusy(res, 503, "facilitator_unavailable")
		if seconds, err := strconv.Atoi(res.Header.Get("Retry-After")); err != nil || seconds < 1 || seconds > 60 {
			t.Errorf("Retry-After %q", res.Header.Get("Retry-After"))
		}
		return true
	}
	labels := " account=" + g.Address.Hex() + " facilitator=own network=eip155:84532"
	w.Until(closed)
	before := gate.Series(t)
	closed()
	now := gate.Series(t)
	if now["facilitator_up facilitator=own"] != 0 || now["closed_total"] != before["closed_total"]+1 || now["gas_settlements"+labels] != 0 {
		t.Errorf("%v", now)
	}
	if _, told := now["gas_balance"+labels]; !told {
		t.Errorf("no balance in %v", now)
	}
	w.WaitForLog("cannot pay for one settlement")
	w.WaitForLog("a price is below what its settlement costs") // with a coin of a million
	if now["price_below_cost facilitator=own network=eip155:84532"] != 1 {
		t.Errorf("it is not told that a cent is less than a settlement costs: %v", now)
	}

	g.move(g.rich(0), g.Address, big.NewInt(1e16))
	w.ComesGood(func() bool { return w.Get("/paid/x").Is(402) })
	res := w.Get("/paid/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/x", g.rich(9)).V2(t))
	w.Expect(res, 200, "")
	now = gate.Series(t)
	if _, told := now["gas_lost facilitator=own network=eip155:84532"]; !told || now["gas_cost facilitator=own network=eip155:84532"] <= 0 {
		t.Errorf("what a settlement costs is not told: %v", now)
	}
	if now["facilitator_up facilitator=own"] != 1 || now["gas_settlements"+labels] < 1 || now["gas_balance"+labels] != 0.01 || g.income() != 10_000 {
		t.Errorf("%v, %d income", now, g.income())
	}

	late := w.Sign(http.MethodGet, "/paid/x", g.rich(8)).V2(t)
	g.move(g.Payer, g.rich(0).Address, nil)
	w.ExpectBusy(w.Get("/paid/x", "PAYMENT-SIGNATURE", late), 503, "facilitator_unavailable")
	w.ComesGood(closed)
	hits := w.Upstream.Hits.Load()
	w.ExpectBusy(w.Get("/paid/x", "PAYMENT-SIGNATURE", late), 503, "facilitator_unavailable")
	if w.Upstream.Hits.Load() != hits || g.income() != 10_000 {
		t.Errorf("the upstream ran for what cannot be settled; %d income", g.income())
	}
}

// Where another facilitator of the price can settle, it is offered instead.
func TestAnotherFacilitatorStandsInForAnEmptyGasAccount(t *testing.T) {
	g := newGasAccount(t)
	w := gate.Prepare(t)
	w.Load(strings.Replace(w.Caddyfile("facilitator own fake\nprice /paid/* $0.01"), "facilitator fake http", g.lines+"facilitator fake http", 1))
	w.WaitForLog("cannot pay for one settlement")
	for range 3 {
		w.Expect(w.Pay(http.MethodGet, "/paid/x"), 200, "")
	}
	if w.Facilitator.Transfers() != 3 || g.income() != 0 {
		t.Errorf("%d by the other, %d income", w.Facilitator.Transfers(), g.income())
	}
}
