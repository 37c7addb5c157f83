package pricing

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// requestWith is a request that carries these headers.
func requestWith(names ...string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	for _, name := range names {
		r.Header.Set(name, "yes")
	}
	return r
}

// TestOfficialRoutes compares us with the matcher of the official server, which
// lets paths through that an upstream may read as a priced one.
func TestOfficialRoutes(t *testing.T) {
	var vectors struct {
		Cases []struct {
			Routes          []string
			Method, Path    string
			PaymentRequired bool
		}
	}
	readVectors(t, "testdata/route-matching.json", &vectors)
	// What we do otherwise, and why.
	differ := map[string]string{
		"GET /weather%2F":        "1",            // a server that decodes sees a slash at the end
		"GET /weather%3Fx":       "1",            // … or a query
		"GET /weather%00":        "1",            // … or the end of a string
		"GET /./weather":         "1",            // dot segments are resolved by nearly everybody
		"GET /x/../weather":      "1",            //
		"GET /weather;v=1":       "1",            // Java drops parameters
		"POST /api/premium%2Fa":  "1",            // proxies decode
		"POST /api%2Fpremium/a":  "1",            //
		`POST /api/premium\a`:    "1",            // Windows
		"HEAD /weather (GET)":    "1",            // HEAD costs what GET costs
		"OPTIONS /weather (GET)": "405 GET,HEAD", // the caller treats preflights apart
		"get /weather":           "405 GET,HEAD", // methods have letter case: this is not GET, and not free either
	}
	for _, c := range vectors.Cases {
		var all []Line
		for _, route := range c.Routes {
			l := Line{Kind: Priced, Price: 1, Where: route}
			method, path, found := strings.Cut(route, " ")
			if !found {
				method, path = "*", route
			}
			if method != "*" {
				l.Methods = []string{method}
			}
			// A named segment is a segment that is not empty.
			path = strings.NewReplacer(":id", "[^~]*", "[id]", "[^~]*").Replace(path)
			l.Patterns = []string{path}
			all = append(all, l)
		}
		list, err := NewList(all, Decision{Kind: Free})
		if err != nil {
			t.Fatal(err)
		}
		d, err := list.Decide(requestWith(), c.Method, c.Path)
		if err != nil {
			t.Fatal(err)
		}
		want := "free"
		if c.PaymentRequired {
			want = "1"
		}
		key := c.Method + " " + c.Path
		if c.Method == "HEAD" || c.Method == "OPTIONS" {
			if m := all[0].Methods; len(m) > 0 {
				key += " (" + m[0] + ")"
			}
		}
		if ours, ok := differ[key]; ok {
			if ours == want {
				t.Errorf("%s: no difference", key)
			}
			want = ours
			delete(differ, key)
		}
		if got := outcome(d); got != want {
			t.Errorf("%s on %q: %s, want %s", key, c.Routes, got, want)
		}
	}
	if len(differ) > 0 {
		t.Errorf("not in the vectors: %v", differ)
	}
}

func readVectors(t testing.TB, file string, into any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}
