package routes

import (
	"encoding/json"
	"net"
	"path"
	"slices"
	"strings"
)

// answerer is a handler that answers requests itself.
type answerer struct {
	handler *handler
	at      place
	// sure says that it answers every request that comes to it.
	sure bool
	// hosts are the names of its site.
	hosts []string
	// what names it in messages, and backend is where its goods come from, "" if
	// that is not known.
	what, backend string
	// dials are the servers that it asks, each in one spelling.
	dials []string
	// order is where it stands among all that ends a request's way.
	order int
	// instead is the handler in whose handle_response it stands.
	instead string
	// dir is the directory that a file_server names itself, and named the placeholder
	// by which somebody else does so.
	dir, named string
	// files is the file server, if it is one, and index the placeholder by which somebody
	// else names the file that it serves for a folder.
	files fileServer
	index string
	// known are its ways, once somebody asked for them; see ways.
	known *[]way
}

// proxy looks at a reverse proxy, also one that asks for permission only, as
// forward_auth does.
func (w *walk) proxy(h *handler, p place) {
	var proxy struct {
		Upstreams []struct{ Dial string }
		Dynamic   json.RawMessage `json:"dynamic_upstreams"`
		Rewrite   json.RawMessage `json:"rewrite"`
		Headers   struct{ Request json.RawMessage }
	}
	h.read(&proxy)
	if len(proxy.Rewrite) > 0 {
		p = p.rewritten(&handler{Raw: proxy.Rewrite})
	}
	p = p.withHeaders(proxy.Headers.Request)
	var dials, normal []string
	for _, u := range proxy.Upstreams {
		dials = append(dials, u.Dial)
		normal = append(normal, normalDial(u.Dial))
	}
	slices.Sort(dials)
	backend := strings.Join(dials, " ")
	if len(proxy.Dynamic) > 0 {
		normal = append(normal, dynamicDial(proxy.Dynamic))
	}
	if w.passesOn(h.Responses, p) {
		return
	}
	what := "reverse_proxy"
	if backend != "" {
		what += " to " + backend
	}
	w.answer(&answerer{handler: h, at: p, sure: len(h.Responses) == 0, what: what, backend: backend, dials: normal})
}

// normalDial is an upstream's address in one spelling.
func normalDial(dial string) string {
	dial = strings.TrimPrefix(dial, "tcp/")
	if socket, ok := strings.CutPrefix(dial, "unix/"); ok {
		return "unix/" + path.Clean("/"+socket)
	}
	host, port, err := net.SplitHostPort(dial)
	if err != nil {
		return dial
	}
	if ip := net.ParseIP(host); host == "" || strings.EqualFold(host, "localhost") || ip != nil && (ip.IsLoopback() || ip.IsUnspecified()) {
		host = "localhost"
	}
	if port == "443" {
		port = "80" // the same server, with and without TLS
	}
	return net.JoinHostPort(strings.ToLower(host), port)
}

// dynamicDial is what a name's addresses are asked for as, like those of an upstream with
// that name.
func dynamicDial(raw json.RawMessage) string {
	var source struct{ Source, Name, Port string }
	if json.Unmarshal(raw, &source) == nil && source.Source == "a" {
		return normalDial(net.JoinHostPort(source.Name, source.Port))
	}
	return "dynamic " + string(raw)
}

// asks reports whether two proxies have a server in common.
func (a *answerer) asks(o *answerer) bool {
	return !a.otherHost(o) && slices.ContainsFunc(a.dials, func(d string) bool { return slices.Contains(o.dials, d) })
}

// otherHost reports whether two proxies ask for two hosts, both by name.
func (a *answerer) otherHost(o *answerer) bool {
	host, other := a.fixedHost(), o.fixedHost()
	return host != "" && other != "" && !strings.EqualFold(host, other)
}

// fixedHost is the host that a proxy always asks for, "" if that is another one each time.
func (a *answerer) fixedHost() string {
	host := ""
	for _, h := range a.at.headers {
		if h.name == "Host" {
			if host = h.value; h.replaced || strings.Contains(host, "{") {
				return ""
			}
		}
	}
	return host
}

// php looks at the PHP server, which is a module of another program than a proxy.
func (w *walk) php(h *handler, p place) {
	var php struct{ Root string }
	h.read(&php)
	if php.Root == "" {
		php.Root = p.root
	}
	w.answer(&answerer{handler: h, at: p, sure: true, what: "the PHP server", dials: []string{"php " + php.Root}})
}

// passesOn reports whether a good answer of a proxy lets the request go on.
func (w *walk) passesOn(responses []response, p place) bool {
	for _, r := range responses {
		if r.Match == nil || !slices.ContainsFunc(r.Match.StatusCode, func(s int) bool { return s == 2 || s/100 == 2 }) {
			continue
		}
		return !w.answers(r.Routes, p.server)
	}
	return false
}

// answers reports whether routes for an answer of a proxy may answer themselves.
func (w *walk) answers(routes []Route, server string) bool {
	w.depth++
	defer func() { w.depth-- }()
	if w.visits += len(routes); w.depth > maxDepth || w.visits > w.maxVisits {
		w.incomplete = true
		return true
	}
	for _, r := range routes {
		for k := range r.Handle {
			if w.mayAnswer(&r.Handle[k], server) {
				return true
			}
		}
	}
	return false
}

func (w *walk) mayAnswer(h *handler, server string) bool {
	switch h.Name {
	case "subroute":
		return w.answers(h.Routes, server)
	case "invoke":
		name, named := w.named(h, server)
		if named == nil {
			return false
		}
		w.invoked = append(w.invoked, name)
		defer func() { w.invoked = w.invoked[:len(w.invoked)-1] }()
		return w.answers([]Route{*named}, server)
	case "rewrite", "vars", "map", "headers", "authentication", "request_body", "rate_limit", "waf", "crowdsec", "appsec",
		"cache", "http_cache", "souin", "intercept":
		return false
	case "copy_response":
		return true
	default:
		return !passing[h.Name]
	}
}

// named is the named route that a handler invokes; nil if there is none, or the walk is
// in it.
func (w *walk) named(h *handler, server string) (name string, route *Route) {
	var invoke struct{ Name string }
	s := w.config.Servers[server]
	if !h.read(&invoke) || slices.Contains(w.invoked, invoke.Name) {
		return "", nil
	}
	return invoke.Name, s.Named[invoke.Name]
}

func (w *walk) files(h *handler, p place) {
	var files struct {
		Root     string
		PassThru bool `json:"pass_thru"`
	}
	h.read(&files)
	root, dir, named := files.Root, files.Root, p.expander().foreignDirectory(files.Root)
	if root == "" || strings.Contains(root, "{") {
		root, dir = p.root, ""
	}
	what := "file_server"
	if root != "" {
		what += " of " + root
		root = "file:" + root
	}
	a := &answerer{handler: h, at: p, sure: !files.PassThru, what: what, backend: root, dir: dir, named: named, files: readFileServer(h)}
	for _, index := range a.files.Index {
		if a.index == "" {
			a.index = p.expander().foreign(index)
		}
	}
	w.answer(a)
}

// respond looks at a fixed answer. One that refuses, redirects or is empty gives
// nothing away.
func (w *walk) respond(h *handler, p place) {
	var static struct {
		StatusCode json.RawMessage `json:"status_code"` // a number, or a placeholder
		Body       string
		Abort      bool
	}
	h.read(&static)
	status := strings.Trim(string(static.StatusCode), `"`)
	if static.Abort || static.Body == "" || status != "" && strings.ContainsAny(status[:1], "345") {
		w.stop(&answerer{handler: h, at: p, sure: true})
		return
	}
	w.answer(&answerer{handler: h, at: p, sure: true, what: "respond"})
}
