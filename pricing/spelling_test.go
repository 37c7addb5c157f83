package pricing_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/pricing"
	"github.com/caddy-paywall/caddy-paywall/test/model"
)

// sold are the resources of a site that cost something, as its list says. All
// else of the site is free, and some of it by a line of its own.
var sold = []string{
	"/paid", "/api/v1/report", "/files/a", "/files/b/c.css", "/x.pdf", "/doc/y.pdf", "/users/7/secret", "/café", "/tasks/k", "/buy.php",
}

func soldList(t testing.TB) *pricing.List {
	t.Helper()
	priced := func(patterns ...string) pricing.Line {
		return pricing.Line{Kind: pricing.Priced, Patterns: patterns, Where: strings.Join(patterns, " ")}
	}
	free := func(patterns ...string) pricing.Line {
		return pricing.Line{Kind: pricing.Free, Patterns: patterns, Where: strings.Join(patterns, " ")}
	}
	list, err := pricing.NewList([]pricing.Line{
		priced("/paid", "/api/v1/report"), priced("/files/*"), priced("*.pdf"), priced("/users/*/secret"), priced("/café"), priced("/tasks/k", "/buy.php"),
		free("/static/*", "/public", "/x/*", "/index.php"), free("*.css", "*.js"),
	}, pricing.Decision{Kind: pricing.Free, Line: -1})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// route is what Caddy does to a path before the gate sees it.
type route struct {
	name string
	// ask makes the path that a client sends to get another one through.
	ask func(path string) string
	// rewrite makes the path that the gate finds of the one that the client sent.
	rewrite func(path string) string
	// original says that the upstream reads the client's path.
	original bool
}

func same(path string) string { return path }

var routes = []route{
	{"plain", same, same, false},
	{"stripped", func(p string) string { return "/shop" + p }, func(p string) string { return strings.TrimPrefix(p, "/shop") }, false},
	{"moved", func(p string) string { return strings.TrimPrefix(p, "/files") }, func(p string) string { return "/files" + p }, false},
	{"try_files", same, func(string) string { return "/index.php" }, true},
}

// TestNoUpstreamServesUnpaid: no spelling of a priced path is free that any
// model upstream would serve the priced resource for.
func TestNoUpstreamServesUnpaid(t *testing.T) {
	list := soldList(t)
	total, served := 0, map[string]int{}
	for _, path := range sold {
		for _, spelled := range model.Spellings(path, 250) {
			total++
			reads := map[string][]string{} // what each model serves for a target
			for _, route := range routes {
				asked, err := url.ParseRequestURI(route.ask(spelled))
				if err != nil {
					continue // net/http answers 400
				}
				found := route.rewrite(asked.EscapedPath())
				d, err := list.Decide(nil, http.MethodGet, asked.EscapedPath(), found)
				if err != nil {
					t.Fatal(err)
				}
				seen := found
				if route.original {
					seen = asked.RequestURI()
				}
				if reads[seen] == nil {
					reads[seen] = everyReading(seen)
				}
				for i, got := range reads[seen] {
					if !slices.Contains(sold, got) {
						continue
					}
					up := model.Upstreams[i]
					served[up.Name]++
					if d.Kind == pricing.Free {
						readings, _ := pricing.Readings(seen)
						t.Errorf("%s: %q is free, and an upstream that reads like %q serves %q; readings %q", route.name, asked, up.Name, got, readings)
					}
				}
			}
		}
	}
	if total < 2000 {
		t.Errorf("%d spellings, want 2,000", total)
	}
	for _, up := range model.Upstreams {
		if served[up.Name] < total/20 {
			t.Errorf("%s: only %d of %d spellings reach anything; the model tests nothing", up.Name, served[up.Name], total*len(routes))
		}
	}
}

// everyReading is what each model upstream serves for a target.
func everyReading(target string) []string {
	var paths []string
	for _, up := range model.Upstreams {
		_, path := up.Serves(model.Request{Method: http.MethodGet, Target: target})
		paths = append(paths, path)
	}
	return paths
}

// FuzzUnpaid looks for a path that we call free and that a model upstream
// serves something priced for.
func FuzzUnpaid(f *testing.F) {
	for _, path := range sold {
		for i, spelled := range model.Spellings(path, 400) {
			if i%40 == 0 {
				f.Add(spelled)
			}
		}
	}
	list := soldList(f)
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		path := u.EscapedPath()
		if u.Opaque != "" {
			path = u.Opaque
		}
		d, err := list.Decide(nil, http.MethodGet, path)
		if err != nil {
			t.Fatal(err)
		}
		if d.Kind != pricing.Free {
			return
		}
		for i, got := range everyReading(path) {
			if slices.Contains(sold, got) {
				readings, _ := pricing.Readings(path)
				t.Fatalf("%q is free, and an upstream that reads like %q serves %q; readings %q", path, model.Upstreams[i].Name, got, readings)
			}
		}
	})
}
