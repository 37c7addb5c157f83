package chain

import (
	"math/big"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
)

// TestLargePaymentsNeedTheQuorum, and all in tokens that are not known to be worth a dollar.
func TestLargePaymentsNeedTheQuorum(t *testing.T) {
	const usdc, eurc = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "0x60a3E35Cc302bFA44Cb288Bc5a4F316Fdb1adb42"
	for name, tt := range map[string]struct {
		quorum int
		above  *big.Int
		token  string
		value  uint64
		want   int
	}{
		"no quorum":            {0, nil, usdc, 1e18, 1},
		"of every payment":     {2, nil, usdc, 1, 2},
		"just not above":       {3, big.NewInt(5e6), usdc, 5e6, 1},
		"above":                {3, big.NewInt(5e6), usdc, 5e6 + 1, 3},
		"euros":                {2, big.NewInt(5e6), eurc, 1, 2},
		"an unknown token":     {2, big.NewInt(5e6), "0x00000000000000000000000000000000000000aa", 1, 2},
		"an amount, no quorum": {1, big.NewInt(5e6), usdc, 6e6, 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := &Chain{CAIP2: "eip155:8453", Quorum: tt.quorum, QuorumAbove: tt.above}
			p := &Payment{Token: common.HexToAddress(tt.token), Value: *uint256.NewInt(tt.value)}
			if got := c.quorum(p); got != tt.want {
				t.Errorf("%d nodes, want %d", got, tt.want)
			}
		})
	}
}
