package check

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/routes"
)

// ParseURL reads a URL to check, or the origin of a site.
func ParseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("it cannot be read")
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, errors.New("want one such as https://shop.example/articles/1")
	}
	if u.Path == "" {
		u.Path = "/"
	}
	return u, nil
}

// IsOrigin reports whether a URL names a site and no path.
func IsOrigin(u *url.URL) bool { return u.Path == "/" && u.RawQuery == "" }

// FromConfig makes a target of each priced line of a config, with a path that
// its pattern matches: at the origin, if one is given, else where the config says
// that the site is. Lines that cannot be asked for are left out, and said.
func FromConfig(gates []*routes.Gate, origin *url.URL) (targets []Target, left []string) {
	seen := map[string]bool{}
	for _, g := range gates {
		origins := []string{}
		switch {
		case origin != nil:
			origins = append(origins, origin.Scheme+"://"+origin.Host)
		case g.PublicURL != "":
			origins = append(origins, strings.TrimSuffix(g.PublicURL, "/"))
		default:
			origins = originsOf(g)
		}
		if len(origins) == 0 {
			left = append(left, fmt.Sprintf("%s: its address is not known from here; give its origin as a URL", strings.Join(g.Listen, ", ")))
			continue
		}
		for i, l := range g.Lines {
			switch {
			case l.Matched:
				left = append(left, fmt.Sprintf("%s: a matcher decides whether it counts; give a URL to check", l))
				continue
			case g.Examples[i] == "":
				left = append(left, fmt.Sprintf("%s: no path was found that leads there; give a URL to check", l))
				continue
			}
			for _, o := range origins {
				u, err := ParseURL(o)
				if err != nil {
					left = append(left, fmt.Sprintf("%s: %q is no origin", l, o))
					continue
				}
				u.Path = g.Examples[i]
				t := Target{URL: u, Made: strings.ContainsAny(l.Path, "*?["), Line: l.String(), Upstreams: g.Upstreams}
				if len(l.Methods) > 0 {
					t.Method = l.Methods[0]
				}
				if key := t.method() + " " + u.String(); !seen[key] {
					seen[key] = true
					targets = append(targets, t)
				}
			}
		}
	}
	return targets, left
}

// originsOf are the origins of a site. A site for every host is asked for on this
// machine.
func originsOf(g *routes.Gate) []string {
	scheme, usual := "http", "80"
	if g.TLS {
		scheme, usual = "https", "443"
	}
	var origins []string
	for _, listen := range g.Listen {
		host, port, err := net.SplitHostPort(listen)
		if err != nil {
			continue // a socket, or a range of ports
		}
		hosts := g.Hosts
		if len(hosts) == 0 {
			if host == "" {
				host = "localhost"
			}
			hosts = []string{host}
		}
		for _, h := range hosts {
			if strings.ContainsAny(h, "*{") {
				continue
			}
			if port != usual {
				h = net.JoinHostPort(h, port)
			}
			origins = append(origins, scheme+"://"+h)
		}
	}
	return origins
}
