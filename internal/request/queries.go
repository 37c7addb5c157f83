package request

import (
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-paywall/caddy-paywall/internal/headers"
	"github.com/caddy-paywall/caddy-paywall/pricing"
)

// queriesKey is where a request keeps what was read of its queries, since many
// lines may ask.
const queriesKey = "paywall.queries"

// Queries are the readings of the query of a request.
type Queries struct {
	Read   []pricing.Query
	Looked int // work of matchers so far, which they bound
}

// forgetQueries is called before a request is decided about: since the last time
// somebody may have rewritten it.
func forgetQueries(r *http.Request) {
	if caddyhttp.GetVar(r.Context(), queriesKey) != nil {
		caddyhttp.SetVar(r.Context(), queriesKey, nil)
	}
}

// QueriesOf reads the queries that a request has: as it was rewritten and as it
// was received, and those of what some upstreams read instead of the request line.
func QueriesOf(r *http.Request) *Queries {
	if kept, ok := caddyhttp.GetVar(r.Context(), queriesKey).(*Queries); ok {
		return kept
	}
	raw := make([]string, 0, 4)
	add := func(query string) {
		if !slices.Contains(raw, query) {
			raw = append(raw, query)
		}
		if mayBePath(query) {
			if _, rest, ok := strings.Cut(strings.TrimLeft(query, "?"), "?"); ok && !slices.Contains(raw, rest) {
				raw = append(raw, rest)
			}
		}
	}
	add(r.URL.RawQuery)
	add(originalURL(r).RawQuery)
	original, current := pathsOf(r)
	for _, path := range []string{original, current} {
		if query, ok := queryInPath(path); ok {
			add(query)
		}
	}
	for name, values := range r.Header {
		if name == "" || name[0] != 'X' && name[0] != 'x' || !headers.Is(name, pathHeaders) {
			continue
		}
		for _, value := range values {
			_, query, _ := strings.Cut(value, "?")
			add(strings.TrimSpace(query))
		}
	}
	asked := &Queries{Read: make([]pricing.Query, len(raw))}
	for i, query := range raw {
		asked.Read[i] = pricing.ReadQuery(query)
	}
	if r.Context().Value(caddyhttp.VarsCtxKey) != nil {
		caddyhttp.SetVar(r.Context(), queriesKey, asked)
	}
	return asked
}

// queryInPath is what an upstream takes for a query that decodes a path before it
// looks for the question mark.
func queryInPath(path string) (query string, ok bool) {
	for i := strings.IndexByte(path, '%'); i >= 0; {
		rest := path[i+1:]
		for strings.HasPrefix(rest, "25") {
			rest = rest[2:]
		}
		if len(rest) >= 2 && rest[0] == '3' && rest[1]|0x20 == 'f' {
			return rest[2:], true
		}
		next := strings.IndexByte(path[i+1:], '%')
		if next < 0 {
			break
		}
		i += 1 + next
	}
	return "", false
}
