//go:build servers

package servers

import (
	"context"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

func init() { caddy.RegisterModule(broke{}) }

// broke is a facilitator for payers without money: it offers, and refuses every
// payment. So nothing that leaves the gate can have been paid.
type broke struct{}

func (broke) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "paywall.facilitators.broke", New: func() caddy.Module { return new(broke) }}
}

func (*broke) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

func (*broke) Supported(context.Context) (x402.Supported, error) {
	return x402.Supported{Kinds: []x402.Kind{
		{X402Version: x402.V2, Scheme: "exact", Network: "eip155:84532"},
		{X402Version: x402.V1, Scheme: "exact", Network: "base-sepolia"},
	}}, nil
}

func (*broke) Verify(context.Context, facilitator.Request) (facilitator.Verdict, error) {
	return facilitator.Verdict{Reason: "insufficient_funds"}, nil
}

func (*broke) Settle(_ context.Context, r facilitator.Request) facilitator.Settlement {
	return facilitator.Settlement{Outcome: facilitator.Refused, Network: r.Requirement.Network, Payer: r.Payer, Reason: "insufficient_funds"}
}
