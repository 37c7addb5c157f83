package remote

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// parseBase reads the URL of a facilitator. Trailing slashes are removed.
// Errors do not repeat the URL: what is wrong with it may be a password.
func parseBase(raw string) (*url.URL, error) {
	if raw == "" {
		return nil, errors.New("the URL of the facilitator is missing; there is no default")
	}
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" || u.Hostname() == "" {
		return nil, errors.New("the URL of the facilitator is no URL; write it like https://facilitator.example/path")
	}
	switch {
	case u.User != nil:
		return nil, errors.New("the URL of the facilitator holds a user name or password; use auth instead")
	case u.RawQuery != "" || u.ForceQuery:
		return nil, errors.New("the URL of the facilitator has a query; use auth for keys")
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return nil, errors.New("the URL of the facilitator has a fragment (#…); remove it")
	case strings.ContainsAny(raw, "{}"):
		return nil, errors.New("the URL of the facilitator holds a placeholder; write the URL itself")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("the URL of the facilitator has the port %s; ports are 1 to 65535", port)
		}
	}
	if err := checkHost(u); err != nil {
		return nil, err
	}
	u.Host = strings.ToLower(u.Host)
	if u.Scheme == "https" {
		u.Host = strings.TrimSuffix(u.Host, ":443") // CDP signs the host as everybody writes it
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = strings.TrimRight(u.RawPath, "/")
	return u, nil
}

// checkHost allows https anywhere but in the link-local range, where clouds keep
// the credentials of the machine, and http on this machine.
func checkHost(u *url.URL) error {
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	ip, err := netip.ParseAddr(host)
	isIP := err == nil
	ip = ip.Unmap()
	if isIP && (ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast()) {
		return fmt.Errorf("a facilitator cannot be at %s; use its name or its own address", host)
	}
	switch u.Scheme {
	case "https":
		return nil
	case "http":
		if host == "localhost" || (isIP && ip.IsLoopback()) {
			return nil
		}
		return fmt.Errorf("the facilitator at %s is asked over http, in the clear; use https (http is for loopback only)", host)
	default:
		return fmt.Errorf("the URL of the facilitator begins with %q; use https", u.Scheme)
	}
}
