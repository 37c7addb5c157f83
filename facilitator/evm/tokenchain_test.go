package evm

import (
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// badToken is where the token that misbehaves is.
var badToken = common.HexToAddress("0xbad7000000000000000000000000000000000001")

// The modes of the contract BadToken.
const (
	tokenHonest = iota
	tokenSilent
	tokenSaysNo
	tokenTakesFee
	tokenForgedEvent
	tokenReenters
	tokenLiesInBalance
	tokenChangesDecimals
	tokenForgetsNonces
	tokenBurnsGas
	tokenReturnsMuch
	tokenOnlySimulated
	tokenOnlySimulatedReverts
)

// withBadToken puts the token into the first block. The payer has some of it, and
// Permit2 may move it.
func withBadToken(t testing.TB, mode int) func(types.GenesisAlloc) {
	return func(a types.GenesisAlloc) {
		payer, owner := common.HexToAddress(payerAddress), crypto.PubkeyToAddress(ownerKey.PublicKey)
		a[badToken] = types.Account{Code: artifact(t, "BadToken"), Storage: map[common.Hash]common.Hash{
			slotHash(0): chain.AddressTopic(owner), slotHash(5): slotHash(int64(mode)), balanceSlot(payer): slotHash(1e9),
		}}
		allows(badToken, payer)(a)
	}
}

// setMode changes how the token misbehaves.
func (c *testChain) setMode(mode int) {
	c.t.Helper()
	c.transact(ownerKey, badToken, bytesOf("setMode(uint8)", big.NewInt(int64(mode)).Bytes()), 1e9)
	c.seal()
}

// TestBadTokens: a token that does not do what it says. Either the payment is
// refused before anything is sent, or what was sent is not taken for a payment; and
// never is money moved that is not seen to be.
func TestBadTokens(t *testing.T) {
	const (
		mismatch = "invalid_exact_evm_transfer_event_mismatch"
		failing  = "invalid_exact_evm_transaction_simulation_failed"
	)
	for name, tt := range map[string]struct {
		mode    int
		eip3009 string // the reason; "" is settled
		permit2 string
		// upto is the reason of a settlement that was sent, since nothing is seen
		// before; "" is settled, and what begins with "refused" was not sent.
		upto string
	}{
		"honest":                {tokenHonest, "", "", ""},
		"does nothing":          {tokenSilent, mismatch, mismatch, mismatch},
		"returns false":         {tokenSaysNo, mismatch, "permit2_simulation_failed", "refused permit2_simulation_failed"},
		"takes a fee":           {tokenTakesFee, mismatch, mismatch, mismatch},
		"another writes events": {tokenForgedEvent, mismatch, mismatch, mismatch},
		"lies about balances":   {tokenLiesInBalance, mismatch, mismatch, ""}, // nobody can count on it, but it pays
		"changes its decimals":  {tokenChangesDecimals, "", "", ""},           // nobody here counts in anything but its own units
		"never ends":            {tokenBurnsGas, failing, "permit2_simulation_failed", "refused permit2_simulation_failed"},
		"returns a mebibyte":    {tokenReturnsMuch, failing, "permit2_simulation_failed", "refused permit2_simulation_failed"},
		"forgets used nonces":   {tokenForgetsNonces, "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startChain(t, withPermit2(t), withBadToken(t, tt.mode))
			f, logs := c.start("base-sepolia")
			asset := badToken.Hex()
			permit, _ := c.permit(permitOrder{asset: asset})
			for way, pay := range map[string]struct {
				r    facilitator.Request
				want string
			}{
				"EIP-3009": {c.sign(order{asset: asset, name: "Bad Token", version712: "1", nonce: 9}), tt.eip3009},
				"Permit2":  {permit, tt.permit2},
			} {
				before, sent := c.of(badToken, payee), c.transactions()
				if pay.want != "" {
					refusedBoth(t, f, pay.r, x402.Code(pay.want))
					if c.transactions() != sent {
						t.Errorf("%s: a transaction was sent", way)
					}
					continue
				}
				verify(t, f, pay.r)
				for range 2 {
					if s := f.Settle(during(t, 5*time.Minute), pay.r); s.Outcome != facilitator.Settled {
						t.Errorf("%s: %+v", way, s)
					}
				}
				if c.transactions() != sent+1 || c.of(badToken, payee) != before+10000 {
					t.Errorf("%s: %d transactions", way, c.transactions()-sent)
				}
			}
			// Of upto only the receipt tells. Three of them are enough.
			sent := c.transactions()
			for i := range byte(5) {
				_, r := c.permit(permitOrder{asset: asset, upto: true, nonce: 20 + i})
				s := f.Settle(during(t, 5*time.Minute), r)
				reason, refused := strings.CutPrefix(tt.upto, "refused ")
				switch {
				case refused && s.Outcome == facilitator.Refused && s.Reason == reason && c.transactions() == sent:
				case tt.upto == "" && s.Outcome == facilitator.Settled:
				case tt.upto != "" && !refused && i < maxReverts && s.Outcome == facilitator.Unknown && s.Reason == reason && s.Transaction != "":
				case tt.upto != "" && !refused && i >= maxReverts && s.Outcome == facilitator.Refused && s.Reason == mismatch:
				default:
					t.Errorf("upto %d: %+v", i, s)
				}
			}
			if tt.upto == mismatch && (c.transactions()-sent != maxReverts || !strings.Contains(logged(logs), "do not accept this asset")) {
				t.Errorf("%d transactions were sent for nothing; %s", c.transactions()-sent, logged(logs))
			}
		})
	}
}

// TestTokenOnlyInSimulations: a token that works while no gas is paid for. What is
// sent for nothing is bounded, and none of it counts as a payment.
func TestTokenOnlyInSimulations(t *testing.T) {
	for name, mode := range map[string]int{"does nothing": tokenOnlySimulated, "reverts": tokenOnlySimulatedReverts} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t, withPermit2(t), withBadToken(t, mode))
			f, _ := c.start("base-sepolia")
			for i := range byte(6) {
				r := c.sign(order{asset: badToken.Hex(), name: "Bad Token", version712: "1", nonce: i})
				s := f.Settle(during(t, 5*time.Minute), r)
				if want := i < maxReverts; (s.Outcome == facilitator.Unknown) != want || (s.Outcome == facilitator.Refused) == want {
					t.Errorf("%d: %+v", i, s)
				}
			}
			if c.transactions() != maxReverts || c.of(badToken, payee) != 0 {
				t.Errorf("%d transactions, %d moved", c.transactions(), c.of(badToken, payee))
			}
		})
	}
}

// TestTokenReenters: in the middle of one payment another one is made, by a token
// that calls whom it is told to. Each counts for itself.
func TestTokenReenters(t *testing.T) {
	hook := func(c *testChain, to common.Address, data []byte) {
		b := append(crypto.Keccak256([]byte("hook(address,bytes)"))[:4], common.LeftPadBytes(to[:], 32)...)
		c.transact(ownerKey, badToken, appendBytes(appendUint(b, 64), data), 1e9)
		c.seal()
	}
	sign := func(c *testChain, nonce byte) facilitator.Request {
		return c.sign(order{asset: badToken.Hex(), name: "Bad Token", version712: "1", nonce: nonce})
	}
	for name, tt := range map[string]struct {
		inner func(*testChain) facilitator.Request
		moved int64
	}{
		"another payment of the same amount": {func(c *testChain) facilitator.Request { return sign(c, 2) }, 20000},
		"another one by Permit2": {func(c *testChain) facilitator.Request {
			r, _ := c.permit(permitOrder{asset: badToken.Hex()})
			return r
		}, 20000},
	} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t, withPermit2(t), withBadToken(t, tokenReenters))
			f, _ := c.start("base-sepolia")
			first, inner := sign(c, 1), tt.inner(c)
			verify(t, f, first)
			verify(t, f, inner)
			to, data := must(read(inner)).encoded()
			hook(c, to, data)
			if s := f.Settle(during(t, 5*time.Minute), first); s.Outcome != facilitator.Settled {
				t.Errorf("the outer one: %+v", s)
			}
			// The inner one of EIP-3009 is proven by its own events; of Permit2, hidden
			// in another call, it stays in doubt.
			s := f.Settle(during(t, 5*time.Minute), inner)
			if must(read(inner)).OnlyByCall() {
				if s.Outcome != facilitator.Unknown {
					t.Errorf("the inner one: %+v", s)
				}
			} else if s.Outcome != facilitator.Settled {
				t.Errorf("the inner one: %+v", s)
			}
			if c.of(badToken, payee) != tt.moved || c.transactions() != 1 {
				t.Errorf("%d moved, %d transactions", c.of(badToken, payee), c.transactions())
			}
		})
	}
	t.Run("the same payment", func(t *testing.T) {
		c := startChain(t, withBadToken(t, tokenReenters))
		f, _ := c.start("base-sepolia")
		r := sign(c, 1)
		to, data := must(read(r)).encoded()
		hook(c, to, data)
		refusedBoth(t, f, r, codeSimulation)
	})
}

// TestTokenTurnsBad: a token that was honest, and takes a fee from now on, as those
// do whose owner can switch one on.
func TestTokenTurnsBad(t *testing.T) {
	c := startChain(t, withBadToken(t, tokenHonest))
	f, _ := c.start("base-sepolia")
	sign := func(nonce byte) facilitator.Request {
		return c.sign(order{asset: badToken.Hex(), name: "Bad Token", version712: "1", nonce: nonce})
	}
	if s := f.Settle(during(t, 5*time.Minute), sign(1)); s.Outcome != facilitator.Settled {
		t.Fatalf("%+v", s)
	}
	c.setMode(tokenTakesFee)
	r := sign(2)
	if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Unknown || s.Reason != string(codeEventMismatch) || s.Transaction == "" {
		t.Errorf("%+v", s)
	}
}
