package matcher

import (
	"encoding/json"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// A `host` matcher knows one spelling of a name. Many servers take `shop.example.` for
// `shop.example`, and some cut a Host where Caddy does not; so where a line looks at the
// host, what is no plain host is refused.

// HostReading is how the matchers of lines look at the host.
type HostReading int

const (
	noHost HostReading = iota
	foldedHost
	literalHost // in which the letter case counts
)

var (
	hostMatcher     = regexp.MustCompile(`"host"\s*:|\bhost\s*\(`)
	hostPlaceholder = regexp.MustCompile(`http\.request\.(host|labels)|\{(host|labels)`)
	// hostAndPort finds what looks at a Host header with its port, which a client may
	// leave out or add.
	hostAndPort      = regexp.MustCompile(`(?i)http\.request\.(hostport|header\.host)\b|\{(hostport|header\.host)\}`)
	hostInExpression = regexp.MustCompile("(?i)\\bheader(_regexp)?\\s*\\([^)]*[\"'`]host\\\\?[\"'`]")
)

// readsHostHeader says whether a set looks, however deep, at a Host header with its port.
func readsHostHeader(set map[string]json.RawMessage) bool {
	for name, raw := range set {
		if hostAndPort.Match(raw) {
			return true
		}
		switch name {
		case "header", "header_regexp":
			var fields map[string]json.RawMessage
			_ = json.Unmarshal(raw, &fields) // loading it will fail
			for field := range fields {
				if strings.EqualFold(field, "Host") {
					return true
				}
			}
		case "expression":
			if hostInExpression.Match(raw) {
				return true
			}
		case "not":
			var nested []map[string]json.RawMessage
			_ = json.Unmarshal(raw, &nested) // loading it will fail
			if slices.ContainsFunc(nested, readsHostHeader) {
				return true
			}
		}
	}
	return false
}

// Host says how a line's matcher looks at the host.
func Host(sets caddyhttp.RawMatcherSets) HostReading {
	raw := Raw(sets)
	switch {
	case hostPlaceholder.Match(raw):
		return literalHost
	case hostMatcher.Match(raw):
		return foldedHost
	}
	return noHost
}

// Looks says whether a line looks at the host at all.
func (as HostReading) Looks() bool { return as != noHost }

// CanBeAnother says whether a matcher can be asked about a host that a request names beside
// its own, as a placeholder cannot.
func (as HostReading) CanBeAnother(host string) bool {
	return as != literalHost && as.CanBeRead(host)
}

// CanBeRead says whether all servers that know a Host header take it for the same.
func (as HostReading) CanBeRead(host string) bool {
	if as == noHost || host == "" {
		return true
	}
	name, port, _ := strings.Cut(host, ":")
	if strings.HasPrefix(host, "[") {
		address, rest, closed := strings.Cut(host[1:], "]")
		addr, err := netip.ParseAddr(address)
		if !closed || err != nil || !addr.Is6() || rest != "" && rest[0] != ':' {
			return false
		}
		name, port = "address", strings.TrimPrefix(rest, ":")
	}
	for i := range len(port) {
		if port[i] < '0' || port[i] > '9' {
			return false
		}
	}
	dot := true // just before
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c >= 'A' && c <= 'Z' && as != literalHost:
			dot = false
		case c == '.' && !dot:
			dot = true
		default:
			return false
		}
	}
	return !dot
}
