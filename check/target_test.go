package check

import (
	"net/url"
	"slices"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/routes"
)

// TestFromConfig: where the lines of a config are asked for.
func TestFromConfig(t *testing.T) {
	lines := []routes.Line{{Path: "/a b/*"}, {Path: "/x", Methods: []string{"POST"}}, {Path: "/m", Matched: true}, {Path: "/gone"}}
	examples := []string{"/a b/x", "/x", "/m", ""}
	for name, tt := range map[string]struct {
		gate   routes.Gate
		origin string
		want   []string
		left   int
	}{
		"a site":          {routes.Gate{Hosts: []string{"shop.test", "*.shop.test"}, Listen: []string{":443"}, TLS: true}, "", []string{"https://shop.test/a%20b/x", "https://shop.test/x"}, 2},
		"two names":       {routes.Gate{Hosts: []string{"a.test", "b.test"}, Listen: []string{":80"}}, "", []string{"http://a.test/a%20b/x", "http://b.test/a%20b/x", "http://a.test/x", "http://b.test/x"}, 2},
		"another port":    {routes.Gate{Hosts: []string{"a.test"}, Listen: []string{":8443"}, TLS: true}, "", []string{"https://a.test:8443/a%20b/x", "https://a.test:8443/x"}, 2},
		"every host":      {routes.Gate{Listen: []string{":8402"}}, "", []string{"http://localhost:8402/a%20b/x", "http://localhost:8402/x"}, 2},
		"an address":      {routes.Gate{Listen: []string{"[::1]:8402"}}, "", []string{"http://[::1]:8402/a%20b/x", "http://[::1]:8402/x"}, 2},
		"a public URL":    {routes.Gate{Listen: []string{":8402"}, PublicURL: "https://shop.test/"}, "", []string{"https://shop.test/a%20b/x", "https://shop.test/x"}, 2},
		"another origin":  {routes.Gate{Hosts: []string{"a.test"}, Listen: []string{":80"}}, "https://staging.test/", []string{"https://staging.test/a%20b/x", "https://staging.test/x"}, 2},
		"a socket":        {routes.Gate{Listen: []string{"unix//run/x"}}, "", nil, 1},
		"a wildcard only": {routes.Gate{Hosts: []string{"*.a.test"}, Listen: []string{":443"}, TLS: true}, "", nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			tt.gate.Lines, tt.gate.Examples = lines, examples
			var origin *url.URL
			if tt.origin != "" {
				var err error
				if origin, err = ParseURL(tt.origin); err != nil {
					t.Fatal(err)
				}
			}
			targets, left := FromConfig([]*routes.Gate{&tt.gate}, origin)
			var urls []string
			for _, target := range targets {
				urls = append(urls, target.URL.String())
				if made := target.URL.Path == "/a b/x"; target.Made != made || target.method() == "POST" == made {
					t.Errorf("%+v", target)
				}
			}
			if !slices.Equal(urls, tt.want) || len(left) != tt.left {
				t.Errorf("%q, left %q", urls, left)
			}
		})
	}
}

func TestParseURL(t *testing.T) {
	for _, s := range []string{"", "shop.test", "ftp://shop.test/", "https://", "https://me:x@shop.test/", "https://shop.test/#x", ":"} {
		if u, err := ParseURL(s); err == nil {
			t.Errorf("%q is %v", s, u)
		}
	}
	if u, err := ParseURL("https://shop.test"); err != nil || !IsOrigin(u) {
		t.Error(u, err)
	}
	if u, err := ParseURL("https://shop.test/?a=b"); err != nil || IsOrigin(u) {
		t.Error(u, err)
	}
}
