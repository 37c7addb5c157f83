package evm

import (
	"bytes"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// wallet is a contract that pays, and factory one that makes such contracts.
var (
	wallet  = walletOf(walletHonest)
	factory = common.HexToAddress("0xfac7000000000000000000000000000000000001")
)

// The modes of the contract BadWallet.
const (
	walletHonest = iota
	walletSaysYes
	walletOnlySimulated
	walletUntilClosed
	walletBurnsGas
	walletReturnsMuch
	walletRevertsMuch
	walletReturnsShort
	walletReturnsDirty
)

// rich gives an account test dollars in the first block.
func rich(account common.Address) func(types.GenesisAlloc) {
	return func(a types.GenesisAlloc) {
		a[token].Storage[balanceSlot(account)] = common.BigToHash(big.NewInt(1e9))
	}
}

// walletOf is where the wallet is that behaves like this.
func walletOf(mode int) common.Address {
	return common.BigToAddress(big.NewInt(0x7a11e70000 + int64(mode)))
}

// withWallets puts contract wallets of the payer's key into the first block, one of
// each mode.
func withWallets(t testing.TB) func(types.GenesisAlloc) {
	return func(a types.GenesisAlloc) {
		for mode := walletHonest; mode <= walletReturnsDirty; mode++ {
			at := walletOf(mode)
			a[at] = types.Account{Code: artifact(t, "BadWallet"), Storage: map[common.Hash]common.Hash{
				slotHash(0): chain.AddressTopic(common.HexToAddress(payerAddress)), slotHash(1): slotHash(int64(mode)),
			}}
			rich(at)(a)
			allows(token, at)(a)
		}
	}
}

func slotHash(n int64) common.Hash { return common.BigToHash(big.NewInt(n)) }

// delegated gives the payer's own account the code of a wallet by EIP-7702, whose
// owner is somebody.
func delegated(t testing.TB, owner common.Address) func(types.GenesisAlloc) {
	return func(a types.GenesisAlloc) {
		to := common.HexToAddress("0xde1e000000000000000000000000000000000001")
		a[to] = types.Account{Code: artifact(t, "TestWallet")}
		payer := common.HexToAddress(payerAddress)
		a[payer] = types.Account{
			Balance: big.NewInt(1e18), Code: types.AddressToDelegation(to), Storage: map[common.Hash]common.Hash{{}: chain.AddressTopic(owner)},
		}
		allows(token, payer)(a)
	}
}

// wrap6492 makes an ERC-6492 signature.
func wrap6492(factory common.Address, data []byte) func([]byte) []byte {
	return func(signature []byte) []byte {
		return append(must(wrapped6492.Pack(factory, data, signature)), magic6492...)
	}
}

// pad makes a signature longer than an account's.
func pad(s []byte) []byte { return append(s, "from a wallet"...) }

// createCall has the factory make the wallet of an owner, and madeBy is where.
func createCall(owner common.Address) []byte {
	return append(crypto.Keccak256([]byte("create(address)"))[:4], common.LeftPadBytes(owner[:], 32)...)
}

func madeBy(t testing.TB, owner common.Address) common.Address {
	t.Helper()
	code := append(artifactCreation(t, "TestWallet"), common.LeftPadBytes(owner[:], 32)...)
	return crypto.CreateAddress2(factory, [32]byte{}, crypto.Keccak256(code))
}

// TestWalletsOnChain: who has code pays as its code says, in every way.
func TestWalletsOnChain(t *testing.T) {
	payer := common.HexToAddress(payerAddress)
	const sig = "invalid_exact_evm_signature"
	type one struct {
		account common.Address // that pays
		change  func([]byte) []byte
		verify  string // reason for EIP-3009; "" is valid
	}
	forge := func(s []byte) []byte { s[5]++; return s }
	nobody := common.HexToAddress("0x4444000000000000000000000000000000000004")
	for world, tt := range map[string]struct {
		genesis func(types.GenesisAlloc)
		ones    map[string]one
	}{
		"wallets": {withWallets(t), map[string]one{
			"honest":                      {account: wallet},
			"a longer signature":          {account: wallet, change: pad},
			"high s":                      {account: wallet, change: highS},
			"in a wrapper":                {account: wallet, change: wrap6492(factory, []byte{1})},
			"forged":                      {account: wallet, change: forge, verify: sig},
			"takes everything":            {account: walletOf(walletSaysYes), change: func([]byte) []byte { return bytes.Repeat([]byte{7}, 80) }},
			"only simulated":              {account: walletOf(walletOnlySimulated), verify: string(codeSimulation)},
			"burns gas":                   {account: walletOf(walletBurnsGas), verify: sig},
			"returns a mebibyte":          {account: walletOf(walletReturnsMuch), verify: sig},
			"reverts with a mebibyte":     {account: walletOf(walletRevertsMuch), verify: sig},
			"returns four bytes":          {account: walletOf(walletReturnsShort), verify: sig},
			"returns more than the yes":   {account: walletOf(walletReturnsDirty), verify: sig},
			"no code, a longer signature": {account: payer, change: pad, verify: sig},
			"no code, a broken wrapper":   {account: payer, change: func(s []byte) []byte { return append(s, magic6492...) }, verify: sig},
			"no code, another key":        {account: nobody, verify: sig},
			"not made yet":                {account: nobody, change: wrap6492(factory, []byte{1}), verify: string(codeFactory)},
		}},
		"EIP-7702, the account's own key": {delegated(t, payer), map[string]one{
			"plain":        {account: payer},
			"high s":       {account: payer, change: highS}, // the wallet is lax
			"forged":       {account: payer, change: forge, verify: sig},
			"in a wrapper": {account: payer, change: wrap6492(factory, nil)},
		}},
		"EIP-7702, another owner": {delegated(t, common.HexToAddress(payee)), map[string]one{"plain": {account: payer, verify: sig}}},
	} {
		t.Run(world, func(t *testing.T) {
			c := startChain(t, withPermit2(t), tt.genesis)
			f, _ := c.start("base-sepolia")
			nonce := byte(0)
			for name, o := range tt.ones {
				for _, way := range []string{"EIP-3009", "Permit2", "upto"} {
					nonce++
					t.Run(name+"/"+way, func(t *testing.T) {
						r := c.sign(order{account: o.account, change: o.change, nonce: nonce})
						toSettle, reason := r, o.verify
						if way != "EIP-3009" {
							r, toSettle = c.permit(permitOrder{account: o.account, change: o.change, upto: way == "upto", nonce: nonce})
							reason = strings.ReplaceAll(reason, sig, string(x402.CodePermit2Signature))
							reason = strings.ReplaceAll(reason, string(codeSimulation), string(codePermit2Simulation))
						}
						before, sent := c.balance(payee), c.transactions()
						if reason != "" {
							refusedBoth(t, f, toSettle, x402.Code(reason))
							if c.transactions() != sent {
								t.Error("a transaction was sent")
							}
							return
						}
						if v, err := f.Verify(during(t, 5*time.Minute), r); err != nil || !v.Valid || v.Payer != o.account.Hex() {
							t.Fatalf("verify: %+v, %v", v, err)
						}
						for range 2 {
							if s := f.Settle(during(t, 5*time.Minute), toSettle); s.Outcome != facilitator.Settled {
								t.Fatalf("settle: %+v", s)
							}
						}
						if c.balance(payee)-before != 10000 || c.transactions() != sent+1 {
							t.Errorf("%d moved, %d transactions", c.balance(payee)-before, c.transactions()-sent)
						}
					})
				}
			}
		})
	}
}

// TestWalletChangesItsMind: a wallet that takes the signature when it is looked
// at, and not any more in the block, costs gas, as often as we let it, and no
// money. Honest payers do not notice.
func TestWalletChangesItsMind(t *testing.T) {
	c := startChain(t, withWallets(t))
	f, _ := c.start("base-sepolia")
	wallet := walletOf(walletUntilClosed)
	closeIt := crypto.Keccak256([]byte("close()"))[:4]
	open := func() {
		c.transact(ownerKey, wallet, crypto.Keccak256([]byte("open()"))[:4], 1e9)
		c.seal()
	}
	before := c.coins(signerAddress)
	reverted := 0
	for i := range byte(6) {
		r := c.sign(order{account: wallet, nonce: i})
		if v, err := f.Verify(during(t, 5*time.Minute), r); err != nil || v.Valid != (reverted < maxReverts) || !v.Valid && v.Reason != string(codeReverts) {
			t.Fatalf("%d: verify: %+v, %v", i, v, err)
		}
		c.asleep = func() { // our transaction is in the pool now
			c.asleep = nil
			c.transact(ownerKey, wallet, closeIt, 50e9)
		}
		s := f.Settle(during(t, 5*time.Minute), r)
		c.asleep = nil
		switch {
		case reverted < maxReverts && s.Outcome == facilitator.Unknown && s.Reason == string(codeTransaction) && s.Transaction != "":
			reverted++
		case reverted == maxReverts && s.Outcome == facilitator.Refused && s.Reason == string(codeReverts):
		default:
			t.Fatalf("%d: settle: %+v", i, s)
		}
		open()
	}
	if c.transactions() != maxReverts || c.balance(payee) != 0 {
		t.Errorf("%d transactions, %d moved", c.transactions(), c.balance(payee))
	}
	limit := new(big.Int).Mul(big.NewInt(maxReverts*(transferGas+defaultWalletGas)), big.NewInt(100e9))
	if spent := before.Sub(before, c.coins(signerAddress)); spent.Cmp(limit) > 0 {
		t.Errorf("%s were spent on gas", spent)
	}
	if s := f.Settle(during(t, 5*time.Minute), c.sign(order{nonce: 99})); s.Outcome != facilitator.Settled {
		t.Errorf("an honest payer: %+v", s)
	}
}

// TestFactoriesOnChain: a payer whose wallet does not exist yet.
func TestFactoriesOnChain(t *testing.T) {
	payer := common.HexToAddress(payerAddress)
	born := madeBy(t, payer)
	with := func(a types.GenesisAlloc) {
		a[factory] = types.Account{Code: artifact(t, "WalletFactory")}
		rich(born)(a)
		allows(token, born)(a)
	}
	paying := func(c *testChain) facilitator.Request {
		return c.sign(order{account: born, change: wrap6492(factory, createCall(payer))})
	}
	t.Run("allowed", func(t *testing.T) {
		t.Parallel()
		c := startChain(t, withPermit2(t), with)
		f, _ := c.startAllowing("base-sepolia", factory.Hex())
		r := paying(c)
		verify(t, f, r)
		for range 2 {
			if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled || s.Payer != born.Hex() {
				t.Fatalf("%+v", s)
			}
		}
		if c.balance(payee) != 10000 || c.transactions() != 1 || len(must(c.backend.Client().CodeAt(t.Context(), born, nil))) == 0 {
			t.Errorf("%d moved, %d transactions", c.balance(payee), c.transactions())
		}
		// From now on it is a wallet like any other, in its wrapper or without.
		for i, change := range []func([]byte) []byte{wrap6492(factory, createCall(payer)), nil} {
			r := c.sign(order{account: born, nonce: byte(1 + i), change: change})
			if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled {
				t.Errorf("%d: %+v", i, s)
			}
		}
	})
	t.Run("somebody makes it in the same block", func(t *testing.T) {
		t.Parallel()
		c := startChain(t, with)
		f, _ := c.startAllowing("base-sepolia", factory.Hex())
		c.asleep = func() {
			c.asleep = nil
			c.transact(ownerKey, factory, createCall(payer), 50e9)
		}
		if s := f.Settle(during(t, 5*time.Minute), paying(c)); s.Outcome != facilitator.Settled || c.transactions() != 1 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("Permit2", func(t *testing.T) {
		t.Parallel()
		// Who does not exist has approved nothing, whatever a test writes into a token.
		c := startChain(t, withPermit2(t), with)
		f, _ := c.startAllowing("base-sepolia", factory.Hex())
		r, _ := c.permit(permitOrder{account: born, change: wrap6492(factory, createCall(payer))})
		refusedBoth(t, f, r, codeFactory)
	})
	t.Run("no Multicall3", func(t *testing.T) {
		t.Parallel()
		c := startChain(t, with, func(a types.GenesisAlloc) { delete(a, multicall3) })
		f, _ := c.startAllowing("base-sepolia", factory.Hex())
		refusedBoth(t, f, paying(c), codeFactory)
	})
	bad := map[string]struct {
		factory common.Address
		data    []byte
	}{
		"it makes another wallet": {factory, createCall(common.HexToAddress(payee))},
		"it does nothing":         {factory, []byte{1, 2, 3, 4}},
		// The operator has allowed what should never be.
		"it is the token, and approves":           {token, bytesOf("approve(address,uint256)", common.HexToAddress(payee).Bytes(), common.MaxHash[:])},
		"it is anything, and moves the gas money": {factory, callOf(token, bytesOf("transfer(address,uint256)", common.FromHex(payee), common.Big1.Bytes()))},
		"it burns gas": {walletOf(walletBurnsGas), chain.Pack("isValidSignature", [32]byte{}, []byte{})},
	}
	for name, b := range bad {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startChain(t, withWallets(t), with, rich(common.HexToAddress(signerAddress)))
			f, _ := c.startAllowing("base-sepolia", b.factory.Hex())
			r := c.sign(order{account: born, change: wrap6492(b.factory, b.data)})
			refusedBoth(t, f, r, codeSimulation)
			// Even if it were sent, we are not the one who calls.
			p := must(read(r))
			p.signer = byFactory
			to, data := p.encoded()
			var out hexutil.Bytes
			err := c.client.Call(&out, "eth_call", map[string]any{"from": signerAddress, "to": to, "gas": hexutil.Uint64(p.gas()), "data": hexutil.Bytes(data)}, "latest")
			if err == nil || c.transactions() != 0 || c.balance(signerAddress) != 1e9 {
				t.Errorf("%v, %d transactions", err, c.transactions())
			}
		})
	}
	t.Run("the factory pays another payment of the same payer", func(t *testing.T) {
		t.Parallel()
		// In the call that makes the wallet the payer has somebody use another
		// authorization. One transaction, two payments, each proven by its own events.
		c := startChain(t, with)
		f, _ := c.startAllowing("base-sepolia", factory.Hex())
		other := c.sign(order{nonce: 50})
		_, data := must(read(other)).encoded()
		both := chain.Pack("tryAggregate", true, []call3{{factory, createCall(payer)}, {token, data}})
		r := c.sign(order{account: born, change: wrap6492(factory, callOf(multicall3, both))})
		if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled {
			t.Errorf("%+v", s)
		}
		if c.balance(payee) != 20000 || c.transactions() != 1 {
			t.Errorf("%d moved, %d transactions", c.balance(payee), c.transactions())
		}
	})
}

// bytesOf encodes a call whose arguments are one word each.
func bytesOf(signature string, words ...[]byte) []byte {
	data := crypto.Keccak256([]byte(signature))[:4]
	for _, w := range words {
		data = append(data, common.LeftPadBytes(w, 32)...)
	}
	return data
}

// callOf has the factory call something else.
func callOf(to common.Address, data []byte) []byte {
	b := append(crypto.Keccak256([]byte("call(address,bytes)"))[:4], common.LeftPadBytes(to[:], 32)...)
	b = appendUint(b, 64)
	return appendBytes(b, data)
}

// TestForgedCopies: a payment that its payer has not signed is not in the way of the
// one that is, before it, at the same time, or after it.
func TestForgedCopies(t *testing.T) {
	c := startChain(t, withPermit2(t), withWallets(t), allows(token, common.HexToAddress(payerAddress)))
	f, _ := c.start("base-sepolia")
	forge := func(s []byte) []byte { s[5]++; return s }
	permit := func(change func([]byte) []byte) facilitator.Request {
		r, _ := c.permit(permitOrder{before: 1e6, nonce: 7, change: change})
		return r
	}
	for name, pair := range map[string][2]facilitator.Request{
		"EIP-3009": {c.sign(order{before: 1e6}), c.sign(order{before: 1e6, change: forge})},
		"wallet":   {c.sign(order{before: 1e6, account: wallet}), c.sign(order{before: 1e6, account: wallet, change: forge})},
		"Permit2":  {permit(nil), permit(forge)},
	} {
		good, forged := pair[0], pair[1]
		if s := f.Settle(during(t, 5*time.Minute), forged); s.Outcome != facilitator.Refused {
			t.Errorf("%s, before: %+v", name, s)
		}
		sent := c.transactions()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if s := f.Settle(during(t, 5*time.Minute), forged); s.Outcome != facilitator.Refused && s.Outcome != facilitator.Unknown {
					t.Errorf("%s, forged: %+v", name, s)
				}
			})
			wg.Go(func() {
				if s := f.Settle(during(t, 5*time.Minute), good); s.Outcome != facilitator.Settled {
					t.Errorf("%s, good: %+v", name, s)
				}
			})
		}
		wg.Wait()
		// Nothing has moved by this copy, and yet by its nonce.
		if s := f.Settle(during(t, 5*time.Minute), forged); s.Outcome != facilitator.Unknown {
			t.Errorf("%s, after: %+v", name, s)
		}
		if c.transactions() != sent+1 {
			t.Errorf("%s: %d transactions", name, c.transactions()-sent)
		}
	}
}
