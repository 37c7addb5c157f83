package promises

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

// Some upstreams take the host that Forwarded or X-Forwarded-Host names for that of the
// request. Caddy passes the first on from anybody, and the second from trusted proxies.
func TestEveryNamedHostIsPriced(t *testing.T) {
	for name, tc := range map[string]struct{ before, lines string }{
		"host":       {"@premium host premium.example", "price @premium /* $0.03"},
		"not host":   {"@others not host premium.example", "price /* $0.03\nfree @others /*"},
		"expression": {"@premium expression `host('premium.example')`", "price @premium /* $0.03"},
		"vars":       {"@premium vars {host} premium.example", "price @premium /* $0.03"},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.Prepare(t)
			_, port, _ := net.SplitHostPort(strings.TrimPrefix(w.URL, "http://"))
			w.Load(gate.BehindProxy(strings.Replace(w.Caddyfile(tc.lines, tc.before), w.URL+" {", "http://:"+port+" {", 1)))
			for header, want := range map[string]int{
				"Forwarded: for=192.0.2.1":                            200,
				"Forwarded: host=other.test":                          200,
				`Forwarded: host="Other.Test:443";proto=https`:        200,
				"X-Forwarded-Host: other.test":                        200,
				"Forwarded: host=premium.example":                     402,
				`Forwarded: for=x, for=y;HOST = "Premium.example:80"`: 402,
				"Forwarded: host=premium.example, host=other.test":    402,
				"X-Forwarded-Host: premium.example":                   402,
				"X-Forwarded-Host: other.test, premium.example":       402,
				"X-Host: premium.example":                             402,
				"Forwarded: host=premium.example.":                    400,
				`Forwarded: host="premium\.example"`:                  400,
				"X-Forwarded-Host: premium.example.":                  400,
			} {
				r := w.Request(http.MethodGet, "/h")
				r.Host = "other.test"
				key, value, _ := strings.Cut(header, ": ")
				r.Header.Set(key, value)
				res := w.Do(r)
				if name == "vars" && want == 402 {
					want = 400 // a placeholder knows one host
				}
				if res.Err != nil || res.StatusCode != want {
					t.Errorf("%s: %v, want %d", header, res.StatusCode, want)
				}
			}
		})
	}
	w := gate.Prepare(t)
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(w.URL, "http://"))
	w.Load(strings.Replace(w.Caddyfile("price @a /* $0.03\nprice @b /* $0.01", "@a host a.test", "@b host b.test"), w.URL+" {", "http://:"+port+" {", 1))
	r := w.Request(http.MethodGet, "/h", "Forwarded", "host=a.test")
	r.Host = "b.test"
	if res := w.Do(r); res.StatusCode != 402 || !strings.Contains(res.Text, "30000") {
		t.Errorf("of two hosts the dearer one counts: %d %s", res.StatusCode, res.Text)
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

// siteWith is a Caddyfile whose site has directives before its block, and lines
// in it.
func siteWith(before, lines string) string {
	return "{\nadmin off\npaywall {\nledger memory i_accept_loss\nfacilitator fake http://127.0.0.1:1\n}\n}\nhttp://127.0.0.1:0 {\n" +
		before + "\npaywall {\naccept base-sepolia usdc " + gate.PayTo + "\nfacilitator fake\n" + lines + "\n}\nrespond ok\n}"
}

// loadsOrSays loads a config that is fine if want is "", and else must not load and say
// so.
func loadsOrSays(t *testing.T, config, want string) {
	t.Helper()
	err := gate.Validate(config)
	switch {
	case want == "" && err != nil:
		t.Error(err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("it loads, or says something else: %v", err)
	}
}

// A matcher that reads the path by a placeholder or a function knows one spelling of
// it, and would let the others go for free: it is refused.
func TestMatchersThatReadThePath(t *testing.T) {
	const refused, fine = "one spelling of a path", ""
	for matcher, want := range map[string]string{
		"expression `{path}.startsWith('/public/')`":                      refused,
		"expression `{uri} == '/x'`":                                      refused,
		"expression `{dir} == '/x'`":                                      refused,
		"expression `{file} == 'x'`":                                      refused,
		"expression `{path.0} == 'x'`":                                    refused,
		"expression `{file.ext} == '.x'`":                                 refused,
		"expression `{orig_path} == '/x'`":                                refused,
		"expression `{http.request.uri.path_escaped} == '/x'`":            refused,
		"expression `path ('/public/*')`":                                 refused,
		"expression `header({'A': 'b'}) || path_regexp('^/x')`":           refused,
		"expression `file({'root': '/'})`":                                refused,
		"vars {path} /public":                                             refused,
		"vars_regexp {uri} ^/public":                                      refused,
		"not vars {http.request.uri.path.dir} /public":                    refused,
		"not path /public":                                                refused,
		"file /x":                                                         refused,
		"expression `{http.request.uri_escaped}.startsWith('%2Fpublic')`": refused,
		"vars {http.request.uri_escaped} %2Fpublic":                       refused,
		"vars {http.request.orig_uri_escaped} %2Fpublic":                  refused,
		"url_pattern /public/*":                                           refused,
		"not url_pattern /public/*":                                       refused,
		"expression `url_pattern('/public/*')`":                           refused,
		"header_regexp a ^path":                                           fine,
		"query path=x":                                                    fine,
		"header X-Path file":                                              fine,
		"expression `{query.path} == 'x'`":                                fine,
		"expression `{header.a} == '/path'`":                              fine,
		"vars {query} a=b":                                                fine,
		"not header Path x":                                               fine,
	} {
		for _, line := range []string{"free @m /paid/*", "price @m /paid/* $0.02"} {
			t.Run(matcher+", "+strings.Fields(line)[0], func(t *testing.T) {
				loadsOrSays(t, siteWith("@m "+matcher, "price /paid/* $0.01\n"+line), want)
			})
		}
	}
}

// A matcher that reads the method does not see X-HTTP-Method-Override or _method,
// with which a GET is a POST to many upstreams: it is refused, and the methods go
// into the line.
func TestMatchersThatReadTheMethod(t *testing.T) {
	const refused, fine = "put the methods into the line", ""
	for matcher, want := range map[string]string{
		"method POST":                                     refused,
		"not method POST":                                 refused,
		"method GET HEAD":                                 refused,
		"expression `{method} == 'POST'`":                 refused,
		"expression `method('POST')`":                     refused,
		"expression `header({'A': 'b'}) && !method('X')`": refused,
		"expression `{http.request.orig_method} == 'X'`":  refused,
		"vars {method} POST":                              refused,
		"vars_regexp {http.request.method} ^P":            refused,
		"not vars {method} POST":                          refused,
		"header X {method}":                               refused,
		"header Method x":                                 fine,
		"not header method x":                             fine,
		"query method=x":                                  fine,
		"expression `{query.method} == 'x'`":              fine,
		"expression `{header.method} == 'x'`":             fine,
	} {
		for _, line := range []string{"free @m /paid/*", "price @m /paid/* $0.02"} {
			t.Run(matcher+", "+strings.Fields(line)[0], func(t *testing.T) {
				loadsOrSays(t, siteWith("@m "+matcher, "price /paid/* $0.01\n"+line), want)
			})
		}
	}
}
