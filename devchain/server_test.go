package devchain

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net/http"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rpc"
)

// What ethclient, and with it all Go software, asks for.
func TestEthclient(t *testing.T) {
	w := newWorld(t, Options{})
	ctx := soon(t)
	payer := w.Accounts()[1]
	data := w.authorize(payer.Address, payer).split(w)
	msg := ethereum.CallMsg{From: w.Accounts()[0].Address, To: &Dollar, Data: data}
	receipt := w.do(w.Accounts()[0], Dollar, data)

	check := func(name string, ok bool, err error) {
		t.Helper()
		if err != nil || !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	id, err := w.client.ChainID(ctx)
	check("eth_chainId", err == nil && id.Int64() == ChainID, err)
	network, err := w.client.NetworkID(ctx)
	check("net_version", err == nil && network.Int64() == ChainID, err)
	number, err := w.client.BlockNumber(ctx)
	check("eth_blockNumber", number >= receipt.BlockNumber.Uint64(), err)
	msg.Data = w.authorize(payer.Address, payer).split(w)
	gas, err := w.client.EstimateGas(ctx, msg)
	check("eth_estimateGas", gas > 50_000 && gas < 150_000, err)
	tip, err := w.client.SuggestGasTipCap(ctx)
	check("eth_maxPriorityFeePerGas", err == nil && tip.Sign() > 0, err)
	price, err := w.client.SuggestGasPrice(ctx)
	check("eth_gasPrice", err == nil && price.Cmp(tip) >= 0, err)
	fees, err := w.client.FeeHistory(ctx, 4, nil, []float64{10, 50, 90})
	check("eth_feeHistory", err == nil && len(fees.BaseFee) > 1, err)
	for name, address := range map[string]common.Address{
		"Dollar": Dollar, "Tether": Tether, "Multicall3": Multicall3, "Permit2": Permit2, "exact": ExactPermit2Proxy, "upto": UptoPermit2Proxy,
	} {
		code, err := w.client.CodeAt(ctx, address, nil)
		check("eth_getCode "+name, len(code) > 1000, err)
	}
	block, err := w.client.BlockByHash(ctx, receipt.BlockHash)
	check("eth_getBlockByHash", err == nil && len(block.Transactions()) == 1, err)
	for _, tag := range []rpc.BlockNumber{rpc.FinalizedBlockNumber, rpc.SafeBlockNumber, rpc.LatestBlockNumber, rpc.PendingBlockNumber} {
		header, err := w.client.HeaderByNumber(ctx, big.NewInt(int64(tag)))
		check("eth_getBlockByNumber "+tag.String(), err == nil && header.Number.Cmp(receipt.BlockNumber) >= 0, err)
	}
	tx, pending, err := w.client.TransactionByHash(ctx, receipt.TxHash)
	check("eth_getTransactionByHash", err == nil && !pending && bytes.Equal(tx.Data(), data), err)
	logs, err := w.client.FilterLogs(ctx, ethereum.FilterQuery{
		FromBlock: new(big.Int), Addresses: []common.Address{Dollar}, Topics: [][]common.Hash{{receipt.Logs[0].Topics[0]}},
	})
	check("eth_getLogs", len(logs) == 1, err)
	_, err = w.client.TransactionReceipt(ctx, common.Hash{1})
	check("a receipt that is not there", errors.Is(err, ethereum.NotFound), nil)
	nonce, err := w.client.NonceAt(ctx, w.Accounts()[0].Address, nil)
	check("eth_getTransactionCount", nonce == 1, err)
}

// post sends a body as JSON and returns the answer.
func (w *world) post(body string, headers ...string) (*http.Response, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.RPC(), strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return w.roundTrip(req, headers...)
}

func (w *world) roundTrip(req *http.Request, headers ...string) (*http.Response, string) {
	w.t.Helper()
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, string(text)
}

func TestBatch(t *testing.T) {
	w := newWorld(t, Options{})
	_, text := w.post(`[
		{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]},
		{"jsonrpc":"2.0","id":2,"method":"web3_clientVersion"},
		{"jsonrpc":"2.0","id":3,"method":"net_version"},
		{"jsonrpc":"2.0","id":4,"method":"eth_getTransactionReceipt","params":["0x` + strings.Repeat("11", 32) + `"]},
		{"jsonrpc":"2.0","id":5,"method":"eth_accounts"},
		{"jsonrpc":"2.0","id":6,"method":"eth_syncing"},
		{"jsonrpc":"2.0","id":7,"method":"debug_setHead","params":["0x0"]},
		{"jsonrpc":"2.0","id":8,"method":"eth_sendTransaction","params":[{"from":"` + w.Accounts()[0].Address.Hex() + `","to":"` + Dollar.Hex() + `"}]}
	]`)
	var answers []struct {
		ID     int
		Result json.RawMessage
		Error  *struct{ Message string }
	}
	if err := json.Unmarshal([]byte(text), &answers); err != nil || len(answers) != 8 {
		t.Fatalf("%v: %s", err, text)
	}
	for i, want := range []string{`"0x14a34"`, "TEST-MONEY", `"84532"`, "null", "[]", "false"} {
		if a := answers[i]; a.Error != nil || !strings.Contains(string(a.Result), want) {
			t.Errorf("call %d: got %s, want %s", a.ID, a.Result, want)
		}
	}
	for _, i := range []int{6, 7} { // nobody operates the node from outside; no keys are inside
		if answers[i].Error == nil {
			t.Errorf("call %d: got %s", answers[i].ID, answers[i].Result)
		}
	}
}

func TestOrigins(t *testing.T) {
	w := newWorld(t, Options{})
	for origin, allowed := range map[string]bool{
		"http://localhost:3000":       true,
		"https://shop.localhost":      true,
		"http://127.0.0.1":            true,
		"http://[::1]:9":              true,
		"chrome-extension://abcdef":   true,
		"moz-extension://abcdef":      true,
		"https://example.com":         false,
		"https://localhost.evil.test": false,
		"https://127.0.0.1.evil.test": false,
		"null":                        false,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, w.RPC(), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, _ := w.roundTrip(req, "Origin", origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type")
		h := resp.Header
		if got := h.Get("Access-Control-Allow-Origin") == origin; got != allowed || resp.StatusCode != http.StatusNoContent {
			t.Errorf("%s: allowed %v, status %d", origin, got, resp.StatusCode)
		}
		if got := h.Get("Access-Control-Allow-Headers") == "content-type"; got != allowed {
			t.Errorf("%s: headers allowed %v", origin, got)
		}
	}
	call := `{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}`
	if resp, text := w.post(call, "Origin", "http://localhost:3000"); !strings.Contains(text, "0x14a34") ||
		resp.Header.Get("Access-Control-Allow-Origin") != "http://localhost:3000" {
		t.Errorf("a page of this machine: %s %v", text, resp.Header)
	}
	// What a browser sends without asking first is not JSON-RPC.
	if resp, text := w.post(call, "Origin", "https://example.com", "Content-Type", "text/plain"); resp.StatusCode < 400 {
		t.Errorf("a page of the web: %d %s", resp.StatusCode, text)
	}
	for host, status := range map[string]int{"evil.test": 403, "evil.test:8545": 403, "192.0.2.1": 403, "localhost:1": 200, "[::1]": 200, "127.0.0.1:1": 200} {
		if resp, _ := w.post(call, "Host", host); resp.StatusCode != status {
			t.Errorf("host %s: %d", host, resp.StatusCode)
		}
	}
}

func TestLandingPage(t *testing.T) {
	w := newWorld(t, Options{})
	get := func(method, path string) (*http.Response, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, w.RPC()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return w.roundTrip(req)
	}
	resp, text := get(http.MethodGet, "/")
	if !strings.HasPrefix(text, "TEST MONEY: a development chain of caddy-paywall") || !strings.Contains(text, w.RPC()+"/fund/") {
		t.Errorf("got %s", text)
	}
	if strings.Contains(strings.ToLower(text), "scan.") || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("got %s %v", text, resp.Header)
	}
	for _, c := range []struct {
		method, path string
		status       int
	}{{"HEAD", "/", 200}, {"PUT", "/", 405}, {"GET", "/x", 404}, {"GET", "/fund/" + Dollar.Hex(), 405}} {
		if resp, _ := get(c.method, c.path); resp.StatusCode != c.status {
			t.Errorf("%s %s: %d", c.method, c.path, resp.StatusCode)
		}
	}
}

func TestFund(t *testing.T) {
	w := newWorld(t, Options{})
	somebody := common.HexToAddress("0x209693Bc6afc0C5328bA36FaF03C514EF312287C")
	for path, status := range map[string]int{"/fund/" + somebody.Hex(): 200, "/fund/0x12": 400} {
		req, err := http.NewRequestWithContext(soon(t), http.MethodPost, w.RPC()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, text := w.roundTrip(req); resp.StatusCode != status {
			t.Errorf("%s: %d %s", path, resp.StatusCode, text)
		}
	}
	if got := w.balance(somebody); got != fundDollars {
		t.Errorf("got %d", got)
	}
	if ether, err := w.client.BalanceAt(t.Context(), somebody, nil); err != nil || ether.String() != "1000000000000000000" {
		t.Errorf("got %s wei (%v)", ether, err)
	}
	if nonce, err := w.client.NonceAt(t.Context(), w.Accounts()[0].Address, nil); err != nil || nonce != 0 {
		t.Errorf("the gas account's nonce is %d (%v): a facilitator would stumble", nonce, err)
	}
}

// A batch of settlements may offer more gas than one ether pays for.
func TestNoFeeCap(t *testing.T) {
	w := newWorld(t, Options{})
	from := w.Accounts()[1]
	tx, err := types.SignNewTx(from.Key(), types.LatestSignerForChainID(w.ChainID()), &types.DynamicFeeTx{
		ChainID: w.ChainID(), GasTipCap: big.NewInt(1), GasFeeCap: big.NewInt(1e12), Gas: 10_000_000, To: &from.Address,
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := tx.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if _, text := w.post(`{"jsonrpc":"2.0","id":1,"method":"eth_sendRawTransaction","params":["` + hexutil.Encode(raw) + `"]}`); !strings.Contains(text, tx.Hash().Hex()) {
		t.Fatal(text)
	}
	w.mined(tx)
}
