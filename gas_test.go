package paywall_test

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
)

// gasAccount is an account that pays the gas of an embedded facilitator on a
// development chain, and has nothing at first.
type gasAccount struct {
	*payer
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
	g := &gasAccount{payer: newPayer(t), t: t, chain: chain, client: client}
	key := filepath.Join(t.TempDir(), "gas_key")
	if err := os.WriteFile(key, fmt.Appendf(nil, "%x", crypto.FromECDSA(g.key)), 0o600); err != nil {
		t.Fatal(err)
	}
	g.lines = fmt.Sprintf("facilitator own evm {\n network base-sepolia {\n rpc %s\n signer {file.%s}\n coin_price $1000000\n }\n }\n", chain.RPC(), key)
	return g
}

// move sends coin from one account to another; nil is all but the fee.
func (g *gasAccount) move(from *payer, to common.Address, amount *big.Int) {
	g.t.Helper()
	ctx := context.Background()
	number, err := g.client.PendingNonceAt(ctx, from.address)
	if err != nil {
		g.t.Fatal(err)
	}
	fee := big.NewInt(10e9)
	if amount == nil {
		balance, err := g.client.BalanceAt(ctx, from.address, nil)
		if err != nil {
			g.t.Fatal(err)
		}
		amount = balance.Sub(balance, new(big.Int).Mul(fee, big.NewInt(21_000)))
	}
	tx := types.MustSignNewTx(from.key, types.LatestSignerForChainID(g.chain.ChainID()), &types.DynamicFeeTx{
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
func (g *gasAccount) rich(i int) *payer {
	a := g.chain.Accounts()[i]
	return &payer{a.Key(), a.Address}
}

func (g *gasAccount) income() int64 {
	g.t.Helper()
	n, err := g.chain.Balance(common.HexToAddress(payTo))
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
	w := prepareWorld(t)
	w.load(strings.Replace(w.caddyfile("facilitator own\nprice /paid/* $0.01"), "facilitator fake http", g.lines+"facilitator fake http", 1))
	closed := func() bool {
		res := w.get("/paid/x")
		if !res.is(503) {
			return false
		}
		w.expectBusy(res, 503, "facilitator_unavailable")
		if seconds, err := strconv.Atoi(res.Header.Get("Retry-After")); err != nil || seconds < 1 || seconds > 60 {
			t.Errorf("Retry-After %q", res.Header.Get("Retry-After"))
		}
		return true
	}
	labels := " account=" + g.address.Hex() + " facilitator=own network=eip155:84532"
	w.until(closed)
	before := series(t)
	closed()
	now := series(t)
	if now["facilitator_up facilitator=own"] != 0 || now["closed_total"] != before["closed_total"]+1 || now["gas_settlements"+labels] != 0 {
		t.Errorf("%v", now)
	}
	if _, told := now["gas_balance"+labels]; !told {
		t.Errorf("no balance in %v", now)
	}
	w.waitForLog("cannot pay for one settlement")
	w.waitForLog("a price is below what its settlement costs") // with a coin of a million
	if now["price_below_cost facilitator=own network=eip155:84532"] != 1 {
		t.Errorf("it is not told that a cent is less than a settlement costs: %v", now)
	}

	g.move(g.rich(0), g.address, big.NewInt(1e16))
	w.comesGood(func() bool { return w.get("/paid/x").is(402) })
	res := w.get("/paid/x", "PAYMENT-SIGNATURE", w.sign(http.MethodGet, "/paid/x", g.rich(9)).v2(t))
	w.expect(res, 200, "")
	now = series(t)
	if _, told := now["gas_lost facilitator=own network=eip155:84532"]; !told || now["gas_cost facilitator=own network=eip155:84532"] <= 0 {
		t.Errorf("what a settlement costs is not told: %v", now)
	}
	if now["facilitator_up facilitator=own"] != 1 || now["gas_settlements"+labels] < 1 || now["gas_balance"+labels] != 0.01 || g.income() != 10_000 {
		t.Errorf("%v, %d income", now, g.income())
	}

	late := w.sign(http.MethodGet, "/paid/x", g.rich(8)).v2(t)
	g.move(g.payer, g.rich(0).address, nil)
	w.expectBusy(w.get("/paid/x", "PAYMENT-SIGNATURE", late), 503, "facilitator_unavailable")
	w.comesGood(closed)
	hits := w.up.hits.Load()
	w.expectBusy(w.get("/paid/x", "PAYMENT-SIGNATURE", late), 503, "facilitator_unavailable")
	if w.up.hits.Load() != hits || g.income() != 10_000 {
		t.Errorf("the upstream ran for what cannot be settled; %d income", g.income())
	}
}

// Where another facilitator of the price can settle, it is offered instead.
func TestEmptyGasAccountOfOneOfTwo(t *testing.T) {
	g := newGasAccount(t)
	w := prepareWorld(t)
	w.load(strings.Replace(w.caddyfile("facilitator own fake\nprice /paid/* $0.01"), "facilitator fake http", g.lines+"facilitator fake http", 1))
	w.waitForLog("cannot pay for one settlement")
	for range 3 {
		w.expect(w.pay(http.MethodGet, "/paid/x"), 200, "")
	}
	if w.fac.transfers() != 3 || g.income() != 0 {
		t.Errorf("%d by the other, %d income", w.fac.transfers(), g.income())
	}
}
