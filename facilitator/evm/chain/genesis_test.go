package chain

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"go.uber.org/zap"
)

// TestGenesis: every node is asked for the first block of its chain, and what
// they say is told, each hash once.
func TestGenesis(t *testing.T) {
	const a, b = "0x" + "aa00000000000000000000000000000000000000000000000000000000000001", "0x" + "bb00000000000000000000000000000000000000000000000000000000000002"
	node := func(first any, chain uint64) string {
		return startFake(t, func(method string, params []json.RawMessage) (any, *rpcError, bool) {
			if method == "eth_chainId" {
				return hexutil.Uint64(chain), nil, true
			}
			if method != "eth_getBlockByNumber" || string(params[0]) != `"0x0"` {
				return nil, nil, false
			}
			if first == nil {
				return nil, nil, true
			}
			return map[string]any{"number": "0x0", "hash": first}, nil, true
		}).URL
	}
	const sepolia = 84532
	for name, tc := range map[string]struct {
		nodes []string
		want  []string // nil: an error
	}{
		"one node":                {[]string{node(a, sepolia)}, []string{a}},
		"two that agree":          {[]string{node(a, sepolia), node(a, sepolia)}, []string{a}},
		"two that do not":         {[]string{node(b, sepolia), node(a, sepolia)}, []string{a, b}},
		"one is gone":             {[]string{"http://127.0.0.1:1", node(a, sepolia)}, []string{a}},
		"all are gone":            {[]string{"http://127.0.0.1:1"}, nil},
		"it has no first block":   {[]string{node(nil, sepolia)}, nil},
		"its hash is none":        {[]string{node("0x12", sepolia)}, nil},
		"another chain id":        {[]string{node(a, 1)}, nil},
		"another chain id of two": {[]string{node(b, 1), node(a, sepolia)}, []string{a}},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := NewLook(map[string][]string{"base-sepolia": tc.nodes}, zap.NewNop())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if got := l.Seen(); !slices.Equal(got, []string{"eip155:84532"}) {
				t.Errorf("networks %v", got)
			}
			got, err := l.Genesis(t.Context(), "eip155:84532")
			if !slices.Equal(got, tc.want) || (err == nil) != (tc.want != nil) {
				t.Errorf("%v, %v; want %v", got, err, tc.want)
			}
			if _, err := l.Genesis(t.Context(), "eip155:1"); err == nil {
				t.Error("a network that is not configured has a first block")
			}
		})
	}
}
