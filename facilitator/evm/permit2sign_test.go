package evm

import (
	"crypto/ecdsa"
	"encoding/json"
	"math/big"
	"os"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
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
		a[chain.ExactProxy] = types.Account{Code: code["ExactPermit2Proxy"]}
		a[chain.UptoProxy] = types.Account{Code: code["UptoPermit2Proxy"]}
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
	return o.sign(c.t, c.now().Add(-c.skew).Unix())
}

// sign makes the requests for a payment that is signed at some time.
func (o permitOrder) sign(t testing.TB, now int64) (verified, settled facilitator.Request) {
	t.Helper()
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
	verified = request(t, must(json.Marshal(payload)), r)
	settled = verified
	settled.Requirement.Amount = o.charge
	return verified, settled
}

// of is what an account has of a token.
func (c *testChain) of(token common.Address, account string) int64 {
	c.t.Helper()
	var out hexutil.Bytes
	if err := c.client.Call(&out, "eth_call", map[string]any{"to": token, "data": hexutil.Bytes(chain.Pack("balanceOf", common.HexToAddress(account)))}, "latest"); err != nil {
		c.t.Fatal(err)
	}
	return new(big.Int).SetBytes(out).Int64()
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
	nonce := new(big.Int).SetBytes(p.Nonce[:])
	data := crypto.Keccak256([]byte("invalidateUnorderedNonces(uint256,uint256)"))[:4]
	data = append(data, common.LeftPadBytes(new(big.Int).Rsh(nonce, 8).Bytes(), 32)...)
	mask := new(big.Int).Lsh(common.Big1, uint(nonce.Uint64()&0xff))
	hash := c.transact(payerECDSA, eip712.Permit2, append(data, common.LeftPadBytes(mask.Bytes(), 32)...), 1e9)
	c.seal()
	return hash
}
