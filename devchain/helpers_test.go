package devchain

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/signer/core/apitypes"

	"github.com/caddy-paywall/caddy-paywall/internal/typeddata"
)

// world is a running chain and a client of it, as anybody else would have it.
type world struct {
	*Chain
	t      testing.TB
	client *ethclient.Client
	token  abi.ABI
}

// newWorld starts a chain that seals fast.
func newWorld(t testing.TB, o Options) *world {
	t.Helper()
	if o.BlockEvery == 0 {
		o.BlockEvery = 20 * time.Millisecond
	}
	chain, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := chain.Close(); err != nil {
			t.Error(err)
		}
	})
	client, err := ethclient.Dial(chain.RPC())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &world{Chain: chain, t: t, client: client, token: artifact(t, "TestDollar").ABI}
}

type contract struct {
	Bytecode         hexutil.Bytes
	DeployedBytecode hexutil.Bytes
	ABI              abi.ABI
	StorageLayout    []struct {
		Slot  int64
		Label string
	}
}

// artifact reads a contract of the tests with the official software.
func artifact(t testing.TB, name string) contract {
	t.Helper()
	return readJSON[contract](t, "../test/interop/token/"+name+".json")
}

func readJSON[T any](t testing.TB, file string) T {
	t.Helper()
	var v T
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// send sends a transaction of an account.
func (w *world) send(from Account, to *common.Address, data []byte) *types.Transaction {
	w.t.Helper()
	nonce, err := w.client.PendingNonceAt(w.t.Context(), from.Address)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.sendNonce(from, nonce, to, data)
}

func (w *world) sendNonce(from Account, nonce uint64, to *common.Address, data []byte) *types.Transaction {
	w.t.Helper()
	tx, err := types.SignNewTx(from.Key(), types.LatestSignerForChainID(w.ChainID()), &types.DynamicFeeTx{
		ChainID: w.ChainID(), Nonce: nonce, GasTipCap: big.NewInt(1), GasFeeCap: big.NewInt(1e9),
		Gas: 1_000_000, To: to, Data: data,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.client.SendTransaction(w.t.Context(), tx); err != nil {
		w.t.Fatal(err)
	}
	return tx
}

// mined waits for the receipt of a transaction.
func (w *world) mined(tx *types.Transaction) *types.Receipt {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		receipt, err := w.client.TransactionReceipt(w.t.Context(), tx.Hash())
		if err == nil {
			return receipt
		}
		if !errors.Is(err, ethereum.NotFound) {
			w.t.Fatal(err)
		}
	}
	w.t.Fatalf("no receipt of %s", tx.Hash())
	return nil
}

// do sends a transaction that has to succeed.
func (w *world) do(from Account, to common.Address, data []byte) *types.Receipt {
	w.t.Helper()
	receipt := w.mined(w.send(from, &to, data))
	if receipt.Status != types.ReceiptStatusSuccessful {
		w.t.Fatalf("reverted: %v", w.call(from.Address, to, data))
	}
	return receipt
}

// call simulates a transaction and returns why it would fail.
func (w *world) call(from, to common.Address, data []byte) error {
	w.t.Helper()
	_, err := w.client.CallContract(w.t.Context(), ethereum.CallMsg{From: from, To: &to, Data: data}, nil)
	return err
}

// refused wants a call to fail with a text.
func (w *world) refused(data []byte, want string) {
	w.t.Helper()
	if err := w.call(w.Accounts()[0].Address, Dollar, data); err == nil || !strings.Contains(err.Error(), want) {
		w.t.Errorf("got %v, want %q", err, want)
	}
}

// deploy puts a contract of the tests on the chain.
func (w *world) deploy(name string, args ...any) common.Address {
	w.t.Helper()
	c := artifact(w.t, name)
	packed, err := c.ABI.Pack("", args...)
	if err != nil {
		w.t.Fatal(err)
	}
	receipt := w.mined(w.send(w.Accounts()[0], nil, append(c.Bytecode, packed...)))
	if receipt.Status != types.ReceiptStatusSuccessful {
		w.t.Fatalf("%s was not deployed", name)
	}
	return receipt.ContractAddress
}

func (w *world) balance(a common.Address) int64 {
	w.t.Helper()
	b, err := w.Balance(a)
	if err != nil {
		w.t.Fatal(err)
	}
	return b.Int64()
}

// head is the newest block, read from inside: over JSON-RPC looking moves it.
func (w *world) head() *types.Header { return w.backend.eth.BlockChain().CurrentBlock() }

// The signed calls of the test dollar come in two forms each.
const (
	transferSplit = "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)"
	transferWhole = "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)"
	permitSplit   = "permit(address,address,uint256,uint256,uint8,bytes32,bytes32)"
)

// pack encodes a call of the test dollar; a method of which there are two is named
// with its arguments.
func (w *world) pack(method string, args ...any) []byte {
	w.t.Helper()
	for name, m := range w.token.Methods {
		if m.Sig == method {
			method = name
		}
	}
	data, err := w.token.Pack(method, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

// authorization is an EIP-3009 payment of 0.01 dollars.
type authorization struct {
	from, to                common.Address
	value                   *big.Int
	validAfter, validBefore *big.Int
	nonce                   [32]byte
	signature               []byte
}

// authorize signs a payment from an account, by whoever holds the key.
func (w *world) authorize(from common.Address, signer Account) authorization {
	w.t.Helper()
	a := authorization{
		from: from, to: common.Address{0: 0xA5, 19: 0x01}, value: big.NewInt(10_000),
		validAfter: new(big.Int), validBefore: big.NewInt(time.Now().Unix() + 300),
	}
	if _, err := rand.Read(a.nonce[:]); err != nil {
		w.t.Fatal(err)
	}
	a.signature = w.sign(signer, typeddata.Transfer(dollarDomain, apitypes.TypedDataMessage{
		"from": a.from.Hex(), "to": a.to.Hex(), "value": a.value.String(),
		"validAfter": a.validAfter.String(), "validBefore": a.validBefore.String(), "nonce": hexutil.Encode(a.nonce[:]),
	}))
	return a
}

var dollarDomain = typeddata.Token("USDC", "2", big.NewInt(ChainID), Dollar.Hex())

func (w *world) sign(signer Account, data apitypes.TypedData) []byte {
	w.t.Helper()
	signature, err := typeddata.Sign(data, signer.Key())
	if err != nil {
		w.t.Fatal(err)
	}
	return signature
}

// split is calldata of the form with v, r and s.
func (a authorization) split(w *world) []byte {
	return w.pack(transferSplit, a.from, a.to, a.value, a.validAfter, a.validBefore, a.nonce,
		a.signature[64], [32]byte(a.signature[:32]), [32]byte(a.signature[32:64]))
}

// whole is calldata of the form with bytes.
func (a authorization) whole(w *world) []byte {
	return w.pack(transferWhole, a.from, a.to, a.value, a.validAfter, a.validBefore, a.nonce, a.signature)
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// soon bounds what has to happen within seconds.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	t.Cleanup(cancel)
	return ctx
}
