// Package promises holds the gate to its seven promises, a name in front of the
// files for each:
//
//	unpaid       No pay, no goods.
//	once         One authorization, one delivery.
//	resign       A 402 means that signing anew is safe.
//	owed         Money moved, so goods or a claim on them.
//	closed       No decision means no.
//	transparent  Apart from a published list of headers all passes as it is.
//	secret       Nothing secret shows.
package promises

import (
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

func TestMain(m *testing.M) { gate.Main(m) }
