package paywall_test

import (
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

func TestMain(m *testing.M) { gate.Main(m) }
