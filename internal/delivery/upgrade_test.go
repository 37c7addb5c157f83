package delivery

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/internal/headers"
)

// TestLongUpgradesAreCut: what stands behind so many names as we read is not sent
// upstream, so that it carries no HTTP.
func TestLongUpgradesAreCut(t *testing.T) {
	for name, tc := range map[string]struct {
		values []string
		want   string
	}{
		"one":                     {[]string{"websocket"}, "websocket"},
		"HTTP":                    {[]string{"websocket, h2c"}, "websocket"},
		"HTTP behind many":        {[]string{strings.Repeat("a,", headers.MaxNames) + "h2c"}, strings.TrimSuffix(strings.Repeat("a, ", headers.MaxNames), ", ")},
		"HTTP in another header":  {[]string{strings.Repeat("a,", headers.MaxNames-1) + "a", "h2c"}, strings.TrimSuffix(strings.Repeat("a, ", headers.MaxNames), ", ")},
		"HTTP behind many commas": {[]string{strings.Repeat(",", 5*headers.MaxNames) + "h2c"}, ""},
	} {
		header := http.Header{"Upgrade": tc.values}
		RemoveHTTPUpgrades(header)
		if got := header.Get("Upgrade"); got != tc.want || len(header["Upgrade"]) > 1 {
			t.Errorf("%s: %q", name, header["Upgrade"])
		}
	}
}
