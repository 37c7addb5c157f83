// Package health tells a load balancer whether a gateway can sell.
package health

import (
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/go-json-experiment/json"
)

func init() {
	caddy.RegisterModule(Handler{})
	httpcaddyfile.RegisterHandlerDirective("paywall_health", parse)
	httpcaddyfile.RegisterDirectiveOrder("paywall_health", httpcaddyfile.Before, "respond")
}

// Handler answers 200 while this gateway can sell, and 503 while it cannot because its
// ledger does not work: then a load balancer can send requests to another one. It says
// nothing about facilitators, which all gateways have in common, and asks nobody, so that
// it may be asked often.
type Handler struct{ app ready }

// ready is what it knows of the paywall app.
type ready interface{ Ready() error }

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.paywall_health", New: func() caddy.Module { return new(Handler) }}
}

// Provision finds the paywall app.
func (h *Handler) Provision(ctx caddy.Context) error {
	app, err := ctx.AppIfConfigured("paywall")
	if err != nil {
		return fmt.Errorf("paywall_health: the global options need a `paywall` block, which names the ledger: %w", err)
	}
	h.app = app.(ready)
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, _ *http.Request, _ caddyhttp.Handler) error {
	status, said := http.StatusOK, "ok"
	if h.app.Ready() != nil { // why is for the log, and not for strangers
		status, said = http.StatusServiceUnavailable, "ledger_unavailable"
	}
	body, err := json.Marshal(map[string]string{"status": said})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, err = w.Write(body)
	return err
}

// parse reads the directive. Syntax:
//
//	paywall_health [<matcher>]
func parse(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile implements caddyfile.Unmarshaler.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() || d.NextBlock(0) {
		return d.Errf("unexpected %q; paywall_health has at most a matcher, such as `paywall_health /health`", d.Val())
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
