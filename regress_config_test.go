package paywall_test

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

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

// A matcher that reads the path by a placeholder or a function knows one
// spelling of it; the others went for free.
func TestMatchersThatReadThePath(t *testing.T) {
	const refused, fine = "one spelling of a path", ""
	for matcher, want := range map[string]string{
		"expression `{path}.startsWith('/public/')`":            refused,
		"expression `{uri} == '/x'`":                            refused,
		"expression `{dir} == '/x'`":                            refused,
		"expression `{file} == 'x'`":                            refused,
		"expression `{path.0} == 'x'`":                          refused,
		"expression `{file.ext} == '.x'`":                       refused,
		"expression `{orig_path} == '/x'`":                      refused,
		"expression `{http.request.uri.path_escaped} == '/x'`":  refused,
		"expression `path ('/public/*')`":                       refused,
		"expression `header({'A': 'b'}) || path_regexp('^/x')`": refused,
		"expression `file({'root': '/'})`":                      refused,
		"vars {path} /public":                                   refused,
		"vars_regexp {uri} ^/public":                            refused,
		"not vars {http.request.uri.path.dir} /public":          refused,
		"not path /public":                                      refused,
		"file /x":                                               refused,
		"header_regexp a ^path":                                 fine,
		"query path=x":                                          fine,
		"header X-Path file":                                    fine,
		"expression `{query.path} == 'x'`":                      fine,
		"expression `{header.a} == '/path'`":                    fine,
		"vars {query} a=b":                                      fine,
		"not header Path x":                                     fine,
	} {
		for _, line := range []string{"free @m /paid/*", "price @m /paid/* $0.02"} {
			t.Run(matcher+", "+strings.Fields(line)[0], func(t *testing.T) {
				loadsOrSays(t, siteWith("@m "+matcher, "price /paid/* $0.01\n"+line), want)
			})
		}
	}
}

// A matcher that reads the method does not see X-HTTP-Method-Override or _method, with
// which a GET is a POST to many upstreams; it went for what a GET costs.
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

// What the Caddyfile refuses is refused in JSON too, which no parser of ours
// has seen.
func TestJSONIsCheckedLikeTheCaddyfile(t *testing.T) {
	for name, tc := range map[string]struct{ before, lines, old, new, want string }{
		"path placeholder": {"@m vars {http.request.host} x", "price @m /paid/* $0.01", "{http.request.host}", "{http.request.uri.path}", "one spelling of a path"},
		"method":           {"@m header A b", "price @m /paid/* $0.01", `"header":{"A":["b"]}`, `"method":["POST"]`, "put the methods into the line"},
		"charge 402":       {"", "price /paid/* $0.01 {\ncharge 403\n}", "403", "402", "402"},
		"charge 304":       {"", "price /paid/* $0.01 {\ncharge 403\n}", "403", "304", "304"},
	} {
		t.Run(name, func(t *testing.T) {
			adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(siteWith(tc.before, tc.lines)), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := gate.ValidateJSON(adapted); err != nil {
				t.Fatalf("before the change: %v", err)
			}
			changed := strings.Replace(string(adapted), tc.old, tc.new, 1)
			if changed == string(adapted) {
				t.Fatalf("%q is not in %s", tc.old, adapted)
			}
			if err := gate.ValidateJSON([]byte(changed)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("it loads, or says something else: %v", err)
			}
		})
	}
}

// A path after the amount became the description, and stayed free.
func TestWordsThatAreNoDescription(t *testing.T) {
	for _, word := range []string{"/y/*", `"/y"`, "*.pdf", "@m", "$0.02"} {
		if err := gate.Validate(siteWith("@m header a b", "price /x/* $0.01 "+word)); err == nil || !strings.Contains(err.Error(), "too late") {
			t.Errorf("%s: %v", word, err)
		}
	}
	if err := gate.Validate(siteWith("", `price /x/* $0.01 "A/B: 5 $ * @home"`)); err != nil {
		t.Error(err)
	}
}
