package routes

import (
	"slices"
	"testing"
)

// TestAnExampleIsChangedBack: what a change makes of a path leads back to it.
func TestAnExampleIsChangedBack(t *testing.T) {
	for name, tt := range map[string]struct {
		rewrite string
		from    string
		to      string
	}{
		"a prefix off":          {`"strip_path_prefix":"/api"`, "/api/paid/x", "/paid/x"},
		"a suffix off":          {`"strip_path_suffix":".html"`, "/paid/x.html", "/paid/x"},
		"a text":                {`"uri_substring":[{"find":"free","replace":"paid"}]`, "/free/x", "/paid/x"},
		"a text, once":          {`"uri_substring":[{"find":"a","replace":"b","limit":1}]`, "/a/a", "/b/a"},
		"a text by nothing":     {`"uri_substring":[{"find":"-old"}]`, "/-old/paid/x", "/paid/x"},
		"two texts":             {`"uri_substring":[{"find":"a","replace":"b"},{"find":"c","replace":"d"}]`, "/a/c", "/b/d"},
		"an expression":         {`"path_regexp":[{"find":"^/v[0-9]/","replace":"/paid/"}]`, "/v1/x", "/paid/x"},
		"captures":              {`"path_regexp":[{"find":"^/(?P<shop>[a-z]+)/item/([0-9]+)$","replace":"/paid/$2/$shop"}]`, "/x/item/7", "/paid/7/x"},
		"an expression cut out": {`"path_regexp":[{"find":"^/beta","replace":""}]`, "/beta/paid/x", "/paid/x"},
		"slashes":               {`"path_regexp":[{"find":"/+","replace":"/"}]`, "/paid/x", "/paid/x"},
		"put before":            {`"uri":"/paid{http.request.uri}"`, "/x", "/paid/x"},
		"put behind":            {`"uri":"{http.request.uri.path}.pdf?a=b"`, "/x", "/x.pdf"},
		"the name of the file":  {`"uri":"/paid/{http.request.uri.path.file}"`, "/x", "/paid/x"},
		"a segment":             {`"uri":"/paid/{http.request.uri.path.1}"`, "/x/y", "/paid/y"},
		"two at once":           {`"strip_path_prefix":"/a","strip_path_suffix":".b"`, "/a/paid/x.b", "/paid/x"},
	} {
		t.Run(name, func(t *testing.T) {
			p := place{}.rewritten(&handler{Raw: []byte(`{` + tt.rewrite + `}`)})
			g := &Gate{}
			if origins := p.origins(tt.to); !slices.Contains(origins, tt.from) {
				t.Errorf("%s can come from %q, want %s among them", tt.to, origins, tt.from)
			}
			trails := p.follow(g, tt.from)
			if len(trails) != 1 || trails[0].now() != tt.to || trails[0].relation != all {
				t.Errorf("%s becomes %+v, want %s", tt.from, trails, tt.to)
			}
		})
	}
}

// TestOneRouteOfAGroupChanges: routes of a group exclude each other.
func TestOneRouteOfAGroupChanges(t *testing.T) {
	const rewrites = `{"handle":[` + gate + `]},
		{"group":"g","match":[{"path":["/a"]}],"handle":[{"handler":"rewrite","uri":"/b"}]},
		{"group":"g","match":[{"path":["/b"]}],"handle":[{"handler":"rewrite","uri":"/paid/x"}]},
		{"handle":[{"handler":"file_server"}]}`
	c, err := Parse([]byte(site(rewrites)))
	if err != nil {
		t.Fatal(err)
	}
	w := newWalk(c)
	if err := w.servers(); err != nil || len(w.answerers) != 1 {
		t.Fatal(err, w.answerers)
	}
	for from, want := range map[string]string{"/a": "/b", "/b": "/paid/x", "/c": "/c", "/paid/x": "/paid/x"} {
		if trails := w.answerers[0].at.follow(w.gates[0], from); len(trails) != 1 || trails[0].now() != want {
			t.Errorf("%s becomes %+v, want %s", from, trails, want)
		}
	}
}

// TestBehindJSON has what no Caddyfile makes of what stands behind a gate.
func TestBehindJSON(t *testing.T) {
	exact := `{"handler":"paywall","prices":[{"paths":["/report.pdf"],"amount":"$0.01"}]}`
	for name, tt := range map[string]struct {
		routes string
		want   []string
	}{
		"sidecars without an order": {`{"handle":[` + exact + `,{"handler":"file_server","precompressed":{"zstd":{}}}]}`, []string{"error alias"}},
		"sidecars of a plugin":      {`{"handle":[` + exact + `,{"handler":"file_server","precompressed":{"xz":{}}}]}`, []string{"error alias"}},
		"no sidecars":               {`{"handle":[` + exact + `,{"handler":"file_server"}]}`, nil},
		"sidecars for some":         {`{"handle":[` + exact + `]},{"match":[{"header":{"X":["y"]}}],"handle":[{"handler":"file_server","precompressed":{"br":{}}}]}`, []string{"warning alias"}},
		"sidecars with a login":     {`{"handle":[` + exact + `,{"handler":"authentication"},{"handler":"file_server","precompressed":{"br":{}}}]}`, []string{"warning alias"}},
		"hidden by their path":      {`{"handle":[` + exact + `,{"handler":"file_server","root":"/srv","hide":["/srv/report.pdf.br"],"precompressed":{"br":{}}}]}`, nil},
		"sidecars below a prefix":   {`{"match":[{"path":["/dl/*"]}],"handle":[{"handler":"paywall","prices":[{"paths":["/dl/report.pdf"],"amount":"$0.01"}]},{"handler":"rewrite","strip_path_prefix":"/dl"},{"handler":"file_server","precompressed":{"br":{}}}]}`, []string{"error alias"}},
		"files that try themselves": {`{"handle":[` + exact + `]},{"match":[{"file":{"try_files":["{http.matchers.file.relative}"]}}],"handle":[{"handler":"rewrite","uri":"{http.matchers.file.relative}"}]},{"handle":[{"handler":"file_server"}]}`, nil},
		"a rewrite by a variable":   {`{"handle":[` + exact + `,{"handler":"vars","to":"/report.pdf"},{"handler":"rewrite","uri":"{http.vars.to}"},{"handler":"file_server"}]}`, []string{"warning alias"}},
		"a broken expression":       {`{"handle":[` + exact + `,{"handler":"rewrite","path_regexp":[{"find":"(","replace":"x"}]},{"handler":"file_server"}]}`, nil},
		"many ways":                 {`{"handle":[` + exact + `]},` + many(200, `{"match":[{"header":{"X":["y"]}}],"handle":[{"handler":"rewrite","uri_substring":[{"find":"a","replace":"aa"}]}]}`) + `{"handle":[{"handler":"file_server"}]}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := check(t, site(tt.routes)); !slices.Equal(got, tt.want) {
				t.Errorf("found %q, want %q", got, tt.want)
			}
		})
	}
}

func many(n int, route string) string {
	list := ""
	for range n {
		list += route + ","
	}
	return list
}

// TestRoutesOfAGroupAddUp: what one route of a group does may have been done to
// who comes behind the group, whatever its other routes do.
func TestRoutesOfAGroupAddUp(t *testing.T) {
	const does = `{"group":"g","match":[{"path":["/a"]}],"handle":[` + gate + `,{"handler":"intercept"},{"handler":"authentication"},
		{"handler":"rewrite","uri":"/c"},{"handler":"rewrite","strip_path_suffix":"x"},{"handler":"rewrite","method":"PUT"},
		{"handler":"vars","root":"/srv"},{"handler":"headers","request":{"set":{"X-Original-URL":["/d"]}}},
		{"handler":"map","destinations":["{m}"],"mappings":[{"outputs":["y"]}]}]}`
	for name, other := range map[string]string{
		"no other":                 ``,
		"another one":              `{"group":"g","match":[{"path":["/b"]}],"handle":[{"handler":"encode"}]},`,
		"another one for the rest": `{"group":"g","handle":[{"handler":"encode"}]},`,
		"one that does more":       `{"group":"g","handle":[{"handler":"request_body"},{"handler":"rewrite","method":"POST"}]},`,
		"another list":             `{"handle":[{"handler":"subroute","routes":[{"match":[{"path":["/b"]}],"handle":[{"handler":"encode"}]}]}]},`,
	} {
		c, err := Parse([]byte(site(does + `,` + other + `{"handle":[{"handler":"file_server"}]}`)))
		if err != nil {
			t.Fatal(err)
		}
		w := newWalk(c)
		if err := w.servers(); err != nil || len(w.answerers) != 1 {
			t.Fatal(err, w.answerers)
		}
		p := &w.answerers[0].at
		if len(p.gates) != 1 || len(p.wraps) != 1 || p.raisers[0].handler.Name != "authentication" || p.fixed[0] != "/c" || !p.unknown ||
			len(p.steps) != 2 || p.methods[0] != "PUT" || len(p.roots) != 1 || len(p.headers) != 1 || len(p.values) != 2 {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// TestOneRootOfAGroup: the root of one for the rest stays where another follows.
func TestOneRootOfAGroup(t *testing.T) {
	c, err := Parse([]byte(site(`{"group":"g","handle":[{"handler":"vars","root":"/srv"},{"handler":"rewrite","strip_path_prefix":"/a"}]},{"group":"g","handle":[{"handler":"encode"}]},{"handle":[{"handler":"file_server"}]}`)))
	if err != nil {
		t.Fatal(err)
	}
	w := newWalk(c)
	if err := w.servers(); err != nil {
		t.Fatal(err)
	}
	if p := &w.answerers[0].at; p.root != "/srv" || p.strip != "/a" || p.unknown {
		t.Errorf("%+v", p)
	}
}

// TestRoutesOfAGroupAreFollowed: also where one changes the path twice, behind
// others that would have changed it too.
func TestRoutesOfAGroupAreFollowed(t *testing.T) {
	c, err := Parse([]byte(site(`{"group":"g","match":[{"path":["/a/*"]}],"handle":[{"handler":"rewrite","uri":"/other"},{"handler":"rewrite","uri":"/more"}]},
		{"handle":[{"handler":"rewrite","strip_path_suffix":".html"}]},
		{"group":"g","match":[{"path":["/b/*"]}],"handle":[{"handler":"rewrite","strip_path_prefix":"/b"},
			{"handler":"subroute","routes":[{"match":[{"path":["/x"]}],"handle":[{"handler":"rewrite","uri":"/paid/x"}]}]},` + gate + `]},
		{"handle":[{"handler":"file_server"}]}`)))
	if err != nil {
		t.Fatal(err)
	}
	w := newWalk(c)
	if err := w.servers(); err != nil || len(w.gates) != 1 {
		t.Fatal(err, w.gates)
	}
	g := w.gates[0]
	for name, p := range map[string]*place{"at the gate": &g.at, "behind the group": &w.answerers[0].at} {
		trails := p.follow(g, "/b/x.html")
		if len(trails) == 0 || trails[0].now() != "/paid/x" || trails[0].at(len(g.at.steps)) != "/paid/x" {
			t.Errorf("%s: %+v", name, trails)
		}
	}
}
