package paywall

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/crawlers"
	"github.com/caddy-paywall/caddy-paywall/internal/request"
)

func init() {
	caddy.RegisterModule(Crawlers{})
}

// Crawlers is what all sites of a server know of crawlers. It has no options of its own:
// they stand in `crawlers` of the `paywall` app. It is an app apart, so that the `crawler`
// matcher needs no paywall, and with it no ledger.
type Crawlers struct {
	checker  *crawlers.Checker
	key      string
	logger   *zap.Logger
	expected []*crawlers.Crawler // by matchers that want a proof
}

// CaddyModule returns the Caddy module information.
func (Crawlers) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "paywall_crawlers", New: func() caddy.Module { return new(Crawlers) }}
}

// checkers keeps what is known of addresses and signers across reloads that say the same
// of crawlers.
var checkers = caddy.NewUsagePool()

// Provision makes the table and reads lists from the disk. It asks nobody anything.
func (c *Crawlers) Provision(ctx caddy.Context) error {
	c.logger = ctx.Logger()
	var config crawlers.Config
	app, err := ctx.AppIfConfigured("paywall")
	switch {
	case errors.Is(err, caddy.ErrNotConfigured):
	case err != nil:
		return err
	case app.(*App).Crawlers != nil:
		config = *app.(*App).Crawlers
	}
	said, err := json.Marshal(config)
	if err != nil {
		return err
	}
	dir := filepath.Join(caddy.AppDataDir(), "paywall", "crawlers")
	key := fmt.Sprintf("%x %s", sha256.Sum256(said), dir)
	kept, _, err := checkers.LoadOrNew(key, func() (caddy.Destructor, error) {
		return crawlers.New(config, crawlers.Environment{Dir: dir, Logger: c.logger})
	})
	if err != nil {
		return err
	}
	c.key, c.checker = key, kept.(*crawlers.Checker)
	return nil
}

// Start has the lists fetched that matchers want.
func (c *Crawlers) Start() error {
	c.checker.LogTo(c.logger)
	c.checker.Expect(c.expected...)
	return nil
}

// Stop implements caddy.App.
func (c *Crawlers) Stop() error { return nil }

// Cleanup implements caddy.CleanerUpper.
func (c *Crawlers) Cleanup() error {
	if c.key == "" {
		return nil
	}
	_, err := checkers.Delete(c.key)
	return err
}

// crawlersOf is the app of a config.
func crawlersOf(ctx caddy.Context) (*Crawlers, error) {
	app, err := ctx.App("paywall_crawlers")
	if err != nil {
		return nil, err
	}
	return app.(*Crawlers), nil
}

// clientKey is where a request keeps who asks.
const clientKey = "paywall.client"

// client is who asks, as far as somebody wanted to know it.
type client struct {
	claim crawlers.Client
	who   *crawlers.Client // once it was asked for
}

// look reads once who a client says it is, and gives the request the placeholders.
func (c *Crawlers) look(r *http.Request) *client {
	if kept, _ := caddyhttp.GetVar(r.Context(), clientKey).(*client); kept != nil {
		return kept
	}
	found := &client{claim: c.checker.Claim(r)}
	if r.Context().Value(caddyhttp.VarsCtxKey) == nil {
		return found
	}
	caddyhttp.SetVar(r.Context(), clientKey, found)
	if replacer, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		replacer.Map(func(key string) (any, bool) {
			switch key {
			case "http.paywall.client":
				return found.claim.Name, true
			case "http.paywall.client_kind":
				return string(found.claim.Kind), true
			case "http.paywall.client_verified":
				return c.Who(r).Proof == crawlers.Verified, true
			}
			return nil, false
		})
	}
	return found
}

// Claim is who a client says it is.
func (c *Crawlers) Claim(r *http.Request) crawlers.Client { return c.look(r).claim }

// Who is who asks, by proof where there is one. The first time that an address or a signer
// is seen, it may take half a second.
func (c *Crawlers) Who(r *http.Request) crawlers.Client {
	found := c.look(r)
	if found.who == nil {
		address, _ := request.ClientAddress(r)
		who := c.checker.Who(r, address)
		found.who = &who
	}
	return *found.who
}

// Glance is like Who, and never waits: for counts, where the next request of the same
// client may be counted as proved and this one is not.
func (c *Crawlers) Glance(r *http.Request) crawlers.Client {
	found := c.look(r)
	if found.who != nil {
		return *found.who
	}
	address, _ := request.ClientAddress(r)
	who := c.checker.Glance(r, address)
	if who.Proof == crawlers.Verified {
		found.who = &who // its signature is verified once
	}
	return who
}

// Interface guards
var (
	_ caddy.App          = (*Crawlers)(nil)
	_ caddy.Provisioner  = (*Crawlers)(nil)
	_ caddy.CleanerUpper = (*Crawlers)(nil)
)
