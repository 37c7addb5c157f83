package chain

import (
	"encoding/json"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// TestHasBlock: the first node that knows a block of the number says whether it is
// that one, with one call.
func TestHasBlock(t *testing.T) {
	ours, other := "0x"+strings.Repeat("aa", 32), "0x"+strings.Repeat("bb", 32)
	says := func(block any) *fake {
		return startFake(t, func(method string, params []json.RawMessage) (any, *rpcError, bool) {
			if method != "eth_getBlockByNumber" || string(params[0]) != `"0x10"` {
				return nil, &rpcError{Code: -32000, Message: "not asked for"}, true
			}
			if fault, ok := block.(*rpcError); ok {
				return nil, fault, true
			}
			return block, nil, true
		})
	}
	block := func(number, hash string) map[string]any {
		return map[string]any{"number": number, "hash": hash, "timestamp": "0x1"}
	}
	for name, tt := range map[string]struct {
		nodes []any
		has   bool
		err   bool
		calls int
	}{
		"it is there":            {[]any{block("0x10", ours)}, true, false, 1},
		"another is there":       {[]any{block("0x10", other), block("0x10", ours)}, false, false, 1},
		"one lags":               {[]any{nil, block("0x10", ours)}, true, false, 2},
		"one fails":              {[]any{&rpcError{Code: -32005, Message: "limit exceeded"}, block("0x10", other)}, false, false, 2},
		"one answers at random":  {[]any{block("0x11", other), block("0x10", ours)}, true, false, 2},
		"one has no hash for it": {[]any{map[string]any{"number": "0x10"}, block("0x10", ours)}, true, false, 2},
		"all lag":                {[]any{nil, nil}, false, true, 2},
	} {
		t.Run(name, func(t *testing.T) {
			var urls []string
			var nodes []*fake
			for _, n := range tt.nodes {
				nodes = append(nodes, says(n))
				urls = append(urls, nodes[len(nodes)-1].URL)
			}
			l, err := NewLook(map[string][]string{"base-sepolia": urls}, zap.NewNop())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			has, err := l.HasBlock(t.Context(), baseSepolia, facilitator.Block{Number: 16, Hash: ours})
			if has != tt.has || (err != nil) != tt.err {
				t.Errorf("%v, %v", has, err)
			}
			calls := 0
			for _, n := range nodes {
				calls += len(n.asked)
			}
			if calls != tt.calls {
				t.Errorf("%d calls", calls)
			}
			if _, err := l.HasBlock(t.Context(), "eip155:1", facilitator.Block{}); err == nil {
				t.Error("a network that is not configured")
			}
		})
	}
}
