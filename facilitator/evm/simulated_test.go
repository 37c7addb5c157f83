package evm

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/eth/ethconfig"
	"github.com/ethereum/go-ethereum/ethclient/simulated"
	gethnode "github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/rpc"
	"github.com/holiman/uint256"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-paywall/caddy-paywall/devchain"
	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

var (
	token = common.HexToAddress(usdc)
	// ownerKey owns the token, and is a stranger to everybody else.
	ownerKey, _ = crypto.HexToECDSA("5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a")
	payerECDSA  = must(crypto.HexToECDSA(payerKey))
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// testChain is a real chain in the process. Time on it is the time of its last
// block, and sleeping means that a block is made.
type testChain struct {
	t       testing.TB
	mu      sync.RWMutex // held while a block is made
	head    time.Time    // of the last block
	backend *simulated.Backend
	client  *rpc.Client
	pool    *caddy.UsagePool // of those that settle here
	skew    time.Duration    // of our clock
	idle    bool             // sleeping makes no block
	asleep  func()           // is called by sleepers
}

// artifact is the runtime code of a contract of the test token's folder.
func artifact(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("../../test/interop/token/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ DeployedBytecode hexutil.Bytes }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	return file.DeployedBytecode
}

// artifactCreation is the code that makes such a contract.
func artifactCreation(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("../../test/interop/token/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Bytecode hexutil.Bytes }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	return file.Bytecode
}

func startChain(t testing.TB, change ...func(types.GenesisAlloc)) *testChain {
	t.Helper()
	owner := crypto.PubkeyToAddress(ownerKey.PublicKey)
	coin := types.Account{Balance: big.NewInt(1e18)}
	alloc := types.GenesisAlloc{
		token: {Code: artifact(t, "TestDollar"), Storage: map[common.Hash]common.Hash{
			{}: common.BytesToHash(owner[:]),
			balanceSlot(common.HexToAddress(payerAddress)): common.BigToHash(big.NewInt(1e9)),
		}},
		multicall3:                         {Code: artifact(t, "Multicall3")},
		common.HexToAddress(signerAddress): coin,
		owner:                              coin,
		common.HexToAddress(payerAddress):  coin,
	}
	for _, c := range change {
		c(alloc)
	}
	dir, err := os.MkdirTemp("", "chain") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "ipc")
	backend := simulated.NewBackend(alloc, func(n *gethnode.Config, e *ethconfig.Config) {
		e.Genesis.Config = devchain.ChainRules()
		n.IPCPath = socket
	})
	t.Cleanup(func() { _ = backend.Close() })
	client, err := rpc.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	c := &testChain{t: t, backend: backend, client: client, pool: caddy.NewUsagePool()}
	c.seal()
	return c
}

// balanceSlot is where the test token keeps a balance.
func balanceSlot(a common.Address) common.Hash {
	return crypto.Keccak256Hash(common.LeftPadBytes(a[:], 32), common.BigToHash(big.NewInt(2)).Bytes())
}

func (c *testChain) seal() {
	c.t.Helper()
	c.move(func() error { c.backend.Commit(); return nil })
}

// pass makes blocks, the first one so much later.
func (c *testChain) pass(d time.Duration, blocks int) {
	c.t.Helper()
	c.move(func() error { return c.backend.AdjustTime(d) })
	for range blocks - 1 {
		c.seal()
	}
}

// fork makes the chain forget what came after a block.
func (c *testChain) fork(parent common.Hash) {
	c.t.Helper()
	c.move(func() error { return c.backend.Fork(parent) })
}

// move gives the chain another last block. Whoever asks for the time meanwhile gets that of
// the new block, so that nobody sees a block of the future.
func (c *testChain) move(change func() error) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := change(); err != nil {
		c.t.Errorf("the chain does not move: %v", err)
	}
	c.head = time.Unix(int64(must(c.backend.Client().HeaderByNumber(context.Background(), nil)).Time), 0)
}

// now does not ask the node: many wait at once, and all of them look at the clock.
func (c *testChain) now() time.Time {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.head.Add(c.skew)
}

func (c *testChain) sleep(ctx context.Context, _ time.Duration) error {
	if c.asleep != nil {
		c.asleep()
	}
	if c.idle {
		return facilitator.Sleep(ctx, 10*time.Millisecond) // a look each millisecond is all that the machine can do
	}
	c.seal()
	return ctx.Err()
}

// start makes a facilitator on the chain. Its node is not on loopback, so that
// the chain counts as a real one.
func (c *testChain) start(network string, change ...func(*Network)) (*Facilitator, *observer.ObservedLogs) {
	c.t.Helper()
	n := &Network{RPC: []string{"https://node.example/v2/secret-api-key"}}
	for _, f := range change {
		f(n)
	}
	return startIn(c.t, network, n, c.surroundings())
}

// startAllowing is start with factories that may make wallets.
func (c *testChain) startAllowing(network string, factories ...string) (*Facilitator, *observer.ObservedLogs) {
	c.t.Helper()
	return startIn(c.t, network, &Network{RPC: []string{"https://node.example/v2/secret-api-key"}}, c.surroundings(), factories...)
}

// surroundings make a facilitator settle on this chain.
func (c *testChain) surroundings() surroundings {
	return surroundings{c.now, c.sleep, keepOpen{c.client}, c.pool}
}

// keepOpen lends the chain's own client.
type keepOpen struct{ *rpc.Client }

func (keepOpen) Close() {}

// transact sends a transaction of somebody and returns its hash.
func (c *testChain) transact(key *ecdsa.PrivateKey, to common.Address, data []byte, tip int64) common.Hash {
	c.t.Helper()
	ctx := context.Background()
	client := c.backend.Client()
	number := must(client.PendingNonceAt(ctx, crypto.PubkeyToAddress(key.PublicKey)))
	tx := types.MustSignNewTx(key, types.LatestSignerForChainID(big.NewInt(84532)), &types.DynamicFeeTx{
		ChainID: big.NewInt(84532), Nonce: number, GasTipCap: big.NewInt(tip), GasFeeCap: big.NewInt(tip + 10e9),
		Gas: 500_000, To: &to, Data: data,
	})
	c.send(tx)
	return tx.Hash()
}

// send sends a transaction and waits until the next block would take it. The node's
// pool learns of a block a moment after it is made, until then it may refuse a payer who
// has his coins from that block; and it sorts a transaction in a moment after it is sent.
func (c *testChain) send(tx *types.Transaction) {
	c.t.Helper()
	ctx, client := context.Background(), c.backend.Client()
	sender := must(types.Sender(types.LatestSignerForChainID(tx.ChainId()), tx))
	var refused error
	for sent, tries := false, 0; tries < 5000; tries++ {
		if !sent {
			refused = client.SendTransaction(ctx, tx)
			sent = refused == nil
		}
		if sent && must(client.PendingNonceAt(ctx, sender)) > tx.Nonce() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	c.t.Errorf("the pool does not take a transaction: %v", refused)
}

// blockOf is where a transaction is.
func (c *testChain) blockOf(hash common.Hash) facilitator.Block {
	c.t.Helper()
	r, err := c.backend.Client().TransactionReceipt(context.Background(), hash)
	if err != nil {
		c.t.Fatal(err)
	}
	return facilitator.Block{Number: r.BlockNumber.Uint64(), Hash: r.BlockHash.Hex()}
}

// as the owner of the token calls it.
func (c *testChain) owner(signature string, args ...[]byte) {
	c.t.Helper()
	data := crypto.Keccak256([]byte(signature))[:4]
	for _, a := range args {
		data = append(data, common.LeftPadBytes(a, 32)...)
	}
	c.transact(ownerKey, token, data, 1e9)
	c.seal()
}

// balance is what an account has of the token.
func (c *testChain) balance(a string) int64 {
	c.t.Helper()
	data, _ := chain.Contracts.Pack("balanceOf", common.HexToAddress(a))
	var out hexutil.Bytes
	if err := c.client.Call(&out, "eth_call", map[string]any{"to": token, "data": hexutil.Bytes(data)}, "latest"); err != nil {
		c.t.Fatal(err)
	}
	return new(big.Int).SetBytes(out).Int64()
}

// transactions is how many of the signer are in blocks.
func (c *testChain) transactions() uint64 {
	c.t.Helper()
	return must(c.backend.Client().NonceAt(context.Background(), common.HexToAddress(signerAddress), nil))
}

// order is a payment to be signed. Its zero value, filled up by sign, is a good
// one.
type order struct {
	version       int
	from          *ecdsa.PrivateKey
	account       common.Address // that pays, if not the key's
	to            string
	asset         string
	value         string
	name          string
	version712    string // of the token's domain
	after, before int64  // relative to now
	nonce         byte
	change        func(signature []byte) []byte
}

// sign makes the request for a payment, as clients do.
func (c *testChain) sign(o order) facilitator.Request {
	c.t.Helper()
	return o.sign(c.t, c.now().Add(-c.skew).Unix())
}

// sign makes the request for a payment that is signed at some time.
func (o order) sign(t testing.TB, now int64) facilitator.Request {
	t.Helper()
	fill := func(s *string, otherwise string) {
		if *s == "" {
			*s = otherwise
		}
	}
	fill(&o.to, payee)
	fill(&o.asset, usdc)
	fill(&o.value, "10000")
	fill(&o.name, "USDC")
	fill(&o.version712, "2")
	if o.from == nil {
		o.from = payerECDSA
	}
	if o.before == 0 {
		o.before = 300
	}
	if o.account == (common.Address{}) {
		o.account = crypto.PubkeyToAddress(o.from.PublicKey)
	}
	transfer := eip712.Transfer{
		From: o.account, To: common.HexToAddress(o.to), Value: *uint256.MustFromDecimal(o.value),
		ValidBefore: uint64(now + o.before), Nonce: [32]byte{0: 1, 31: o.nonce},
	}
	if o.after != 0 {
		transfer.ValidAfter = uint64(now + o.after)
	}
	digest := eip712.NewDomain(o.name, o.version712, 84532, common.HexToAddress(o.asset)).TransferDigest(&transfer)
	signature := must(crypto.Sign(digest[:], o.from))
	signature[64] += 27
	if o.change != nil {
		signature = o.change(signature)
	}
	r := x402.Requirement{
		Scheme: "exact", Network: baseSepolia, Amount: o.value, Asset: o.asset, PayTo: o.to, MaxTimeoutSeconds: 300,
		Extra: must(json.Marshal(map[string]string{"name": o.name, "version": o.version712})),
	}
	payload := map[string]any{"signature": hexutil.Encode(signature), "authorization": map[string]any{
		"from": transfer.From, "to": o.to, "value": o.value, "nonce": common.Hash(transfer.Nonce),
		"validAfter": uint256.NewInt(transfer.ValidAfter).Dec(), "validBefore": uint256.NewInt(transfer.ValidBefore).Dec(),
	}}
	if o.version == 1 {
		return request(t, must(json.Marshal(map[string]any{"x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": payload})), r)
	}
	return request(t, must(json.Marshal(map[string]any{"x402Version": 2, "accepted": r, "payload": payload})), r)
}

// calldata is what settles a payment, for whoever likes to.
func calldata(t testing.TB, r facilitator.Request) []byte {
	t.Helper()
	p, err := read(r)
	if err != nil {
		t.Fatal(err)
	}
	_, data := p.encoded()
	return data
}

// onBase is a payment on Base, which the test chain is not.
func onBase(t testing.TB, before int64, r x402.Requirement) facilitator.Request {
	t.Helper()
	transfer := eip712.Transfer{
		From: crypto.PubkeyToAddress(payerECDSA.PublicKey), To: common.HexToAddress(r.PayTo), Value: *uint256.MustFromDecimal(r.Amount),
		ValidBefore: uint64(before),
	}
	digest := eip712.NewDomain("USDC", "2", 8453, common.HexToAddress(r.Asset)).TransferDigest(&transfer)
	signature := must(crypto.Sign(digest[:], payerECDSA))
	r.Network = "eip155:8453"
	return request(t, must(json.Marshal(map[string]any{"x402Version": 2, "accepted": r, "payload": map[string]any{
		"signature": hexutil.Encode(signature), "authorization": map[string]any{
			"from": payerAddress, "to": r.PayTo, "value": r.Amount, "nonce": common.Hash{},
			"validAfter": "0", "validBefore": uint256.NewInt(transfer.ValidBefore).Dec(),
		},
	}})), r)
}

// cancel has the payer cancel an authorization.
func (c *testChain) cancel(r facilitator.Request) {
	c.t.Helper()
	p, err := read(r)
	if err != nil {
		c.t.Fatal(err)
	}
	domain := eip712.NewDomain("USDC", "2", 84532, token)
	message := crypto.Keccak256(
		crypto.Keccak256([]byte("CancelAuthorization(address authorizer,bytes32 nonce)")), common.LeftPadBytes(p.From[:], 32), p.Nonce[:])
	signature := must(crypto.Sign(crypto.Keccak256([]byte{0x19, 1}, domain[:], message), payerECDSA))
	data := crypto.Keccak256([]byte("cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)"))[:4]
	data = appendAddress(data, p.From)
	data = append(data, p.Nonce[:]...)
	data = appendUint(data, uint64(signature[64]+27))
	data = append(data, signature[:64]...)
	c.transact(ownerKey, token, data, 1e9)
	c.seal()
}
