package delivery

import (
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/internal/headers"
)

// RemoveHTTPUpgrades removes what would change the connection to the upstream to
// another version of HTTP, or to HTTP in TLS. Behind such an upgrade the upstream
// takes any request, and we see none of them. A server may always ignore an
// upgrade, and HTTP/2 no longer has this one (RFC 9113, 3.1).
//
// Of a long list only the first names are left: nobody needs a hundred.
func RemoveHTTPUpgrades(header http.Header) {
	var names []string
	left := headers.MaxNames
	for _, value := range header["Upgrade"] {
		for name := range strings.SplitSeq(value, ",") {
			if left--; left < 0 {
				break
			}
			if name = strings.TrimSpace(name); name != "" {
				names = append(names, name)
			}
		}
	}
	if left >= 0 && !slices.ContainsFunc(names, carriesHTTP) {
		return
	}
	delete(header, "Http2-Settings")
	if names = slices.DeleteFunc(names, carriesHTTP); len(names) == 0 {
		delete(header, "Upgrade")
		return
	}
	header["Upgrade"] = []string{strings.Join(names, ", ")}
}

// carriesHTTP says whether requests could go through a tunnel of a protocol.
func carriesHTTP(protocol string) bool {
	protocol = strings.ToLower(protocol)
	return slices.ContainsFunc([]string{"h2", "h3", "http", "tls"}, func(prefix string) bool { return strings.HasPrefix(protocol, prefix) })
}
