package request

import (
	"net"
	"net/http"
	"slices"
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

// ReadHosts finds the other hosts that a request names: Rack 3 and others take the host of
// Forwarded for that of the request, and many that of X-Forwarded-Host. It is for lists that
// look at the host. A host is refused of which canBeRead says that not all read it alike.
func (o *Overrides) ReadHosts(r *http.Request, canBeRead func(host string) bool) {
	own := hostname(r.Host)
	for name, values := range r.Header {
		if name == "" || !firstBytes[name[0]] || !headers.Is(name, hostHeaders) && !headers.Is(name, forwardedHeaders) {
			continue
		}
		for _, value := range values {
			hosts := strings.Split(value, ",")
			if headers.Is(name, forwardedHeaders) {
				hosts = partsOf(value, "host")
			}
			for _, host := range hosts {
				if !o.more() {
					return
				}
				host = strings.TrimSpace(host)
				if name := hostname(host); name == "" || strings.EqualFold(name, own) {
					continue
				}
				if !canBeRead(host) {
					o.odd = true
					return
				}
				o.hosts = o.with(o.hosts, strings.ToLower(host))
			}
		}
	}
	slices.Sort(o.hosts) // headers come in no order
}

// hostHeaders are those that some upstreams read instead of Host.
var hostHeaders = []string{"X-Forwarded-Host", "X-Original-Host", "X-Forwarded-Server", "X-Host", "X-Http-Host-Override"}

// hostname is a host without its port.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return host
}
