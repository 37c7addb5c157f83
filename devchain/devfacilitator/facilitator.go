// Package devfacilitator is the facilitator for trying things out: the Caddy module
// paywall.facilitators.dev. It settles on a development chain in the process, with
// TEST MONEY.
//
// It links the whole of go-ethereum. A Caddy for production does without it, and
// the paywall never imports it.
package devfacilitator

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/devchain"
	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// defaultListen is where wallets and tools look for a development chain.
const defaultListen = "127.0.0.1:8545"

func init() {
	caddy.RegisterModule(new(Facilitator))
}

// Facilitator verifies and settles payments on a development chain that runs in
// this process, with **TEST MONEY**. Its network is that of Base Sepolia
// (`base-sepolia`), its asset a test dollar where USDC is there, so that any
// official client pays unmodified.
//
// The chain starts when the config is in use, survives reloads, and ends, with
// all that was paid, when no config uses it any more.
type Facilitator struct {
	// Where the chain serves JSON-RPC, for wallets and clients. Loopback only.
	// There is one chain in a process; while it runs, a reload does not move it.
	// Default: `127.0.0.1:8545`, or any free port if that one is taken.
	Listen string `json:"listen,omitempty"`

	ctx    caddy.Context
	logger *zap.Logger
	shared *shared
	held   bool // a share of the chain, to be given back

	mu      sync.Mutex
	settler settler // nil until the first call
	cleaned bool
}

// CaddyModule returns the Caddy module information.
func (*Facilitator) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "paywall.facilitators.dev",
		New: func() caddy.Module { return new(Facilitator) },
	}
}

// Provision takes its share of the chain, which it does not start.
func (f *Facilitator) Provision(ctx caddy.Context) error {
	f.ctx, f.logger = ctx, ctx.Logger()
	if f.Listen != "" {
		if err := devchain.CheckListen(f.Listen); err != nil {
			return err
		}
	}
	v, _, err := chains.LoadOrNew(theChain, func() (caddy.Destructor, error) { return new(shared), nil })
	if err != nil {
		return err
	}
	f.shared, f.held = v.(*shared), true
	return nil
}

// Cleanup gives back the share of the chain. Payments under way still settle.
func (f *Facilitator) Cleanup() error {
	if !f.held {
		return nil
	}
	f.held = false
	f.mu.Lock()
	f.cleaned = true
	var err error
	if f.settler != nil {
		err = f.settler.Cleanup()
	}
	f.mu.Unlock()
	_, err2 := chains.Delete(theChain)
	return errors.Join(err, err2)
}

// TestMoney reports that payments here are worth nothing. Whoever loads the
// facilitators asks for this method, so that none of them stands beside one for
// real money.
func (*Facilitator) TestMoney() bool { return true }

// Supported implements facilitator.Facilitator. It starts the chain.
func (f *Facilitator) Supported(ctx context.Context) (x402.Supported, error) {
	inner, leave, err := f.enter()
	if err != nil {
		return x402.Supported{}, unavailable("supported", err)
	}
	defer leave()
	return inner.Supported(ctx)
}

// Verify implements facilitator.Facilitator.
func (f *Facilitator) Verify(ctx context.Context, r facilitator.Request) (facilitator.Verdict, error) {
	inner, leave, err := f.enter()
	if err != nil {
		return facilitator.Verdict{}, unavailable("verify", err)
	}
	defer leave()
	return inner.Verify(ctx, r)
}

// Settle implements facilitator.Facilitator.
func (f *Facilitator) Settle(ctx context.Context, r facilitator.Request) facilitator.Settlement {
	inner, leave, err := f.enter()
	if err != nil {
		return facilitator.Settlement{
			Outcome: facilitator.Unsent,
			Network: r.Requirement.Network,
			Reason:  string(facilitator.CodeUnavailable),
			Detail:  err.Error(),
		}
	}
	defer leave()
	return inner.Settle(ctx, r)
}

// Seen implements facilitator.Chains.
func (*Facilitator) Seen() []string { return []string{network} }

// Genesis implements facilitator.Chains. It starts the chain.
func (f *Facilitator) Genesis(ctx context.Context, network string) ([]string, error) {
	inner, leave, err := f.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	return inner.Genesis(ctx, network)
}

// enter returns who settles on the chain, and starts both if need be.
func (f *Facilitator) enter() (settler, func(), error) {
	if f.shared == nil {
		return nil, nil, errors.New("facilitator is not provisioned")
	}
	chain, leave, err := f.shared.enter(f.Listen, f.logger)
	if err != nil {
		return nil, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.settler == nil && f.cleaned {
		err = errEnded
	} else if f.settler == nil {
		f.settler, err = newSettler(f.ctx, chain)
	}
	if err != nil {
		leave()
		return nil, nil, err
	}
	return f.settler, leave, nil
}

func unavailable(op string, err error) error {
	return &facilitator.Error{Op: op, Code: facilitator.CodeUnavailable, Status: http.StatusServiceUnavailable, Err: err}
}

// UnmarshalCaddyfile sets up the facilitator from Caddyfile tokens:
//
//	dev {
//		listen <address>
//	}
//
// The block may be left out.
func (f *Facilitator) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if d.NextArg() {
		return d.Errf("surplus word %q after dev; its options go into a block", d.Val())
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if word := d.Val(); word != "listen" {
			return d.Errf("unknown word %q in a dev facilitator; known is listen", word)
		}
		if f.Listen != "" {
			return d.Err("listen is given twice; remove one")
		}
		if !d.AllArgs(&f.Listen) {
			return d.Err("listen wants one address, like `listen 127.0.0.1:8545` (an unset {$VARIABLE} vanishes)")
		}
		if err := devchain.CheckListen(f.Listen); err != nil {
			return d.WrapErr(err)
		}
		if d.NextBlock(nesting + 1) {
			return d.Errf("%q begins a block where none belongs", d.Val())
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner       = (*Facilitator)(nil)
	_ caddy.CleanerUpper      = (*Facilitator)(nil)
	_ caddyfile.Unmarshaler   = (*Facilitator)(nil)
	_ facilitator.Facilitator = (*Facilitator)(nil)
	_ facilitator.Chains      = (*Facilitator)(nil)
)
