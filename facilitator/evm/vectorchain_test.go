package evm

import (
	"context"
	"encoding/json"
	"math/big"
	"os"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/devchain"
	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// TestVectorsSettleOnChain: what the official clients have signed moves the money on
// the development chain, at the time at which they signed it.
func TestVectorsSettleOnChain(t *testing.T) {
	approve := func(token common.Address) func(*oldChain) {
		return func(c *oldChain) {
			c.send(payerKey, token, bytesOf("approve(address,uint256)", eip712.Permit2[:], common.MaxHash[:]))
		}
	}
	// What the payer had done before.
	before := map[string]func(*oldChain){
		"permit2-plain": approve(token),
		"upto-permit2":  approve(token),
		"permit2-with-eip2612-gas-sponsoring": func(c *oldChain) {
			for range 3 { // it is the payer's fourth permit
				c.permit()
			}
		},
		"permit2-with-erc20-approval-gas-sponsoring": func(c *oldChain) {
			for range 7 { // it is the payer's eighth transaction
				c.send(payerKey, common.HexToAddress(payerAddress), nil)
			}
		},
	}
	settled := 0
	for _, file := range []string{"exact-evm-eip3009", "exact-evm-permit2", "upto-evm-permit2"} {
		b, err := os.ReadFile("testdata/" + file + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var vectors struct {
			ClockUnixSeconds int64
			Vectors          []struct {
				Name            string
				PaymentRequired struct{ Accepts []x402.Requirement }
				PaymentPayload  json.RawMessage
				SettleCalldata  struct{ Amount string }
			}
		}
		if err := json.Unmarshal(b, &vectors); err != nil {
			t.Fatal(err)
		}
		for _, v := range vectors.Vectors {
			if len(v.PaymentRequired.Accepts) == 0 || v.PaymentRequired.Accepts[0].Network != baseSepolia {
				continue // of another chain
			}
			settled++
			t.Run(v.Name, func(t *testing.T) {
				c := startOld(t, vectors.ClockUnixSeconds)
				if prepare := before[v.Name]; prepare != nil {
					prepare(c)
				}
				f, _ := startIn(t, baseSepolia, &Network{RPC: []string{c.RPC()}, ApprovalBudget: "1/day"}, surroundings{now: c.clock, sleep: facilitator.Sleep})
				r := request(t, v.PaymentPayload, v.PaymentRequired.Accepts[0])
				if verdict, err := f.Verify(during(t, 5*time.Minute), r); err != nil || !verdict.Valid {
					t.Fatalf("verify: %+v, %v", verdict, err)
				}
				if v.SettleCalldata.Amount != "" && r.Requirement.Scheme == "upto" {
					r.Requirement.Amount = v.SettleCalldata.Amount
				}
				had := c.of(r.Requirement)
				if s := f.Settle(during(t, 5*time.Minute), r); s.Outcome != facilitator.Settled {
					t.Fatalf("settle: %+v", s)
				}
				if moved := had.Sub(c.of(r.Requirement), had); moved.String() != r.Requirement.Amount {
					t.Errorf("%s moved, want %s", moved, r.Requirement.Amount)
				}
			})
		}
	}
	if settled < 5 {
		t.Errorf("only %d payments", settled)
	}
}

// oldChain is a development chain on which it is another time.
type oldChain struct {
	*devchain.Chain
	t       *testing.T
	clock   func() time.Time
	client  *ethclient.Client
	permits int64
}

func startOld(t *testing.T, unix int64) *oldChain {
	t.Helper()
	began := time.Now()
	clock := func() time.Time { return time.Unix(unix, 0).Add(time.Since(began)) }
	chain, err := devchain.Start(devchain.Options{Now: clock, BlockEvery: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chain.Close() })
	client, err := ethclient.Dial(chain.RPC())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	c := &oldChain{Chain: chain, t: t, clock: clock, client: client}
	// The payer of the vectors is the account that has no tokens here.
	if err := chain.Mint(t.Context(), common.HexToAddress(payerAddress), big.NewInt(1e9)); err != nil {
		t.Fatal(err)
	}
	c.send(chain.Accounts()[5].PrivateKey[2:], tether, bytesOf("transfer(address,uint256)", common.FromHex(payerAddress), big.NewInt(1e6).Bytes()))
	return c
}

// send sends a transaction and waits for its block.
func (c *oldChain) send(key string, to common.Address, data []byte) {
	c.t.Helper()
	from := must(crypto.HexToECDSA(key))
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer cancel()
	tx := types.MustSignNewTx(from, types.LatestSignerForChainID(c.ChainID()), &types.DynamicFeeTx{
		ChainID: c.ChainID(), Nonce: must(c.client.PendingNonceAt(ctx, crypto.PubkeyToAddress(from.PublicKey))),
		GasTipCap: big.NewInt(1e6), GasFeeCap: big.NewInt(1e9), Gas: 200_000, To: &to, Data: data,
	})
	if err := c.client.SendTransaction(ctx, tx); err != nil {
		c.t.Fatal(err)
	}
	for {
		r, err := c.client.TransactionReceipt(ctx, tx.Hash())
		switch {
		case err == nil && r.Status == 1:
			return
		case err == nil || ctx.Err() != nil:
			c.t.Fatalf("a transaction failed: %+v, %v", r, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// permit has the payer permit somebody else something, which uses up a number.
func (c *oldChain) permit() {
	c.t.Helper()
	payer, spender := common.FromHex(payerAddress), common.FromHex(payee)
	deadline := uint64(c.clock().Unix() + 60)
	digest := eip712.NewDomain("USDC", "2", 84532, token).ApprovalDigest(&eip712.Approval{
		Owner: common.Address(payer), Spender: common.Address(spender), Value: *uint256.NewInt(1), Nonce: *uint256.NewInt(uint64(c.permits)), Deadline: deadline,
	})
	s, end := must(crypto.Sign(digest[:], payerECDSA)), new(big.Int).SetUint64(deadline).Bytes()
	c.permits++
	c.send(c.Accounts()[5].PrivateKey[2:], token,
		bytesOf("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)", payer, spender, []byte{1}, end, []byte{s[64] + 27}, s[:32], s[32:64]))
}

// of is what the payee of a requirement has of its asset.
func (c *oldChain) of(r x402.Requirement) *big.Int {
	c.t.Helper()
	var out string
	call := map[string]any{"to": r.Asset, "data": "0x" + common.Bytes2Hex(chain.Pack("balanceOf", common.HexToAddress(r.PayTo)))}
	if err := c.client.Client().CallContext(c.t.Context(), &out, "eth_call", call, "latest"); err != nil {
		c.t.Fatal(err)
	}
	return new(big.Int).SetBytes(common.FromHex(out))
}
