package routes

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// site is a config with one site that has these routes.
func site(list string) string {
	return `{"apps":{"http":{"servers":{"s":{"listen":[":80"],"routes":[` + list + `],
		"named_routes":{
			"self":{"handle":[{"handler":"invoke","name":"self"},{"handler":"invoke","name":"self"}]},
			"a":{"handle":[{"handler":"invoke","name":"b"},{"handler":"invoke","name":"b"}]},
			"b":{"handle":[{"handler":"invoke","name":"a"},{"handler":"reverse_proxy"}]}}}}}}}`
}

const gate = `{"handler":"paywall","prices":[{"paths":["/paid/*"],"amount":"$0.01"}]}`

func check(t *testing.T, config string) []string {
	t.Helper()
	c, err := Parse([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	findings, err := Check(c)
	if err != nil {
		t.Fatal(err)
	}
	var rules []string
	for _, f := range findings {
		rules = append(rules, string(f.Severity)+" "+f.Rule)
	}
	return rules
}

const (
	proxy   = `{"handler":"reverse_proxy","upstreams":[{"dial":"10.0.0.1:80"}]}`
	dynamic = `{"handler":"reverse_proxy","dynamic_upstreams":{"source":"srv","name":"shop.test"}}`
)

// TestJSON has what no Caddyfile makes.
func TestJSON(t *testing.T) {
	for name, tt := range map[string]struct {
		routes string
		want   []string
	}{
		"nothing":                {``, nil},
		"a gate alone":           {`{"handle":[` + gate + `]}`, nil},
		"two in a route":         {`{"handle":[` + gate + `,` + gate + `]}`, []string{"error two_blocks", "warning two_blocks"}},
		"two, equal matchers":    {`{"match":[{"path":["/a"],"host":["x"]}],"handle":[` + gate + `]},{"match":[{"host":["x"],"path":["/a"]}],"handle":[` + gate + `]}`, []string{"error two_blocks", "warning never_reached"}},
		"invokes itself":         {`{"handle":[{"handler":"invoke","name":"self"},` + gate + `]}`, nil},
		"invokes in circles":     {`{"handle":[{"handler":"invoke","name":"a"},` + gate + `]}`, []string{"error answered_before"}},
		"number as status":       {`{"handle":[{"handler":"static_response","status_code":404,"body":"no"},` + gate + `]}`, nil},
		"an abort":               {`{"handle":[{"handler":"static_response","abort":true,"body":"x"},` + gate + `]}`, nil},
		"pass_thru":              {`{"handle":[{"handler":"file_server","pass_thru":true},` + gate + `]}`, []string{"warning answered_before"}},
		"a plugin with routes":   {`{"handle":[{"handler":"other","routes":"x","errors":7},` + gate + `]}`, []string{"warning answered_before"}},
		"own error routes":       {`{"handle":[` + gate + `,{"handler":"subroute","routes":[{"handle":[{"handler":"reverse_proxy"}]}],"errors":{"routes":[{"handle":[{"handler":"reverse_proxy"}]}]}}]}`, nil},
		"error routes around":    {`{"handle":[{"handler":"subroute","routes":[{"handle":[` + gate + `]}],"errors":{"routes":[{"handle":[{"handler":"reverse_proxy"}]}]}}]}`, []string{"warning error_route"}},
		"a terminal route":       {`{"match":[{"path":["/paid/*"]}],"terminal":true,"handle":[{"handler":"reverse_proxy"}]},{"handle":[` + gate + `]}`, []string{"error answered_before"}},
		"a route in no group":    {`{"group":"g","match":[{"path":["/x/*"]}],"handle":[{"handler":"rewrite","strip_path_prefix":"/x"}]},{"group":"g","match":[{"path":["/paid/*"]}],"handle":[` + gate + `]}`, nil},
		"permission by a proxy":  {`{"handle":[{"handler":"reverse_proxy","handle_response":[{"match":{"status_code":[2]},"routes":[{"handle":[{"handler":"headers"}]}]}]},` + gate + `]}`, nil},
		"an answer of a proxy":   {`{"handle":[{"handler":"reverse_proxy","handle_response":[{"match":{"status_code":[2]},"routes":[{"handle":[{"handler":"copy_response"}]}]}]},` + gate + `]}`, []string{"warning answered_before"}},
		"permission, then PHP":   {`{"handle":[{"handler":"reverse_proxy","handle_response":[{"match":{"status_code":[2]},"routes":[{"handle":[{"handler":"php"}]}]}]},` + gate + `]}`, []string{"warning answered_before"}},
		"permission in circles":  {`{"handle":[{"handler":"reverse_proxy","handle_response":[{"match":{"status_code":[2]},"routes":[{"handle":[{"handler":"invoke","name":"self"}]}]}]},` + gate + `]}`, nil},
		"PHP beside":             {`{"match":[{"path":["/paid/*"]}],"terminal":true,"handle":[` + gate + `,{"handler":"php"}]},{"handle":[{"handler":"php"}]}`, []string{"warning around"}},
		"PHP of another root":    {`{"match":[{"path":["/paid/*"]}],"terminal":true,"handle":[` + gate + `,{"handler":"php","root":"/a"}]},{"handle":[{"handler":"php","root":"/b"}]}`, nil},
		"dynamic upstreams":      {`{"match":[{"path":["/paid/*"]}],"terminal":true,"handle":[` + gate + `,` + dynamic + `]},{"handle":[` + dynamic + `]}`, []string{"warning around"}},
		"a host beside":          {`{"match":[{"host":["a"]}],"handle":[` + gate + `,` + proxy + `]},{"match":[{"host":["b"],"path":["/x"]}],"handle":[` + proxy + `]}`, nil},
		"the rest of the hosts":  {`{"match":[{"host":["a"]}],"terminal":true,"handle":[` + gate + `,` + proxy + `]},{"match":[{"path":["/x/*"]}],"handle":[` + proxy + `]}`, []string{"warning around"}},
		"never reached":          {`{"group":"g","handle":[` + gate + `,` + proxy + `]},{"group":"g","handle":[` + proxy + `]}`, nil},
		"a way that others stop": {`{"group":"g","match":[{"path":["/paid/*"]}],"handle":[` + gate + `,` + proxy + `]},{"group":"g","handle":[{"handler":"static_response","status_code":404}]},{"handle":[` + proxy + `]}`, nil},
		"a gate for some":        {`{"match":[{"path":["/paid/*"],"method":["GET"]}],"handle":[` + gate + `]},{"handle":[` + proxy + `]}`, []string{"warning around"}},
		"a second gate for them": {`{"group":"g","match":[{"path":["/pub/*"]}],"handle":[{"handler":"paywall","otherwise":"$1"},` + proxy + `]},{"group":"g","handle":[` + gate + `,` + proxy + `]}`, []string{"warning around"}}, // who reads a request otherwise gets /pub/x by the other
		"it charges for others":  {`{"group":"g","match":[{"path":["/pub/*"]}],"handle":[{"handler":"paywall","prices":[{"paths":["/pub/dear/*"],"amount":"$1"}]},` + proxy + `]},{"group":"g","handle":[` + gate + `,` + proxy + `]}`, []string{"warning around", "warning around"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := check(t, site(tt.routes)); !slices.Equal(got, tt.want) {
				t.Errorf("found %q, want %q", got, tt.want)
			}
		})
	}
}

// TestGates: where the gates are, for those who want to knock.
func TestGates(t *testing.T) {
	c, err := Parse([]byte(`{"apps":{"http":{"servers":{
		"s":{"listen":[":443"],"automatic_https":{"skip":["plain.test"]},"routes":[
			{"match":[{"host":["shop.test","*.shop.test"]}],"handle":[{"handler":"subroute","routes":[
				{"match":[{"path":["/shop/*"]}],"handle":[{"handler":"rewrite","strip_path_prefix":"/shop"},
					{"handler":"paywall","public_url":"https://x.test","prices":[{"paths":["/paid/*","/shop/a"],"methods":["POST"],"amount":"$1","match":[{}]},{"paths":["/"],"amount":"$2"}],"otherwise":"$3"},
					{"handler":"reverse_proxy","upstreams":[{"dial":"10.0.0.7:80"},{"dial":"unix//run/x"}],"transport":{"protocol":"http","tls":{}}},
					{"handler":"reverse_proxy","upstreams":[{"dial":"10.0.0.7:9000"}],"transport":{"protocol":"fastcgi"}}]}]}]},
			{"match":[{"host":["plain.test"]}],"handle":[{"handler":"paywall","prices":[{"paths":["*.pdf"],"amount":"$1"}]}]}]}}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	gates, err := Gates(c)
	if err != nil || len(gates) != 2 {
		t.Fatal(gates, err)
	}
	g := gates[0]
	if !g.TLS || !slices.Equal(g.Hosts, []string{"shop.test", "*.shop.test"}) || g.PublicURL != "https://x.test" ||
		!slices.Equal(g.Upstreams, []string{"https://10.0.0.7:80"}) || !slices.Equal(g.Listen, []string{":443"}) {
		t.Errorf("%+v", g)
	}
	if want := []string{"/shop/paid/x", "/shop/a", "/shop/", "/shop/x"}; !slices.Equal(g.Examples, want) {
		t.Errorf("examples %q, want %q", g.Examples, want)
	}
	if !g.Lines[0].Matched || g.Lines[2].Matched || g.Lines[0].String() != "`price POST /paid/* $1`" {
		t.Errorf("lines %+v", g.Lines)
	}
	if g := gates[1]; g.TLS || !slices.Equal(g.Examples, []string{"/x.pdf"}) {
		t.Errorf("%+v", g)
	}
}

// TestTooDeep: routes that cannot be checked are told.
func TestTooDeep(t *testing.T) {
	deep := strings.Repeat(`{"handle":[{"handler":"subroute","routes":[`, 200) + strings.Repeat(`]}]}`, 200)
	named := map[string]any{}
	for i := range 40 { // each invokes the next one twice
		next := map[string]string{"handler": "invoke", "name": string(rune('a' + i + 1))}
		named[string(rune('a'+i))] = map[string]any{"handle": []any{next, next}}
	}
	many, err := json.Marshal(map[string]any{"apps": map[string]any{"http": map[string]any{"servers": map[string]any{"s": map[string]any{
		"routes": []any{map[string]any{"handle": []any{map[string]string{"handler": "invoke", "name": "a"}}}}, "named_routes": named,
	}}}}})
	if err != nil {
		t.Fatal(err)
	}
	groups := make([]string, 1000)
	for i := range groups {
		groups[i] = fmt.Sprintf(`{"group":"%d","handle":[{"handler":"encode"}]}`, i)
	}
	for name, config := range map[string]string{"deep": site(deep), "many": string(many), "groups": site(strings.Join(groups, ","))} {
		c, err := Parse([]byte(config))
		if err != nil {
			t.Fatal(err)
		}
		w := newWalk(c)
		w.maxVisits = 10_000
		if err := w.servers(); err != nil {
			t.Fatal(err)
		}
		if got := w.check(); len(got) != 1 || got[0].Rule != RuleNotChecked {
			t.Errorf("%s: found %q", name, got)
		}
	}
}

// FuzzCheck: no config makes the walk panic.
func FuzzCheck(f *testing.F) {
	f.Add([]byte(site(`{"handle":[` + gate + `,{"handler":"reverse_proxy"}]}`)))
	files, _ := filepath.Glob("../testdata/routes/*.Caddyfile")
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Fuzz(func(_ *testing.T, config []byte) {
		if c, err := Parse(config); err == nil {
			_, _ = Check(c)
			_, _ = Gates(c)
		}
	})
}
