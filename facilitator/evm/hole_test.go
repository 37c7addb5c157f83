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
)

// TestNumberBeforeOurs: a transaction of ours waits for one with a lower number,
// which no block takes, and which this process knows nothing of. Its number is used
// up, and ours follows.
func TestNumberBeforeOurs(t *testing.T) {
	for name, tt := range map[string]struct {
		before func(*testChain, *Facilitator)
		mined  uint64
	}{
		// An earlier process has sent it, and now it offers too little.
		"too cheap": {func(c *testChain, _ *Facilitator) {
			to := common.HexToAddress(payee)
			tx := types.MustSignNewTx(must(crypto.HexToECDSA(signerKey)), types.LatestSignerForChainID(big.NewInt(84532)), &types.DynamicFeeTx{
				ChainID: big.NewInt(84532), GasTipCap: common.Big1, GasFeeCap: common.Big1, Gas: 21_000, To: &to,
			})
			if err := c.backend.Client().SendTransaction(t.Context(), tx); err != nil {
				t.Fatal(err)
			}
			for _, waiting := c.numbers(first); waiting == 0; _, waiting = c.numbers(first) {
				time.Sleep(time.Millisecond)
			}
		}, 2},
		// The node has counted it, and forgotten it.
		"gone": {func(c *testChain, f *Facilitator) {
			s := &f.chains[baseSepolia].accounts[0].sender
			s.next, s.lastSent = 3, c.now()
		}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			c := startChain(t)
			f, logs := c.start("base-sepolia")
			tt.before(c, f)
			r := c.sign(order{before: 100_000})
			s := insist(during(t, 10*time.Second), f, r)
			for range 3 {
				if s.Outcome != facilitator.Unknown {
					break
				}
				s = f.Settle(during(t, 10*time.Second), r)
			}
			if mined, waiting := c.numbers(first); s.Outcome != facilitator.Settled || c.balance(payee) != 10000 || mined != tt.mined || waiting != 0 {
				t.Errorf("%+v, %d mined, %d wait", s, mined, waiting)
			}
			if !strings.Contains(logged(logs), "number before ours") {
				t.Errorf("log: %s", logged(logs))
			}
		})
	}
}
