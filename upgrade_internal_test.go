package paywall

import (
	"net/http"
	"strings"
	"testing"
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
		"HTTP behind many":        {[]string{strings.Repeat("a,", maxNames) + "h2c"}, strings.TrimSuffix(strings.Repeat("a, ", maxNames), ", ")},
		"HTTP in another header":  {[]string{strings.Repeat("a,", maxNames-1) + "a", "h2c"}, strings.TrimSuffix(strings.Repeat("a, ", maxNames), ", ")},
		"HTTP behind many commas": {[]string{strings.Repeat(",", 5*maxNames) + "h2c"}, ""},
	} {
		header := http.Header{"Upgrade": tc.values}
		removeHTTPUpgrades(header)
		if got := header.Get("Upgrade"); got != tc.want || len(header["Upgrade"]) > 1 {
			t.Errorf("%s: %q", name, header["Upgrade"])
		}
	}
}

// TestPreflightsForManyHeadersAreCut: a preflight is told of the first names only.
func TestPreflightsForManyHeadersAreCut(t *testing.T) {
	got := firstNames([]string{"a,b", strings.Repeat("c,", 5000)})
	if n := strings.Count(got, ","); n != maxNames || !strings.HasPrefix(got, "a,b,c,") {
		t.Errorf("%d names of %.30q", n, got)
	}
}
