package evm

import (
	"testing"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// A node that is not there is nobody's doing. What a node or our own bounds say of a
// payment may be its payer's.
func TestNodeThatIsAwayIsNotReached(t *testing.T) {
	l, err := chain.NewLook(map[string][]string{baseSepolia: {"http://127.0.0.1:1"}}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = l.Genesis(t.Context(), baseSepolia)
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"no connection": {err, true},
		"busy":          {errBusy, false},
		"short":         {errShort, false},
		"nothing":       {nil, false},
	} {
		if s := unsent(tc.err); s.Outcome != facilitator.Unsent || s.Unreached != tc.want {
			t.Errorf("%s: %+v", name, s)
		}
	}
}
