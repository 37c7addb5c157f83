package routes

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// walk collects what stands in the routes, in the order in which requests meet
// it.
type walk struct {
	config    *Config
	gates     []*Gate
	answerers []*answerer
	// responders answer instead of another handler: in its handle_response.
	responders []*answerer
	// stops are all that end a request's way, answerers among them.
	stops    []*answerer
	findings []Finding
	depth    int
	// visits is how many routes the walk went through, maxVisits how many it may.
	visits, maxVisits int
	followed          int      // how far requests were followed behind the gates
	invoked           []string // the named routes that the walk is in
	err               error

	// incomplete says that there were too many routes, or too deep ones.
	incomplete bool

	// before is what stood before each gate, in its own site.
	before map[*Gate][]*answerer
}

func newWalk(c *Config) *walk {
	return &walk{config: c, maxVisits: maxVisits, before: map[*Gate][]*answerer{}}
}

// servers walks through all servers of the config.
func (w *walk) servers() error {
	c := w.config
	for _, name := range slices.Sorted(maps.Keys(c.Servers)) {
		s := c.Servers[name]
		if s == nil {
			continue
		}
		w.list(s.Routes, place{server: name})
		if s.Errors != nil {
			w.list(s.Errors.Routes, place{server: name, inError: true})
		}
	}
	return w.err
}

// maxDepth bounds routes in routes.
const maxDepth = 100

// maxVisits bounds how many routes the walk goes through: named routes that
// invoke each other make many of few.
const maxVisits = 200_000

// list walks through a list of routes, and returns where requests are that came
// through it.
func (w *walk) list(routes []Route, p place) place {
	if w.visits += len(routes); w.depth == maxDepth || w.visits > w.maxVisits {
		w.incomplete = true
		return p
	}
	w.depth++
	defer func() { w.depth-- }()
	w.twins(routes, p)
	// What a request meets that goes into a route of a group: all that stands
	// before it, but not what other routes of the group do, for of a group one runs.
	entered := map[string]place{}
	taken := map[string][]*cond{} // by the routes of a group before
	for i := range routes {
		r := &routes[i]
		from := p
		if r.Group != "" {
			if _, ok := entered[r.Group]; !ok {
				entered[r.Group] = p
			}
			from = entered[r.Group]
			from.steps = p.steps
		}
		b := branch{groupKey{&routes[0], r.Group}, r}
		inner := from.with(r, b)
		if r.Group != "" {
			inner.others = append(slices.Clip(inner.others), taken[r.Group])
			if len(r.Match) > 0 {
				taken[r.Group] = append(taken[r.Group], inner.conds[len(inner.conds)-1])
			}
		}
		out := w.chain(r.Handle, inner)
		if r.Terminal {
			continue
		}
		for group, at := range entered {
			if group != r.Group {
				w.visits++ // a list can have as many groups as routes
				entered[group] = at.joined(from, out, b)
			}
		}
		if w.visits > w.maxVisits {
			w.incomplete = true
			return p
		}
		p = p.joined(from, out, b)
	}
	return p
}

// chain walks through the handlers of a route.
func (w *walk) chain(handlers []handler, p place) place {
	for i := range handlers {
		p = w.handler(&handlers[i], p)
	}
	return p
}

func (w *walk) handler(h *handler, p place) place {
	switch h.Name {
	case "paywall":
		return w.gate(h, p)
	case "subroute":
		out := w.list(h.Routes, p)
		if h.Errors != nil {
			// What they answer goes through the gates around the subroute.
			w.list(h.Errors.Routes, place{server: p.server, inError: true, conds: p.conds, root: p.root, gates: p.gates})
		}
		return out
	case "invoke":
		name, named := w.named(h, p.server)
		if named == nil {
			return p
		}
		w.invoked = append(w.invoked, name)
		p = w.list([]Route{*named}, p)
		w.invoked = w.invoked[:len(w.invoked)-1]
		return p
	case "rewrite":
		return p.rewritten(h)
	case "vars":
		var vars struct{ Root string }
		if h.read(&vars) && vars.Root != "" {
			p.root = vars.Root
			p.roots = append(slices.Clip(p.roots), rootStep{conds: p.conds, root: vars.Root, foreign: p.expander().foreignDirectory(vars.Root)})
		}
		return p.withVars(h)
	case "map":
		return p.mapped(h)
	case "headers":
		var headers struct{ Request json.RawMessage }
		h.read(&headers)
		return p.withHeaders(headers.Request)
	case "cache", "http_cache", "souin", "intercept":
		p.wraps = append(slices.Clip(p.wraps), wrap{h, p})
		w.respondWith(h, p)
		return p
	case "reverse_proxy":
		w.proxy(h, p)
		w.respondWith(h, p)
	case "file_server":
		w.files(h, p)
	case "static_response":
		w.respond(h, p)
	case "php":
		w.php(h, p)
	case "authentication", "error":
		w.stop(&answerer{handler: h, at: p, sure: h.Name == "error"})
		p.raisers = append(slices.Clip(p.raisers), wrap{h, p})
	case "templates":
		p.templates = true
	case "request_body", "rate_limit", "waf", "crowdsec", "appsec":
		p.raisers = append(slices.Clip(p.raisers), wrap{h, p})
	default:
		if !passing[h.Name] {
			w.answer(&answerer{handler: h, at: p, what: "the handler " + h.Name + ", which we do not know,"})
		}
	}
	return p
}

// passing are handlers that neither answer nor change where a request goes.
var passing = map[string]bool{
	"subrequest": true, "encode": true, "log_append": true, "log_name": true, "templates": true, "push": true, "tracing": true,
	"copy_response": true, "copy_response_headers": true, "metrics": true, "acme_server": true, "method": true, "request_header": true,
}

func (w *walk) answer(a *answerer) {
	w.stop(a)
	w.answerers = append(w.answerers, a)
}

// stop records what ends the way of requests, goods or not.
func (w *walk) stop(a *answerer) {
	a.hosts, a.order = a.at.hosts(), len(w.stops)
	w.stops = append(w.stops, a)
}

func (w *walk) gate(h *handler, p place) place {
	g, err := parseGate(h.Raw)
	if err != nil {
		w.err = err
		return p
	}
	s := w.config.Servers[p.server]
	g.Server, g.Listen, g.Hosts = p.server, s.Listen, p.hosts()
	g.TLS = w.config.speaksTLS(s, g.Hosts)
	g.at = p
	for _, l := range g.Lines {
		paths, _ := p.reach(l.Path)
		g.groups = append(g.groups, paths)
		example := ""
		if met, _ := g.meeting(len(g.Examples), nil); len(met) > 0 {
			example = met[0]
		}
		g.Examples = append(g.Examples, example)
	}
	for _, a := range slices.Concat(w.answerers, w.responders) {
		if a.at.server == p.server && !a.at.inError && (len(a.hosts) == 0 || meetsHost(a.hosts, g.Hosts) != none) && (a.instead == "" || a.instead == "reverse_proxy" && a.goods()) {
			w.before[g] = append(w.before[g], a)
		}
	}
	w.gates = append(w.gates, g)
	p.gates = append(slices.Clip(p.gates), g)
	return p
}

// respondWith walks through routes whose answerers answer for another one, for
// requests that came to that.
func (w *walk) respondWith(h *handler, p place) {
	answerers, stops := len(w.answerers), len(w.stops)
	for i := range h.Responses {
		w.list(h.Responses[i].Routes, p)
	}
	order := stops
	if stops > 0 && w.stops[stops-1].handler == h {
		order-- // it does not stop who answers for it
	}
	for _, a := range w.answerers[answerers:] {
		a.order, a.instead = order, h.Name
		w.responders = append(w.responders, a)
	}
	w.answerers, w.stops = w.answerers[:answerers], w.stops[:stops]
}

// joined is the place behind a route that requests may have gone through: what it
// changed, it changed for those that met its matchers. What it did is what its end
// has beyond its beginning, which for a route of a group is not p.
func (p place) joined(from, out place, b branch) place {
	p.steps = slices.Clip(p.steps)
	for _, s := range out.steps[len(from.steps):] {
		if b.group.name != "" {
			s.branch = b
		}
		p.steps = append(p.steps, s)
	}
	p.roots = slices.Clip(p.roots)
	for _, r := range out.roots[len(from.roots):] {
		if b.group.name != "" {
			r.branch = b
		}
		p.roots = append(p.roots, r)
	}
	p.gates = append(slices.Clip(p.gates), out.gates[len(from.gates):]...)
	p.wraps = append(slices.Clip(p.wraps), out.wraps[len(from.wraps):]...)
	p.raisers = append(slices.Clip(p.raisers), out.raisers[len(from.raisers):]...)
	p.headers = append(slices.Clip(p.headers), out.headers[len(from.headers):]...)
	p.fixed = append(slices.Clip(p.fixed), out.fixed[len(from.fixed):]...)
	p.values = append(slices.Clip(p.values), out.values[len(from.values):]...)
	p.query = append(slices.Clip(p.query), out.query[len(from.query):]...)
	all := len(b.route.Match) == 0
	switch {
	case slices.Equal(out.methods, from.methods):
	case all && b.group.name == "":
		p.methods = out.methods
	default:
		p.methods = append(slices.Clip(p.methods), out.methods...)
	}
	if all && out.root != from.root {
		p.root = out.root
	}
	p.unknown = p.unknown || out.unknown
	p.templates = p.templates || out.templates
	if out.strip != from.strip {
		if all {
			p.strip = out.strip
		} else {
			p.unknown = true
		}
	}
	return p
}

// withHeaders is the place behind request headers that are changed.
func (p place) withHeaders(raw json.RawMessage) place {
	var ops struct {
		Add, Set map[string][]string
		Delete   []string
		Replace  map[string][]struct{ Replace string }
	}
	if len(raw) == 0 || json.Unmarshal(raw, &ops) != nil {
		return p
	}
	p.headers = slices.Clip(p.headers)
	at := p
	add := func(name, value string, replaced bool) {
		key := http.CanonicalHeaderKey(name)
		p.headers = append(p.headers, setHeader{p.conds, key, value, replaced})
		at.values = p.values
		if replaced {
			value = "{" + headerPrefix + key + "}" + value
		}
		p.values = at.withText(headerPrefix+key, value).values
	}
	for _, headers := range []map[string][]string{ops.Set, ops.Add} {
		for _, name := range slices.Sorted(maps.Keys(headers)) {
			for _, value := range headers[name] {
				add(name, value, false)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ops.Replace)) {
		for _, r := range ops.Replace[name] {
			add(name, r.Replace, true)
		}
	}
	for _, name := range ops.Delete {
		p = p.withText(headerPrefix+name, "")
	}
	return p
}

// tries are the fixed files that the file matcher just around the place may
// choose.
func (p *place) tries() []string {
	if len(p.conds) == 0 {
		return nil
	}
	var fixed []string
	for _, set := range p.conds[len(p.conds)-1].sets {
		var file struct {
			Try []string `json:"try_files"`
		}
		if json.Unmarshal(set["file"], &file) != nil {
			continue
		}
		for _, try := range file.Try {
			if strings.HasPrefix(try, "/") && !strings.ContainsAny(try, "{*") {
				fixed = append(fixed, try)
			}
		}
	}
	return fixed
}
