package evm

import (
	"context"
	"math/big"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

type bigInt = big.Int

// fund gives an account some of the chain's coin.
func (c *testChain) fund(to string, amount int64) {
	c.t.Helper()
	a := common.HexToAddress(to)
	client := c.backend.Client()
	number := must(client.PendingNonceAt(context.Background(), crypto.PubkeyToAddress(ownerKey.PublicKey)))
	tx := types.MustSignNewTx(ownerKey, types.LatestSignerForChainID(big.NewInt(84532)), &types.LegacyTx{
		Nonce: number, GasPrice: big.NewInt(10e9), Gas: 21_000, To: &a, Value: big.NewInt(amount),
	})
	c.send(tx)
	c.seal()
}

// resigned signs a payment again, for the chain of its requirement.
func resigned(c *testChain, r facilitator.Request) facilitator.Request {
	c.t.Helper()
	return onBase(c.t, c.now().Unix()+300, r.Requirement)
}

// TestFrontRun: a stranger sends a payment before us. The payer has paid.
func TestFrontRun(t *testing.T) {
	t.Run("between verify and settle", func(t *testing.T) {
		c := startChain(t)
		f, _ := c.start("base-sepolia")
		r := c.sign(order{})
		verify(t, f, r)
		theirs := c.transact(ownerKey, token, calldata(t, r), 1e9)
		c.seal()
		for range 2 {
			s := f.Settle(during(t, 5*time.Minute), r)
			if s.Outcome != facilitator.Settled || s.Transaction != theirs.Hex() {
				t.Errorf("%+v", s)
			}
		}
		if c.transactions() != 0 || c.balance(payee) != 10000 {
			t.Errorf("%d transactions, %d moved", c.transactions(), c.balance(payee))
		}
	})
	t.Run("in the same block, without verify", func(t *testing.T) {
		c := startChain(t)
		f, _ := c.start("base-sepolia")
		r := c.sign(order{})
		var theirs common.Hash
		c.asleep = func() { // our transaction is in the pool now
			c.asleep = nil
			theirs = c.transact(ownerKey, token, calldata(t, r), 50e9)
		}
		for range 2 {
			s := f.Settle(during(t, 5*time.Minute), r)
			if s.Outcome != facilitator.Settled || s.Transaction != theirs.Hex() {
				t.Errorf("%+v", s)
			}
		}
		if c.transactions() != 1 || c.balance(payee) != 10000 {
			t.Errorf("%d transactions, %d moved", c.transactions(), c.balance(payee))
		}
	})
}

// TestOneTransferProvesOnePayment: a payer uses two authorizations in one
// transaction. The second has the nonce of a payment to the seller, and moves
// nothing; the only transfer to the seller belongs to the first.
func TestOneTransferProvesOnePayment(t *testing.T) {
	c := startChain(t)
	f, _ := c.start("base-sepolia")
	paidFor, cheated := c.sign(order{nonce: 1}), c.sign(order{nonce: 2})
	verify(t, f, paidFor)
	verify(t, f, cheated)
	nothing := c.sign(order{nonce: 2, to: payerAddress, value: "0"})
	data, err := chain.Contracts.Pack("tryAggregate", true, []call3{{token, calldata(t, nothing)}, {token, calldata(t, paidFor)}})
	if err != nil {
		t.Fatal(err)
	}
	c.transact(ownerKey, multicall3, data, 1e9)
	c.seal()
	if s := f.Settle(during(t, 5*time.Minute), paidFor); s.Outcome != facilitator.Settled {
		t.Errorf("what was paid: %+v", s)
	}
	if s := f.Settle(during(t, 5*time.Minute), cheated); s.Outcome != facilitator.Unknown || s.Reason != string(chain.CodeNonceUsed) {
		t.Errorf("what was not: %+v", s)
	}
}

func TestCancelled(t *testing.T) {
	c := startChain(t)
	f, _ := c.start("base-sepolia")
	r := c.sign(order{})
	verify(t, f, r)
	c.cancel(r)
	s := f.Settle(during(t, 5*time.Minute), r)
	if s.Outcome != facilitator.Refused || s.Reason != string(chain.CodeNonceUsed) || s.Transaction != "" {
		t.Errorf("%+v", s)
	}
	if c.transactions() != 0 {
		t.Error("a transaction was sent")
	}
}

// TestReverted: the payer's money leaves in the block that our transaction is in.
// That is no refusal: the signature is public now, and the money may come back.
func TestReverted(t *testing.T) {
	c := startChain(t)
	f, _ := c.start("base-sepolia")
	r := c.sign(order{})
	c.asleep = func() {
		c.asleep = nil
		away := append(crypto.Keccak256([]byte("transfer(address,uint256)"))[:4], common.LeftPadBytes(common.FromHex(signerAddress), 32)...)
		away = append(away, common.LeftPadBytes(big.NewInt(1e9).Bytes(), 32)...)
		c.transact(payerECDSA, token, away, 50e9)
	}
	for range 3 {
		s := f.Settle(during(t, 5*time.Minute), r)
		if s.Outcome != facilitator.Unknown || s.Reason != string(codeTransaction) || s.Transaction == "" {
			t.Errorf("%+v", s)
		}
	}
	if c.transactions() != 1 {
		t.Errorf("%d transactions for one payment", c.transactions())
	}
}

func TestConfirmations(t *testing.T) {
	c := startChain(t)
	f, _ := c.start("base-sepolia", func(n *Network) { n.Confirmations = 3 })
	before := must(c.backend.Client().BlockNumber(context.Background()))
	if s := f.Settle(during(t, 5*time.Minute), c.sign(order{})); s.Outcome != facilitator.Settled {
		t.Fatalf("%+v", s)
	}
	if after := must(c.backend.Client().BlockNumber(context.Background())); after != before+3 {
		t.Errorf("settled after %d blocks, want 3", after-before)
	}
}

// TestPending: no block comes. The payment is sent, and the repeat finds it.
func TestPending(t *testing.T) {
	c := startChain(t)
	f, _ := c.start("base-sepolia")
	r := c.sign(order{})
	c.idle = true
	first := f.Settle(during(t, 200*time.Millisecond), r)
	if first.Outcome != facilitator.Unknown || first.Reason != string(x402.CodeSettlementPending) || first.Transaction == "" {
		t.Fatalf("%+v", first)
	}
	// A config reload in between: another module, the same account.
	reloaded, _ := c.start("base-sepolia")
	_ = f.Cleanup()
	c.idle = false
	c.seal()
	if s := reloaded.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled || s.Transaction != first.Transaction {
		t.Errorf("%+v, the first was %s", s, first.Transaction)
	}
	if c.transactions() != 1 {
		t.Errorf("%d transactions", c.transactions())
	}
}

// TestAnotherRequirement: a payment that is on its way does not pay for a dearer
// thing, nor for another seller.
func TestAnotherRequirement(t *testing.T) {
	c := startChain(t)
	f, _ := c.start("base-sepolia")
	r := c.sign(order{})
	if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled {
		t.Fatalf("%+v", s)
	}
	dearer, other := r, r
	dearer.Requirement.Amount = "20000"
	other.Requirement.PayTo = payerAddress
	if s := f.Settle(during(t, 5*time.Minute), dearer); s.Outcome != facilitator.Refused || s.Reason != string(x402.CodeValueMismatch) {
		t.Errorf("%+v", s)
	}
	if s := f.Settle(during(t, 5*time.Minute), other); s.Outcome != facilitator.Refused || s.Reason != string(x402.CodeRecipientMismatch) {
		t.Errorf("%+v", s)
	}
	// The same nonce, signed for another amount.
	if s := f.Settle(during(t, 5*time.Minute), c.sign(order{value: "20000"})); s.Outcome != facilitator.Unknown {
		t.Errorf("%+v", s)
	}
}

func verify(t testing.TB, f *Facilitator, r facilitator.Request) {
	t.Helper()
	if v, err := f.Verify(during(t, 5*time.Minute), r); err != nil || !v.Valid {
		t.Fatalf("verify: %+v, %v", v, err)
	}
}
