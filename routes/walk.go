package routes

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// walk collects what stands in the routes, in the order in which requests meet
// it.
type walk struct {
	config    *Config
	gates     []*Gate
	answerers []*answerer
	findings  []Finding
	depth     int
	visits    int
	invoked   []string // the named routes that the walk is in
	err       error

	// incomplete says that there were too many routes, or too deep ones.
	incomplete bool

	// before is what stood before each gate, in its own site.
	before map[*Gate][]*answerer
}

func walkConfig(c *Config) (*walk, error) {
	w := &walk{config: c, before: map[*Gate][]*answerer{}}
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
	return w, w.err
}

// maxDepth bounds routes in routes.
const maxDepth = 100

// maxVisits bounds how many routes the walk goes through: named routes that
// invoke each other make many of few. Tests lower it.
var maxVisits = 200_000

// list walks through a list of routes, and returns where requests are that came
// through it.
func (w *walk) list(routes []Route, p place) place {
	if w.visits += len(routes); w.depth == maxDepth || w.visits > maxVisits {
		w.incomplete = true
		return p
	}
	w.depth++
	defer func() { w.depth-- }()
	w.twins(routes, p)
	entered := map[string]place{} // where each group was entered
	for i := range routes {
		r := &routes[i]
		from := p
		if r.Group != "" {
			// Of a group one route runs: what another one does it does not see.
			if _, ok := entered[r.Group]; !ok {
				entered[r.Group] = p
			}
			from = entered[r.Group]
		}
		out := w.chain(r.Handle, from.with(r))
		if r.Terminal {
			continue
		}
		p.gates, p.wraps, p.raisers = out.gates, out.wraps, out.raisers
		if len(r.Match) == 0 {
			p.root = out.root
			p.strip, p.fixed, p.unknown = out.strip, out.fixed, out.unknown
		} else {
			p.fixed = out.fixed
			p.unknown = out.unknown || out.strip != p.strip
		}
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
		var named struct{ Name string }
		s := w.config.Servers[p.server]
		if !h.read(&named) || s.Named[named.Name] == nil || slices.Contains(w.invoked, named.Name) {
			return p
		}
		w.invoked = append(w.invoked, named.Name)
		p = w.list([]Route{*s.Named[named.Name]}, p)
		w.invoked = w.invoked[:len(w.invoked)-1]
		return p
	case "rewrite":
		return p.rewritten(h)
	case "vars":
		var vars struct{ Root string }
		if h.read(&vars) && vars.Root != "" {
			p.root = vars.Root
		}
		return p
	case "cache", "http_cache", "souin", "intercept":
		p.wraps = append(slices.Clip(p.wraps), wrap{h, p})
		return p
	case "reverse_proxy":
		w.proxy(h, p)
		for i := range h.Responses {
			w.gatesOnly(h.Responses[i].Routes, p)
		}
	case "file_server":
		w.files(h, p)
	case "static_response":
		w.respond(h, p)
	case "php":
		w.answer(&answerer{handler: h, at: p, sure: true, what: "the PHP server"})
	case "authentication", "error", "request_body", "rate_limit", "waf", "crowdsec", "appsec":
		p.raisers = append(slices.Clip(p.raisers), wrap{h, p})
	case "subrequest", "headers", "encode", "map", "log_append", "log_name", "templates", "push", "tracing", "copy_response",
		"copy_response_headers", "metrics", "acme_server", "method", "request_header":
	default:
		w.answer(&answerer{handler: h, at: p, what: "the handler " + h.Name + ", which we do not know,"})
	}
	return p
}

func (w *walk) answer(a *answerer) {
	a.hosts = a.at.hosts()
	w.answerers = append(w.answerers, a)
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
		if len(paths) > 0 {
			example, _ = exampleOf(paths[0])
		}
		g.Examples = append(g.Examples, example)
	}
	for _, a := range w.answerers {
		if a.at.server == p.server && !a.at.inError && (len(a.hosts) == 0 || meetsHost(a.hosts, g.Hosts) != none) {
			w.before[g] = append(w.before[g], a)
		}
	}
	w.gates = append(w.gates, g)
	p.gates = append(slices.Clip(p.gates), g)
	return p
}

// gatesOnly walks through routes whose answerers answer for another one.
func (w *walk) gatesOnly(routes []Route, p place) {
	n := len(w.answerers)
	w.list(routes, p)
	w.answerers = w.answerers[:n]
}

// rewritten is the place behind a rewrite.
func (p place) rewritten(h *handler) place {
	var rewrite struct {
		URI         string            `json:"uri"`
		StripPrefix string            `json:"strip_path_prefix"`
		StripSuffix string            `json:"strip_path_suffix"`
		Substring   []json.RawMessage `json:"uri_substring"`
		Regexp      []json.RawMessage `json:"path_regexp"`
	}
	if !h.read(&rewrite) {
		p.unknown = true
		return p
	}
	if rewrite.StripPrefix != "" {
		if p.changed() || strings.Contains(rewrite.StripPrefix, "{") {
			p.unknown = true
		}
		p.strip = "/" + strings.Trim(rewrite.StripPrefix, "/")
	}
	if rewrite.StripSuffix != "" || len(rewrite.Substring) > 0 || len(rewrite.Regexp) > 0 {
		p.unknown = true
	}
	path, _, _ := strings.Cut(rewrite.URI, "?")
	switch {
	case path == "":
	case path == "{http.request.uri.path}" || path == "{http.request.uri}":
	case strings.Contains(path, "{http.matchers.file."):
		p.fixed = append(slices.Clip(p.fixed), p.tries()...)
		if len(p.fixed) == 0 {
			p.unknown = true
		}
	case strings.Contains(path, "{"):
		p.unknown = true
	default:
		p.fixed = append(slices.Clip(p.fixed), path)
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
