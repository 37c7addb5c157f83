// Package model holds model upstreams: how real servers read the path and the
// method of a request, as pure functions. Tests ask them what a request that
// the gate calls free would be served. Nothing here uses the code that it
// tests.
package model

import (
	"net/http"
	"strings"
)

// Request is what arrives at an upstream.
type Request struct {
	Method string
	Target string // the request-target, as it came over the wire
	Header http.Header
}

// Upstream is one way to read requests.
type Upstream struct {
	Name string
	// Like names servers that read so, or can be configured to.
	Like string
	// steps make the path of what is served out of the target's, in order.
	steps []step
	// path and method, if not nil, are asked first: what they return stands for
	// the target or the method.
	path, method func(Request) string
}

type step func(path string) string

// Serves returns the method and the path of what the upstream serves. The path
// is decoded, and has no slash at its end.
func (u *Upstream) Serves(r Request) (method, path string) {
	method, path = r.Method, r.Target
	if u.path != nil {
		if p := u.path(r); p != "" {
			path = p
		}
	}
	if u.method != nil {
		if m := u.method(r); m != "" {
			method = m
		}
	}
	if scheme, rest, ok := strings.Cut(path, "://"); ok && !strings.Contains(scheme, "/") {
		_, path, _ = strings.Cut(rest, "/")
		path = "/" + path
	}
	path, _, _ = strings.Cut(path, "?")
	for _, s := range u.steps {
		path = s(path)
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	for len(path) > 1 && path[len(path)-1] == '/' {
		path = path[:len(path)-1]
	}
	return method, path
}

// Upstreams are all models.
var Upstreams = []*Upstream{
	{Name: "plain", Like: "Go, Flask, Sinatra", steps: []step{decode}},
	{Name: "normalises after decoding", Like: "nginx, Apache", steps: []step{decode, merge, dots}},
	{Name: "normalises before decoding", Like: "Envoy, Traefik", steps: []step{merge, dots, decode}},
	{Name: "splits before decoding", Like: "JAX-RS, Rocket", steps: []step{dropSlashesInSegments, decode, merge, dots}},
	{Name: "decodes twice", Like: "a proxy before the application", steps: []step{decode, merge, dots, decode, merge, dots}},
	{Name: "ignores case", Like: "Express, IIS, ASP.NET", steps: []step{decode, merge, strings.ToLower}},
	{Name: "ignores case of all letters", Like: "Windows, macOS", steps: []step{decode, merge, foldCase}},
	{Name: "composes characters", Like: "macOS, Python with NFKC", steps: []step{decode, compose, merge, dots}},
	{Name: "strips parameters", Like: "Tomcat, Jetty, Spring", steps: []step{params, decode, merge, dots}},
	{Name: "strips decoded parameters", Like: "WebLogic, old Spring", steps: []step{decode, params, merge, dots}},
	{Name: "strips all after the first parameter", Like: "Ruby's CGI, WEBrick", steps: []step{decode, cut(";"), merge, dots}},
	{Name: "turns backslashes", Like: "IIS, Node's URL", steps: []step{decode, backslashes, merge, dots, strings.ToLower}},
	{Name: "turns backslashes before decoding", Like: "WHATWG URL parsers", steps: []step{dropTabs, backslashes, whatwgDots, decode}},
	{Name: "accepts overlong UTF-8", Like: "old Java, old Tomcat", steps: []step{decode, overlong, backslashes, merge, dots}},
	{Name: "decodes %u", Like: "classic ASP, IIS", steps: []step{decodeU, decode, backslashes, merge, dots, strings.ToLower}},
	{Name: "stops at NUL", Like: "C programs, old PHP", steps: []step{decode, cut("\x00"), merge, dots}},
	{Name: "stops at a decoded question mark", Like: "proxies that build a URL anew", steps: []step{decode, cut("?"), merge, dots}},
	{Name: "stops at a decoded hash", Like: "proxies that build a URL anew", steps: []step{decode, cut("#"), merge, dots}},
	{Name: "drops control characters", Like: "WHATWG URL parsers, log-safe proxies", steps: []step{decode, controls, merge, dots}},
	{Name: "folders of Windows", Like: "IIS, any file server on Windows", steps: []step{decode, backslashes, windows, merge, dots, strings.ToLower}},
	{Name: "Latin-1", Like: "old Java, old PHP", steps: []step{decode, latin1, merge, dots}},
	{Name: "front controller", Like: "WordPress, MediaWiki, Symfony, Laravel", steps: []step{decode, merge, dots, pathInfo}},
	{Name: "runs scripts", Like: "PHP, CGI, ASP.NET", steps: []step{decode, merge, dots, scriptName}},
	{Name: "takes the path for a URL", Like: "new URL(request.url, base) in JavaScript, urlsplit in Python", steps: []step{dropTabs, backslashes, authority, whatwgDots, decode}},
	{Name: "everything at once", Like: "a chain of servers", steps: []step{
		decodeU, decode, overlong, backslashes, params, controls, cut("\x00"), merge, dots, decode, backslashes, cut("?"), cut("#"), params, windows, merge, dots, foldCase,
	}},
	{Name: "formats", Like: "Rails, Spring before 6", steps: []step{decode, merge, dots, dropFormat}},
	{Name: "routes in the query", Like: "CodeIgniter", steps: []step{decode, merge, dots}, path: queryRoute},
	{Name: "X-Original-URL", Like: "IIS URL Rewrite, Symfony, Zend", steps: []step{decode, merge, dots}, path: header("X-Original-URL", "X-Rewrite-URL")},
	{Name: "X-Original-URI", Like: "applications behind auth_request", steps: []step{decode, merge, dots}, path: header("X-Original-URI", "X-Forwarded-URI")},
	{Name: "method override", Like: "Express, Rack, Laravel, Spring", steps: []step{decode, merge}, method: overridden},
}

// queryRoute is the path that the query begins with.
func queryRoute(r Request) string {
	_, query, _ := strings.Cut(r.Target, "?")
	if query, _, _ = strings.Cut(query, "?"); strings.HasPrefix(decode(query), "/") {
		route, _, _ := strings.Cut(query, "&")
		return decode(route)
	}
	return ""
}

// header returns the first of some headers, however CGI would spell it.
func header(names ...string) func(Request) string {
	return func(r Request) string {
		for _, name := range names {
			for have, values := range r.Header {
				if strings.EqualFold(strings.NewReplacer("_", "-", ".", "-").Replace(have), name) && len(values) > 0 {
					return values[len(values)-1]
				}
			}
		}
		return ""
	}
}

// overridden is the method that a header or the query asks for.
func overridden(r Request) string {
	if m := header("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")(r); m != "" {
		return strings.ToUpper(m)
	}
	_, query, _ := strings.Cut(r.Target, "?")
	for pair := range strings.FieldsFuncSeq(query, func(c rune) bool { return c == '&' || c == ';' }) {
		if name, value, _ := strings.Cut(pair, "="); decode(name) == "_method" {
			return strings.ToUpper(decode(value))
		}
	}
	return strings.ToUpper(r.Method)
}
