package matcher

import (
	"encoding/json"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// TestQueriesTellNoClientsApart: only matchers of nothing but the query say the same
// to all clients.
func TestQueriesTellNoClientsApart(t *testing.T) {
	for sets, want := range map[string]bool{
		`[]`:                                false,
		`[{"query":{"p":["1"]}}]`:           true,
		`[{"not":[{"query":{"p":["1"]}}]}]`: true,
		`[{"query":{"p":["1"]}},{"query":{"q":["*"]}}]`:       true,
		`[{"query":{"p":["1"]},"header":{"Cookie":["*"]}}]`:   false,
		`[{"query":{"p":["1"]}},{"header":{"Cookie":["*"]}}]`: false,
		`[{"not":[{"query":{"p":["1"]}},{"remote_ip":{}}]}]`:  false,
		`[{"query":{"p":["{http.request.header.X}"]}}]`:       false,
		`[{"query":{"{http.request.cookie.a}":["1"]}}]`:       false,
		`[{"not":[]}]`: false,
	} {
		var raw caddyhttp.RawMatcherSets
		if err := json.Unmarshal([]byte(sets), &raw); err != nil {
			t.Fatal(err)
		}
		if got := ReadsQueryOnly(raw); got != want {
			t.Errorf("%s: %t", sets, got)
		}
	}
}
