package request

import (
	"net/http"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/pricing"
)

// TestAHostThatIsNoneIsNotSold: over HTTP/2 a host may be anything, and an application may
// make a URL of it.
func TestAHostThatIsNoneIsNotSold(t *testing.T) {
	list, err := pricing.NewList([]pricing.Line{{Kind: pricing.Priced, Patterns: []string{"/paid/*"}}}, pricing.Decision{Kind: pricing.Free, Line: -1})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]pricing.Kind{
		"": pricing.Free, "shop.test": pricing.Free, "[::1]:80": pricing.Free,
		"x/paid/7?": pricing.Ambiguous, `x:80\paid\7?`: pricing.Ambiguous, "a@x": pricing.Ambiguous, "x#": pricing.Ambiguous, "x /paid/7": pricing.Ambiguous,
	} {
		r := &http.Request{Method: http.MethodGet, Host: host, ProtoMajor: 2, URL: mustURL("/free")}
		if d, err := Decide(list, r, r.Method, Overrides{}); err != nil || d.Kind != want {
			t.Errorf("%q: %v, %v, want %v", host, d.Kind, err, want)
		}
	}
}
