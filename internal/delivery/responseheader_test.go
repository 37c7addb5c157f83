package delivery

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/internal/headers"
)

// FuzzForPayerOnly: whatever an upstream says about caches, a shared one may not
// keep the answer.
func FuzzForPayerOnly(f *testing.F) {
	for _, s := range []string{"", "public, max-age=1", `private="a, b", s-maxage=2`, `no-cache="x`, `a="\"`, "PUBLIC", " ,,= ,", `x="\\", public`} {
		f.Add(s, "")
		f.Add("max-age=1", s)
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		header := http.Header{"Cache-Control": {first, second}, "Cdn-Cache-Control": {first}, "Vary": {"A"}}
		ForPayerOnly(header)
		if len(header["Cache-Control"]) != 1 || header["Cdn-Cache-Control"] != nil || !slices.Equal(header["Vary"], []string{"A", variesBy}) {
			t.Fatalf("%q", header)
		}
		all := slices.Collect(headers.Members(header["Cache-Control"]))
		if all[0] != "private" {
			t.Fatalf("%q", header)
		}
		for _, directive := range all[1:] {
			if name, _, _ := strings.Cut(strings.ToLower(directive), "="); slices.Contains([]string{"public", "s-maxage"}, strings.TrimSpace(name)) {
				t.Fatalf("%q of %q, %q", header, first, second)
			}
		}
	})
}
