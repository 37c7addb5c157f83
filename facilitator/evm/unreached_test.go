package evm

import (
	"net"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// A node that is not there is nobody's doing. What a node or our own bounds say of a
// payment may be its payer's.
func TestNodeThatIsAwayIsNotReached(t *testing.T) {
	_, err := net.Dial("tcp", "127.0.0.1:1")
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"no connection": {&nodeError{text: "node a", err: err}, true},
		"busy":          {errBusy, false},
		"short":         {errShort, false},
		"nothing":       {nil, false},
	} {
		if s := unsent(tc.err); s.Outcome != facilitator.Unsent || s.Unreached != tc.want {
			t.Errorf("%s: %+v", name, s)
		}
	}
}
