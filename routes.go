package paywall

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/fileserver"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/intercept"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/caddyserver/caddy/v2/modules/logging"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-paywall/caddy-paywall/routes"
)

// checkRoutes refuses a config whose routes leave a gate open, and warns of what
// may be meant so. One block cannot see that, and while modules load the routes
// are not there yet; so it happens at Start.
func (a *App) checkRoutes() error {
	findings, err := a.routeFindings()
	if err != nil {
		return err
	}
	if look := a.shared.findings; look != nil {
		findings = look(findings)
	}
	var refused []error
	for _, f := range findings {
		if f.Severity == routes.Error {
			refused = append(refused, errors.New(f.String()))
			continue
		}
		a.logger.Warn(f.Message, zap.String("site", f.Site), zap.String("rule", f.Rule))
	}
	return errors.Join(refused...)
}

// routeFindings walks through the routes of the config that is starting.
func (a *App) routeFindings() ([]routes.Finding, error) {
	loaded, err := a.ctx.AppIfConfigured("http")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return nil, nil // no sites, no gates
	}
	if err != nil {
		return nil, err
	}
	app, ok := loaded.(*caddyhttp.App)
	if !ok {
		return nil, fmt.Errorf("the http app is a %T: its routes cannot be checked", loaded)
	}
	raw, err := json.Marshal(describeApp(app))
	if err != nil {
		return nil, fmt.Errorf("checking the routes: %w", err)
	}
	config, err := routes.ParseHTTP(raw)
	if err != nil {
		return nil, err
	}
	config.InTheClear = logsInTheClear(a.ctx.Logger(app))
	return routes.Check(config)
}

// describeApp is the config of the http app again. Caddy keeps no JSON of what it
// has loaded, so the modules are written down anew; see Route in the routes
// package for what is needed.
func describeApp(app *caddyhttp.App) map[string]any {
	servers := map[string]any{}
	for name, s := range app.Servers {
		server := map[string]any{
			"listen": s.Listen, "routes": describeRoutes(s.Routes), "errors": describeErrors(s.Errors),
			"logs": s.Logs, "trusted_proxies_unix": s.TrustedProxiesUnix, "trusted_proxies_strict": s.TrustedProxiesStrict,
		}
		if trustsProxies(s) {
			server["trusted_proxies"] = struct{}{}
		}
		if s.AutoHTTPS != nil {
			server["automatic_https"] = s.AutoHTTPS
		}
		if len(s.TLSConnPolicies) > 0 {
			server["tls_connection_policies"] = []any{struct{}{}}
		}
		named := map[string]any{}
		for name, r := range s.NamedRoutes {
			named[name] = describeRoute(r)
		}
		server["named_routes"] = named
		servers[name] = server
	}
	return map[string]any{"servers": servers, "http_port": app.HTTPPort, "https_port": app.HTTPSPort}
}

// trustsProxies says whether a server has trusted_proxies. Caddy keeps them in a field
// of its own once they are loaded.
func trustsProxies(s *caddyhttp.Server) bool {
	loaded := reflect.ValueOf(s).Elem().FieldByName("trustedProxies")
	return !loaded.IsValid() || !loaded.IsNil()
}

func describeErrors(errors *caddyhttp.HTTPErrorConfig) map[string]any {
	if errors == nil {
		return nil
	}
	return map[string]any{"routes": describeRoutes(errors.Routes)}
}

func describeRoutes(list caddyhttp.RouteList) []any {
	described := make([]any, 0, len(list))
	for i := range list {
		described = append(described, describeRoute(&list[i]))
	}
	return described
}

func describeRoute(r *caddyhttp.Route) map[string]any {
	handlers := make([]any, 0, len(r.Handlers))
	for _, h := range r.Handlers {
		handlers = append(handlers, describeHandler(h))
	}
	return map[string]any{"group": r.Group, "terminal": r.Terminal, "match": describeMatchers(r.MatcherSets), "handle": handlers}
}

func describeMatchers(sets caddyhttp.MatcherSets) []any {
	described := make([]any, 0, len(sets))
	for _, set := range sets {
		matchers := map[string]any{}
		for _, m := range set {
			switch m := m.(type) {
			case *caddyhttp.MatchNot: // Caddy has moved what it holds
				matchers["not"] = describeMatchers(m.MatcherSets)
			case caddy.Module:
				raw, err := json.Marshal(m)
				if err != nil {
					raw = nil // it says nothing to us
				}
				matchers[m.CaddyModule().ID.Name()] = json.RawMessage(raw)
			}
		}
		described = append(described, matchers)
	}
	return described
}

// describeHandler writes a handler down, and what it holds of other routes,
// which Caddy has moved from the raw config into fields without JSON.
func describeHandler(h caddyhttp.MiddlewareHandler) any {
	module, ok := h.(caddy.Module)
	if !ok {
		return map[string]any{"handler": fmt.Sprintf("%T", h)}
	}
	described := members(h)
	described["handler"] = module.CaddyModule().ID.Name()
	switch h := h.(type) {
	case *caddyhttp.Subroute:
		described["routes"], described["errors"] = describeRoutes(h.Routes), describeErrors(h.Errors)
	case *reverseproxy.Handler:
		described["handle_response"] = describeResponses(h.HandleResponse)
		if m, ok := h.DynamicUpstreams.(caddy.Module); ok {
			dynamic := members(m)
			dynamic["source"] = m.CaddyModule().ID.Name()
			described["dynamic_upstreams"] = dynamic
		}
		if h.LoadBalancing != nil {
			described["load_balancing"] = map[string]any{"retry_match": describeMatchers(h.LoadBalancing.RetryMatch)}
		}
	case *intercept.Intercept:
		described["handle_response"] = describeResponses(h.HandleResponse)
	case *fileserver.FileServer:
		described["precompressed"] = precompressed(h)
	case *caddyauth.Authentication:
		providers := map[string]any{}
		for name := range h.Providers {
			providers[name] = struct{}{}
		}
		described["providers"] = providers
	case *Handler:
		described["prices"], described["free"] = describeLines(h.sold()), describeLines(h.Free)
		described["exempt"] = describeExempt(h)
	}
	return described
}

// precompressed are the encodings that a file server has sidecars for. Caddy
// keeps them in a field of its own once they are loaded; the order, which
// Caddyfiles always write, may be missing in JSON, where it is only a preference.
func precompressed(files *fileserver.FileServer) map[string]any {
	encodings := map[string]any{}
	for _, name := range files.PrecompressedOrder {
		encodings[name] = struct{}{}
	}
	loaded := reflect.ValueOf(files).Elem().FieldByName("precompressors")
	if loaded.Kind() == reflect.Map {
		for _, name := range loaded.MapKeys() {
			encodings[name.String()] = struct{}{}
		}
	}
	return encodings
}

func describeResponses(responses []caddyhttp.ResponseHandler) []any {
	described := make([]any, 0, len(responses))
	for _, r := range responses {
		described = append(described, map[string]any{
			"match": r.Match, "status_code": string(r.StatusCode), "routes": describeRoutes(r.Routes),
		})
	}
	return described
}

// describeLines writes lines down, with their matchers as the config has them.
func describeLines[L Price | Free](lines []L) []any {
	described := make([]any, 0, len(lines))
	for i := range lines {
		line := members(lines[i])
		var matchers json.RawMessage
		switch l := any(&lines[i]).(type) {
		case *Price:
			matchers = l.matchers
		case *Free:
			matchers = l.matchers
		}
		if len(matchers) > 0 {
			line["match"] = matchers
		}
		described = append(described, line)
	}
	return described
}

// describeExempt writes the lines down for those who pay nothing.
func describeExempt(h *Handler) []any {
	described := make([]any, 0, len(h.exempt))
	for i := range h.exempt {
		line := members(h.Exempt[i])
		line["match"] = json.RawMessage(h.exempt[i].matchers)
		described = append(described, line)
	}
	return described
}

// members are the members of a module's JSON. One that has none tells us
// nothing but its name.
func members(module any) map[string]any {
	members := map[string]any{}
	raw, err := json.Marshal(module)
	if err != nil || json.Unmarshal(raw, &members) != nil || members == nil {
		return map[string]any{}
	}
	return members
}

// logsInTheClear finds out whether the entries of a logger are written with
// payment headers as they are. Caddy does not show the config of its logs, so
// each log is given a request to encode: its encoder comes along with it. That
// writes nothing, because no entry is written.
func logsInTheClear(logger *zap.Logger) func(name string, debug bool) bool {
	cores := []zapcore.Core{logger.Core()}
	if tee := reflect.ValueOf(logger.Core()); tee.Kind() == reflect.Slice { // zapcore.NewTee of several
		cores = nil
		for i := range tee.Len() {
			if core, ok := reflect.TypeAssert[zapcore.Core](tee.Index(i)); ok {
				cores = append(cores, core)
			}
		}
	}
	return func(name string, debug bool) bool {
		entry := zapcore.Entry{LoggerName: name, Level: zapcore.ErrorLevel}
		if debug {
			entry.Level = zapcore.DebugLevel
		}
		for _, core := range cores {
			if core.Check(entry, nil) == nil {
				continue // goes elsewhere
			}
			p := &headerProbe{}
			core.With([]zapcore.Field{zap.Object("request", p)})
			if p.shown {
				return true
			}
		}
		return false
	}
}

// headerProbe is a request to be logged; it notices whether it would be written
// with its payment headers.
type headerProbe struct{ shown bool }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (p *headerProbe) MarshalLogObject(encoder zapcore.ObjectEncoder) error {
	if f, ok := encoder.(logging.FilterEncoder); ok {
		p.shown = !routes.HidesPayments(func(field string) bool { _, ok := f.Fields[field]; return ok })
		return nil
	}
	p.shown = true
	return nil
}
