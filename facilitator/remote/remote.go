// Package remote is a facilitator that is asked over HTTP: the Caddy module
// paywall.facilitators.remote.
package remote

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

const (
	defaultTimeout = 5 * time.Second
	maxTimeout     = time.Minute

	// settleTimeout is the longest that a /settle is waited for. Facilitators
	// wait for the chain inside the call, some of them for minutes.
	settleTimeout = 120 * time.Second
	// supportedTimeout bounds one try of /supported.
	supportedTimeout = 10 * time.Second
)

func init() {
	caddy.RegisterModule(Facilitator{})
}

// Facilitator verifies and settles payments by asking a facilitator over HTTP,
// with the API that all x402 facilitators share (`/verify`, `/settle` and
// `/supported` below one URL).
//
// Only a complete and clear answer counts. Redirects are never followed, because
// the request carries credentials and money. Connections are kept open and
// shared across config reloads. The proxy variables of the environment
// (`HTTPS_PROXY`, `NO_PROXY`) are honoured, as in Caddy's reverse proxy; a proxy
// sees the host name but neither credentials nor payments, since both travel
// inside TLS.
type Facilitator struct {
	// The URL below which `/verify`, `/settle` and `/supported` are, for example
	// `https://www.x402.org/facilitator`: the one that answers, not one that redirects
	// there. It must be `https`; `http` is allowed on
	// loopback only. There is no default.
	URL string `json:"url,omitempty"`

	// How requests prove who sends them. Default: they do not.
	Auth *Auth `json:"auth,omitempty"`

	// How long to wait for an answer to `/verify`, at most one minute. Default:
	// `5s`. The time-outs of the other calls are fixed: 3s to connect, 10s for
	// `/supported`, and 120s for `/settle`, where giving up early would only
	// mean not to know.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// Nodes of EVM chains, by the chain's name (`base`) or CAIP-2 id
	// (`eip155:8453`), to look at payments in doubt: whether they moved the money
	// is then read from the chain, when the facilitator was silent or unclear.
	// For each chain 1 to 8 URLs of JSON-RPC nodes; `https` only, except on
	// loopback. Whole URLs may be `{env.*}` or `{file.*}`, which keeps an API key
	// in them out of config dumps. With two nodes, neither alone can make a
	// payment void. Default: none, and a payment in doubt stays so until the
	// facilitator knows, or for good.
	RPC map[string][]string `json:"rpc,omitempty"`

	// Take the facilitator's word that a payment is settled only when a node under
	// `rpc` shows it: the payment's own event and transfer, in a block after our
	// claim. Payments of networks without nodes are taken on its word. It costs the
	// time of a block, and some calls of the nodes, for each payment.
	Confirm bool `json:"confirm,omitempty"`

	base   *url.URL
	auth   authorizer
	logger *zap.Logger
	key    string // of shared in the pool; "" while it holds no reference
	shared *shared
	look   *chain.Look // nil without RPC

	// Pauses between tries of /supported and looks at the chain, so that tests need
	// none, and the look itself.
	sleep   func(context.Context, time.Duration) error
	witness func(context.Context, facilitator.Request, time.Time) (facilitator.Proof, error)
}

// CaddyModule returns the Caddy module information.
func (Facilitator) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "paywall.facilitators.remote",
		New: func() caddy.Module { return new(Facilitator) },
	}
}

// Provision resolves the credentials and takes the connections out of the pool.
// It uses no network.
func (f *Facilitator) Provision(ctx caddy.Context) error {
	f.logger = ctx.Logger()
	f.sleep, f.witness = facilitator.Sleep, f.Witness
	if f.Timeout == 0 {
		f.Timeout = caddy.Duration(defaultTimeout)
	}
	var err error
	if f.base, err = parseBase(f.URL); err != nil {
		return err
	}
	f.auth = anonymous{}
	if f.Auth != nil {
		if f.auth, err = f.Auth.resolve(); err != nil {
			return fmt.Errorf("auth: %w", err)
		}
		if f.Auth.inTheClear() {
			f.logger.Warn("credentials of the facilitator are in the config in the clear: use {env.*} or {file.*}",
				zap.String("host", f.base.Host))
		}
	}
	if len(f.RPC) > 0 {
		if f.look, err = chain.NewLook(f.RPC, f.logger); err != nil {
			return fmt.Errorf("rpc: %w", err)
		}
	}
	return f.open()
}

// Validate checks what Provision did not need.
func (f *Facilitator) Validate() error {
	if f.Timeout < 0 || time.Duration(f.Timeout) > maxTimeout {
		return fmt.Errorf("timeout %s: must be more than 0 and at most %s", time.Duration(f.Timeout), maxTimeout)
	}
	if f.Confirm && len(f.RPC) == 0 {
		return errors.New("confirm: there is no rpc to confirm payments with")
	}
	return nil
}

// Cleanup gives the connections back to the pool. Requests that are still
// running keep theirs.
func (f *Facilitator) Cleanup() error {
	if f.look != nil {
		f.look.Close()
	}
	if f.key == "" {
		return nil
	}
	key := f.key
	f.key = ""
	_, err := pool.Delete(key)
	return err
}

// UnmarshalCaddyfile sets up the facilitator from Caddyfile tokens:
//
//	remote <https-url> {
//		auth    bearer <token>
//		auth    header <name> <value>
//		auth    cdp <key_id> <key_secret>
//		timeout <duration>
//		rpc     <network> <url>...
//		confirm
//	}
//
// At most one auth, and one rpc for each network. Token, value, key_id,
// key_secret and each URL of rpc may be {env.*} or {file.*}.
func (f *Facilitator) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if !d.NextArg() {
		return d.Err("the URL of the facilitator is missing: write `<name> https://…` (an unset {$VARIABLE} vanishes)")
	}
	f.URL = d.Val()
	if _, err := parseBase(f.URL); err != nil {
		return d.WrapErr(err)
	}
	if d.NextArg() {
		return d.Errf("surplus word %q after the URL of the facilitator; its options go into a block", d.Val())
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := f.unmarshalOption(d); err != nil {
			return err
		}
	}
	return nil
}

func (f *Facilitator) unmarshalOption(d *caddyfile.Dispenser) error {
	switch word := d.Val(); word {
	case "auth":
		if f.Auth != nil {
			return d.Err("auth is given twice; a facilitator takes one")
		}
		f.Auth = new(Auth)
		if err := f.Auth.unmarshal(d); err != nil {
			return err
		}
	case "timeout":
		if f.Timeout != 0 {
			return d.Err("timeout is given twice; remove one")
		}
		args := d.RemainingArgs()
		if len(args) != 1 {
			return d.Errf("timeout wants one duration, like `timeout 5s`, not %d words", len(args))
		}
		timeout, err := caddy.ParseDuration(args[0])
		if err != nil {
			return d.Errf("timeout %q is no duration; write it like 5s", args[0])
		}
		if timeout <= 0 || timeout > maxTimeout {
			return d.Errf("timeout %s: must be more than 0 and at most %s", args[0], maxTimeout)
		}
		f.Timeout = caddy.Duration(timeout)
	case "rpc":
		if err := f.unmarshalRPC(d); err != nil {
			return err
		}
	case "confirm":
		if f.Confirm {
			return d.Err("confirm is given twice")
		}
		f.Confirm = true
	default:
		return d.Errf("unknown word %q in a remote facilitator; known are auth, timeout, rpc and confirm", word)
	}
	if d.NextArg() {
		return d.Errf("surplus word %q", d.Val())
	}
	if nesting := d.Nesting(); d.NextBlock(nesting) {
		return d.Errf("%q begins a block where none belongs", d.Val())
	}
	return nil
}

// errNotProvisioned is for a zero Facilitator that is used all the same.
var errNotProvisioned = errors.New("facilitator is not provisioned")

// Interface guards
var (
	_ caddy.Provisioner       = (*Facilitator)(nil)
	_ caddy.Validator         = (*Facilitator)(nil)
	_ caddy.CleanerUpper      = (*Facilitator)(nil)
	_ caddyfile.Unmarshaler   = (*Facilitator)(nil)
	_ facilitator.Facilitator = (*Facilitator)(nil)
)
