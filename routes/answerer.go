package routes

import (
	"encoding/json"
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
	// order is where it stands among all that ends a request's way.
	order int
	// instead is the handler in whose handle_response it stands.
	instead string
	// dir is the directory that a file_server names itself, and named the placeholder
	// by which somebody else does so.
	dir, named string
	// files is the file server, if it is one.
	files fileServer
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
	var dials []string
	for _, u := range proxy.Upstreams {
		dials = append(dials, u.Dial)
	}
	slices.Sort(dials)
	backend := strings.Join(dials, " ")
	if passesOn(h.Responses) {
		return
	}
	what := "reverse_proxy"
	if backend != "" {
		what += " to " + backend
	}
	w.answer(&answerer{handler: h, at: p, sure: len(h.Responses) == 0, what: what, backend: backend})
}

// passesOn reports whether a good answer of a proxy lets the request go on.
func passesOn(responses []response) bool {
	for _, r := range responses {
		if r.Match == nil || !slices.ContainsFunc(r.Match.StatusCode, func(s int) bool { return s == 2 || s/100 == 2 }) {
			continue
		}
		return !slices.ContainsFunc(r.Routes, answers)
	}
	return false
}

func answers(r Route) bool {
	return slices.ContainsFunc(r.Handle, func(h handler) bool {
		switch h.Name {
		case "copy_response", "static_response", "file_server", "reverse_proxy", "error":
			return true
		default:
			return slices.ContainsFunc(h.Routes, answers)
		}
	})
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
	w.answer(&answerer{handler: h, at: p, sure: !files.PassThru, what: what, backend: root, dir: dir, named: named, files: readFileServer(h)})
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
