package evm

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"math/big"
	"os"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/eip712"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// tether is a token with nothing but ERC-20.
var tether = common.HexToAddress("0xeED520980fC7C7B4eB379B96d61CEdea2423005a")

// withPermit2 puts Permit2 and the proxies into the first block, and a second
// token, of which the payer has some.
func withPermit2(t testing.TB) func(types.GenesisAlloc) {
	t.Helper()
	b, err := os.ReadFile("../../devchain/contracts/code.json")
	if err != nil {
		t.Fatal(err)
	}
	var code map[string]hexutil.Bytes
	if err := json.Unmarshal(b, &code); err != nil {
		t.Fatal(err)
	}
	return func(a types.GenesisAlloc) {
		a[eip712.Permit2] = types.Account{Code: code["Permit2"]}
		a[exactProxy] = types.Account{Code: code["ExactPermit2Proxy"]}
		a[uptoProxy] = types.Account{Code: code["UptoPermit2Proxy"]}
		a[tether] = types.Account{Code: code["TestTether"], Storage: map[common.Hash]common.Hash{
			balanceSlot(common.HexToAddress(payerAddress)): common.BigToHash(big.NewInt(1e9)),
		}}
	}
}

// allows lets Permit2 move as much of a token as it likes.
func allows(token, owner common.Address) func(types.GenesisAlloc) {
	return func(a types.GenesisAlloc) {
		account := a[token]
		account.Storage[allowanceSlot(owner, eip712.Permit2)] = common.MaxHash
		a[token] = account
	}
}

// allowanceSlot is where the test tokens keep an allowance.
func allowanceSlot(owner, spender common.Address) common.Hash {
	of := crypto.Keccak256(common.LeftPadBytes(owner[:], 32), common.BigToHash(big.NewInt(3)).Bytes())
	return crypto.Keccak256Hash(common.LeftPadBytes(spender[:], 32), of)
}

// poor takes the payer's own coin away: what it pays for must be on us.
func poor(a types.GenesisAlloc) { delete(a, common.HexToAddress(payerAddress)) }

// permitOrder is a Permit2 payment to be signed. Its zero value, filled up by
// permit, is a good one of exact.
type permitOrder struct {
	upto          bool
	charge        string // of upto, when it is settled; else all
	from          *ecdsa.PrivateKey
	account       common.Address // that pays, if not the key's
	to, asset     string
	amount        string
	facilitator   string
	spender       string
	after, before int64 // relative to now
	nonce         byte
	extensions    map[string]any
	change        func(signature []byte) []byte
	bend          func(authorization map[string]any)
}

// permit makes the request for a payment, as clients do: what is verified, and
// what is settled.
func (c *testChain) permit(o permitOrder) (verified, settled facilitator.Request) {
	c.t.Helper()
	fill := func(s *string, otherwise string) {
		if *s == "" {
			*s = otherwise
		}
	}
	fill(&o.to, payee)
	fill(&o.asset, usdc)
	fill(&o.amount, "10000")
	fill(&o.facilitator, signerAddress)
	proxy, scheme := x402.ExactPermit2Proxy, "exact"
	if o.upto {
		proxy, scheme = x402.UptoPermit2Proxy, "upto"
	}
	fill(&o.spender, proxy)
	fill(&o.charge, o.amount)
	if o.from == nil {
		o.from = payerECDSA
	}
	if o.account == (common.Address{}) {
		o.account = crypto.PubkeyToAddress(o.from.PublicKey)
	}
	if o.before == 0 {
		o.before = 300
	}
	now := c.now().Add(-c.skew).Unix()
	p := eip712.Permit{
		From: o.account, Token: common.HexToAddress(o.asset), Spender: common.HexToAddress(o.spender), To: common.HexToAddress(o.to),
		Facilitator: common.HexToAddress(o.facilitator), Upto: o.upto,
		Amount: *uint256.MustFromDecimal(o.amount), Nonce: *uint256.NewInt(1<<20 + uint64(o.nonce)), Deadline: uint64(now + o.before),
	}
	if o.after != 0 {
		p.ValidAfter = uint64(now + o.after)
	}
	digest := eip712.Permit2Domain(84532).PermitDigest(&p)
	signature := must(crypto.Sign(digest[:], o.from))
	signature[64] += 27
	if o.change != nil {
		signature = o.change(signature)
	}
	extra := map[string]string{"name": "USDC", "version": "2", "assetTransferMethod": "permit2"}
	witness := map[string]any{"to": o.to, "validAfter": uint256.NewInt(p.ValidAfter).Dec()}
	if o.upto {
		extra["facilitatorAddress"], witness["facilitator"] = o.facilitator, o.facilitator
	}
	r := x402.Requirement{
		Scheme: scheme, Network: baseSepolia, Amount: o.amount, Asset: o.asset, PayTo: o.to, MaxTimeoutSeconds: 300,
		Extra: must(json.Marshal(extra)),
	}
	authorization := map[string]any{
		"from": o.account, "permitted": map[string]any{"token": o.asset, "amount": o.amount}, "spender": o.spender,
		"nonce": p.Nonce.Dec(), "deadline": uint256.NewInt(p.Deadline).Dec(), "witness": witness,
	}
	if o.bend != nil {
		o.bend(authorization)
	}
	payload := map[string]any{"x402Version": 2, "accepted": r, "payload": map[string]any{
		"signature": hexutil.Encode(signature), "permit2Authorization": authorization,
	}}
	if o.extensions != nil {
		payload["extensions"] = o.extensions
	}
	verified = request(c.t, must(json.Marshal(payload)), r)
	settled = verified
	settled.Requirement.Amount = o.charge
	return verified, settled
}

// of is what an account has of a token.
func (c *testChain) of(token common.Address, account string) int64 {
	c.t.Helper()
	var out hexutil.Bytes
	if err := c.client.Call(&out, "eth_call", map[string]any{"to": token, "data": hexutil.Bytes(pack("balanceOf", common.HexToAddress(account)))}, "latest"); err != nil {
		c.t.Fatal(err)
	}
	return new(big.Int).SetBytes(out).Int64()
}

func TestSettlePermit2OnChain(t *testing.T) {
	payer := common.HexToAddress(payerAddress)
	c := startChain(t, withPermit2(t), allows(token, payer), allows(tether, payer))
	f, logs := c.start("base-sepolia")
	n := byte(0)
	for name, tt := range map[string]struct {
		order permitOrder
		moves int64
	}{
		"exact":                        {permitOrder{}, 10000},
		"exact, v of 0 or 1":           {permitOrder{change: func(s []byte) []byte { s[64] -= 27; return s }}, 10000},
		"exact, any token":             {permitOrder{asset: tether.Hex()}, 10000},
		"exact, begins in the past":    {permitOrder{after: -600}, 10000},
		"upto, all of it":              {permitOrder{upto: true, amount: "500000"}, 500000},
		"upto, less":                   {permitOrder{upto: true, amount: "500000", charge: "123456"}, 123456},
		"upto, the least":              {permitOrder{upto: true, amount: "500000", charge: "1", asset: tether.Hex()}, 1},
		"upto, all that the payer has": {permitOrder{upto: true, amount: "900000000", charge: "7"}, 7},
	} {
		n++
		tt.order.nonce = n
		t.Run(name, func(t *testing.T) {
			r, toSettle := c.permit(tt.order)
			if v, err := f.Verify(during(t, time.Minute), r); err != nil || !v.Valid || v.Payer != payerAddress {
				t.Fatalf("verify: %+v, %v", v, err)
			}
			asset := common.HexToAddress(r.Requirement.Asset)
			before, sent := c.of(asset, payee), c.transactions()
			var first facilitator.Settlement
			for i := range 3 { // the second and third are repeats
				s := f.Settle(during(t, time.Minute), toSettle)
				if s.Outcome != facilitator.Settled || s.Payer != payerAddress || s.Network != baseSepolia {
					t.Fatalf("settle: %+v", s)
				}
				if want := toSettle.Requirement.Amount; tt.order.upto && s.Amount != want || !tt.order.upto && s.Amount != "" {
					t.Errorf("amount %q", s.Amount)
				}
				if i > 0 && s.Transaction != first.Transaction {
					t.Errorf("repeat: transaction %s, was %s", s.Transaction, first.Transaction)
				}
				first = s
			}
			if got := c.of(asset, payee) - before; got != tt.moves {
				t.Errorf("%d moved, want %d", got, tt.moves)
			}
			if got := c.transactions() - sent; got != 1 {
				t.Errorf("%d transactions", got)
			}
			if tt.order.upto {
				return // nobody else may settle it
			}
			// Another process has no memory of it: the chain has, and it proves
			// nothing.
			stranger, _ := c.start("base-sepolia", withKey(t, "7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6"))
			if v, err := stranger.Verify(during(t, time.Minute), r); err != nil || v.Reason != string(codePermit2Nonce) {
				t.Errorf("verify elsewhere: %+v, %v", v, err)
			}
			if s := stranger.Settle(during(t, time.Minute), r); s.Outcome != facilitator.Unknown {
				t.Errorf("settle elsewhere: %+v", s)
			}
		})
	}
	if text := logged(logs); text != "" {
		t.Errorf("log: %s", text)
	}
}

// TestUptoOnChain: what is charged is decided once.
func TestUptoOnChain(t *testing.T) {
	c := startChain(t, withPermit2(t), allows(token, common.HexToAddress(payerAddress)))
	f, _ := c.start("base-sepolia")
	settle := func(charge string, o permitOrder) facilitator.Settlement {
		o.upto, o.charge = true, charge
		_, r := c.permit(o)
		return f.Settle(during(t, time.Minute), r)
	}
	for charge, reason := range map[string]x402.Code{
		"10001": codeUptoExceeds, "115792089237316195423570985008687907853269984665640564039457584007913129639935": codeUptoExceeds,
		"": x402.CodePermit2Amount, "-1": x402.CodePermit2Amount, "+1": x402.CodePermit2Amount, "01": x402.CodePermit2Amount,
		"1.0": x402.CodePermit2Amount, "0x1": x402.CodePermit2Amount, "1e3": x402.CodePermit2Amount, " 1": x402.CodePermit2Amount,
		"115792089237316195423570985008687907853269984665640564039457584007913129639936": x402.CodePermit2Amount,
	} {
		_, r := c.permit(permitOrder{upto: true})
		r.Requirement.Amount = charge
		if s := f.Settle(during(t, time.Minute), r); s.Outcome != facilitator.Refused || s.Reason != string(reason) {
			t.Errorf("charge %q: %+v, want %s", charge, s, reason)
		}
	}
	// Nothing is charged, as often as one likes, and then the money is still there to
	// be charged.
	for range 2 {
		if s := settle("0", permitOrder{}); s.Outcome != facilitator.Settled || s.Transaction != "" || s.Amount != "0" || s.Payer != payerAddress {
			t.Errorf("nothing: %+v", s)
		}
	}
	if c.transactions() != 0 {
		t.Error("a transaction for nothing")
	}
	if s := settle("0", permitOrder{change: func(s []byte) []byte { s[5]++; return s }}); s.Outcome != facilitator.Refused || s.Reason != string(x402.CodePermit2Signature) {
		t.Errorf("nothing of a forged payment: %+v", s)
	}
	_, r := c.permit(permitOrder{upto: true})
	charge := func(amount string) facilitator.Settlement {
		r := r
		r.Requirement.Amount = amount
		return f.Settle(during(t, time.Minute), r)
	}
	first := charge("600")
	if first.Outcome != facilitator.Settled {
		t.Fatalf("%+v", first)
	}
	if s := charge("601"); s.Outcome != facilitator.Unknown || s.Reason != string(x402.CodeSettlementPending) {
		t.Errorf("another amount: %+v", s)
	}
	if s := charge("600"); s.Outcome != facilitator.Settled || s.Transaction != first.Transaction {
		t.Errorf("the same again: %+v", s)
	}
	if c.balance(payee) != 600 || c.transactions() != 1 {
		t.Errorf("%d moved in %d transactions", c.balance(payee), c.transactions())
	}
	other := permitOrder{nonce: 1, upto: true, facilitator: payerAddress}
	r, _ = c.permit(other)
	if v, err := f.Verify(during(t, time.Minute), r); err != nil || v.Reason != string(x402.CodeUptoFacilitator) {
		t.Errorf("another facilitator: %+v, %v", v, err)
	}
	if s := f.Settle(during(t, time.Minute), r); s.Outcome != facilitator.Refused || s.Reason != string(x402.CodeUptoFacilitator) {
		t.Errorf("another facilitator: %+v", s)
	}
}

// TestPermit2BadWorlds: what can be wrong with a Permit2 payment on the chain.
func TestPermit2BadWorlds(t *testing.T) {
	payer := common.HexToAddress(payerAddress)
	without := func(a common.Address) func(types.GenesisAlloc) {
		return func(alloc types.GenesisAlloc) { delete(alloc, a) }
	}
	for name, tt := range map[string]struct {
		genesis func(types.GenesisAlloc)
		world   func(*testChain, facilitator.Request)
		order   permitOrder
		reason  x402.Code
		unknown bool // when settled; else refused for the same reason
	}{
		"no allowance":   {order: permitOrder{asset: tether.Hex()}, reason: codePermit2Allowance},
		"no money":       {order: permitOrder{amount: "1000000001"}, reason: codePermit2Balance},
		"upto, no money": {order: permitOrder{upto: true, amount: "1000000001"}, reason: codePermit2Balance},
		"no proxy":       {genesis: without(exactProxy), reason: codePermit2Proxy},
		"no upto proxy":  {genesis: without(uptoProxy), order: permitOrder{upto: true}, reason: codePermit2Proxy},
		"no Permit2":     {genesis: without(eip712.Permit2), reason: codePermit2Simulation},
		"no token":       {order: permitOrder{asset: "0x1000000000000000000000000000000000000002"}, reason: codeAsset},
		"paused":         {world: func(c *testChain, _ facilitator.Request) { c.owner("pause()") }, reason: codePermit2Simulation},
		"payer blocked":  {world: func(c *testChain, _ facilitator.Request) { c.owner("blacklist(address)", payer[:]) }, reason: codePermit2Simulation},
		"payee blocked":  {world: func(c *testChain, _ facilitator.Request) { c.owner("blacklist(address)", common.FromHex(payee)) }, reason: codePermit2Simulation},
		"nonce used": {
			world:  func(c *testChain, r facilitator.Request) { c.transactCall(ownerKey, r); c.seal() },
			reason: codePermit2Nonce, unknown: true,
		},
		"nonce given up": {
			world:  func(c *testChain, r facilitator.Request) { c.giveUp(r) },
			reason: codePermit2Nonce, unknown: true,
		},
		"spender":          {order: permitOrder{spender: payee}, reason: x402.CodePermit2Spender},
		"the other proxy":  {order: permitOrder{spender: x402.UptoPermit2Proxy}, reason: x402.CodePermit2Spender},
		"ends too soon":    {order: permitOrder{before: 5}, reason: x402.CodePermit2Deadline},
		"not yet":          {order: permitOrder{after: 60}, reason: x402.CodePermit2NotYetValid},
		"high s":           {order: permitOrder{change: highS}, reason: x402.CodePermit2Signature},
		"payee is our own": {order: permitOrder{to: signerAddress}, reason: "503"},
	} {
		t.Run(name, func(t *testing.T) {
			genesis := []func(types.GenesisAlloc){withPermit2(t), allows(token, payer)}
			if tt.genesis != nil {
				genesis = append(genesis, tt.genesis)
			}
			c := startChain(t, genesis...)
			f, _ := c.start("base-sepolia")
			r, toSettle := c.permit(tt.order)
			if tt.world != nil {
				tt.world(c, r)
			}
			v, err := f.Verify(during(t, time.Minute), r)
			if tt.reason == "503" {
				if s := f.Settle(during(t, time.Minute), toSettle); err == nil || s.Outcome != facilitator.Unsent {
					t.Errorf("%+v, %+v", v, s)
				}
				return
			}
			if err != nil || v.Valid || v.Reason != string(tt.reason) {
				t.Errorf("verify: %+v, %v; want %s", v, err, tt.reason)
			}
			before := c.of(token, payee)
			s := f.Settle(during(t, time.Minute), toSettle)
			want := facilitator.Refused
			if tt.unknown {
				want = facilitator.Unknown
			}
			if s.Outcome != want || s.Reason != string(tt.reason) {
				t.Errorf("settle: %+v", s)
			}
			if c.of(token, payee) != before || c.transactions() != 0 {
				t.Error("something was sent")
			}
		})
	}
}

// highS is the other signature that ECDSA has for the same.
func highS(s []byte) []byte {
	p := eipOrder()
	p.Sub(p, common.BytesToHash(s[32:64]).Big()).FillBytes(s[32:64])
	s[64] ^= 7
	return s
}

// transactCall has somebody send what settles a payment, without sealing it.
func (c *testChain) transactCall(key *ecdsa.PrivateKey, r facilitator.Request) common.Hash {
	c.t.Helper()
	p, err := read(r)
	if err != nil {
		c.t.Fatal(err)
	}
	to, data := p.encoded()
	return c.transact(key, to, data, 1e9)
}

// giveUp has the payer give up the nonce of a payment.
func (c *testChain) giveUp(r facilitator.Request) common.Hash {
	c.t.Helper()
	p, err := read(r)
	if err != nil {
		c.t.Fatal(err)
	}
	nonce := new(big.Int).SetBytes(p.nonce[:])
	data := crypto.Keccak256([]byte("invalidateUnorderedNonces(uint256,uint256)"))[:4]
	data = append(data, common.LeftPadBytes(new(big.Int).Rsh(nonce, 8).Bytes(), 32)...)
	mask := new(big.Int).Lsh(common.Big1, uint(nonce.Uint64()&0xff))
	hash := c.transact(payerECDSA, eip712.Permit2, append(data, common.LeftPadBytes(mask.Bytes(), 32)...), 1e9)
	c.seal()
	return hash
}

// TestPermit2FrontRun: a stranger sends a payment before us. The payer has paid.
func TestPermit2FrontRun(t *testing.T) {
	payer := common.HexToAddress(payerAddress)
	start := func(t *testing.T) (*testChain, *Facilitator, facilitator.Request) {
		c := startChain(t, withPermit2(t), allows(token, payer))
		f, _ := c.start("base-sepolia")
		r, _ := c.permit(permitOrder{})
		return c, f, r
	}
	t.Run("between verify and settle", func(t *testing.T) {
		c, f, r := start(t)
		verify(t, f, r)
		theirs := c.transactCall(ownerKey, r)
		c.seal()
		for range 2 {
			if s := f.Settle(during(t, time.Minute), r); s.Outcome != facilitator.Settled || s.Transaction != theirs.Hex() {
				t.Errorf("%+v", s)
			}
		}
		if c.transactions() != 0 || c.balance(payee) != 10000 {
			t.Errorf("%d transactions, %d moved", c.transactions(), c.balance(payee))
		}
	})
	t.Run("in the same block, without verify", func(t *testing.T) {
		c, f, r := start(t)
		var theirs common.Hash
		p := must(read(r))
		to, data := p.encoded()
		c.asleep = func() { // our transaction is in the pool now
			c.asleep = nil
			theirs = c.transact(ownerKey, to, data, 50e9)
		}
		for range 2 {
			if s := f.Settle(during(t, time.Minute), r); s.Outcome != facilitator.Settled || s.Transaction != theirs.Hex() {
				t.Errorf("%+v", s)
			}
		}
		if c.transactions() != 1 || c.balance(payee) != 10000 {
			t.Errorf("%d transactions, %d moved", c.transactions(), c.balance(payee))
		}
	})
	t.Run("hidden in another call", func(t *testing.T) {
		// Nothing tells it from one transfer for two payments, so it stays in doubt.
		c, f, r := start(t)
		verify(t, f, r)
		to, data := must(read(r)).encoded()
		c.transact(ownerKey, multicall3, pack("tryAggregate", true, []call3{{to, data}}), 1e9)
		c.seal()
		if s := f.Settle(during(t, time.Minute), r); s.Outcome != facilitator.Unknown || s.Reason != string(codePermit2Nonce) {
			t.Errorf("%+v", s)
		}
	})
	t.Run("given up", func(t *testing.T) {
		c, f, r := start(t)
		verify(t, f, r)
		c.giveUp(r)
		if s := f.Settle(during(t, time.Minute), r); s.Outcome != facilitator.Refused || s.Reason != string(codePermit2Nonce) || s.Transaction != "" {
			t.Errorf("%+v", s)
		}
	})
	t.Run("used by somebody, and given up after that", func(t *testing.T) {
		c, f, r := start(t)
		verify(t, f, r)
		theirs := c.transactCall(ownerKey, r)
		c.seal()
		c.giveUp(r)
		if s := f.Settle(during(t, time.Minute), r); s.Outcome != facilitator.Settled || s.Transaction != theirs.Hex() {
			t.Errorf("%+v", s)
		}
	})
	t.Run("one transfer proves one payment", func(t *testing.T) {
		c, f, r := start(t)
		other, _ := c.permit(permitOrder{nonce: 1})
		verify(t, f, r)
		verify(t, f, other)
		c.giveUp(other) // uses up the nonce
		theirs := c.transactCall(ownerKey, r)
		c.seal()
		if s := f.Settle(during(t, time.Minute), other); s.Outcome != facilitator.Unknown {
			t.Errorf("what was not paid: %+v", s)
		}
		if s := f.Settle(during(t, time.Minute), r); s.Outcome != facilitator.Settled || s.Transaction != theirs.Hex() {
			t.Errorf("what was: %+v", s)
		}
	})
}

// TestPermit2WitnessOnChain asks a facilitator and a Look about what really
// happened to a Permit2 payment.
func TestPermit2WitnessOnChain(t *testing.T) {
	payer := common.HexToAddress(payerAddress)
	const none = 300 * time.Second // what a payment lives
	moved, expired := facilitator.Proof{Evidence: facilitator.Moved}, void(x402.CodePermit2Deadline)
	for name, tt := range map[string]struct {
		order permitOrder
		do    func(*testChain, facilitator.Request) common.Hash
		late  time.Duration // our claim is so much later
		want  facilitator.Proof
	}{
		"a stranger settles it": {do: func(c *testChain, r facilitator.Request) common.Hash { return c.transactCall(ownerKey, r) }, want: moved},
		"with something behind it, and another s": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				p := must(read(r))
				p.signature = highS(p.signature)
				to, data := p.encoded()
				return c.transact(ownerKey, to, append(data, "x402"...), 1e9)
			},
			want: moved,
		},
		"with a permit": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				p := must(read(r))
				p.way.(*permit2).allowance = &permit2612{value: p.value}
				to, data := p.encoded()
				return c.transact(ownerKey, to, data, 1e9)
			},
			want: moved,
		},
		"between payments of the same amount": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				for i := range byte(3) {
					other, _ := c.permit(permitOrder{nonce: 10 + i})
					c.transactCall(ownerKey, other)
					c.seal()
				}
				return c.transactCall(ownerKey, r)
			},
			want: moved,
		},
		"it was settled before our claim": {
			do:   func(c *testChain, r facilitator.Request) common.Hash { return c.transactCall(ownerKey, r) },
			late: 30 * time.Second,
		},
		"it ends":        {want: expired},
		"it is given up": {do: func(c *testChain, r facilitator.Request) common.Hash { return c.giveUp(r) }, want: void(codePermit2Nonce)},
		"it is given up, and the payer pays for something else": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				c.giveUp(r)
				other, _ := c.permit(permitOrder{nonce: 7, amount: "1"})
				return c.transactCall(ownerKey, other)
			},
		},
		"it is given up after its use": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				hash := c.transactCall(ownerKey, r)
				c.seal()
				c.giveUp(r)
				return hash
			},
			want: moved,
		},
		"hidden in another call": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				to, data := must(read(r)).encoded()
				return c.transact(ownerKey, multicall3, pack("tryAggregate", true, []call3{{to, data}}), 1e9)
			},
		},
		"the nonce signed twice, for another amount": {
			do: func(c *testChain, _ facilitator.Request) common.Hash {
				other, _ := c.permit(permitOrder{amount: "9999"})
				return c.transactCall(ownerKey, other)
			},
		},
		"the nonce signed twice, for another token": {
			do: func(c *testChain, _ facilitator.Request) common.Hash {
				other, _ := c.permit(permitOrder{asset: tether.Hex()})
				return c.transactCall(ownerKey, other)
			},
		},
		"it is reverted": {
			do: func(c *testChain, r facilitator.Request) common.Hash {
				c.owner("pause()")
				return c.transactCall(ownerKey, r)
			},
			want: expired,
		},
		"upto, of another process": {
			order: permitOrder{upto: true, charge: "77"},
			do: func(c *testChain, r facilitator.Request) common.Hash {
				p := must(read(r))
				if _, err := p.charge(r.Requirement); err != nil {
					c.t.Fatal(err)
				}
				to, data := p.encoded()
				return c.transact(must(crypto.HexToECDSA(signerKey)), to, data, 1e9)
			},
			want: moved,
		},
		"upto, another amount": {
			order: permitOrder{upto: true, charge: "78"},
			do: func(c *testChain, r facilitator.Request) common.Hash {
				r.Requirement.Amount = "77"
				p := must(read(r))
				_ = must(p.charge(r.Requirement))
				to, data := p.encoded()
				return c.transact(must(crypto.HexToECDSA(signerKey)), to, data, 1e9)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t, withPermit2(t), allows(token, payer), allows(tether, payer))
			f, _ := c.start("base-sepolia")
			l := c.look()
			_, r := c.permit(tt.order)
			claimed := c.now().Add(tt.late)
			var transaction common.Hash
			if tt.do != nil {
				transaction = tt.do(c, r)
				c.seal()
				c.seal()
			}
			c.pass(none+time.Minute, 1)
			c.finalize()
			want := tt.want
			if want.Evidence == facilitator.Moved {
				want.Transaction = transaction.Hex()
			}
			for who, w := range map[string]facilitator.Witness{"facilitator": f, "look": l} {
				got, err := w.Witness(context.Background(), r, claimed)
				if err != nil || got != want {
					t.Errorf("%s: %+v, %v; want %+v", who, got, err, want)
				}
			}
		})
	}
}
