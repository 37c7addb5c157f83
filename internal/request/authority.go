package request

import (
	"net/http"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/internal/headers"
)

// Applications make a URL of what proxies say of the scheme, the host and the port, and read
// its path again: Astro took `X-Forwarded-Port: 80/articles/7?` for a path, Remix and React
// Router `X-Forwarded-Host: x:80/articles/7?`. Caddy passes the port on from anybody, the
// others from proxies that it trusts, which may pass them on as the client sent them.
// What is no such part of a URL is refused.

// authorityHeaders name a host or a scheme, portHeaders a port.
var (
	authorityHeaders = []string{"X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Scheme", "X-Forwarded-Protocol", "X-Original-Host", "X-Forwarded-Server", "X-Host"}
	portHeaders      = []string{"X-Forwarded-Port"}
	forwardedHeaders = []string{"Forwarded"} // RFC 7239
)

// isAuthority says whether a header names a part of a URL before the path.
func isAuthority(name string) bool {
	return headers.Is(name, authorityHeaders) || headers.Is(name, portHeaders) || headers.Is(name, forwardedHeaders)
}

// saysAuthority says whether the value of such a header is what it should be, or a list of
// that.
func saysAuthority(name, value string) bool {
	switch {
	case headers.Is(name, portHeaders):
		return strings.Trim(value, "0123456789, \t") == ""
	case headers.Is(name, forwardedHeaders):
		for _, part := range partsOf(value, "host", "proto") {
			if !isAuthorityText(part) {
				return false
			}
		}
		return true
	default:
		return isAuthorityText(value)
	}
}

// isAuthorityText says whether a text has nothing that ends the authority of a URL, or that
// somebody could take for such.
func isAuthorityText(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9':
		case strings.IndexByte("-._:[], \t", c) < 0:
			return false
		}
	}
	return true
}

// partsOf are the values of some parameters in a Forwarded header. It takes more for such
// than RFC 7239 does, as those who read the header with a pattern do.
func partsOf(value string, names ...string) (parts []string) {
	for part := range strings.FieldsFuncSeq(value, func(c rune) bool { return c == ';' || c == ',' }) {
		name, said, ok := strings.Cut(part, "=")
		name = strings.TrimSpace(name)
		for _, want := range names {
			if ok && strings.EqualFold(name, want) {
				parts = append(parts, strings.Trim(strings.TrimSpace(said), `"`))
			}
		}
	}
	return parts
}

// isOddHost says whether the host of a request has what ends the authority of a URL. Over
// HTTP/1 net/http refuses such a host.
func isOddHost(r *http.Request) bool {
	return r.ProtoMajor >= 2 && strings.ContainsAny(r.Host, "/\\?#@ ")
}
