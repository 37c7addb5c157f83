package paywall

import (
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/internal/headers"
)

// TestPreflightsForManyHeadersAreCut: a preflight is told of the first names only.
func TestPreflightsForManyHeadersAreCut(t *testing.T) {
	got := firstNames([]string{"a,b", strings.Repeat("c,", 5000)})
	if n := strings.Count(got, ","); n != headers.MaxNames || !strings.HasPrefix(got, "a,b,c,") {
		t.Errorf("%d names of %.30q", n, got)
	}
}
