package request

import (
	"net/http"
	"strings"
	"testing"
)

// FuzzOverrides: what a request names beside its request line is found in every
// spelling of the header, and never makes us panic.
func FuzzOverrides(f *testing.F) {
	f.Add("X-Original-URL", "/a", "_method=put")
	f.Add("x_original.url", "https://a.example/b?c", "a=b&%5fmethod=%70ut;x")
	f.Add("X-HTTP-Method-Override", "put, patch", "_METHOD=")
	f.Fuzz(func(t *testing.T, name, value, query string) {
		if name == "" {
			return
		}
		r := &http.Request{Method: "GET", Header: http.Header{http.CanonicalHeaderKey(name): {value}}, URL: mustURL("/x")}
		r.URL.RawQuery = query
		o := ReadOverrides(r)
		if o.many {
			return // refused
		}
		plain := strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(name))
		if (plain == "x-original-url" || plain == "x-rewrite-url") && len(o.paths) != 1 {
			t.Fatalf("%q: %+v", name, o)
		}
		if plain == "x-http-method-override" && strings.Trim(value, " \t,") != "" && len(o.methods) == 0 && strings.TrimSpace(value) != "" {
			t.Fatalf("%q: %q: %+v", name, value, o)
		}
		for _, m := range o.methods {
			if m != strings.ToUpper(m) || m == "" {
				t.Fatalf("%q", o.methods)
			}
		}
	})
}
