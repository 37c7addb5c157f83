package chain

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-paywall/caddy-paywall/pricing/money"
)

// placeholder is one that Caddy resolves from the environment or a file.
var placeholder = regexp.MustCompile(`^\{(env|file)\.[^{}]+\}$`)

// IsPlaceholder reports whether a text is one placeholder as a whole, of the environment or
// a file: the only thing that keeps a secret out of config dumps.
func IsPlaceholder(s string) bool { return placeholder.MatchString(s) }

// CheckURL checks the URL of a node as it stands in the config.
func CheckURL(raw string) error {
	if IsPlaceholder(raw) {
		return nil // resolved and checked when the config loads
	}
	_, err := parseURL(raw)
	return err
}

// resolveURL reads the URL of a node, which may be a placeholder as a whole.
func resolveURL(raw string) (*url.URL, error) {
	if !IsPlaceholder(raw) {
		return parseURL(raw)
	}
	resolved, err := caddy.NewReplacer().ReplaceOrErr(raw, true, true)
	if err != nil {
		return nil, fmt.Errorf("%s is unset, empty or unreadable; set the environment variable or write the file", raw)
	}
	return parseURL(strings.TrimSpace(resolved))
}

// parseURL reads the URL of a node. Errors do not repeat it, because it may hold
// an API key.
func parseURL(raw string) (*url.URL, error) {
	if strings.ContainsAny(raw, "{}") {
		return nil, errors.New("the URL holds a placeholder that is not the whole of it, or none of {env.*} and {file.*}")
	}
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" || u.Hostname() == "" {
		return nil, errors.New("this is no URL; write it like https://node.example/path")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, errors.New("the port of the URL must be 1 to 65535")
		}
	}
	if u.Fragment != "" || strings.Contains(raw, "#") {
		return nil, errors.New("the URL has a fragment (#…); remove it")
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	// Clouds keep the credentials of the machine in the link-local range.
	if ip, err := netip.ParseAddr(host); err == nil && (ip.Unmap().IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast()) {
		return nil, fmt.Errorf("a node cannot be at %s; use its name or its own address", host)
	}
	switch u.Scheme {
	case "https":
		return u, nil
	case "http", "ws":
		if isLoopback(u) {
			return u, nil
		}
		return nil, fmt.Errorf("the node at %s is asked in the clear; use https (http and ws are for loopback only)", host)
	default:
		return nil, fmt.Errorf("the URL begins with %q; use https", u.Scheme)
	}
}

// isLoopback reports whether the node runs on this machine.
func isLoopback(u *url.URL) bool {
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// isDevelopment reports whether a chain is one for test money only. If all its
// nodes are on loopback too, it may be one that makes blocks only when there is
// something to put into them: the age of its last block says nothing then.
func isDevelopment(n money.Network, id uint64) bool {
	return n.Test || id == 1337 || id == 31337 // of geth, and of anvil and Hardhat
}

// IDOf returns the EIP-155 id in a CAIP-2 id like eip155:8453; ok is false for another kind of
// chain.
func IDOf(caip2 string) (id uint64, ok bool) {
	number, ok := strings.CutPrefix(caip2, "eip155:")
	id, err := strconv.ParseUint(number, 10, 64)
	return id, ok && err == nil && id > 0
}
