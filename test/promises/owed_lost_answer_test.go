package promises

import (
	"context"
	"encoding/json"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/devchain"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// sends is what a facilitator does that settles on the chain: each authorization once.
func (c *restless) sends(body []byte) {
	c.t.Helper()
	var call struct {
		PaymentPayload struct {
			Payload struct {
				Signature     hexutil.Bytes
				Authorization struct {
					From, To, Value, ValidAfter, ValidBefore string
					Nonce                                    common.Hash
				}
			}
		}
	}
	if err := json.Unmarshal(body, &call); err != nil {
		c.t.Error(err)
		return
	}
	p := call.PaymentPayload.Payload
	data := crypto.Keccak256([]byte("transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)"))[:4]
	for _, address := range []string{p.Authorization.From, p.Authorization.To} {
		data = append(data, common.LeftPadBytes(common.HexToAddress(address).Bytes(), 32)...)
	}
	for _, number := range []string{p.Authorization.Value, p.Authorization.ValidAfter, p.Authorization.ValidBefore} {
		n, _ := new(big.Int).SetString(number, 10)
		data = append(data, common.BigToHash(n).Bytes()...)
	}
	data = append(data, p.Authorization.Nonce.Bytes()...)
	data = append(data, common.LeftPadBytes(p.Signature[64:], 32)...)
	data = append(data, p.Signature[:64]...)
	ctx, client := context.Background(), c.backend.Client()
	number, err := client.PendingNonceAt(ctx, c.gas.Address)
	if err != nil {
		c.t.Error(err)
		return
	}
	to := common.HexToAddress(gate.USDC)
	tx := types.MustSignNewTx(c.gas.Key, types.LatestSignerForChainID(big.NewInt(devchain.ChainID)), &types.DynamicFeeTx{
		ChainID: big.NewInt(devchain.ChainID), Nonce: number, GasTipCap: big.NewInt(1e9), GasFeeCap: big.NewInt(1e10), Gas: 200_000, To: &to, Data: data,
	})
	if err := client.SendTransaction(ctx, tx); err != nil {
		c.t.Error(err)
	}
}

// TestLostAnswerIsReadFromTheChain: the facilitator has settled, and its answer is lost; a node
// of the chain is configured. A payer who calls once gets the goods from that call, once, and
// the payment is watched like every other.
func TestLostAnswerIsReadFromTheChain(t *testing.T) {
	for name, lose := range map[string]http.HandlerFunc{
		"it hangs up":             gate.Drop,
		"500":                     gate.Says(500, "oops"),
		"the nonce is used, then": gate.Says(200, `{"success":false,"errorReason":"invalid_exact_evm_nonce_already_used","transaction":"","network":"eip155:84532"}`),
		"silence":                 nil,
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			t.Run(method+" "+name, func(t *testing.T) {
				w, s, c, payer := onRead(t)
				var once sync.Once
				ended := make(chan struct{})
				defer close(ended)
				if lose == nil {
					lose = func(_ http.ResponseWriter, r *http.Request) {
						select {
						case <-r.Context().Done():
						case <-ended:
						}
					}
				}
				w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
					once.Do(func() { c.sends(gate.Body(r)) })
					lose(rw, r)
				})
				payment := w.Sign(method, "/paid/x", payer).V2(t)
				res := w.Do(w.Request(method, "/paid/x", "PAYMENT-SIGNATURE", payment))
				w.Expect(res, 200, "")
				row := rowOf(t, s, payer)
				if receipt := gate.ReceiptOf(t, res); !receipt.Success || receipt.Transaction == "" || receipt.Transaction != row.Transaction || c.income() != 10_000 || w.Upstream.Hits.Load() != 1 {
					t.Errorf("receipt %+v, row %s, income %d, %d runs", receipt, row.Transaction, c.income(), w.Upstream.Hits.Load())
				}
				c.setCalm(true)
				c.reorganise(c.height()-row0, true)
				gate.LookAtBlocks()
				w.Until(func() bool { return rowOf(t, s, payer).Reason == ledger.ReasonReverted })
			})
		}
	}
}

// row0 is the block before the first payment.
const row0 = 4

// onRead is a world whose facilitator is asked over HTTP, with a node of the chain to look at.
func onRead(t *testing.T) (*gate.World, *gate.Ledger, *restless, *gate.Payer) {
	t.Helper()
	payer := gate.NewPayer(t)
	c := startRestless(t, payer)
	c.seal(row0 - 1)
	t.Cleanup(gate.ForgetPayers)
	w := gate.Prepare(t)
	s := w.WithLedger()
	s.Visible.Store(true)
	w.Load(strings.Replace(gate.OnLedger(w.Caddyfile("price /paid/* $0.01")), w.Facilitator.URL, w.Facilitator.URL+" {\n rpc base-sepolia "+c.url+"\n}", 1))
	w.Until(func() bool { return w.Get("/paid/x").StatusCode == 402 })
	for _, g := range gate.Handlers(t) {
		g.ForTest().AnswerWithin = 3 * time.Second
	}
	return w, s, c, payer
}

// TestWhatTheChainDoesNotShowStaysInDoubt: the answer is lost, and nothing was sent. Nobody is
// served for it.
func TestWhatTheChainDoesNotShowStaysInDoubt(t *testing.T) {
	w, s, c, payer := onRead(t)
	w.Facilitator.OnSettle(gate.Drop)
	payment := w.Sign(http.MethodGet, "/paid/x", payer).V2(t)
	w.ExpectBusy(w.Get("/paid/x", "PAYMENT-SIGNATURE", payment), 503, "settlement_pending")
	if c.income() != 0 || rowOf(t, s, payer).State == ledger.Settled {
		t.Errorf("income %d, %+v", c.income(), rowOf(t, s, payer))
	}
}
