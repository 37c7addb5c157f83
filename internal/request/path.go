package request

import (
	"net/http"
	"net/url"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// originalURL is a request's URL as it was received; r.URL is as it was rewritten since.
func originalURL(r *http.Request) *url.URL {
	if o, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && o.URL != nil {
		return o.URL
	}
	return r.URL
}

// URI is the path and query as the client sent them.
func URI(r *http.Request) string { return originalURL(r).RequestURI() }

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

// pathsOf are a request's path as it was received and as it was rewritten.
func pathsOf(r *http.Request) (original, current string) {
	current = wirePath(r.URL)
	if o := originalURL(r); o.Path != r.URL.Path || o.RawPath != r.URL.RawPath {
		return wirePath(o), current
	}
	return current, current
}
