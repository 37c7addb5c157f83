package request

import (
	"net/http/httptest"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/pricing"
)

// TestAMethodThatIsNoTokenIsNotSold: over HTTP/2 it may be anything, and no transport
// sends it on. What is free is as it is.
func TestAMethodThatIsNoTokenIsNotSold(t *testing.T) {
	list, err := pricing.NewList([]pricing.Line{
		{Kind: pricing.Priced, Patterns: []string{"/paid/*"}},
		{Kind: pricing.Free, Patterns: []string{"/*"}},
	}, pricing.Decision{Kind: pricing.Free, Line: -1})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		method, path string
		want         pricing.Kind
	}{
		{"GET", "/paid/x", pricing.Priced},
		{"M-SEARCH", "/paid/x", pricing.Priced},
		{"G T", "/paid/x", pricing.Ambiguous},
		{"P\xffST", "/paid/x", pricing.Ambiguous},
		{"G T", "/free", pricing.Free},
	} {
		r := httptest.NewRequest("GET", "http://site.test"+tt.path, nil)
		r.Method = tt.method
		if d, err := Decide(list, r, tt.method, Overrides{}); err != nil || d.Kind != tt.want {
			t.Errorf("%q %s: %v, %v, want %v", tt.method, tt.path, d.Kind, err, tt.want)
		}
	}
}
