package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

func init() {
	caddy.RegisterModule(Yes{})
}

// Yes is a facilitator in the process that finds every payment valid and moves
// nothing. Its transactions are random.
type Yes struct {
	// How long a settlement takes. Default: no time.
	Delay caddy.Duration `json:"delay,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Yes) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "paywall.facilitators.yes", New: func() caddy.Module { return new(Yes) }}
}

// UnmarshalCaddyfile sets up the module from Caddyfile tokens. Syntax:
//
//	facilitator <name> yes [<delay>]
func (y *Yes) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume module name
	if !d.NextArg() {
		return nil
	}
	delay, err := caddy.ParseDuration(d.Val())
	if err != nil {
		return d.Errf("delay: %v", err)
	}
	y.Delay = caddy.Duration(delay)
	return nil
}

// Supported implements facilitator.Facilitator.
func (*Yes) Supported(context.Context) (x402.Supported, error) {
	const network = "eip155:84532"
	name, ok := x402.LegacyNetwork(network)
	if !ok {
		return x402.Supported{}, fmt.Errorf("version 1 has no name for %s", network)
	}
	return x402.Supported{Kinds: []x402.Kind{
		{X402Version: x402.V2, Scheme: x402.SchemeExact, Network: network},
		{X402Version: x402.V1, Scheme: x402.SchemeExact, Network: name},
	}}, nil
}

// Verify implements facilitator.Facilitator.
func (*Yes) Verify(_ context.Context, r facilitator.Request) (facilitator.Verdict, error) {
	return facilitator.Verdict{Valid: true, Payer: r.Payer}, nil
}

// Settle implements facilitator.Facilitator.
func (y *Yes) Settle(_ context.Context, r facilitator.Request) facilitator.Settlement {
	if y.Delay > 0 {
		time.Sleep(time.Duration(y.Delay))
	}
	var tx [32]byte
	_, _ = rand.Read(tx[:]) // never fails
	return facilitator.Settlement{
		Outcome:     facilitator.Settled,
		Transaction: "0x" + hex.EncodeToString(tx[:]),
		Network:     r.Requirement.Network,
		Payer:       r.Payer,
	}
}

// Interface guards
var (
	_ facilitator.Facilitator = (*Yes)(nil)
	_ caddyfile.Unmarshaler   = (*Yes)(nil)
)
