package paywall

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/intercept"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/caddy-paywall/caddy-paywall/internal/request"
)

// place is where a gate stands among the routes of a config. What was sold at one
// place is not handed out at another: two sites, or two blocks of one site, may
// sell different things at the same URL.
type place struct {
	// id is the same after every reload that leaves the routes around the gate as
	// they are, whatever becomes of other sites.
	id string
	// hosts are the names that the routes around it spell out, in lower case.
	hosts []string
	// ports are those that its server listens on.
	ports []uint
	// matchers are those of the very route that the gate is in.
	matchers caddyhttp.RawMatcherSets
}

// places tells the gates of a config where they stand. A gate does not learn it while
// it loads, so the first request that meets a price walks through the routes.
type places struct {
	once sync.Once
	err  error
}

// tellPlaces tells all gates of this config where they stand.
func (a *App) tellPlaces() error {
	a.places.once.Do(func() {
		var found map[*Handler]place
		if found, a.places.err = a.findPlaces(); a.places.err != nil {
			return
		}
		for h, at := range found {
			h.stand(at)
		}
	})
	return a.places.err
}

// stand tells a gate where it stands, and so what its lines are.
func (h *Handler) stand(at place) {
	*h.at = at
	for i := range h.lines {
		h.lines[i].ID = request.Fingerprint(at.id, h.lines[i].words)
	}
}

func (a *App) findPlaces() (map[*Handler]place, error) {
	loaded, err := a.ctx.AppIfConfigured("http")
	if err != nil {
		return nil, err
	}
	app, ok := loaded.(*caddyhttp.App)
	if !ok {
		return nil, fmt.Errorf("the http app is a %T: its routes cannot be read", loaded)
	}
	w := placeWalk{found: map[*Handler]place{}, alike: map[string]int{}}
	with := map[string]int{} // servers with the same ports
	for _, s := range app.Servers {
		with[fmt.Sprint(portsOf(s.Listen))]++
	}
	for _, s := range app.Servers {
		// Gateways that share a ledger may each bind an address of their own.
		ports := portsOf(s.Listen)
		at := route{words: []string{fmt.Sprint(ports)}, ports: ports}
		if len(ports) == 0 || with[at.words[0]] > 1 {
			at.words = slices.Sorted(slices.Values(s.Listen))
		}
		w.routes(at, s.Routes)
		if s.Errors != nil {
			w.routes(at.in("errors"), s.Errors.Routes)
		}
		for _, name := range sortedKeys(s.NamedRoutes) {
			w.route(at.in("named "+name), s.NamedRoutes[name])
		}
	}
	return w.found, nil
}

// placeWalk goes through the routes of a config.
type placeWalk struct {
	found map[*Handler]place
	alike map[string]int // gates by what leads to them
}

// route is what leads to a gate: the listeners, and the matchers on the way.
type route struct {
	words []string
	hosts []string
	ports []uint
}

func (at route) in(word string) route {
	at.words = append(slices.Clip(at.words), word)
	return at
}

func (w *placeWalk) routes(at route, list caddyhttp.RouteList) {
	for i := range list {
		w.route(at, &list[i])
	}
}

func (w *placeWalk) route(at route, r *caddyhttp.Route) {
	var own caddyhttp.RawMatcherSets
	if len(r.MatcherSets) > 0 {
		text, err := json.Marshal(describeMatcherSets(r.MatcherSets))
		if err != nil {
			text = nil // what leads there is less exact, and its number tells it apart
		}
		_ = json.Unmarshal(text, &own) // else nothing is warned of
		at = at.in(string(text))
		at.hosts = append(slices.Clip(at.hosts), literalHosts(r.MatcherSets)...)
	}
	for _, h := range r.Handlers {
		switch h := h.(type) {
		case *Handler:
			w.add(at, h, own)
		case *caddyhttp.Subroute:
			w.routes(at, h.Routes)
			if h.Errors != nil {
				w.routes(at.in("errors"), h.Errors.Routes)
			}
		case *reverseproxy.Handler:
			w.responses(at, h.HandleResponse)
		case *intercept.Intercept:
			w.responses(at, h.HandleResponse)
		}
	}
}

func (w *placeWalk) responses(at route, responses []caddyhttp.ResponseHandler) {
	for _, r := range responses {
		w.routes(at.in("response"), r.Routes)
	}
}

// add names a gate. Of several to which the same leads, each has its number.
func (w *placeWalk) add(at route, h *Handler, own caddyhttp.RawMatcherSets) {
	way := strings.Join(at.words, "\x00")
	number := w.alike[way]
	w.alike[way]++
	w.found[h] = place{id: request.Fingerprint(way, strconv.Itoa(number)), hosts: at.hosts, ports: at.ports, matchers: own}
}

// describeMatcherSets writes down what matchers ask for, `not` with what it holds.
func describeMatcherSets(sets []caddyhttp.MatcherSet) []any {
	described := make([]any, 0, len(sets))
	for _, set := range sets {
		matchers := map[string]any{}
		for i, m := range set {
			module, ok := m.(caddy.Module)
			if !ok {
				matchers[fmt.Sprintf("%T %d", m, i)] = nil
				continue
			}
			name := module.CaddyModule().ID.Name()
			switch m := m.(type) {
			case *caddyhttp.MatchNot:
				matchers[name] = describeMatcherSets(m.MatcherSets)
			default:
				raw, err := json.Marshal(m)
				if err != nil {
					raw = nil
				}
				matchers[name] = json.RawMessage(raw)
			}
		}
		described = append(described, matchers)
	}
	return described
}

// literalHosts are the names in `host` matchers that are spelled out.
func literalHosts(sets caddyhttp.MatcherSets) (hosts []string) {
	for _, set := range sets {
		for _, m := range set {
			names, ok := m.(*caddyhttp.MatchHost)
			if !ok {
				continue
			}
			for _, name := range *names {
				if !strings.ContainsAny(name, "*{") {
					hosts = append(hosts, strings.ToLower(name))
				}
			}
		}
	}
	return hosts
}

// portsOf are the TCP ports in listen addresses.
func portsOf(listen []string) (ports []uint) {
	for _, text := range listen {
		address, err := caddy.ParseNetworkAddress(text)
		if err != nil || address.IsUnixNetwork() {
			continue
		}
		for port := address.StartPort; port <= address.EndPort; port++ {
			ports = append(ports, port)
		}
	}
	slices.Sort(ports)
	return ports
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// leaves says whether a redirect leads away from the site: downloads hand out
// signed URLs that way, and those are goods. What stays is a path, an address of
// the site's public_url, or a host and port that the site's own routes spell out;
// what the client says of its host proves nothing.
func (h *Handler) leaves(location string) bool {
	if location == "" {
		return false
	}
	// Browsers take a backslash for a slash, and drop what cannot be seen.
	if strings.ContainsFunc(location, func(c rune) bool { return c == '\\' || c <= ' ' || c == 0x7f }) {
		return true
	}
	u, err := url.Parse(location)
	if err != nil {
		return true // whoever follows it may understand it
	}
	if u.Scheme == "" && u.Host == "" && u.Opaque == "" {
		return strings.HasPrefix(location, "//") // `///host` is `//host` to browsers
	}
	if h.publicURL != "" && u.Host != "" {
		if own, err := url.Parse(h.publicURL); err == nil && sameOrigin(u, own) {
			return false
		}
	}
	return !slices.Contains(h.at.hosts, strings.ToLower(u.Hostname())) || !slices.ContainsFunc(portsLike(u), func(port uint) bool {
		return slices.Contains(h.at.ports, port)
	})
}

// portsLike are the ports that a redirect may mean: `//host/path` keeps the scheme.
func portsLike(u *url.URL) []uint {
	if u.Scheme == "" && u.Port() == "" {
		return []uint{80, 443}
	}
	return []uint{portOf(u)}
}

func sameOrigin(a, b *url.URL) bool {
	scheme := a.Scheme
	if scheme == "" {
		scheme = b.Scheme // `//host/path`
	}
	a = &url.URL{Scheme: scheme, Host: a.Host}
	return strings.EqualFold(scheme, b.Scheme) && strings.EqualFold(a.Hostname(), b.Hostname()) && portOf(a) == portOf(b)
}

// portOf is the port of a URL, or 0 if it has none that can be known.
func portOf(u *url.URL) uint {
	port := u.Port()
	switch {
	case port != "":
	case strings.EqualFold(u.Scheme, "http"):
		port = "80"
	case strings.EqualFold(u.Scheme, "https"):
		port = "443"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0
	}
	return uint(n)
}
