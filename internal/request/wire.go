package request

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"
)

// PriceMethod is the method that a request has for the price list.
func PriceMethod(r *http.Request) string {
	if r.Method == http.MethodConnect && r.ProtoMajor >= 2 {
		return http.MethodGet // extended CONNECT is how HTTP/2 and 3 say GET with Upgrade
	}
	return r.Method
}

// wirePath is a URL's path as it goes over the wire.
func wirePath(u *url.URL) string {
	if u.RawPath == "" && goesAsItIs(u.Path) {
		return u.Path
	}
	return u.EscapedPath()
}

// goesAsItIs says whether a path has nothing that would be escaped; asking for
// the escaped path costs more.
func goesAsItIs(path string) bool {
	for i := range len(path) {
		if c := path[i]; (c < 'a' || c > 'z') && (c < '.' || c > '9') && (c < '@' || c > 'Z') && c != '-' && c != '_' && c != '~' {
			return false
		}
	}
	return true
}

// Method is the method of a request, with those and the paths that it names
// elsewhere: to some upstreams they make it another request.
func Method(r *http.Request, o Overrides) string {
	method := strings.Join(append([]string{r.Method}, o.methods...), ",")
	if len(o.paths) > 0 {
		method += " " + Fingerprint(o.paths...)
	}
	return method
}

// MayAct says whether a request may have effects, by its method or by one that it
// names elsewhere. A tunnel is no effect, but a POST that asks for one is a POST.
func MayAct(r *http.Request, o Overrides) bool {
	return !Safe(r.Method) && r.Method != http.MethodConnect || o.Act()
}

// URI is the path and query as the client sent them.
func URI(r *http.Request) string {
	if o, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && o.URL != nil {
		return o.URL.RequestURI()
	}
	return r.URL.RequestURI()
}

// Tunnels says whether a request wants to become a tunnel.
func Tunnels(r *http.Request) bool {
	return r.Method == http.MethodConnect ||
		r.Header.Get("Upgrade") != "" && httpguts.HeaderValuesContainsToken(r.Header["Connection"], "Upgrade")
}

// Safe says whether a method has no effects (RFC 9110, 9.2.1; QUERY is RFC 10008).
func Safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, "QUERY":
		return true
	}
	return false
}

// Fingerprint is a short digest of some texts.
func Fingerprint(texts ...string) string {
	sum := sha256.New()
	for _, text := range texts {
		_, _ = fmt.Fprintf(sum, "%d:%s", len(text), text)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// pathsOf are a request's path as it was received and as it was rewritten.
func pathsOf(r *http.Request) (original, current string) {
	current = wirePath(r.URL)
	if o, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && o.URL != nil && (o.URL.Path != r.URL.Path || o.URL.RawPath != r.URL.RawPath) {
		return wirePath(o.URL), current
	}
	return current, current
}
