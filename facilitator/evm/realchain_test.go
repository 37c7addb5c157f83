package evm

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// during gives a call this long; on the test chain that is many blocks.
func during(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestSettleOnChain(t *testing.T) {
	swapV := func(s []byte) []byte { s[64] -= 27; return s }
	orders := map[string]order{
		"version 2":             {},
		"version 1":             {version: 1, after: -600},
		"v of 0 or 1":           {change: swapV},
		"payee has money":       {value: "1"},
		"recipient, lower case": {to: strings.ToLower(payee)},
	}
	c := startChain(t)
	f, _ := c.start("base-sepolia")
	n := byte(0)
	for name, o := range orders {
		n++
		o.nonce = n
		t.Run(name, func(t *testing.T) {
			r := c.sign(o)
			if v, err := f.Verify(during(t, 5*time.Minute), r); err != nil || !v.Valid || v.Payer != payerAddress {
				t.Fatalf("verify: %+v, %v", v, err)
			}
			before, sent := c.balance(payee), c.transactions()
			var first facilitator.Settlement
			for i := range 3 { // the second and third are repeats
				s := f.Settle(during(t, 5*time.Minute), r)
				if s.Outcome != facilitator.Settled || s.Payer != payerAddress || s.Network != baseSepolia {
					t.Fatalf("settle: %+v", s)
				}
				if i > 0 && s.Transaction != first.Transaction {
					t.Errorf("repeat: transaction %s, was %s", s.Transaction, first.Transaction)
				}
				first = s
			}
			amount, _ := r.Payment.Authorization(r.Requirement)
			if got := c.balance(payee) - before; got != int64(amount.Value.Uint64()) {
				t.Errorf("%d moved", got)
			}
			if got := c.transactions() - sent; got != 1 {
				t.Errorf("%d transactions", got)
			}
			// Another process has no memory of it: the chain has, and it proves
			// nothing.
			stranger, _ := c.start("base-sepolia", withKey(t, "7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6"))
			forget(stranger)
			if v, err := stranger.Verify(during(t, 5*time.Minute), r); err != nil || v.Reason != string(chain.CodeNonceUsed) {
				t.Errorf("verify elsewhere: %+v, %v", v, err)
			}
			if s := stranger.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Unknown {
				t.Errorf("settle elsewhere: %+v", s)
			}
		})
	}
}

func withKey(t testing.TB, key string) func(*Network) {
	return func(n *Network) { n.Signers = []string{keyFile(t, key)} }
}

// forget makes a facilitator one of another process.
func forget(f *Facilitator) {
	for _, c := range f.chains {
		c.shared = newShared()
		for i, a := range c.accounts {
			c.accounts[i] = c.shared.account(a.key)
		}
	}
}

// TestBadWorlds has everything that the issue of this package names, and what it
// costs: the outcome of verify and settle, and the line in the log that tells the
// operator what to do.
func TestBadWorlds(t *testing.T) {
	noGas := func(a types.GenesisAlloc) { delete(a, common.HexToAddress(signerAddress)) }
	code := func(a types.GenesisAlloc) {
		a[common.HexToAddress(payerAddress)] = types.Account{Code: append([]byte{0xef, 1, 0}, multicall3[:]...)}
	}
	plain := func(a types.GenesisAlloc) {
		a[common.HexToAddress("0x1000000000000000000000000000000000000001")] = types.Account{Code: artifact(t, "Multicall3")}
	}
	high := func(s []byte) []byte {
		p := eipOrder()
		p.Sub(p, common.BytesToHash(s[32:64]).Big()).FillBytes(s[32:64])
		s[64] ^= 7
		return s
	}
	tests := map[string]struct {
		genesis func(types.GenesisAlloc)
		world   func(*testChain)
		order   order
		network string
		verify  string // reason, "" if valid, "503"
		settle  string // outcome and reason
		log     string
	}{
		"no gas":            {genesis: noGas, settle: "unsent facilitator_unavailable", log: "send it some of the chain's own coin"},
		"wrong chain id":    {network: "base", verify: "503", settle: "unsent facilitator_unavailable", log: `"configured":8453,"found":84532`},
		"chain behind":      {world: func(c *testChain) { c.skew = 31 * time.Second }, verify: "503", settle: "unsent facilitator_unavailable", log: "let the node catch up"},
		"clock 31 s behind": {world: func(c *testChain) { c.skew = -31 * time.Second }, verify: "503", settle: "unsent facilitator_unavailable", log: "synchronise it (NTP)"},
		"clock 10 s behind": {world: func(c *testChain) { c.skew = -10 * time.Second }, settle: "settled", log: "synchronise it (NTP)"},
		"chain 30 s old":    {world: func(c *testChain) { c.skew = 30 * time.Second }, settle: "settled"},
		"balance short":     {order: order{value: "1000000001"}, verify: "invalid_exact_evm_insufficient_balance", settle: "refused invalid_exact_evm_insufficient_balance"},
		"token paused":      {world: func(c *testChain) { c.owner("pause()") }, verify: "invalid_exact_evm_transaction_simulation_failed", settle: "refused invalid_exact_evm_transaction_simulation_failed", log: "accept another asset"},
		"payer blacklisted": {world: func(c *testChain) { c.owner("blacklist(address)", common.FromHex(payerAddress)) }, verify: "invalid_exact_evm_transaction_simulation_failed", settle: "refused invalid_exact_evm_transaction_simulation_failed", log: "its issuer has blocked"},
		"payee blacklisted": {world: func(c *testChain) { c.owner("blacklist(address)", common.FromHex(payee)) }, verify: "invalid_exact_evm_transaction_simulation_failed", settle: "refused invalid_exact_evm_transaction_simulation_failed", log: "its issuer has blocked"},
		"wrong name":        {order: order{name: "USD Coin"}, verify: "invalid_exact_evm_token_name_mismatch", settle: "refused invalid_exact_evm_token_name_mismatch"},
		"no EIP-3009":       {genesis: plain, order: order{asset: "0x1000000000000000000000000000000000000001"}, verify: "invalid_exact_evm_eip3009_not_supported", settle: "refused invalid_exact_evm_eip3009_not_supported"},
		"no contract":       {order: order{asset: "0x1000000000000000000000000000000000000002"}, verify: "asset_not_deployed_contract", settle: "refused asset_not_deployed_contract"},
		"payer has code":    {genesis: code, verify: "invalid_exact_evm_signature", settle: "refused invalid_exact_evm_signature"},
		"high s":            {order: order{change: high}, verify: "invalid_exact_evm_signature", settle: "refused invalid_exact_evm_signature"},
		"expires too soon":  {order: order{before: 5}, verify: "invalid_exact_evm_payload_authorization_valid_before", settle: "refused invalid_exact_evm_payload_authorization_valid_before"},
		"not yet":           {order: order{after: 60}, verify: "invalid_exact_evm_payload_authorization_valid_after", settle: "refused invalid_exact_evm_payload_authorization_valid_after"},
		"payee is our own":  {order: order{to: signerAddress}, verify: "503", settle: "unsent facilitator_unavailable", log: "whose key is not on this machine"},
		"no Multicall3":     {genesis: func(a types.GenesisAlloc) { delete(a, multicall3) }, order: order{value: "1000000001"}, verify: "invalid_exact_evm_insufficient_balance", settle: "refused invalid_exact_evm_insufficient_balance"},
		"nonce used":        {world: func(c *testChain) { c.transact(ownerKey, token, calldata(c.t, c.sign(order{})), 1e9); c.seal() }, verify: "invalid_exact_evm_nonce_already_used", settle: "unknown invalid_exact_evm_nonce_already_used"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var genesis []func(types.GenesisAlloc)
			if tt.genesis != nil {
				genesis = append(genesis, tt.genesis)
			}
			c := startChain(t, genesis...)
			network := "base-sepolia"
			if tt.network != "" {
				network = tt.network
			}
			f, logs := c.start(network)
			r := c.sign(tt.order)
			if tt.network != "" {
				r.Requirement.Network, r.Payment.Network = "eip155:8453", "eip155:8453"
				r = resigned(c, r)
			}
			if tt.world != nil {
				tt.world(c)
			}
			v, err := f.Verify(during(t, 5*time.Minute), r)
			got := v.Reason
			if err != nil {
				got = "503"
			}
			if got != tt.verify || v.Valid != (tt.verify == "") {
				t.Errorf("verify: %+v, %v; want %q", v, err, tt.verify)
			}
			before := c.balance(payee)
			s := f.Settle(during(t, 5*time.Minute), r)
			if got := strings.TrimSpace(s.Outcome.String() + " " + s.Reason); got != tt.settle {
				t.Errorf("settle: %q (%s), want %q", got, s.Detail, tt.settle)
			}
			if s.Outcome == facilitator.Refused && s.Transaction != "" {
				t.Errorf("refused with transaction %s", s.Transaction)
			}
			if s.Outcome != facilitator.Settled && (c.balance(payee) != before || c.transactions() != 0) {
				t.Errorf("something was sent")
			}
			text := logged(logs)
			if tt.log != "" && !strings.Contains(text, tt.log) {
				t.Errorf("the log lacks %q: %s", tt.log, text)
			}
			if tt.log == "" && text != "" {
				t.Errorf("log: %s", text)
			}
			if strings.Contains(text, "secret-api-key") || err != nil && strings.Contains(err.Error(), "secret-api-key") {
				t.Errorf("the URL's key shows")
			}
		})
	}
}

// TestRecovers: what was wrong is put right, and no restart is needed.
func TestRecovers(t *testing.T) {
	c := startChain(t, func(a types.GenesisAlloc) { delete(a, common.HexToAddress(signerAddress)) })
	f, _ := c.start("base-sepolia")
	r := c.sign(order{})
	if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Unsent {
		t.Fatalf("%+v", s)
	}
	c.fund(signerAddress, 1e17)
	var s facilitator.Settlement
	for range 100 {
		if s = f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Unsent {
			break
		}
		time.Sleep(10 * time.Millisecond) // the node's pool learns of new blocks a moment later
	}
	if s.Outcome != facilitator.Settled {
		t.Fatalf("%+v", s)
	}
}

// TestParallelPayments: one key settles many payments at once, each once.
func TestParallelPayments(t *testing.T) {
	t.Run("each in a transaction", func(t *testing.T) { t.Parallel(); settlesMany(t, 1, 120, 120) })
	// The first of all goes alone, so that it is seen how the token tells of it.
	t.Run("many in a transaction", func(t *testing.T) { t.Parallel(); settlesMany(t, 20, 6, 40) })
}

func settlesMany(t *testing.T, batch int, least, most int) {
	const payments = 120
	c := startChain(t)
	f, _ := c.start("base-sepolia", func(n *Network) { n.Batch = batch })
	if s := f.Settle(during(t, 5*time.Minute), c.sign(order{nonce: 255})); s.Outcome != facilitator.Settled {
		t.Fatalf("%+v", s)
	}
	for range maxOfPayer {
		f.chains[baseSepolia].shared.standings.moved(chain.AddressTopic(common.HexToAddress(payerAddress)))
	}
	var wg sync.WaitGroup
	seen := make(map[string]bool)
	var mu sync.Mutex
	requests := make([]facilitator.Request, payments)
	for i := range requests {
		requests[i] = c.sign(order{nonce: byte(i), before: 100_000})
	}
	ctx := during(t, 5*time.Minute)
	for _, r := range requests {
		for range 2 { // each of them twice, as a repeat that comes too early
			wg.Go(func() {
				s := f.Settle(ctx, r)
				mu.Lock()
				defer mu.Unlock()
				seen[s.Transaction] = true
				if s.Outcome != facilitator.Settled {
					t.Errorf("%+v", s)
				}
			})
		}
	}
	wg.Wait()
	if made := int(c.transactions()) - 1; len(seen) != made || made < least || made > most || c.balance(payee) != (payments+1)*10000 {
		t.Errorf("%d transactions seen, %d made, %d moved", len(seen), made, c.balance(payee))
	}
}

// eipOrder is the order of the curve.
func eipOrder() *bigInt { return new(bigInt).Set(crypto.S256().Params().N) }
