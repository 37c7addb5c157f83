package x402

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// TestExtraMayHaveMore: the payer's extra has ours at every depth, whatever else it
// has and how much.
func TestExtraMayHaveMore(t *testing.T) {
	var long strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&long, `"%d":[{"a":1e1}],`, i)
	}
	for _, tc := range []struct {
		ours, theirs string
		want         bool
	}{
		{`{"name":"x","version":"2"}`, `{"version":"2","name":"x"}`, true},
		{`{"name":"x","version":"2"}`, `{` + long.String() + `"version":"2",` + `"name":"\u0078"}`, true},
		{`{"name":"x","version":"2"}`, `{` + long.String() + `"version":"2"}`, false},
		{`{"name":"x"}`, `{"name":"y"}`, false},
		{`{"name":"x"}`, `{"name":["x"]}`, false},
		{`{"name":"x"}`, `{"name":{"x":1}}`, false},
		{`{"name":"x"}`, `null`, false},
		{`{"name":"x"}`, `[]`, false},
		{`{"a":{"b":[1,{"c":2}],"d":null}}`, `{"a":{"e":0,"d":null,"b":[1.0,{"c":2}]},"f":1}`, true},
		{`{"a":{"b":[1,{"c":2}]}}`, `{"a":{"b":[1,{"c":2,"d":3}]}}`, false},
		{`{"a":{"b":1}}`, `{"a":1}`, false},
		{`{"a":true}`, `{"a":true}`, true},
		{`{"a":true}`, `{"a":false}`, false},
		{`{"a":1}`, `{"a":"1"}`, false},
	} {
		if got := extraMatches(&Requirement{Extra: jsontext.Value(tc.ours)}, jsontext.Value(tc.theirs)); got != tc.want {
			t.Errorf("%s in %.80s: %t", tc.ours, tc.theirs, got)
		}
	}
}
