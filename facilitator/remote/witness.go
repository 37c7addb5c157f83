package remote

import (
	"context"
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// Sees implements facilitator.Witness: without rpc there is nothing to look at.
func (f *Facilitator) Sees(network string) bool {
	return f.look != nil && f.look.Sees(network)
}

// Witness implements facilitator.Witness. It does not ask the facilitator.
func (f *Facilitator) Witness(ctx context.Context, r facilitator.Request, since time.Time) (facilitator.Proof, error) {
	if f.look == nil {
		return facilitator.Proof{}, errNoRPC
	}
	return f.look.Witness(ctx, r, since)
}

// Seen implements facilitator.Chains.
func (f *Facilitator) Seen() []string {
	if f.look == nil {
		return nil
	}
	return f.look.Seen()
}

// Genesis implements facilitator.Chains. It asks the nodes of rpc.
func (f *Facilitator) Genesis(ctx context.Context, network string) ([]string, error) {
	if f.look == nil {
		return nil, errNoRPC
	}
	return f.look.Genesis(ctx, network)
}

// HasBlock implements facilitator.Blocks. It asks the nodes of rpc.
func (f *Facilitator) HasBlock(ctx context.Context, network string, b facilitator.Block) (bool, error) {
	if f.look == nil {
		return false, errNoRPC
	}
	return f.look.HasBlock(ctx, network, b)
}

var errNoRPC = errors.New("no rpc is configured for this facilitator")

// unmarshalRPC reads the words after "rpc".
func (f *Facilitator) unmarshalRPC(d *caddyfile.Dispenser) error {
	words := d.RemainingArgs()
	if len(words) == 0 {
		return d.Err("rpc wants a network and the URLs of its nodes: write `rpc base https://…` (an unset {$VARIABLE} vanishes)")
	}
	network, urls := words[0], words[1:]
	caip2, err := chain.CheckRPC(network, urls)
	if err != nil {
		// Without the word itself: a URL may have slipped into its place.
		return d.Errf("rpc: %v; write `rpc <network> <url>…`", err)
	}
	for other := range f.RPC {
		if same, _ := chain.CheckRPC(other, f.RPC[other]); same == caip2 {
			return d.Errf("rpc for %s is given twice; write all its URLs in one line", network)
		}
	}
	if f.RPC == nil {
		f.RPC = make(map[string][]string)
	}
	f.RPC[network] = urls
	return nil
}

// Interface guards
var (
	_ facilitator.Witness = (*Facilitator)(nil)
	_ facilitator.Chains  = (*Facilitator)(nil)
	_ facilitator.Blocks  = (*Facilitator)(nil)
)
