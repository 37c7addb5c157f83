package paywall

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-paywall/caddy-paywall/pricing"
)

// Some upstreams take the path or the method of a request from elsewhere than
// its request line. We do not know which, so such words are readings like those
// of a path: what they say is priced beside what the request line says, and
// nothing is removed.

// pathHeaders are headers that some upstreams read instead of the path: IIS URL
// Rewrite, Symfony and Zend the first two, applications made for nginx the
// others.
var pathHeaders = []string{"X-Original-Url", "X-Rewrite-Url", "X-Original-Uri", "X-Forwarded-Uri"}

// methodHeaders are headers that some upstreams read instead of the method:
// Express, Rack, Laravel, Spring, Google's and Microsoft's services.
var methodHeaders = []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"}

// overrides are the other paths and methods that a request names.
type overrides struct{ paths, methods []string }

// maxOverrides is how many of either a request may name. Each is looked up in
// every reading, and an upstream obeys one.
const maxOverrides = 8

func (o *overrides) tooMany() bool {
	return len(o.paths) > maxOverrides || len(o.methods) > maxOverrides
}

// overridesOf finds them. Most requests have none, and cost one look at the
// names of their headers.
func overridesOf(r *http.Request) (o overrides) {
	for name, values := range r.Header {
		if name == "" || name[0] != 'X' && name[0] != 'x' {
			continue
		}
		switch {
		case spells(name, pathHeaders):
			for _, value := range values {
				o.paths = append(o.paths, pathOf(value))
			}
		case spells(name, methodHeaders):
			for _, value := range values {
				o.addMethods(value)
			}
		}
	}
	o.addQuery(r.URL.RawQuery)
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil && original.URL.RawQuery != r.URL.RawQuery {
		o.addQuery(original.URL.RawQuery)
	}
	slices.Sort(o.paths) // headers come in no order
	slices.Sort(o.methods)
	o.paths, o.methods = slices.Compact(o.paths), slices.Compact(o.methods)
	return o
}

// act says whether one of the methods has effects.
func (o *overrides) act() bool {
	return slices.ContainsFunc(o.methods, func(m string) bool { return !safeMethod(m) })
}

// addMethods adds the methods of a header's value.
func (o *overrides) addMethods(value string) {
	for method := range strings.SplitSeq(value, ",") {
		if method = strings.ToUpper(strings.TrimSpace(method)); method != "" {
			o.methods = append(o.methods, method)
		}
	}
}

// addQuery adds what the query says of the method: `_method`, in the spellings
// that PHP takes for it too.
func (o *overrides) addQuery(query string) {
	for query != "" {
		var pair string
		end := strings.IndexAny(query, "&;")
		if end < 0 {
			pair, query = query, ""
		} else {
			pair, query = query[:end], query[end+1:]
		}
		name, value, _ := strings.Cut(pair, "=")
		if strings.ContainsAny(name, "%+") {
			name = unescape(name)
		}
		name = strings.TrimLeft(name, " ")
		if len(name) == len("_method") && strings.IndexByte("_.", name[0]) >= 0 && strings.EqualFold(name[1:], "method") {
			o.addMethods(unescape(value))
		}
	}
}

// unescape decodes a part of a query, which stays as it is if that is broken.
func unescape(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}

// pathOf is the path of a header's value, which may be a whole URL.
func pathOf(value string) string {
	value = strings.TrimSpace(value)
	if scheme, rest, ok := strings.Cut(value, "://"); ok && !strings.ContainsAny(scheme, "/?") {
		_, path, _ := strings.Cut(rest, "/")
		return "/" + path
	}
	return value
}

// spells says whether a header's name is one of a list, in any spelling that
// CGI and its heirs take for the same.
func spells(name string, list []string) bool {
	for _, want := range list {
		if len(name) == len(want) && hasSpelledPrefix(name, want) {
			return true
		}
	}
	return false
}

// hasSpelledPrefix says whether a header's name begins with a prefix, in any
// spelling that CGI and its heirs take for the same: they ignore case, and turn
// every other character into an underscore.
func hasSpelledPrefix(name, prefix string) bool {
	if len(name) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if foldByte(name[i]) != foldByte(prefix[i]) {
			return false
		}
	}
	return true
}

func foldByte(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c | 0x20
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	}
	return '_'
}

// decide asks the price list about the path that the upstream will see, as it
// was received and as it was rewritten, and about what else the request names.
func (h *Handler) decide(r *http.Request, method string, o overrides) (pricing.Decision, error) {
	original, current := pathsOf(r)
	if r.URL.Opaque != "" || o.tooMany() {
		// `x:http://a/b` is no path to net/http, and `http://a/b` to the upstream.
		return pricing.Decision{Kind: pricing.Ambiguous, Line: -1}, nil
	}
	if len(o.paths)+len(o.methods) == 0 && original == current && !hasLower(method) {
		return h.list.Decide(r, method, current)
	}
	paths := append([]string{original, current}, o.paths...)
	methods := o.methods
	decision, err := h.list.Decide(r, method, paths...)
	if decision.Kind == pricing.Free || decision.Kind == pricing.Priced {
		// `get` is another method than GET, but not to every upstream.
		methods = append([]string{strings.ToUpper(method)}, methods...)
	}
	if err == nil && len(methods) > 0 {
		var other pricing.Decision
		other, err = h.list.DecideAny(r, methods, paths...)
		decision = pricing.Join(decision, other)
	}
	if err != nil {
		return pricing.Decision{Line: -1}, err
	}
	return decision, nil
}

// pathsOf are a request's path as it was received and as it was rewritten.
func pathsOf(r *http.Request) (original, current string) {
	current = wirePath(r.URL)
	if o, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && o.URL != nil && (o.URL.Path != r.URL.Path || o.URL.RawPath != r.URL.RawPath) {
		return wirePath(o.URL), current
	}
	return current, current
}

func hasLower(s string) bool {
	return strings.ContainsFunc(s, func(c rune) bool { return 'a' <= c && c <= 'z' })
}
