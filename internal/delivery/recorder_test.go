package delivery

import (
	"maps"
	"net/http"
	"slices"
	"testing"
)

// TestACopyKeepsTrailers that the upstream has sent, announced or not, and none that only
// the gate says.
func TestACopyKeepsTrailers(t *testing.T) {
	var r Recorder
	r.Begin(http.StatusOK, http.Header{"Trailer": {"x-announced, payment-response"}})
	r.End(http.Header{
		"X-Announced":                               {"1"},
		"X-Header":                                  {"1"},
		"Payment-Response":                          {"forged"},
		http.TrailerPrefix + "X-Other":              {"1"},
		http.TrailerPrefix + "Payment-Response":     {"forged"},
		http.TrailerPrefix + "X-Payment-Response":   {"forged"},
		http.TrailerPrefix + "Settlement-Overrides": {"forged"},
	})
	if got := slices.Sorted(maps.Keys(r.Trailer)); !slices.Equal(got, []string{"X-Announced", "X-Other"}) {
		t.Error(got)
	}
}
