package paywall_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// A line that looks at the host sees the name that the upstream sees: what can be
// spelled in another way is refused, and what is plain is as before.
func TestHostHasOneSpelling(t *testing.T) {
	for name, tc := range map[string]struct{ before, lines string }{
		"host":         {"@premium host premium.example", "price @premium /* $0.03"},
		"not host":     {"@others not host premium.example", "price /* $0.03\nfree @others /*"},
		"expression":   {"@premium expression `host('premium.example')`", "price @premium /* $0.03"},
		"a wildcard":   {"@premium host *.example", "price @premium /* $0.03"},
		"vars":         {"@premium vars {host} premium.example", "price @premium /* $0.03"},
		"a label":      {"@premium vars {labels.1} premium", "price @premium /* $0.03"},
		"no such line": {"", "price /paid/* $0.03"},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.Prepare(t)
			_, port, _ := net.SplitHostPort(strings.TrimPrefix(w.URL, "http://"))
			w.Load(strings.Replace(w.Caddyfile(tc.lines, tc.before), w.URL+" {", "http://:"+port+" {", 1))
			// As nginx and others that drop the dot, cut at the first colon, or read a URL.
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				host := strings.ToLower(r.Host[strings.LastIndexByte(r.Host, '@')+1:])
				host, _, _ = strings.Cut(host, ":")
				if strings.TrimRight(host, ".") == "premium.example" {
					_, _ = io.WriteString(rw, gate.Goods)
				}
			})
			ask := func(host string) gate.Answer {
				r := w.Request(http.MethodGet, "/h")
				r.Host = host
				return w.Do(r)
			}
			for _, host := range []string{"premium.example.", "premium.example.:80", "PREMIUM.example.", "premium.example..", "premium.example:80:80", "premium.example:x", "x@premium.example", "PREMIUM.example", "premium.example", "premium.example:80"} {
				if res := ask(host); name != "no such line" && strings.Contains(res.Text, gate.Goods) {
					t.Errorf("%s is served unpaid", host)
				}
			}
			for host, want := range map[string]int{"premium.example": 402, "premium.example:8080": 402, "other.test": 200, "other.test:80": 200, "[::1]:80": 200, "[::1]": 200, "a_b.other-1.test:": 200} {
				if name == "no such line" {
					want = 200
				}
				if res := ask(host); res.Err != nil || res.StatusCode != want {
					t.Errorf("%s: %v %s", host, res.Err, fmt.Sprint(res.Response))
				}
			}
		})
	}
}

// What looks at the port too is refused: a client may leave it out, or write :80.
func TestMatchersThatReadThePort(t *testing.T) {
	const refused, fine = "use a `host` matcher", ""
	for matcher, want := range map[string]string{
		"header Host premium.example":                            refused,
		"not header Host premium.example":                        refused,
		"not header host premium.example":                        refused,
		"header HOST premium.example":                            refused,
		"header_regexp host ^premium":                            refused,
		"header_regexp x host ^premium":                          refused,
		"expression `header({'host': 'premium.example'})`":       refused,
		"expression `header({\"hOst\": \"premium.example\"})`":   refused,
		"expression `header_regexp('host', '^premium')`":         refused,
		"vars {header.host} premium.example":                     refused,
		"expression `{header.Host} == 'premium.example'`":        refused,
		"header_regexp Host ^premium":                            refused,
		"expression `header({'Host': 'premium.example'})`":       refused,
		"expression `header_regexp('Host', '^premium')`":         refused,
		"expression `header_regexp('name', 'Host', '^premium')`": refused,
		"expression `{hostport} == 'premium.example'`":           refused,
		"vars {hostport} premium.example":                        refused,
		"host premium.example":                                   fine,
		"not host premium.example":                               fine,
		"header X Host":                                          fine,
		"vars {host} premium.example":                            fine,
		"expression `{host} == 'premium.example'`":               fine,
		"expression `host('premium.example')`":                   fine,
	} {
		t.Run(matcher, func(t *testing.T) {
			loadsOrSays(t, siteWith("@m "+matcher, "price @m /paid/* $0.02"), want)
		})
	}
}
