package routes

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/pricing"
)

// backends are where the goods behind the gate come from.
func (w *walk) backends(g *Gate) []string {
	var backends []string
	for _, a := range w.answerers {
		if a.backend != "" && slices.Contains(a.at.gates, g) {
			backends = append(backends, a.backend)
		}
	}
	return backends
}

// upstreams are the origins of the HTTP servers behind the gate.
func (w *walk) upstreams(g *Gate) []string {
	var origins []string
	for _, a := range w.answerers {
		var proxy struct {
			Upstreams []struct{ Dial string }
			Transport struct {
				Protocol string
				TLS      json.RawMessage
			}
		}
		if a.handler.Name != "reverse_proxy" || !slices.Contains(a.at.gates, g) || !a.handler.read(&proxy) ||
			proxy.Transport.Protocol != "" && proxy.Transport.Protocol != "http" {
			continue
		}
		scheme := "http://"
		if len(proxy.Transport.TLS) > 0 {
			scheme = "https://"
		}
		for _, u := range proxy.Upstreams {
			if _, _, err := net.SplitHostPort(u.Dial); err == nil && !strings.ContainsAny(u.Dial, "/{") {
				origins = append(origins, scheme+u.Dial)
			}
		}
	}
	slices.Sort(origins)
	return slices.Compact(origins)
}

// checkErrors finds error routes that serve goods.
func (w *walk) checkErrors(g *Gate) {
	backends := w.backends(g)
	var raisers []string
	for _, r := range g.at.raisers {
		if w.meetsGate(&r.at, g) != none {
			raisers = append(raisers, r.handler.Name)
		}
	}
	slices.Sort(raisers)
	raisers = slices.Compact(raisers)
	for _, a := range w.answerers {
		if a.at.inError && a.at.changed() && a.at.server == g.Server && a.goods() && len(a.at.gates) == 0 {
			w.checkErrorPage(g, a)
		}
		if !a.at.inError || a.at.server != g.Server || !a.goods() || a.at.changed() || len(a.at.gates) > 0 || w.meetsGate(&a.at, g) == none {
			continue
		}
		if len(raisers) > 0 && slices.ContainsFunc(backends, a.servesFrom) {
			w.find(g, Error, RuleErrorRoute,
				"an error route answers by %s with the path of the request, and %s before the paywall can raise an error: whoever causes one gets priced paths without payment; rewrite to an error page, or put a paywall there",
				a.what, strings.Join(raisers, ", "))
			continue
		}
		w.find(g, Warning, RuleErrorRoute,
			"an error route answers by %s with the path of the request: if that serves what is priced, an error gives it away; rewrite to an error page", a.what)
	}
}

// checkErrorPage finds error pages that are priced by name, and error routes in
// which the client says what is served.
func (w *walk) checkErrorPage(g *Gate, a *answerer) {
	for _, s := range a.at.steps {
		if s.foreign != "" && !strings.HasPrefix(s.foreign, "{http.reverse_proxy.") {
			w.find(g, Warning, RuleErrorRoute,
				"in an error route %s says which path %s serves: if that serves what is priced, an error gives it away; rewrite to an error page", s.foreign, a.what)
			return
		}
	}
	for _, path := range a.at.seedPaths() {
		for _, t := range a.at.follow(g, path) {
			now := t.now()
			if path == now {
				continue
			}
			for _, l := range g.Lines {
				// A line for everything does not name the page.
				if l.Path == now || pricing.Covers(l.Path, now) && !pricing.Covers(l.Path, "/x") && g.decide(l.Methods, now) != pricing.Free {
					w.find(g, Warning, RuleErrorRoute,
						"an error route answers by %s with %s, which costs something: an error gives it away; rewrite to a page that is free", a.what, now)
					return
				}
			}
		}
	}
}

// meetsGate says how many of the requests to the gate's priced paths come to a
// place.
func (w *walk) meetsGate(p *place, g *Gate) relation {
	met := none
	for _, paths := range g.groups {
		for _, path := range paths {
			met = max(met, p.takes(g, path))
		}
	}
	return met
}

// servesFrom reports whether an error route serves from the backend. The root of
// a site is its error routes' too, where they name none.
func (a *answerer) servesFrom(backend string) bool {
	return a.backend == backend || a.handler.Name == "file_server" && a.backend == "" && strings.HasPrefix(backend, "file:")
}

// checkAround finds other ways to the goods: the same site on another server,
// or the same upstream in another site, also in its error routes and where it answers
// instead of another handler. It returns what it told of.
func (w *walk) checkAround(g *Gate) (told []*answerer) {
	var sellers []*answerer
	all := slices.Concat(w.answerers, w.responders)
	for _, o := range all {
		if o.servesBehind(g) {
			sellers = append(sellers, o)
		}
	}
	for _, a := range all {
		if a.ownError(g) || slices.Contains(a.at.gates, g) || !a.goods() {
			continue
		}
		sameSite := a.at.server != g.Server && meetsHost(a.hosts, g.Hosts) != none
		sameGoods := (a.at.server != g.Server || !slices.Equal(a.hosts, g.Hosts)) && slices.ContainsFunc(sellers, a.samePlace)
		if !sameSite && !sameGoods {
			continue
		}
		path, open := "", false
		if sameSite {
			path, open = w.open(a, g)
		}
		if !open && sameGoods {
			path, open = w.openElsewhere(a, g, sellers)
		}
		if open {
			told = append(told, a)
		}
		switch {
		case !open:
		case sameSite:
			w.find(g, Warning, RuleAround,
				"the same site at %s serves %s without a paywall (%s); redirect there, or put the paywall there too", w.where(a), path, a.what)
		default:
			w.find(g, Warning, RuleAround,
				"%s serves from the same place (%s), without a paywall: %s can be had there for nothing, by who can reach it", w.where(a), a.what, path)
		}
	}
	return told
}

// ownError reports whether an error route is one of the gate's site: see checkErrors.
func (a *answerer) ownError(g *Gate) bool {
	return a.at.inError && a.at.server == g.Server && (len(a.hosts) == 0 || meetsHost(a.hosts, g.Hosts) != none)
}

// samePlace reports whether both serve from the same server, or from directories of which
// one lies in the other.
func (a *answerer) samePlace(o *answerer) bool {
	if a.asks(o) || a.backend != "" && a.backend == o.backend && !a.otherHost(o) {
		return true
	}
	named := func(dir string) bool { return strings.Contains(dir, "{") }
	return a.handler.Name == "file_server" && !slices.ContainsFunc(slices.Concat(a.dirs(), o.dirs()), named) && a.backend+o.backend != "" && a.kin(o)
}

// openElsewhere finds a path for which another site serves what has a price behind the
// gate.
func (w *walk) openElsewhere(a *answerer, g *Gate, sellers []*answerer) (string, bool) {
	there := &Gate{Hosts: a.hosts, at: place{conds: a.at.conds}} // whoever comes has met these
	for i := range g.Lines {
		for _, o := range sellers {
			if !a.samePlace(o) {
				continue
			}
			paths := append(g.examples(i, o), g.examples(i, a)...)
			slices.Sort(paths)
			for _, priced := range slices.Compact(paths) {
				for _, sold := range o.at.follow(g, priced) {
					if path := w.alsoAt(a, there, o, g, priced, &sold); path != "" {
						return path, true
					}
				}
			}
		}
	}
	// What somebody names is followed nowhere: it may be anything.
	if slices.ContainsFunc(append(slices.Clip(sellers), a), func(o *answerer) bool {
		return o.samePlace(a) && slices.ContainsFunc(o.at.steps, func(s step) bool { return s.foreign != "" })
	}) {
		return w.open(a, g)
	}
	return "", false
}

// alsoAt is a path for which an answerer of another site serves what one behind the gate
// serves for a priced one; "" if there is none.
func (w *walk) alsoAt(a *answerer, there *Gate, o *answerer, g *Gate, priced string, sold *trail) string {
	for _, name := range a.names(g, o, sold) {
		received := []string{priced}
		if sold.now() == priced || !o.ordinary(g, sold.now()) { // a program that answers everything asks for the path as it was received
			received = append(received, a.at.origins(name)...)
		}
		for _, path := range received {
			if w.followed++; w.followed > maxFollowed {
				w.incomplete = true
				return ""
			}
			if slices.ContainsFunc(a.at.gates, func(other *Gate) bool { return other.charges(path) }) {
				continue
			}
			for _, t := range a.at.follow(there, path) {
				if t.now() == name && (a.handler.Name != "file_server" || a.source(there, &t) == o.source(g, sold)) {
					return path
				}
			}
		}
	}
	return ""
}

// open finds a priced path that the answerer serves without a price.
func (w *walk) open(a *answerer, g *Gate) (string, bool) {
	for i := range g.Lines {
		for _, path := range g.examples(i, a) {
			if slices.ContainsFunc(a.at.gates, func(o *Gate) bool { return o.charges(path) }) {
				continue
			}
			met := all
			for _, c := range a.at.conds {
				if _, ok := c.paths(); ok && !g.at.shared(c) {
					met = min(met, c.meets(path, g.Hosts))
				}
			}
			if met != none {
				return path, true
			}
		}
	}
	return "", false
}

// checkInner finds sites of the config that a proxy behind the gate asks, and that others can
// ask too.
func (w *walk) checkInner(g *Gate, told []*answerer) {
	for _, o := range w.answerers {
		if o.handler.Name != "reverse_proxy" || !o.servesBehind(g) {
			continue
		}
		reached := map[string]bool{}
		for name, s := range w.config.Servers {
			if s != nil && o.reaches(s) {
				reached[name] = true
			}
		}
		if len(reached) == 0 {
			continue
		}
		host := o.fixedHost()
		for _, a := range w.answerers {
			elsewhere := a.at.server != g.Server || len(a.hosts) > 0 && !slices.Equal(a.hosts, g.Hosts)
			if !reached[a.at.server] || !elsewhere || a.at.inError || slices.Contains(a.at.gates, g) || slices.Contains(told, a) || a.local() ||
				host != "" && len(a.hosts) > 0 && meetsHost(a.hosts, []string{host}) == none {
				continue
			}
			for i := range g.Lines {
				for _, priced := range g.examples(i, o) {
					for _, sold := range o.at.follow(g, priced) {
						path := sold.now()
						if w.followed++; w.followed > maxFollowed {
							w.incomplete = true
							return
						}
						if len(a.at.follow(&Gate{Hosts: a.hosts}, path)) == 0 || slices.ContainsFunc(a.at.gates, func(other *Gate) bool { return other.charges(path) }) {
							continue
						}
						w.find(g, Warning, RuleAround, "%s asks another site of this config, %s, which others can ask too: %s can be had there for nothing (%s); give it a port of its own, with `bind 127.0.0.1`",
							o.what, w.where(a), path, a.what)
						return
					}
				}
			}
		}
	}
}

// reaches reports whether a proxy asks a server of the config, which listens for others
// than this machine.
func (o *answerer) reaches(s *Server) bool {
	for _, address := range s.Listen {
		host, port, err := net.SplitHostPort(strings.TrimPrefix(address, "tcp/"))
		ip := net.ParseIP(host)
		if err != nil || strings.HasPrefix(host, "unix/") || strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback() {
			continue
		}
		if slices.Contains(o.dials, normalDial(net.JoinHostPort("localhost", port))) || slices.Contains(o.dials, normalDial(net.JoinHostPort(host, port))) {
			return true
		}
	}
	return false
}

// local reports whether a matcher of addresses stands around the answerer.
func (a *answerer) local() bool {
	return slices.ContainsFunc(a.at.conds, func(c *cond) bool {
		return len(c.sets) > 0 && !slices.ContainsFunc(c.sets, func(set matcherSet) bool { return set["remote_ip"] == nil && set["client_ip"] == nil })
	})
}

// where names the site of an answerer.
func (w *walk) where(a *answerer) string {
	listen := strings.Join(w.config.Servers[a.at.server].Listen, ", ")
	if len(a.hosts) > 0 {
		return fmt.Sprintf("%s (%s)", strings.Join(a.hosts, ", "), listen)
	}
	return listen
}

// checkRetries finds proxies behind the gate that send a request with effects
// twice.
func (w *walk) checkRetries(g *Gate) {
	if !slices.ContainsFunc(g.Lines, func(l Line) bool { return hasEffects(l.Methods) }) {
		return
	}
	for _, a := range w.answerers {
		if a.handler.Name != "reverse_proxy" || !slices.Contains(a.at.gates, g) {
			continue
		}
		var proxy struct {
			LB *struct {
				Match []matcherSet `json:"retry_match"`
			} `json:"load_balancing"`
		}
		if !a.handler.read(&proxy) || proxy.LB == nil {
			continue
		}
		for _, set := range proxy.LB.Match {
			if raw, ok := set["method"]; ok && !hasEffects(strs(raw)) {
				continue
			}
			w.find(g, Warning, RuleRetries,
				"%s sends requests of all methods again (lb_retry_match): a request that was paid once can act twice upstream; add `method GET` to it", a.what)
			break
		}
	}
}

// hasEffects reports whether one of the methods acts; none means all.
func hasEffects(methods []string) bool {
	return len(methods) == 0 || slices.ContainsFunc(methods, func(m string) bool {
		return !slices.Contains([]string{"GET", "HEAD", "OPTIONS", "QUERY", "TRACE"}, m)
	})
}

// speaksTLS says whether clients of a site come by HTTPS, as far as the config
// tells: Caddy turns it on by itself for sites with names.
func (c *Config) speaksTLS(s *Server, hosts []string) bool {
	if len(s.TLS) > 0 {
		return true
	}
	plain := strconv.Itoa(or(c.HTTPPort, 80))
	onlyPlain := !slices.ContainsFunc(s.Listen, func(address string) bool {
		_, port, err := net.SplitHostPort(address)
		return err != nil || port != plain
	})
	return !s.Auto.Disabled && !onlyPlain && slices.ContainsFunc(hosts, func(h string) bool { return !slices.Contains(s.Auto.Skip, h) })
}

func or(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}
