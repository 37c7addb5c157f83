package routes

import (
	"strings"
	"testing"
)

// TestAroundNamesWhatIsSoldThere: the other site has the goods under the upstream's own
// name, and that is the path to ask for.
func TestAroundNamesWhatIsSoldThere(t *testing.T) {
	c, err := Parse([]byte(site(`{"match":[{"host":["shop.test"]}],"terminal":true,"handle":[{"handler":"subroute","routes":[
			{"handle":[{"handler":"paywall","prices":[{"paths":["/api/quote/*"],"amount":"$0.01"}]}]},
			{"match":[{"path":["/api/*"]}],"handle":[{"handler":"rewrite","strip_path_prefix":"/api"},` + proxy + `]}]}]},
		{"match":[{"host":["api.test"]}],"terminal":true,"handle":[` + proxy + `]}`)))
	if err != nil {
		t.Fatal(err)
	}
	findings, err := Check(c)
	if err != nil || len(findings) != 1 || !strings.Contains(findings[0].Message, " /quote/x") {
		t.Errorf("found %q, %v", findings, err)
	}
}
