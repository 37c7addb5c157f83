package gatetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

func init() { caddy.RegisterModule(countingModule{}) }

// counter is a facilitator in the process. It says yes to everything until told
// otherwise, and counts what it is asked.
type counter struct {
	verified, settled atomic.Int64
	// refuse makes every settlement fail for good.
	refuse atomic.Bool
}

// counting is the facilitator of the world that runs.
var counting = new(counter)

func (c *counter) reset() {
	c.verified.Store(0)
	c.settled.Store(0)
	c.refuse.Store(false)
}

// asked is how often anything was asked about a payment.
func (c *counter) asked() int64 { return c.verified.Load() + c.settled.Load() }

type countingModule struct{}

func (countingModule) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "paywall.facilitators.counting", New: func() caddy.Module { return new(countingModule) }}
}

func (*countingModule) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

func (*countingModule) Supported(context.Context) (x402.Supported, error) {
	return x402.Supported{Kinds: []x402.Kind{
		{X402Version: x402.V2, Scheme: "exact", Network: "eip155:84532"},
		{X402Version: x402.V1, Scheme: "exact", Network: "base-sepolia"},
	}}, nil
}

func (*countingModule) Verify(_ context.Context, r facilitator.Request) (facilitator.Verdict, error) {
	counting.verified.Add(1)
	return facilitator.Verdict{Valid: true, Payer: r.Payer}, nil
}

func (*countingModule) Settle(_ context.Context, r facilitator.Request) facilitator.Settlement {
	counting.settled.Add(1)
	if counting.refuse.Load() {
		return facilitator.Settlement{Outcome: facilitator.Refused, Network: r.Requirement.Network, Payer: r.Payer, Reason: "insufficient_funds"}
	}
	var tx [32]byte
	_, _ = rand.Read(tx[:])
	return facilitator.Settlement{
		Outcome: facilitator.Settled, Transaction: "0x" + hex.EncodeToString(tx[:]),
		Network: r.Requirement.Network, Payer: r.Payer,
	}
}
